"""A report's numbers in plain English: short texts, and sentences that follow the intervals.

The same names and formats serve plots, tables and pages. A report is the content of report.json
(`experiments.report` lists its fields).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.report.figures import Figures
from ltd_jax.decoding.benchmark import MEAN, Ratio
from ltd_jax.decoding.lossless import bound

METHOD_NAMES = {
    "autoregressive": "Plain decoding",
    "eagle3": "EAGLE-3 default",
    "best_constant": "Best constant",
    "ltd": "LTD",
}
METHODS = tuple(METHOD_NAMES)  # of a report, in the order in which they are shown
LATENCY_NAMES = {
    "here": "this device",
    "a100-vicuna-13b-paper": "A100, Vicuna-13B (paper)",
    "h100-llama-3.1-8b-modelled": "H100, Llama-3.1-8B (modelled)",
    "tpu-v6e-llama-3.1-8b-modelled": "TPU v6e, Llama-3.1-8B (modelled)",
    "epyc-2-cores-embedded": "EPYC, 2 cores, embedded pair",
}
NONE = "–"
CONSTANT_SHARE = 0.99  # of all cycles with one choice: the policy is called a constant

Report = Mapping[str, Any]
Row = Mapping[str, Any]


def task_name(task: str) -> str:
    """The task as a person reads it."""
    return "mean of tasks" if task == MEAN else task


def latency_name(name: str) -> str:
    """A latency table's device as a person reads it; other names stay as they are."""
    return LATENCY_NAMES.get(name, name)


def rate(tokens_per_second: float) -> str:
    """Tokens per second in about three digits."""
    digits = 1 if tokens_per_second < 100 else 0
    return f"{tokens_per_second:,.{digits}f}"


def times(ratio: float) -> str:
    """A ratio, such as 1.05x."""
    return f"{ratio:.2f}x"


def ratio(value: float | None) -> str:
    """A ratio close to 1, such as 1.049."""
    return NONE if value is None else f"{value:.3f}"


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """Both ends of an interval; a dash where there is none."""
    return NONE if low is None or high is None else f"{low:.{digits}f}–{high:.{digits}f}"


def percent(share: float, digits: int = 1) -> str:
    """A share such as 12.5%, never a negative zero."""
    return f"{round(100 * share, digits) + 0.0:,.{digits}f}%"


def gap_share(share: float | None, below: str = "below the best constant") -> str:
    """A share of the way from the best constant to the optimum; below 0 it is no share."""
    if share is None:
        return NONE
    return below if share < -0.005 else percent(share, 0)


def count(number: int, one: str, more: str = "") -> str:
    """A number with its noun, such as 1 level or 2 levels; `more` where the plural is no +s."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def setting(levels: int, size: int) -> str:
    """A constant setting, such as 2 levels, size 4."""
    return f"{count(levels, 'level')}, size {size}"


def named_settings(report: Report) -> dict[str, str]:
    """METHOD_NAMES of a report, with the settings of the methods that are constants."""
    names, first = dict(METHOD_NAMES), {row["method"]: row for row in reversed(report["methods"])}
    for method in (method for method in ("eagle3", "best_constant") if method in first):
        levels, size = (round(first[method][f"{choice}_mean"]) for choice in ("levels", "size"))
        names[method] += f" ({setting(levels, size)})"
    return names


def tasks_of(report: Report) -> list[str]:
    """The tasks in the report's order, the mean last; without it where it repeats one task."""
    tasks = list(dict.fromkeys(row["task"] for row in report["methods"]))
    single = [task for task in tasks if task != MEAN]
    return single if len(single) == 1 else [*single, *(task for task in tasks if task == MEAN)]


def rows_of(report: Report, task: str) -> list[Row]:
    """The task's rows, in the order of METHODS."""
    rows = [row for row in report["methods"] if row["task"] == task]
    return sorted(rows, key=lambda row: METHODS.index(row["method"]))


def mean_row(report: Report, method: str) -> Row | None:
    """The method's row of the mean of tasks, None where it has none."""
    rows = (row for row in report["methods"] if (row["method"], row["task"]) == (method, MEAN))
    return next(rows, None)


def verdict(report: Report) -> str:
    """Against plain decoding and against the best constant, with what the intervals carry."""
    return " ".join(filter(None, (against_plain(report), against_constant(report))))


def behaviour(report: Report, figures: Figures) -> str:
    """What the policies chose, and how much of what there is to gain that brings."""
    return " ".join(filter(None, (_choices(figures), _gained(report["optimum"]))))


def against_constant(report: Report) -> str:
    """LTD over the best constant setting, with its interval, and what that means."""
    ratio = Ratio(**report["ltd_over_best_constant"])
    meaning = {
        1: "it decodes faster than the best fixed setting",
        -1: "it is slower than the best fixed setting",
        0: f"{_unclear(ratio)} the best fixed setting: take that",
    }[ratio.side]
    return f"LTD is {times(ratio.ratio)} the best constant ({_ends(ratio)}): {meaning}."


