"""Names and numbers as short texts, the same in plots, tables and sentences."""

METHOD_NAMES = {
    "autoregressive": "Plain decoding",
    "eagle3": "EAGLE-3 default",
    "best_constant": "Best constant",
    "ltd": "LTD",
}
NONE = "–"


def task_name(task: str) -> str:
    """The task as a person reads it."""
    return "mean of tasks" if task == "mean" else task


def rate(tokens_per_second: float) -> str:
    """Tokens per second in about three digits."""
    digits = 1 if tokens_per_second < 100 else 0
    return f"{tokens_per_second:,.{digits}f}"


def times(ratio: float) -> str:
    """A ratio, such as 1.05x."""
    return f"{ratio:.2f}x"


def percent(share: float, digits: int = 1) -> str:
    """A share as percent, never a negative zero."""
    return f"{round(100 * share, digits) + 0.0:,.{digits}f} %"


def count(number: int, one: str, more: str = "") -> str:
    """A number with its noun, such as 1 level or 2 levels; `more` where the plural is no +s."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"
