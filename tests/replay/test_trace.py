import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from ltd_jax import files
from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.replay import trace
from tests.oracle import replay as oracle
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=3, max_levels=4, sizes=(0, 1, 2, 3, 5, 8, 13, 20), context=64)
TIES = ((0.0, -1.0), (0.0,), (-1.0, -2.0, 0.0), (-1.0,))


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    seed=strategies.integers(0, 10**6),
    steps=strategies.sampled_from((*TIES, None)),
    absent=strategies.sampled_from((0.0, 0.4)),
    agreement=strategies.sampled_from((0.5, 1.0)),
)
def test_accepted_equals_walking_every_tree(seed, steps, absent, agreement):
    one = synthetic.trace(
        CONFIG, seed=seed, text_tokens=(5, 2), steps=steps, absent=absent, agreement=agreement
    )
    expected = [
        [
            [oracle.accepted(one, CONFIG, position, levels, size) for size in CONFIG.sizes]
            for levels in range(1, CONFIG.max_levels + 1)
        ]
        for position in range(len(one.tokens_left))
    ]
    found = trace.accepted(one, CONFIG)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, expected)


def test_synthetic_traces_reach_every_level():
    one = synthetic.trace(CONFIG, agreement=1.0, text_tokens=(40,))
    assert set(trace.accepted(one, CONFIG)[:, -1, -1]) == set(range(CONFIG.max_levels + 1))


@pytest.mark.parametrize("steps", [*TIES, None])
def test_a_shallow_recording_is_the_first_levels_of_a_deep_one(steps):
    deep = synthetic.trace(CONFIG, seed=3, steps=steps)
    by_level = ("log_prob", "token", "parent", "continuation", "entropy")
    cut = {name: getattr(deep, name)[:, :2] for name in by_level}
    shallow = dataclasses.replace(CONFIG, max_levels=2, sizes=CONFIG.sizes[:-1])
    np.testing.assert_array_equal(
        trace.accepted(dataclasses.replace(deep, **cut), shallow),
        trace.accepted(deep, CONFIG)[:, :2, :-1],
    )


def test_accepted_grows_with_size_and_stays_within_levels_and_text():
    one = synthetic.trace(CONFIG, seed=5, steps=TIES[0], text_tokens=(30,))
    found = trace.accepted(one, CONFIG)
    levels_D1 = np.arange(1, CONFIG.max_levels + 1)[:, None]
    assert np.all(np.diff(found, axis=2) >= 0)
    assert np.all(found <= np.minimum(levels_D1, CONFIG.sizes))
    assert np.all(found <= one.tokens_left[:, None, None])


def test_more_positions_than_one_chunk_change_nothing(monkeypatch):
    one = synthetic.trace(CONFIG)
    whole = trace.accepted(one, CONFIG)
    monkeypatch.setattr(trace, "CHUNK", 7)
    np.testing.assert_array_equal(trace.accepted(one, CONFIG), whole)


def test_accepted_refuses_another_tree():
    other = dataclasses.replace(CONFIG, beam_width=4)
    with pytest.raises(UserError, match="4 levels and beam width 3"):
        trace.accepted(synthetic.trace(CONFIG), other)


def test_save_and_load_return_the_same_trace(tmp_path):
    one, path = synthetic.trace(CONFIG, absent=0.2), tmp_path / "new" / "trace.npz"
    trace.save(one, path)
    back = trace.load(path)
    for name in trace.ARRAYS:
        np.testing.assert_array_equal(getattr(back, name), getattr(one, name))
        assert getattr(back, name).dtype == getattr(one, name).dtype
    assert back.provenance == one.provenance
    assert [file.name for file in path.parent.iterdir()] == ["trace.npz"]