def against_plain(report: Report) -> str:
    """LTD over plain decoding, with its interval, what that means, and the other methods."""
    ltd, constant, eagle3 = (mean_row(report, name) for name in ("ltd", "best_constant", "eagle3"))
    if ltd is None or constant is None or eagle3 is None:
        return ""
    ratio = Ratio(ltd["speedup"], ltd["speedup_low"], ltd["speedup_high"])
    meaning = {
        1: "it is faster",
        -1: "it is slower, so decode without a draft here",
        0: f"{_unclear(ratio)} plain decoding",
    }[ratio.side]
    mean = " as the mean of tasks" if MEAN in tasks_of(report) else ""
    return (
        f"LTD is {times(ratio.ratio)} plain decoding{mean} ({_ends(ratio)}): "
        f"{meaning}. The best constant is {times(constant['speedup'])} plain decoding, EAGLE-3's "
        f"default {times(eagle3['speedup'])}."
    )


def _ends(ratio: Ratio) -> str:
    """The interval in words, with as many digits as show which side 1 lies on."""
    if ratio.low is None or ratio.high is None:
        return "no interval"
    digits = 3 if "1.00" in (f"{ratio.low:.2f}", f"{ratio.high:.2f}") else 2
    return f"95% interval {ratio.low:.{digits}f} to {ratio.high:.{digits}f}"


def _unclear(ratio: Ratio) -> str:
    contains = "" if ratio.low is None else "the interval contains 1, so "
    return f"{contains}it is not distinguishable from"


def _choices(figures: Figures) -> str:
    places, sizes = figures.choices_by_place, figures.sizes
    if not places:
        return ""
    cycles_DV = np.sum(list(places.values()), axis=0)
    share_DV = cycles_DV / cycles_DV.sum()
    row, column = (int(index) for index in np.unravel_index(share_DV.argmax(), share_DV.shape))
    if share_DV[row, column] >= CONSTANT_SHARE:
        return (
            f"LTD chose {count(row + 1, 'level')} and size {sizes[column]} in "
            f"{percent(share_DV[row, column])} of its cycles: the policies only rediscovered "
            "a constant."
        )
    if share_DV.sum(1).max() >= CONSTANT_SHARE:
        levels = int(share_DV.sum(1).argmax()) + 1
        return f"LTD's levels are constant ({levels}); only the size policy adapts."
    if share_DV.sum(0).max() >= CONSTANT_SHARE:
        size = sizes[int(share_DV.sum(0).argmax())]
        return f"LTD's size is constant ({size}); only the depth policy adapts."
    if len(places) < 2:
        return ""
    easy, hard = (_mean_choice(cycles, sizes) for cycles in places.values())
    return (
        f"On average LTD drafts {easy[0]:.1f} levels and verifies {easy[1]:.1f} nodes at easy "
        f"places, {hard[0]:.1f} levels and {hard[1]:.1f} nodes at hard places."
    )


def _mean_choice(cycles_DV: np.ndarray, sizes: Sequence[int]) -> tuple[float, float]:
    """Mean levels and mean size of counted cycles, not all zero."""
    share_DV = cycles_DV / cycles_DV.sum()
    levels_D = np.arange(1, len(share_DV) + 1)
    return float(share_DV.sum(1) @ levels_D), float(share_DV.sum(0) @ np.asarray(sizes))


def _gained(optimum: Row) -> str:
    best, share = optimum["best_constant"], optimum["share_gained_by_ltd"]
    constant = f"the best constant ({setting(best['levels'], best['size'])})"
    if share > 0:
        return (
            f"In the replay it closes {percent(share, 0)} of the gap between {constant} and a "
            "choice that knows the text."
        )
    if share == 0:
        return f"In the replay it gains nothing over {constant}."
    return f"In the replay it gains nothing: it is below {constant}."


def lossless(checked: Row) -> str:
    """Says whether the outputs were the target's own."""
    compared = count(checked["tokens_compared"], "generated token")
    wrong, near = checked["mismatches"], checked["near_ties"]
    if not checked["tokens_compared"]:
        return "Not checked: no tokens were compared with plain decoding."
    ties = (
        " The comparison stopped early at a near tie (plain decoding's two best logits differ by "
        f"no more than rounding: {bound(checked['dtype'])}) in {count(near, 'text')}."
        if near
        else ""
    )
    if wrong:
        mismatches = count(wrong, "mismatch", "mismatches")
        where = f"{compared}, in {checked['dtype']}"
        return f"Not lossless: {mismatches} with plain decoding in {where}.{ties}"
    return (
        f"Lossless: {compared} compared with plain decoding in {checked['dtype']}, "
        f"no mismatch.{ties}"
    )


def is_sound(checked: Row) -> bool:
    """Tokens were compared and none differed."""
    return checked["tokens_compared"] > 0 and checked["mismatches"] == 0


def replay_error(predictions: Sequence[Row]) -> str:
    """How far the replay's predictions were off at most."""
    if not predictions:
        return "No policy was both replayed and measured."
    worst = max(predictions, key=lambda row: abs(deviation(row)))
    policies = count(len(predictions), "policy", "policies")
    said = (
        f"For {policies}, the replay's prediction was off by at most "
        f"{percent(abs(deviation(worst)))} ({worst['controller']})"
    )
    plain = next((row for row in predictions if row["controller"] == "autoregressive"), None)
    if plain is None:
        return f"{said}."
    drift = 1 + deviation(plain)
    speedup = max(abs((1 + deviation(row)) / drift - 1) for row in predictions)
    return f"{said}; relative to plain decoding in the same run, by at most {percent(speedup)}."


def deviation(row: Row) -> float:
    """Predicted over measured tokens per second, minus 1."""
    return row["predicted_tokens_per_second"] / row["measured_tokens_per_second"] - 1
