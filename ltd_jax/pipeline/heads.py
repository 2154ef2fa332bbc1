"""Training the compared classifiers for a pair: record, fit, judge on other texts, save."""

from pathlib import Path
from typing import Any

from rich.console import Console

from ltd_jax import presets
from ltd_jax.config import HeadConfig
from ltd_jax.cycle.pair import Pair
from ltd_jax.learning import calibrate, classify, examples
from ltd_jax.learning.examples import Examples
from ltd_jax.pipeline import stages
from ltd_jax.pipeline.stages import Recording
from ltd_jax.policies import saved_heads
from ltd_jax.policies.saved_heads import SavedHeads
from ltd_jax.policies.settings import Parts
from ltd_jax.replay.trace import Trace

NAMES = ("disco", "specdec", "c2t")


def head_configs(hidden_size: int) -> dict[str, HeadConfig]:
    """How each classifier is trained, for a draft's width."""
    return {
        "disco": presets.DISCO,
        "specdec": presets.specdec(hidden_size),
        "c2t": presets.C2T,
    }


def examples_of(name: str, trace: Trace) -> Examples:
    """A classifier's examples in a trace."""
    make = {"disco": examples.disco, "specdec": examples.specdec, "c2t": examples.c2t}
    return make[name](trace)


def train(pair: Pair, settings: Recording, folder: Path, seed: int, console: Console) -> SavedHeads:
    """Trains all three on the train split, judges them on the validation split, saves them.

    Raises:
      UserError: a text is too short to tell yes from no, or a folder cannot be written.
    """
    lesson, check = (
        stages.trace_of(pair, split, settings, console, with_hidden=True)
        for split in ("train", "validation")
    )
    heads, widths, quality = {}, {}, {}
    assert lesson.hidden is not None
    hidden_size = lesson.hidden.shape[-1]  # twice the draft's width for a Griffin draft
    configs = head_configs(hidden_size)
    with stages.bar(console, "train classifiers") as advance:
        for place, name in enumerate(NAMES, 1):
            config = configs[name]
            network = saved_heads.network(name, config.width)
            heads[name] = classify.fit(network, examples_of(name, lesson), config, seed)
            widths[name] = config.width
            judged = classify.quality(network, heads[name], examples_of(name, check))
            quality[name] = judged._asdict()
            advance(place / len(NAMES))
    power = calibrate.fit(lesson, seed)
    errors = [calibrate.expected_error(check, each, seed) for each in (0 * power + 1, power)]
    found: dict[str, Any] = {
        "fingerprint": pair.fingerprint,
        "quality": quality,
        "calibration_error": {"before": errors[0], "after": errors[1]},
        "recorded": {key: lesson.provenance.get(key) for key in ("prompts", "new_tokens", "date")},
    }
    parts = Parts(heads, widths, power)
    saved_heads.save(folder, parts, pair.config.cycle, hidden_size, found)
    return saved_heads.load(folder)
