"""Classifiers are trained and read back, also those of a draft with a wider output."""

import dataclasses

import jax
import numpy as np
from rich.console import Console

from ltd_jax import presets, workflow
from ltd_jax.config import HeadConfig
from tests.cycle import varieties
from tests.replay import synthetic

SMALL = HeadConfig(width=4, epochs=1, learning_rate=1e-3)


def test_what_was_trained_is_read_back(tmp_path, monkeypatch):
    pair = varieties.pair("griffin")
    width = 2 * pair.config.draft.hidden_size  # of a Griffin draft's output
    trace = synthetic.trace(pair.config.cycle, text_tokens=(30, 30))
    hidden = np.random.default_rng(0).normal(size=(*trace.parent.shape, width))
    trace = dataclasses.replace(trace, hidden=hidden.astype(np.float16))
    monkeypatch.setattr(workflow, "load_or_record", lambda *_, **__: trace)
    for name in ("DISCO", "C2T"):
        monkeypatch.setattr(presets, name, SMALL)
    found = workflow.train_classifiers(pair, None, tmp_path, 0, Console(quiet=True))
    assert set(found.parts.heads) == {"disco", "specdec", "c2t"}
    assert width in {leaf.shape[0] for leaf in jax.tree.leaves(found.parts.heads["specdec"])}
