"""Tuning: the fastest way to decode a pair on this device, found, explained and written down.

`tune` records a few texts, measures the device, learns, compares all ways to decode by replay and
the candidates live, and leaves a settings file that decoding starts from:

    {"schema": 1, "policy": "constant:levels=1,size=3", "cycle": {...}, "fingerprint": "...",
     "device": "...", "dtype": "...", "latency": "...", "environment": {...}}

Its `policy` is a name of decoding/methods.py, or "policy.safetensors" for the file beside it, so
that the folder can be moved as a whole.
"""

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ltd_jax import files, workflow
from ltd_jax.config import CycleConfig
from ltd_jax.decoding import benchmark
from ltd_jax.decoding.benchmark import PLAIN, Method, Ratio, Run
from ltd_jax.files import Identity, identity_of, require_same, write_json
from ltd_jax.models.pair import Pair
from ltd_jax.policies.policy import Constant, eagle3_default
from ltd_jax.replay import optimum, simulate
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.simulate import Simulator
from ltd_jax.workflow import Progress, StageConfig, silent

SCHEMA = 1
SETTINGS = "settings.json"
NAMES = {"best_constant": "the best constant setting", "ltd": "the learned policies"}
IDENTITY = ("fingerprint", "latency", "device", "dtype")  # in a settings file
NO_DIFFERENCE = 0.005  # of two rates by replay: too little to matter
Verdict = Literal["faster", "slower", "same", "unclear", "disputed"]


@dataclasses.dataclass(frozen=True)
class MethodAdvice:
    """One way to decode, on the test texts; numbers are means of tasks (`benchmark.STATISTIC`)."""

    method: str
    tokens_per_second: float  # by replay
    speedup: float  # over plain decoding, by replay
    levels: int | None = None  # of a constant setting
    size: int | None = None
    live: Ratio | None = None  # measured speedup over plain decoding; None = not measured


@dataclasses.dataclass(frozen=True)
class ContextAdvice:
    """The best constant setting after so many tokens."""

    context: int
    levels: int
    size: int
    speedup: float  # over plain decoding


@dataclasses.dataclass(frozen=True)
class Advice:
    """All that tuning found."""

    environment: dict[str, Any]
    identity: dict[str, Any]  # fingerprints of pair and latency table, device and dtype
    methods: tuple[MethodAdvice, ...]
    live_over_constant: Ratio | None  # learned policies; None = not measured
    contexts: tuple[ContextAdvice, ...]
    chosen: str  # autoregressive, best_constant or ltd
    share_of_gap: float  # of the way from the best constant to the optimum that is learned
    seconds: float  # of the whole search
    skipped: tuple[str, ...] = ()  # questions that do not fit the context

    def of(self, method: str) -> MethodAdvice:
        """The numbers of one way to decode."""
        return next(advice for advice in self.methods if advice.method == method)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {"schema": SCHEMA} | dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class DecodeSettings:
    """A settings file."""

    path: Path
    policy: str  # a name of decoding/methods.py, or of a policy file beside the settings
    cycle: CycleConfig  # that was tuned; decoding compiles what it needs of it
    identity: Identity

    @property
    def policy_file(self) -> Path | None:
        """The file of the learned policies, where these were found fastest."""
        is_file = self.policy.endswith(".safetensors")
        return self.path.parent / self.policy if is_file else None


def tune(
    pair: Pair, config: StageConfig, *, live_prompts: int = 3, progress: Progress = silent
) -> Advice:
    """Finds the fastest way to decode and writes `settings.json` and `advice.json` to the folder.

    Args:
      live_prompts: test prompts that are decoded live, per task; 0 = none.

    Raises:
      UserError: as the stages of workflow.py.
    """
    started = time.monotonic()
    trained = workflow.train_policies(pair, config, progress=progress)
    trace = workflow.load_or_record(pair, config, "test", progress=progress)
    test = simulate.build(trace, trained.table, pair.config.cycle)
    policies = {
        "eagle3": eagle3_default(pair.config.cycle),
        "best_constant": trained.best.policy,
        "ltd": trained.saved.policy,
    }
    live = _decode_live(pair, config, policies, live_prompts, progress)
    methods = _compare(policies, test, live)
    rates = {advice.method: advice.tokens_per_second for advice in methods}
    gap = (rates["ltd"], rates["best_constant"], rates["optimum"])
    live_ratio = benchmark.over(live, "ltd", "best_constant")
    advice = Advice(
        environment=pair.environment,
        identity={name: trained.saved.provenance[name] for name in IDENTITY},
        methods=methods,
        live_over_constant=live_ratio,
        contexts=tuple(
            _at_context(trained.validation, trained.table, row)
            for row in range(len(trained.table.contexts))
        ),
        chosen=choose(methods, live_ratio),
        share_of_gap=optimum.share_gained(*gap) if gap[2] > gap[1] else 0.0,
        seconds=time.monotonic() - started,
        skipped=(*trained.saved.provenance["skipped"], *trace.provenance.get("skipped", ())),
    )
    write_json(config.folder / "advice.json", advice.to_json())
    save_settings(config.folder / SETTINGS, advice, pair.config.cycle)
    return advice


