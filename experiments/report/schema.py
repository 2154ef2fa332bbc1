"""`report.json`, schema 1: the numbers of one run. Units: seconds, tokens.

The classes are the schema: `check` reads them and compares a report with them, field by field.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

Method = Literal["autoregressive", "eagle3", "best_constant", "ltd"]


class Environment(TypedDict):
    """What the run stood on."""

    device: str
    device_count: int
    dtype: str
    python: str
    jax: str
    ltd_jax: str
    date: str
    command: str


class Pair(TypedDict):
    """The two models."""

    target: str
    draft: str
    fingerprint: str
    parameters: tuple[int, int]  # of the target, of the draft


class Lossless(TypedDict):
    """All methods' texts beside plain decoding's, token by token."""

    dtype: Literal["float32", "bfloat16", "float16"]
    tokens_compared: int
    mismatches: int
    near_ties: int  # texts whose first difference lies at two logits that rounding can turn


class MethodRow(TypedDict):
    """One method on one task; shares are of the cycle's time, what they leave is the rest."""

    method: Method
    task: str  # of the questions, or "mean"
    tokens_per_second: float
    speedup: float  # over plain decoding
    speedup_low: float  # ends of the 95 % interval
    speedup_high: float
    committed_per_cycle: float
    levels_mean: float
    size_mean: float
    draft_share: float
    verify_share: float
    policy_share: float


class CleanRow(TypedDict):
    """One method on one task in cycles that start outside of exact repetitions."""

    method: Method
    task: str  # of the questions, or "mean"
    repetition_share: float  # of the task's generated tokens; they are left out
    committed_per_cycle: float
    speedup: float  # over plain decoding, measured cycles at the latency table's times


class Ratio(TypedDict):
    """Tokens per second over tokens per second, with its 95 % interval."""

    ratio: float
    low: float
    high: float


class Prediction(TypedDict):
    """The same controller on the same prompts, replayed and live."""

    controller: str
    predicted_tokens_per_second: float
    measured_tokens_per_second: float


class Setting(TypedDict):
    """The constant setting of highest throughput on the replay."""

    levels: int
    size: int
    tokens_per_second: float


class Optimum(TypedDict):
    """What there was to gain on the replay."""

    best_constant: Setting
    dynamic_programme_tokens_per_second: float
    share_gained_by_ltd: float  # 0 = best constant, 1 = optimum; 0 with nothing to gain


class Learning(TypedDict):
    """What the policies cost."""

    decisions: int
    seconds: float
    positions_recorded: int
    recording_seconds: float


class Report(TypedDict):
    """The whole file."""

    schema: Literal[1]
    environment: Environment
    pair: Pair
    lossless: Lossless
    methods: list[MethodRow]
    without_repetition: list[CleanRow]
    ltd_over_best_constant: Ratio
    replay_vs_live: list[Prediction]
    optimum: Optimum
    learning: Learning


METHODS: tuple[Method, ...] = get_args(Method)


def check(report: Mapping[str, Any]) -> None:
    """Compares a report with schema 1; numbers must be Python's own and finite.

    Raises:
      ValueError: a field is missing, unknown, of another type or impossible; names it.
    """
    _match(report, Report, "report")
    for index, number in enumerate(report["pair"]["parameters"]):
        _positive(number, f"report.pair.parameters[{index}]")
    for name in ("tokens_compared", "mismatches", "near_ties"):
        _within(report["lossless"][name], 0, math.inf, f"report.lossless.{name}")
    if not report["methods"]:
        raise ValueError("report.methods is empty; expected a row per method and task.")
    for index, row in enumerate(report["methods"]):
        _check_row(row, f"report.methods[{index}]")
    keys = [(row["method"], row["task"]) for row in report["methods"]]
    for index, key in enumerate(keys):
        if key in keys[:index]:
            raise ValueError(f"report.methods[{index}] repeats method and task {key}.")
    for index, row in enumerate(report["replay_vs_live"]):
        measured = row["measured_tokens_per_second"]
        _positive(measured, f"report.replay_vs_live[{index}].measured_tokens_per_second")
    ratio = report["ltd_over_best_constant"]
    _ordered(ratio["low"], ratio["high"], "report.ltd_over_best_constant.low")


def _match(value: Any, kind: Any, where: str) -> None:
    origin, options = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        _match_fields(value, get_type_hints(kind), where)
    elif origin is Literal:
        if not any(type(value) is type(option) and value == option for option in options):
            raise ValueError(f"{where} is {value!r}; expected one of {list(options)}.")
    elif origin in (list, tuple):
        _match_items(value, None if origin is list else len(options), options[0], where)
    elif isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise ValueError(f"{where} is {value!r}, a {type(value).__name__}; expected {_name(kind)}.")
    elif kind is float and not math.isfinite(value):
        raise ValueError(f"{where} is {value}; expected a finite number.")


def _match_fields(value: Any, fields: dict[str, Any], where: str) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {value!r}; expected an object.")
    for name in sorted(fields.keys() - value.keys()):
        raise ValueError(f"{where}.{name} is missing.")
    for name in sorted(value.keys() - fields.keys(), key=str):
        raise ValueError(f"{where}.{name} is no field of schema 1.")
    for name, kind in fields.items():
        _match(value[name], kind, f"{where}.{name}")


def _match_items(value: Any, count: int | None, kind: Any, where: str) -> None:
    if not isinstance(value, (list, tuple)) or (count is not None and len(value) != count):
        length = "" if count is None else f" of {count}"
        raise ValueError(f"{where} is {value!r}; expected a list{length}.")
    for index, item in enumerate(value):
        _match(item, kind, f"{where}[{index}]")


def _name(kind: type) -> str:
    return "a number" if kind is float else kind.__name__


def _check_row(row: Mapping[str, Any], where: str) -> None:
    _positive(row["tokens_per_second"], f"{where}.tokens_per_second")
    _positive(row["speedup"], f"{where}.speedup")
    _ordered(row["speedup_low"], row["speedup_high"], f"{where}.speedup_low")
    for name in ("draft_share", "verify_share", "policy_share"):
        _within(row[name], 0, 1, f"{where}.{name}")


def _positive(value: float, where: str) -> None:
    if value <= 0:
        raise ValueError(f"{where} is {value}; expected more than 0.")


def _within(value: float, low: float, high: float, where: str) -> None:
    if not low <= value <= high:
        raise ValueError(f"{where} is {value}; expected {low} to {high}.")


def _ordered(low: float, high: float, where: str) -> None:
    if low > high:
        raise ValueError(f"{where} is {low}, above the interval's other end {high}.")
