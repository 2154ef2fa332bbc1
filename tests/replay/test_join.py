import dataclasses

import numpy as np
import pytest

from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.replay import trace
from ltd_jax.replay import trace as traces
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=3, max_levels=4, sizes=(0, 1, 2, 3, 5, 8, 13, 20), context=64)


def test_concatenate_numbers_texts_and_tasks_anew():
    one = synthetic.trace(CONFIG, text_tokens=(3, 2))
    two = synthetic.trace(CONFIG, text_tokens=(4,), seed=1)
    two = dataclasses.replace(
        two, provenance=two.provenance | {"tasks": ["tables", "code"], "prompts": "other"}
    )
    both = traces.concatenate([one, two])
    assert both.text.tolist() == [0] * 3 + [1] * 2 + [2] * 4
    assert [both.provenance["tasks"][task] for task in both.task[both.first]] == [
        "code",
        "docs",
        "tables",
    ]
    assert both.provenance["device"] == "none"
    assert [part["prompts"] for part in both.provenance["parts"]] == ["synthetic", "other"]
    found = trace.accepted(both, CONFIG)
    np.testing.assert_array_equal(found[:5], trace.accepted(one, CONFIG))
    np.testing.assert_array_equal(found[5:], trace.accepted(two, CONFIG))


def test_concatenate_refuses_what_does_not_belong_together():
    one = synthetic.trace(CONFIG)
    other_tree = synthetic.trace(dataclasses.replace(CONFIG, beam_width=4))
    other_pair = dataclasses.replace(one, provenance=one.provenance | {"fingerprint": "b"})
    with_hidden = dataclasses.replace(one, hidden=np.zeros((*one.entropy.shape, 2), np.float16))
    for parts, message in (
        ([], "no trace"),
        ([one, other_tree], "levels or beam widths"),
        ([one, other_pair], "different weights"),
        ([one, with_hidden], "Only some of the traces"),
    ):
        with pytest.raises(UserError, match=message):
            traces.concatenate(parts)
