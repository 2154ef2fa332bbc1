"""The one exception that is meant for the person at the keyboard."""


class UserError(ValueError):
    """One sentence for the person at the keyboard; commands print it and exit with code 2."""