def _decode_live(
    pair: Pair,
    config: StageConfig,
    policies: Mapping[str, Any],
    live_prompts: int,
    progress: Progress,
) -> list[Run]:
    """Plain decoding and the policies in turns on a few test prompts of every task."""
    if not live_prompts:
        return []
    by_task = itertools.groupby(
        workflow.load_prompts(pair, config, "test").prompts, key=lambda prompt: prompt.task
    )
    prompts = [prompt for _, of_task in by_task for prompt in list(of_task)[:live_prompts]]
    methods = [Method(PLAIN), *(Method(name, policy) for name, policy in policies.items())]
    new_tokens = config.questions.new_tokens
    batches = benchmark.interleaved(pair, methods, prompts, new_tokens, progress=progress)
    return list(itertools.chain.from_iterable(batches))


def _compare(
    policies: Mapping[str, Any], test: Simulator, live: Sequence[Run]
) -> tuple[MethodAdvice, ...]:
    """Every way to decode by replay, with what it measured live."""
    plain = 1 / float(test.plain_seconds)
    rates = {PLAIN: plain}
    for name, policy in policies.items():
        totals = simulate.run(test, policy, charge_decisions=not policy.is_constant)
        rates[name] = float(simulate.mean_of_tasks(test, totals.committed, totals.seconds))
    rates["optimum"] = optimum.mean_of_tasks(test)
    rows = []
    for name, rate in rates.items():
        policy = policies.get(name)
        constant = policy if isinstance(policy, Constant) else None
        rows.append(
            MethodAdvice(
                method=name,
                tokens_per_second=rate,
                speedup=rate / plain,
                levels=int(constant.levels) if constant else None,
                size=int(constant.size) if constant else None,
                live=benchmark.over(live, name, PLAIN),
            )
        )
    return tuple(rows)


def choose(methods: Sequence[MethodAdvice], live: Ratio | None = None) -> str:
    """The fastest by replay of three ways to decode, unless live decoding speaks against it.

    Replay compares exactly, but under times of another minute; live decoding is noisy. So learned
    policies are chosen only where they are distinguishable from the constant (`compare`), and plain
    decoding also where the choice measured live as surely slower than that.

    Args:
      live: learned policies over the constant; None = not measured.
    """
    by_name = {advice.method: advice for advice in methods}
    verdict = compare(by_name["ltd"], by_name["best_constant"], live)
    best = by_name["ltd" if verdict == "faster" else "best_constant"]
    is_slower = best.live is not None and best.live.side < 0
    return PLAIN if is_slower or best.speedup <= 1 else best.method


def compare(learned: MethodAdvice, constant: MethodAdvice, live: Ratio | None = None) -> Verdict:
    """Learned policies against the constant, arguments as of `choose`.

    Without a live check replay decides alone. With one both must say the same: else it is unclear
    (the live interval contains 1, or there is none) or disputed.
    """
    gained = learned.tokens_per_second / constant.tokens_per_second
    by_replay = 0 if abs(gained - 1) <= NO_DIFFERENCE else 1 if gained > 1 else -1
    verdicts: dict[int, Verdict] = {0: "same", 1: "faster", -1: "slower"}
    if live is None or live.side == by_replay:
        return verdicts[by_replay]
    if live.side == 0:
        return "unclear"
    return "disputed"


def _at_context(simulator: Simulator | None, table: LatencyTable, row: int) -> ContextAdvice:
    """The best constant setting if all texts had as many tokens before them as one context."""
    assert simulator is not None
    names = ("contexts", "cycle_seconds", "draft_seconds", "verify_seconds", "plain_seconds")
    rows = {name: getattr(table, name)[row : row + 1] for name in names}
    one_row = dataclasses.replace(table, **rows)
    best = optimum.best_constant(simulate.with_latency(simulator, one_row))
    speedup = best.tokens_per_second * float(one_row.plain_seconds[0])
    return ContextAdvice(int(one_row.contexts[0]), best.levels, best.size, speedup)


def sentences(advice: Advice) -> list[str]:
    """The answers to what a user asks first, one sentence each."""
    best, eagle3 = advice.of("best_constant"), advice.of("eagle3")
    most = advice.of("optimum").tokens_per_second / best.tokens_per_second
    over = best.tokens_per_second / eagle3.tokens_per_second
    share = max(advice.share_of_gap, 0.0)
    return [
        f"By replay the best constant setting here is {_setting(best)}: {best.speedup:.2f}x plain "
        f"decoding, and {over:.2f}x EAGLE-3's default of {_setting(eagle3)}.",
        _learned_sentence(advice.of("ltd"), best, advice.live_over_constant),
        f"A choice that knows the text would be {most:.2f}x the best constant; the policies go "
        f"{share:.0%} of that way.",
        _context_sentence(advice.contexts),
        _decision(advice),
    ]


