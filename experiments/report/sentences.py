"""What came out, in plain words made from the numbers, whether it flatters or not."""

import numpy as np

from experiments.report.figures import Figures, mean_choice
from experiments.report.schema import Lossless, MethodRow, Prediction, Report
from experiments.report.texts import count, percent, times

CONSTANT_SHARE = 0.99  # of all cycles with one choice: the policy is called a constant


def outcome(report: Report, figures: Figures) -> str:
    """One short paragraph: against the best constant, against plain decoding, what was chosen."""
    sentences = [
        against_constant(report),
        _against_plain(report),
        _choices(figures),
        _gained(report),
    ]
    return " ".join(filter(None, sentences))


def against_constant(report: Report) -> str:
    """LTD over the best constant setting, with its interval, and what that means."""
    ratio = report["ltd_over_best_constant"]
    low, high = ratio["low"], ratio["high"]
    digits = 3 if "1.00" in (f"{low:.2f}", f"{high:.2f}") else 2  # to see which side 1 lies on
    interval = f"95 % interval {low:.{digits}f} to {high:.{digits}f}"
    number = f"LTD is {times(ratio['ratio'])} the best constant ({interval})"
    if low > 1:
        return f"{number}: it decodes faster than the best fixed setting."
    if high < 1:
        return f"{number}: it is slower than the best fixed setting."
    return (
        f"{number}: the interval contains 1, so it is not shown to be faster "
        "than the best fixed setting."
    )


def lossless(checked: Lossless) -> str:
    """Whether the outputs were the target's own."""
    compared = count(checked["tokens_compared"], "generated token")
    wrong, near = checked["mismatches"], checked["near_ties"]
    if not checked["tokens_compared"]:
        return "Not checked: no tokens were compared with plain decoding."
    ties = (
        f" Comparison ended early at a near-tie (plain decoding's two best logits within 1e-4) "
        f"in {count(near, 'text')}."
        if near
        else ""
    )
    if wrong:
        found = count(wrong, "mismatch", "mismatches")
        return f"Not lossless: {found} with plain decoding in {compared}, {checked['dtype']}.{ties}"
    return (
        f"Lossless: {compared} compared with plain decoding in {checked['dtype']}, "
        f"no mismatch.{ties}"
    )


def replay_error(predictions: list[Prediction]) -> str:
    """How far the replay's predictions were off at most."""
    if not predictions:
        return "No controller was both replayed and measured."
    worst = max(predictions, key=lambda row: abs(deviation(row)))
    said = (
        f"Over {count(len(predictions), 'controller')} the prediction was off by at most "
        f"{percent(abs(deviation(worst)))} ({worst['controller']})"
    )
    plain = next((row for row in predictions if row["controller"] == "autoregressive"), None)
    if plain is None:
        return f"{said}."
    drift = 1 + deviation(plain)
    speedup = max(abs((1 + deviation(row)) / drift - 1) for row in predictions)
    return f"{said}; as speedup over plain decoding in the same run, by {percent(speedup)}."


def deviation(row: Prediction) -> float:
    """Predicted over measured tokens per second, minus 1."""
    return row["predicted_tokens_per_second"] / row["measured_tokens_per_second"] - 1


def mean_row(report: Report, method: str) -> MethodRow | None:
    """The method's row of the mean of tasks, None where it has none."""
    rows = (row for row in report["methods"] if (row["method"], row["task"]) == (method, "mean"))
    return next(rows, None)


def _against_plain(report: Report) -> str:
    ltd, constant, eagle3 = (mean_row(report, each) for each in ("ltd", "best_constant", "eagle3"))
    if ltd is None:
        return ""
    others = [
        f"{name} {times(row['speedup'])}"
        for name, row in (("the best constant", constant), ("EAGLE-3's default", eagle3))
        if row is not None
    ]
    behind = f"; {', '.join(others)}" if others else ""
    return (
        f"Over plain decoding LTD is {times(ltd['speedup'])} as the mean of tasks "
        f"({ltd['speedup_low']:.2f} to {ltd['speedup_high']:.2f}){behind}."
    )


def _choices(figures: Figures) -> str:
    choices = figures.choices
    if choices is None:
        return ""
    share_DV = np.asarray(choices, float) / np.sum(choices)
    row, column = (int(each) for each in np.unravel_index(share_DV.argmax(), share_DV.shape))
    if share_DV[row, column] >= CONSTANT_SHARE:
        return (
            f"It chose {count(row + 1, 'level')} and size {figures.sizes[column]} in "
            f"{percent(share_DV[row, column])} of its cycles: the policies only rediscovered "
            "a constant."
        )
    if share_DV.sum(1).max() >= CONSTANT_SHARE:
        levels = int(share_DV.sum(1).argmax()) + 1
        return f"Its levels are constant ({levels}); only the size policy adapts."
    if share_DV.sum(0).max() >= CONSTANT_SHARE:
        size = figures.sizes[int(share_DV.sum(0).argmax())]
        return f"Its size is constant ({size}); only the depth policy adapts."
    return _places(figures)


def _places(figures: Figures) -> str:
    counted = [each for each in (figures.choices_easy, figures.choices_hard) if each is not None]
    if len(counted) < 2 or not all(np.sum(each) for each in counted):
        return ""
    easy, hard = (mean_choice(each, figures.sizes) for each in counted)
    return (
        f"On average it takes {easy[0]:.1f} levels and size {easy[1]:.1f} at easy places, "
        f"{hard[0]:.1f} and {hard[1]:.1f} at hard ones."
    )


def _gained(report: Report) -> str:
    best = report["optimum"]["best_constant"]
    share = report["optimum"]["share_gained_by_ltd"]
    gap = (
        f"from the best constant ({count(best['levels'], 'level')}, size {best['size']}) "
        "to a choice that knows the text"
    )
    if share > 0:
        return f"In the replay it goes {percent(share, 0)} of the way {gap}."
    return f"In the replay it gains nothing of the way {gap} ({percent(share, 0)})."
