"""What pays on this device, as sentences: advice.json, as `autotune` fills it.

Replay compares candidates exactly, but under a table measured at another time; the live check is
noisy. So a choice that is not shown to be faster live is not advised over a simpler one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from experiments.report.words import METHOD_NAMES, percent, setting, times

NAMES = METHOD_NAMES | {"ltd": "Learned policies", "optimum": "Optimum (knows the text)"}
NO_DIFFERENCE = 0.005  # by replay: too little to matter


class Candidate(TypedDict):
    """One way to decode, on the test texts."""

    method: str
    levels: int | None  # of a constant setting
    size: int | None
    tokens_per_second: float  # by replay
    speedup: float  # over plain decoding, by replay
    live: float | None  # measured speedup over plain decoding; None = not measured
    live_low: float | None  # its 95% interval
    live_high: float | None


class Ratio(TypedDict):
    """A measured ratio and its 95% interval."""

    ratio: float
    low: float
    high: float


class AtContext(TypedDict):
    """The best constant setting after so many tokens."""

    context: int
    levels: int
    size: int
    speedup: float  # over plain decoding


class Advice(TypedDict):
    """All that autotune says; advice.json."""

    schema: int
    environment: dict[str, Any]
    ground: dict[str, Any]  # fingerprints of pair and latency table, device, dtype
    methods: list[Candidate]
    live_over_constant: NotRequired[Ratio | None]  # learned policies, prompt by prompt
    contexts: list[AtContext]
    chosen: str
    share_of_gap: float  # of the way from the best constant to the optimum that is learned
    seconds: float  # of the whole command


def choose(methods: Sequence[Candidate], live_over_constant: Ratio | None = None) -> str:
    """The fastest way by replay, of plain decoding, the best constant and the learned policies.

    Learned policies are chosen only where they are distinguishable from the constant (`compare`);
    plain decoding also where the choice measured live as surely slower.

    Args:
      live_over_constant: measured prompt by prompt, which tells more than two separate intervals.
    """
    by_name = {candidate["method"]: candidate for candidate in methods}
    verdict = compare(by_name["ltd"], by_name["best_constant"], live_over_constant)
    best = by_name["ltd" if verdict == "faster" else "best_constant"]
    slower_live = best["live_high"] is not None and best["live_high"] < 1
    return "autoregressive" if slower_live or best["speedup"] <= 1 else best["method"]


def compare(learned: Candidate, constant: Candidate, live: Ratio | None = None) -> str:
    """Learned policies against the constant: "faster", "slower", "same", "unclear" or "disputed".

    Without a live check replay decides alone; with one, both must say the same: else it is unclear
    (the live interval contains 1) or disputed. Without a ratio the two live intervals are compared.
    """
    gained = learned["tokens_per_second"] / constant["tokens_per_second"]
    if abs(gained - 1) <= NO_DIFFERENCE:
        return "same"
    by_replay = "faster" if gained > 1 else "slower"
    if live is not None:
        low, high = live["low"], live["high"]
    elif learned["live"] is not None and constant["live"] is not None:
        low = learned["live_low"] / constant["live_high"]
        high = learned["live_high"] / constant["live_low"]
    else:
        return by_replay
    if low < 1 < high:
        return "unclear"
    return by_replay if (by_replay == "faster") == (low >= 1) else "disputed"


def sentences(advice: Advice) -> list[str]:
    """The answers to what a user asks first, one sentence each."""
    by_name = {candidate["method"]: candidate for candidate in advice["methods"]}
    best, eagle3 = by_name["best_constant"], by_name["eagle3"]
    optimum = by_name["optimum"]["tokens_per_second"] / best["tokens_per_second"]
    over = best["tokens_per_second"] / eagle3["tokens_per_second"]
    return [
        f"The best constant setting here is {_setting(best)}: {times(best['speedup'])} plain "
        f"decoding, and {times(over)} EAGLE-3's default of {_setting(eagle3)}.",
        _learned(by_name["ltd"], best, advice.get("live_over_constant")),
        f"A choice that knows the text would be {times(optimum)} the best constant; the policies "
        f"go {percent(max(advice['share_of_gap'], 0.0), 0)} of that way.",
        *_at_contexts(advice["contexts"]),
        _decision(by_name[advice["chosen"]]),
    ]


def _setting(candidate: Candidate) -> str:
    return setting(candidate["levels"] or 0, candidate["size"] or 0).replace(",", " and")


def _learned(learned: Candidate, constant: Candidate, live: Ratio | None) -> str:
    gained = learned["tokens_per_second"] / constant["tokens_per_second"]
    interval = "" if live is None else f" (95% interval {live['low']:.2f} to {live['high']:.2f})"
    meaning = {
        "faster": ": worth using",
        "same": ": they add nothing here",
        "slower": ": worse, so do not use them",
        "unclear": f" by replay, but not distinguishable live{interval}; simplest: the constant",
        "disputed": f" by replay, but the live check says otherwise{interval}; simplest: the constant",
    }[compare(learned, constant, live)]
    return f"Learned policies are {times(gained)} the best constant{meaning}."


def _at_contexts(contexts: Sequence[AtContext]) -> list[str]:
    pays = [row for row in contexts if row["speedup"] > 1]
    numbers = ", ".join(
        f"{times(row['speedup'])} at {row['context']} tokens "
        f"({setting(row['levels'], row['size'])})"
        for row in contexts
    )
    if len(contexts) == 1:
        return [f"Speculation {'pays' if pays else 'does not pay'} with these caches: {numbers}."]
    if len(pays) == len(contexts):
        return [f"Speculation pays at every measured length of context: {numbers}."]
    if not pays:
        return [f"Speculation pays at no measured length of context: {numbers}."]
    where = ", ".join(str(row["context"]) for row in pays)
    return [f"Speculation pays only at a context of {where} tokens: {numbers}."]


def _decision(chosen: Candidate) -> str:
    if chosen["method"] == "autoregressive":
        return "Decode without a draft here: nothing is shown to be faster than plain decoding."
    live = ""
    if chosen["live"] is not None:
        interval = f"95% interval {chosen['live_low']:.2f} to {chosen['live_high']:.2f}"
        live = f"; measured live {times(chosen['live'])} ({interval})"
        if chosen["live_low"] <= 1 <= chosen["live_high"]:
            live += ", which does not show that it is faster than plain decoding"
    name = NAMES[chosen["method"]]
    return f"Use: {name[0].lower()}{name[1:]}, {times(chosen['speedup'])} plain decoding by replay{live}."
