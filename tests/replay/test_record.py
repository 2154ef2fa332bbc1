"""The replay is live decoding: the same accepted counts, cycle by cycle."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import PolicyConfig
from ltd_jax.decoding import generate
from ltd_jax.files import UserError
from ltd_jax.policies import networks
from ltd_jax.policies.policy import Constant
from ltd_jax.replay import record, simulate
from ltd_jax.replay import trace as traces
from ltd_jax.replay.record import Prompt
from tests.cycle import tiny, varieties
from tests.replay import synthetic

NEW_TOKENS = 24
CYCLE = tiny.CONFIG.cycle
ORIGIN = {"tasks": ["a"], "fingerprint": "f", "prompts": "p", "new_tokens": NEW_TOKENS}


@pytest.fixture(scope="module")
def pair():
    return tiny.pair(0)


@pytest.fixture(scope="module")
def found():
    return [Prompt(np.asarray(prompt, np.int32), 0) for prompt in tiny.prompts(0)]


@pytest.fixture(scope="module")
def trace(pair, found):
    return record.record(pair, found, NEW_TOKENS, ORIGIN)


def test_texts_are_plain_decodings(pair, found):
    texts = record.texts_of(pair, [prompt.token for prompt in found], NEW_TOKENS)
    for prompt, text_T in zip(found, texts, strict=True):
        steps = generate.generate_plain(pair, prompt.token, NEW_TOKENS)
        assert text_T.tolist() == [token for step in steps for token in step.tokens]


def test_texts_are_decoded_in_few_shapes(pair, found, trace, monkeypatch):
    """Batches as equal as can be, the last filled up: one program, and the same texts."""
    assert [record.side_by_side(texts) for texts in (1, 16, 17, 32, 33)] == [1, 16, 9, 16, 11]
    monkeypatch.setattr(record, "TEXTS_AT_ONCE", 2)
    before = record._continue._cache_size()
    again = record.record(pair, found, NEW_TOKENS, ORIGIN)
    assert len(found) == 3 and record._continue._cache_size() == before + 1
    np.testing.assert_array_equal(again.continuation, trace.continuation)


@pytest.mark.parametrize(
    ("tokens", "context", "room"),
    [(1, 64, 64), (1, 512, 128), (128, 512, 128), (129, 512, 256), (512, 512, 512)]
    + [(1, 2048, 512), (1100, 2048, 1536), (300, 384, 384), (290, 300, 300)],
)
def test_a_pass_over_a_text_has_a_room_of_few(tokens, context, room):
    assert record.room_for(tokens, context) == room


def test_a_text_is_the_same_in_any_room(pair, found, trace, monkeypatch):
    monkeypatch.setattr(record, "LEAST_ROOM", 8)
    monkeypatch.setattr(record, "ROOMS", 6)
    again = record.record(pair, found, NEW_TOKENS, ORIGIN)
    assert len({record.room_for(len(p.token) + NEW_TOKENS, CYCLE.context) for p in found}) > 1
    for name in ("token", "parent", "continuation", "length"):
        np.testing.assert_array_equal(getattr(again, name), getattr(trace, name))
    for name in ("log_prob", "entropy", "root_entropy"):
        np.testing.assert_allclose(getattr(again, name), getattr(trace, name), atol=1e-4)


def test_positions_and_continuations(trace, found):
    assert len(trace.tokens_left) == len(found) * (NEW_TOKENS - 1)
    for first, prompt in zip(trace.text_start, found, strict=True):
        assert trace.length[first] == len(prompt.token)
        assert trace.tokens_left[first] == NEW_TOKENS - 1
    ends = trace.tokens_left == 1
    assert (trace.continuation[ends, 0] >= 0).all()
    assert (trace.continuation[ends, 1:] == -1).all()


def live_and_replayed(pair, trace, found, policy, totals):
    """Per text: the live cycles, and what the trace says at the same positions."""
    cycle = pair.config.cycle
    accepted = traces.accepted(trace, cycle)
    for index, prompt in enumerate(found):
        position, cycle_count, levels_sum = int(trace.text_start[index]), 0, 0
        steps = generate.generate(pair, policy, prompt.token, NEW_TOKENS)
        next(steps)
        for step in steps:
            said = accepted[position, step.levels - 1, cycle.sizes.index(step.size)]
            committed = min(int(said) + 1, int(trace.tokens_left[position]))
            yield step.accepted, int(said), len(step.tokens), committed
            position, cycle_count = position + committed, cycle_count + 1
            levels_sum += step.levels
        assert cycle_count == int(totals.cycles[index])
        assert levels_sum == int(totals.levels[index])


def simulator_of(trace):
    return simulate.build(trace, synthetic.table(CYCLE), CYCLE)


@pytest.mark.parametrize("setting", [(1, 0), (2, 12), (4, 1), (5, 12)])
def test_constants_replay_as_they_run(pair, trace, found, setting):
    policy = Constant(*setting)
    totals = simulate.run(simulator_of(trace), policy, charge_decisions=False)
    rows = list(live_and_replayed(pair, trace, found, policy, totals))
    for live, said, live_committed, committed in rows:
        assert live_committed == committed
        if committed == live + 1:  # the text's end cuts no cycle here
            assert live == said
    assert setting[1] == 0 or any(live > 0 for live, *_ in rows)


def test_windows_and_further_layers_replay_as_they_run(found):
    """Of the text in one pass, where windows end far before a row."""
    pair = varieties.pair("deep and narrow")
    few = [Prompt(prompt.token[:9] % varieties.X, 0) for prompt in found[1:]]
    trace = record.record(pair, few, NEW_TOKENS, ORIGIN)
    cycle, policy = pair.config.cycle, Constant(3, 7)
    simulator = simulate.build(trace, synthetic.table(cycle), cycle)
    totals = simulate.run(simulator, policy, charge_decisions=False)
    rows = list(live_and_replayed(pair, trace, few, policy, totals))
    assert all(live_committed == committed for *_, live_committed, committed in rows)
    assert any(live > 0 for live, *_ in rows) and any(live == 0 for live, *_ in rows)


def test_learned_policies_replay_as_they_run(pair, trace, found):
    policy = networks.init(jax.random.key(3), CYCLE, PolicyConfig((16,), (16,), (16,), (16,)))
    policy = jax.tree.map(lambda leaf: leaf * 5, policy)  # decisions that differ between places
    totals = simulate.run(simulator_of(trace), policy)
    rows = list(live_and_replayed(pair, trace, found, policy, totals))
    assert all(live_committed == committed for *_, live_committed, committed in rows)


def test_an_interrupted_recording_goes_on(pair, found, trace, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "TEXTS_AT_ONCE", 1)
    whole = record.record(pair, found, NEW_TOKENS, ORIGIN, parts=tmp_path)
    (tmp_path / "texts-00001.npz").unlink()
    kept = (tmp_path / "texts-00002.npz").stat().st_mtime_ns
    again = record.record(pair, found, NEW_TOKENS, ORIGIN, parts=tmp_path)
    assert (tmp_path / "texts-00002.npz").stat().st_mtime_ns == kept
    for name in traces.ARRAYS:
        np.testing.assert_array_equal(getattr(whole, name), getattr(again, name))
    with pytest.raises(UserError, match="recorded with prompts p, not other"):
        record.record(pair, found, NEW_TOKENS, ORIGIN | {"prompts": "other"}, parts=tmp_path)


def test_a_task_that_was_renamed_between_two_parts_is_one(pair, found, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "TEXTS_AT_ONCE", 1)
    record.record(pair, found, NEW_TOKENS, ORIGIN, parts=tmp_path)
    (tmp_path / "texts-00001.npz").unlink()
    again = record.record(pair, found, NEW_TOKENS, ORIGIN | {"tasks": ["b"]}, parts=tmp_path)
    assert again.provenance["tasks"] == ["b"] and not again.task.any()


def test_a_damaged_part_is_recorded_again(pair, found, trace, tmp_path):
    record.record(pair, found, NEW_TOKENS, ORIGIN, parts=tmp_path)
    (part,) = tmp_path.glob("*.npz")
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match=r"texts-00000\.npz is no trace or is damaged"):
        again = record.record(pair, found, NEW_TOKENS, ORIGIN, parts=tmp_path)
    np.testing.assert_array_equal(again.log_prob, trace.log_prob)
    assert part.read_bytes()[:2] == content[:2] and len(part.read_bytes()) == len(content)


def test_parts_of_other_trees_are_refused(pair, found, tmp_path):
    record.record(pair, found, NEW_TOKENS, ORIGIN, parts=tmp_path)
    deeper = dataclasses.replace(pair.config.cycle, max_levels=pair.config.cycle.max_levels + 1)
    config = dataclasses.replace(pair.config, cycle=deeper)
    other = dataclasses.replace(pair, model=pair.model.replace(config=config))
    with pytest.raises(UserError, match=f"max_levels 5, not 6; delete {tmp_path}"):
        record.record(other, found, NEW_TOKENS, ORIGIN, parts=tmp_path)


def test_texts_that_end_at_once_are_left_out(pair, found, monkeypatch):
    monkeypatch.setattr(record, "TEXTS_AT_ONCE", 1)
    texts = record.texts_of(pair, [prompt.token for prompt in found], NEW_TOKENS)
    stopping = dataclasses.replace(pair, stop_tokens=(int(texts[0][0]),))
    lengths = [len(text) - 1 for text in record.texts_of(stopping, [p.token for p in found], 9)]
    assert lengths[0] == 0 < max(lengths)
    trace = record.record(stopping, found, 9, ORIGIN)
    assert trace.tokens_left[trace.text_start].tolist() == [length for length in lengths if length]
    with pytest.raises(UserError, match="All texts end with their first token"):
        record.record(stopping, found[:1], 9, ORIGIN)


def test_prompts_may_be_token_ids_and_say_where_they_come_from(pair, found, trace):
    shares: list[float] = []
    ids = [prompt.token.tolist() for prompt in found]
    plain = record.record(pair, ids, NEW_TOKENS, progress=shares.append)
    np.testing.assert_array_equal(plain.log_prob, trace.log_prob)
    assert plain.provenance["tasks"] == ["all"] and plain.provenance["new_tokens"] == NEW_TOKENS
    assert plain.provenance["prompts"] == record.digest(found)
    assert plain.provenance["sampling"] is None and shares == [1.0]


def test_stop_tokens_end_a_text(pair, found):
    texts = record.texts_of(pair, [found[0].token], NEW_TOKENS)
    stop = int(texts[0][3])
    stopping = dataclasses.replace(pair, stop_tokens=(stop,))
    cut = record.texts_of(stopping, [found[0].token], NEW_TOKENS)[0]
    assert cut.tolist() == texts[0][: texts[0].tolist().index(stop) + 1].tolist()


def overflowing(params):
    """The same weights but two maps, whose products are more than f32 can hold."""
    gate, up = params.layers[0].gate_up
    layer = params.layers[0].replace(gate_up=(gate, up * 1e30), down=params.layers[0].down * 1e30)
    return params.replace(layers=(layer, *params.layers[1:]))


@pytest.mark.parametrize(
    ("part", "change", "hidden", "words"),
    [
        (
            "target",
            lambda one: one.replace(norm=one.norm * jnp.nan),
            False,
            "logits of random target",
        ),
        ("target", overflowing, False, "logits of random target"),
        ("draft", lambda one: one.replace(norm=one.norm * jnp.nan), False, "of random draft"),
        ("draft", lambda one: one.replace(fuse=one.fuse * 1e38), False, "of random draft"),
        (
            "draft",
            lambda one: one.replace(down=one.down * 1e6),
            True,
            "output of random draft in float16",
        ),
    ],
)
def test_what_is_not_finite_is_not_recorded(pair, found, part, change, hidden, words):
    broken = pair.model.replace(**{part: change(getattr(pair.model, part))})
    with pytest.raises(UserError, match=f"^Recording prompts 1 to 3: .*{words}") as told:
        other = dataclasses.replace(pair, model=broken)
        record.record(other, found, NEW_TOKENS, ORIGIN, with_hidden=hidden)
    assert "float32" in str(told.value) and "another `dtype`" in str(told.value)
