"""The training loop resumes bit for bit; training-time test is drafting, unrolled."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.pretrain import train_target
from ltd_jax import checkpoint
from ltd_jax.draft_training import loss as draft_loss
from ltd_jax.draft_training import train as trainer
from ltd_jax.draft_training.train import TrainConfig
from ltd_jax.files import UserError
from ltd_jax.models import draft, eagle3, target
from tests.cycle import tiny

TARGET, DRAFT = tiny.CONFIG.target, tiny.CONFIG.draft
SHORT = TrainConfig(
    tokens=16 * 24,
    sequence=12,
    long_sequence=16,
    batch_tokens=24,
    warmup_steps=2,
    kind_shares=(0.5, 0.5),
    save_every=5,
)


def streams():
    random = np.random.default_rng(0)
    period = random.integers(0, TARGET.vocab_size, 10)
    return [np.tile(period, 40), np.tile(period[::-1], 40)]


def test_a_batch_is_a_function_of_the_step():
    batches = [trainer.sample_batch(streams(), SHORT, step) for step in (3, 3, 4)]
    assert np.array_equal(batches[0], batches[1]) and not np.array_equal(batches[0], batches[2])
    assert trainer.sample_batch(streams(), SHORT, 0).shape == (2, 13)
    assert trainer.sample_batch(streams(), SHORT, SHORT.steps - 1).shape == (1, 17)


def test_training_lowers_the_held_out_loss_also_when_it_was_killed(tmp_path):
    config = dataclasses.replace(SHORT, tokens=150 * 24, save_every=40)
    train = lambda name: train_target.train_target(TARGET, config, streams(), tmp_path / name)
    whole = train("whole")

    class Killed(Exception):
        pass

    def dying(*args):
        if args[2] == 90:
            raise Killed
        return original(*args)

    original = trainer.sample_batch
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(trainer, "sample_batch", dying)
        train("cut")
    jax.tree.map(np.testing.assert_array_equal, whole, train("cut"))
    start = target.init(jax.random.key(config.seed), TARGET)
    judge = lambda params: train_target.held_out_loss(params, TARGET, streams()[0], 12, 4)
    assert judge(whole) < 0.5 * judge(start)


def test_a_training_of_other_settings_is_not_gone_on_with(tmp_path):
    params = tiny.pair(0).params.target
    learn = lambda config, start: trainer.train(
        lambda: start,
        train_target.objective(TARGET),
        lambda step: trainer.sample_batch(streams(), config, step),
        config,
        tmp_path,
        {"train": str(config), "start": checkpoint.digest(start)},
    )
    learn(SHORT, params)
    with pytest.raises(UserError, match="other settings or another start; give another --out"):
        learn(dataclasses.replace(SHORT, tokens=20 * 24), params)
    with pytest.raises(UserError, match="other settings or another start"):
        learn(SHORT, tiny.pair(1).params.target)


def test_the_schedule_rises_stays_and_falls_to_zero():
    rate = trainer.schedule(TrainConfig(tokens=1000 * 2304, warmup_steps=100, decay_share=0.4))
    assert rate(0) == 0 and rate(1000) == pytest.approx(0, abs=1e-9)
    assert rate(100) == rate(600) == pytest.approx(2e-3)
    assert rate(800) == pytest.approx(1e-3)


def test_step_zero_and_one_of_the_unrolling_are_draft_passes():
    """Row i of step 1 equals a draft pass over rows 0..i and then one row on its own output."""
    pair = tiny.pair(0)
    params, config = pair.params.draft, DRAFT
    tokens_T = jax.random.randint(jax.random.key(1), (14,), 0, TARGET.vocab_size)
    causal = jnp.tril(jnp.ones((14, 14), bool))
    _, feature_TE, _ = target.forward(
        pair.params.target, TARGET, tokens_T, jnp.arange(14), causal, None
    )
    fused_TE = draft.fuse(params, config, feature_TE)
    rows, position = 6, 3
    query, key, value = eagle3.project(
        params, config, tokens_T[1 : 1 + rows], fused_TE[:rows], jnp.arange(rows)
    )
    hidden = eagle3.finish(
        params, config, fused_TE[:rows], draft_loss.chain_attention(query, [key], [value])
    )
    query1, key1, value1 = eagle3.project(
        params, config, tokens_T[2 : 2 + rows], hidden, jnp.arange(rows) + 1
    )
    mixed = draft_loss.chain_attention(query1, [key, key1], [value, value1])
    # by hand for one row: keys of rows 0..position of step 0, and the row's own key of step 1
    K, C = config.kv_head_count, config.head_dim
    groups = config.head_count // K
    keys = jnp.concatenate([key[: position + 1], key1[position][None]])
    values = jnp.concatenate([value[: position + 1], value1[position][None]])
    for head in range(config.head_count):
        score = keys[:, head // groups] @ query1[position, head] * C**-0.5
        expected = jax.nn.softmax(score) @ values[:, head // groups]
        got = mixed[position].reshape(config.head_count, C)[head]
        np.testing.assert_allclose(got, expected, atol=1e-5)


def texts():
    return np.random.default_rng(1).integers(0, TARGET.vocab_size, (3, 21)).astype(np.uint16)


def test_a_mixed_batch_is_half_corpus_half_own_texts():
    config = dataclasses.replace(SHORT, sequence=20, long_sequence=20, batch_tokens=160)
    batch_BT = draft_loss.mixed_batch(streams(), texts(), config, 2)
    assert batch_BT.shape == (8, 21) and batch_BT.dtype == np.int32
    corpus_BT = trainer.sample_batch(streams(), dataclasses.replace(config, batch_tokens=80), 2)
    assert np.array_equal(batch_BT[:4], corpus_BT)
    own = {text.tobytes() for text in texts().astype(np.int32)}
    assert {row.tobytes() for row in batch_BT[4:]} <= own
    assert np.array_equal(batch_BT, draft_loss.mixed_batch(streams(), texts(), config, 2))


def test_only_the_drafts_own_weights_learn(tmp_path):
    pair = tiny.pair(0)
    config = dataclasses.replace(SHORT, sequence=20, long_sequence=20, tokens=3 * 24)
    draft_config = dataclasses.replace(DRAFT, hidden_size=TARGET.hidden_size)
    vocabulary = draft_loss.frequent_tokens(streams(), DRAFT)
    start = draft.init(jax.random.key(0), draft_config, pair.params.target.embedding, vocabulary)
    trained = draft_loss.train_draft(
        start,
        draft_config,
        TARGET,
        pair.params.target,
        config,
        lambda step: draft_loss.mixed_batch(streams(), texts(), config, step),
        tmp_path,
    )
    np.testing.assert_array_equal(trained.embedding, start.embedding)
    np.testing.assert_array_equal(trained.target_token, vocabulary)
    assert not np.array_equal(trained.head, start.head)