def _setting(advice: MethodAdvice | ContextAdvice) -> str:
    plural = "" if advice.levels == 1 else "s"
    return f"{advice.levels} level{plural} and size {advice.size}"


def _learned_sentence(learned: MethodAdvice, constant: MethodAdvice, live: Ratio | None) -> str:
    gained = learned.tokens_per_second / constant.tokens_per_second
    measured = "not checked live" if live is None else f"live {_measured(live)}"
    verdict = compare(learned, constant, live)
    meaning = {
        "faster": "" if live is None else ": worth using",
        "same": ": they add nothing here",
        "slower": "" if live is None else ": do not use them",
        "unclear": ": not distinguishable; take the constant",
        "disputed": ": the two disagree; take the constant",
    }[verdict]
    return f"Learned policies are {gained:.2f}x the best constant by replay, {measured}{meaning}."


def _measured(ratio: Ratio) -> str:
    """A measured ratio with its interval, such as 1.05x (95% interval 1.01 to 1.09)."""
    if ratio.low is None or ratio.high is None:
        return f"{ratio.ratio:.2f}x (one prompt per task has no interval)"
    digits = 3 if "1.00" in (f"{ratio.low:.2f}", f"{ratio.high:.2f}") else 2  # which side of 1
    ends = f"{ratio.low:.{digits}f} to {ratio.high:.{digits}f}"
    return f"{ratio.ratio:.2f}x (95% interval {ends})"


def _context_sentence(contexts: Sequence[ContextAdvice]) -> str:
    paying = [str(advice.context) for advice in contexts if advice.speedup > 1]
    numbers = ", ".join(
        f"{advice.speedup:.2f}x at {advice.context} tokens ({_setting(advice)})"
        for advice in contexts
    )
    if len(contexts) == 1:
        does = "pays" if paying else "does not pay"
        return f"By replay speculation {does} with these caches: {numbers}."
    if len(paying) == len(contexts):
        return f"By replay speculation pays at every measured length of context: {numbers}."
    if not paying:
        return f"By replay speculation pays at no measured length of context: {numbers}."
    return f"By replay speculation pays only at a context of {', '.join(paying)} tokens: {numbers}."


def _decision(advice: Advice) -> str:
    chosen = advice.of(advice.chosen)
    if advice.chosen == PLAIN:
        return "Decode without a draft here: nothing is shown to be faster than plain decoding."
    said = f"Use {NAMES[advice.chosen]}: {chosen.speedup:.2f}x plain decoding by replay"
    if chosen.live is None:
        return f"{said}, not checked live."
    if chosen.live.side > 0:
        return f"{said}, live {_measured(chosen.live)}."
    return (
        f"{said}; live it is not distinguishable from plain decoding, {_measured(chosen.live)}, "
        "and more live prompts would tell."
    )


def save_settings(path: Path, advice: Advice, cycle: CycleConfig) -> None:
    """Writes the settings file of a choice.

    Raises:
      UserError: it cannot be written.
    """
    best = advice.of("best_constant")
    policy = {
        PLAIN: PLAIN,
        "best_constant": f"constant:levels={best.levels},size={best.size}",
        "ltd": workflow.POLICY,
    }
    record = {
        "schema": SCHEMA,
        "policy": policy[advice.chosen],
        "cycle": dataclasses.asdict(cycle),
        **advice.identity,
        "environment": advice.environment,
    }
    write_json(path, record)


def load_settings(path: Path) -> DecodeSettings:
    """Reads a settings file.

    Raises:
      UserError: it is missing, damaged or of another version.
    """
    with files.reading_json(path, "settings file", SCHEMA, "tune again") as record:
        policy = record["policy"] if "policy" in record else record["controller"]  # its former name
        if policy == "ltd":  # of a former version, in a folder of its own
            raise ValueError("its policies are of another version")
        identity = {name: str(record[name]) for name in IDENTITY}
        cycle = CycleConfig(**record["cycle"])
        return DecodeSettings(path, str(policy), cycle, identity_of(identity))


def check_settings(settings: DecodeSettings, here: Identity, *, other_hardware: bool) -> None:
    """Raises UserError unless settings were found for a pair and for how it runs here.

    Args:
      other_hardware: only warn where the device or the dtype is another one.
    """
    require_same(
        f"{settings.path} was tuned for",
        dataclasses.replace(settings.identity, latency=None),
        here,
        remedy="tune here",
        other_hardware=other_hardware,
    )
