"""What autotune found, in plain words and one picture."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from experiments.report import canvas, palette
from experiments.report.texts import METHOD_NAMES, count, percent, rate, times

COLOURS = palette.METHODS | {"optimum": palette.OPTIMUM}
NAMES = METHOD_NAMES | {"ltd": "Learned policies", "optimum": "Optimum (knows the text)"}


class Found(TypedDict):
    """One way to decode, on the test texts."""

    method: str
    levels: int | None  # of a constant setting
    size: int | None
    tokens_per_second: float  # by replay
    speedup: float  # over plain decoding, by replay
    live: float | None  # measured speedup over plain decoding; None = not measured
    live_low: float | None  # its 95 % interval
    live_high: float | None


class AtContext(TypedDict):
    """The best constant setting behind so many tokens."""

    context: int
    levels: int
    size: int
    speedup: float  # over plain decoding


class Advice(TypedDict):
    """All that autotune says; advice.json."""

    schema: int
    environment: dict[str, Any]
    ground: dict[str, Any]  # fingerprints of pair and latency table, device, dtype
    methods: list[Found]
    contexts: list[AtContext]
    chosen: str
    share_of_gap: float  # of the way from the best constant to the optimum that is learned
    seconds: float  # of the whole command


def sentences(advice: Advice) -> list[str]:
    """The answers to what a user asks first, one sentence each."""
    found = {each["method"]: each for each in advice["methods"]}
    best, eagle3, learned = (found[name] for name in ("best_constant", "eagle3", "ltd"))
    optimum = found["optimum"]["tokens_per_second"] / best["tokens_per_second"]
    gained = learned["tokens_per_second"] / best["tokens_per_second"]
    over = best["tokens_per_second"] / eagle3["tokens_per_second"]
    return [
        f"The best constant setting here is {_setting(best)}: {times(best['speedup'])} plain "
        f"decoding, and {times(over)} EAGLE-3's default of {_setting(eagle3)}.",
        f"Learned policies are {times(gained)} the best constant: {_meaning(gained)}.",
        f"A choice that knows the text would be {times(optimum)} the best constant; the policies "
        f"go {percent(max(advice['share_of_gap'], 0.0), 0)} of that way.",
        *_at_contexts(advice["contexts"]),
        _decision(advice["chosen"], found),
    ]


def _setting(each: Found) -> str:
    return f"{count(each['levels'] or 0, 'level')} and size {each['size']}"


def _meaning(gained: float) -> str:
    if gained > 1.005:
        return "worth using"
    return "they add nothing here" if gained > 0.995 else "worse, so do not use them"


def _at_contexts(contexts: Sequence[AtContext]) -> list[str]:
    pays = [each for each in contexts if each["speedup"] > 1]
    if len(contexts) == 1:
        each, says = contexts[0], "pays" if pays else "does not pay"
        return [f"Speculation {says} with these caches: {_at_context(each)}."]
    numbers = ", ".join(_at_context(each) for each in contexts)
    if len(pays) == len(contexts):
        return [f"Speculation pays at every measured length of context: {numbers}."]
    if not pays:
        return [f"Speculation pays at no measured length of context: {numbers}."]
    where = ", ".join(str(each["context"]) for each in pays)
    return [f"Speculation pays only at a context of {where} tokens: {numbers}."]


def _at_context(each: AtContext) -> str:
    setting = f"{count(each['levels'], 'level')}, size {each['size']}"
    return f"{times(each['speedup'])} at {each['context']} tokens ({setting})"


def _decision(chosen: str, found: Mapping[str, Found]) -> str:
    each = found[chosen]
    if chosen == "autoregressive":
        return "Decode without a draft here: nothing is faster than plain decoding."
    live = ""
    if each["live"] is not None:
        interval = f"95 % interval {each['live_low']:.2f} to {each['live_high']:.2f}"
        live = f"; measured live {times(each['live'])} ({interval})"
    name = NAMES[chosen][:1].lower() + NAMES[chosen][1:]
    return f"Use: {name}, {times(each['speedup'])} plain decoding by replay{live}."


def picture(advice: Advice) -> bytes:
    """Tokens per second of every way to decode by replay; a mark where it was measured live."""
    methods = advice["methods"][::-1]
    plain = next(each for each in methods if each["method"] == "autoregressive")
    figure = canvas.empty(0.9 + 0.5 * len(methods), 7.4)
    axes = figure.subplots()
    for place, each in enumerate(methods):
        value = each["tokens_per_second"]
        axes.barh(place, value, 0.66, color=COLOURS[each["method"]])
        axes.annotate(
            f"{rate(value)}  ({times(each['speedup'])})",
            (value, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=canvas.MEDIUM,
            color=palette.TEXT,
        )
        low, high = each["live_low"], each["live_high"]
        if low is not None and high is not None:
            ends = [plain["tokens_per_second"] * end for end in (low, high)]
            axes.plot(ends, [place, place], color=palette.TEXT, linewidth=3)
    canvas.tidy(axes, x="tokens per second by replay (black: live, 95 %)", y="", grid="x")
    axes.set_yticks(range(len(methods)), [NAMES[each["method"]] for each in methods])
    axes.tick_params(axis="y", labelsize=canvas.MEDIUM)
    axes.margins(x=0.22)
    canvas.headline(figure, f"What pays on {advice['ground']['device']}")
    return canvas.encode(figure, "png")
