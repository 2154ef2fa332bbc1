"""What every UserError must look like."""

import pytest

from ltd_jax.files import UserError


def refusal(action) -> str:
    """The message of the UserError that an action ends with: one line, one full stop at its end."""
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message
    return message