def test_a_failed_save_leaves_the_old_file(tmp_path):
    one, path = synthetic.trace(CONFIG), tmp_path / "trace.npz"
    trace.save(one, path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_load_names_what_is_wrong(tmp_path, monkeypatch):
    path = tmp_path / "trace.npz"
    with pytest.raises(UserError, match="no trace at"):
        trace.load(path)
    trace.save(synthetic.trace(CONFIG), path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"text", whole[:2000] + whole[2300:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="no trace or is damaged") as caught:
            trace.load(path)
        assert "pickle" not in str(caught.value)
    with open(path, "wb") as file:
        np.savez(file, schema=trace.SCHEMA, score=np.asarray([{}]), provenance="{}")
    with pytest.raises(UserError, match="damaged .objects where numbers are needed.; record"):
        trace.load(path)
    with open(path, "wb") as file:
        np.savez(file, schema=trace.SCHEMA, provenance="{}")
    with pytest.raises(UserError, match="lacks 'score"):
        trace.load(path)
    with monkeypatch.context() as patch:
        patch.setattr(trace, "SCHEMA", 99)
        trace.save(synthetic.trace(CONFIG), path)
    with pytest.raises(UserError, match="schema 99"):
        trace.load(path)
    with monkeypatch.context() as patch:
        patch.setattr(trace, "SCHEMA", 1)
        trace.save(synthetic.trace(CONFIG), path)
    with pytest.raises(UserError, match="schema 1, this version reads 2; record it again"):
        trace.load(path)


def test_the_drafts_outputs_are_kept_where_they_were_recorded(tmp_path):
    one, path = synthetic.trace(CONFIG), tmp_path / "trace.npz"
    hidden = np.random.default_rng(0).normal(size=(*one.entropy.shape, 5)).astype(np.float16)
    trace.save(dataclasses.replace(one, hidden=hidden), path)
    np.testing.assert_array_equal(trace.load(path).hidden, hidden)
    assert trace.load(path).hidden.dtype == np.float16
    with pytest.raises(ValueError, match="hidden has shape"):
        dataclasses.replace(one, hidden=hidden[:, :1])


def test_save_to_an_impossible_place_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        trace.save(synthetic.trace(CONFIG), tmp_path / "file" / "trace.npz")


def test_a_trace_counts_down_within_every_text():
    one = synthetic.trace(CONFIG)
    with pytest.raises(ValueError, match="count down"):
        dataclasses.replace(one, tokens_left=one.tokens_left + 1)
    with pytest.raises(ValueError, match="token has shape"):
        dataclasses.replace(one, token=one.token[:, :1])


def test_concatenate_numbers_texts_anew():
    one = synthetic.trace(CONFIG, text_tokens=(3, 2))
    two = synthetic.trace(CONFIG, text_tokens=(4,), seed=1)
    two = dataclasses.replace(two, provenance=two.provenance | {"prompts": "other"})
    both = trace.concatenate([one, two])
    assert both.text.tolist() == [0] * 3 + [1] * 2 + [2] * 4
    assert [both.provenance["tasks"][task] for task in both.task[both.text_start]] == [
        "code",
        "docs",
        "code",
    ]
    assert both.provenance["device"] == "none"
    assert [part["prompts"] for part in both.provenance["parts"]] == ["synthetic", "other"]
    found = trace.accepted(both, CONFIG)
    np.testing.assert_array_equal(found[:5], trace.accepted(one, CONFIG))
    np.testing.assert_array_equal(found[5:], trace.accepted(two, CONFIG))


@pytest.mark.parametrize(
    ("name", "value"),
    [("log_prob", np.nan), ("log_prob", np.inf), ("entropy", np.inf), ("root_entropy", np.nan)],
)
def test_numbers_that_are_not_finite_are_refused(tmp_path, name, value):
    one, path = synthetic.trace(CONFIG), tmp_path / "trace.npz"
    broken = getattr(one, name).copy()
    broken.flat[0] = value
    with pytest.raises(UserError, match=rf"^{name}\[0.*\] is (nan|infinite), no finite number\.$"):
        dataclasses.replace(one, **{name: broken})
    trace.save(one, path)
    with np.load(path) as file:
        arrays = dict(file)
    with open(path, "wb") as file:
        np.savez(file, **(arrays | {trace.ON_DISK.get(name, name): broken}))
    with pytest.raises(UserError, match=rf"trace.npz is no trace or is damaged .{name}\[0"):
        trace.load(path)


def test_probabilities_and_outputs_that_are_not_finite_are_refused(tmp_path):
    one = synthetic.trace(CONFIG)
    with pytest.raises(UserError, match=r"accept_prob\[0, 0, 0, 0\] is nan"):
        dataclasses.replace(one, accept_prob=np.full(one.log_prob.shape, np.nan))
    with pytest.raises(UserError, match="Cannot write .*seconds is nan"):
        odd = dataclasses.replace(one, provenance=one.provenance | {"seconds": float("nan")})
        trace.save(odd, tmp_path / "trace.npz")
    hidden = np.full((*one.entropy.shape, 2), np.inf, np.float16)
    with pytest.raises(UserError, match=r"hidden\[0, 0, 0, 0\] is infinite"):
        trace.save(dataclasses.replace(one, hidden=hidden), tmp_path / "trace.npz")


def test_names_on_disk_stay(tmp_path):
    one, path = synthetic.trace(CONFIG), tmp_path / "trace.npz"
    trace.save(dataclasses.replace(one, accept_prob=np.exp(one.log_prob)), path)
    with np.load(path) as file:
        assert {"schema", "provenance", "score", "remaining", "reach"} <= set(file)
        assert not {"log_prob", "tokens_left", "accept_prob"} & set(file)
    np.testing.assert_array_equal(trace.load(path).accept_prob, np.exp(one.log_prob))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fingerprint": "b"}, "pair a, not b"),
        ({"prompts": "other"}, "prompts synthetic, not other"),
        ({"dtype": "bfloat16"}, "dtype None, not bfloat16"),
        ({"sampling": {"top_k": 0, "seed": 3}}, 'sampling greedy decoding, not {"top_k": 0}'),
    ],
)
def test_a_trace_of_another_recording_is_told(tmp_path, change, words):
    path = tmp_path / "trace.npz"
    origin = synthetic.trace(CONFIG).provenance | {"fingerprint": "a"}
    one = dataclasses.replace(synthetic.trace(CONFIG), provenance=origin | {"device": "another"})
    trace.require_recording(path, one, origin, CONFIG, remedy="delete it")
    with pytest.raises(UserError, match=f"trace.npz was recorded with {words}; delete it.$"):
        trace.require_recording(path, one, origin | change, CONFIG, remedy="delete it")
    asked = lambda prompts: origin | {"asked": {"questions": "mine", "prompts": prompts}}
    few = dataclasses.replace(one, provenance=asked(6))
    for count, why in ((24, "prompts 6, not 24"), (6, "the questions of the same settings have")):
        with pytest.raises(UserError, match=f"prompts synthetic, not other .{why}"):
            other = asked(count) | {"prompts": "other"}
            trace.require_recording(path, few, other, CONFIG, remedy="delete it")
    deeper = dataclasses.replace(CONFIG, max_levels=5)
    with pytest.raises(UserError, match="max_levels 4, not 5"):
        trace.require_recording(path, one, origin, deeper, remedy="delete it")


def test_traces_of_two_seeds_are_two_recordings(tmp_path):
    one = synthetic.trace(CONFIG)
    of_seed = lambda seed: one.provenance | {"sampling": {"top_k": 0, "seed": seed}}
    sampled = dataclasses.replace(one, provenance=of_seed(1))
    with pytest.raises(UserError, match="seed 1, not 2"):
        trace.require_recording(tmp_path, sampled, of_seed(2), CONFIG, remedy="delete it")
