"""The training loop resumes bit for bit; only the draft's own weights learn."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax import checkpoint
from ltd_jax.draft_training import pack
from ltd_jax.draft_training import train as trainer
from ltd_jax.draft_training.train import TrainConfig
from ltd_jax.files import UserError
from ltd_jax.models import draft, sharding
from tests.cycle import tiny
from tests.draft_training import small
from tests.draft_training.small import TRAIN

TARGET, DRAFT = tiny.CONFIG.target, tiny.CONFIG.draft


def test_a_batch_is_a_function_of_the_step():
    batches = [trainer.sample_batch(small.mixture(), TRAIN, step) for step in (3, 3, 4)]
    assert np.array_equal(batches[0], batches[1]) and not np.array_equal(batches[0], batches[2])
    assert trainer.sample_batch(small.mixture(), TRAIN, 0).shape == (2, 13)
    assert trainer.sample_batch(small.mixture(), TRAIN, TRAIN.steps - 1).shape == (1, 17)


def test_a_training_of_other_settings_is_not_gone_on_with(tmp_path):
    start, other = jnp.zeros((3, 2)), jnp.ones((3, 2))
    learn = lambda config, start: trainer.train(
        start,
        squares,
        lambda step: jnp.float32(step),
        config,
        tmp_path,
        {"train": str(config), "start": checkpoint.digest(start)},
    )
    learn(TRAIN, start)
    with pytest.raises(UserError, match="other settings or another start; delete it or train"):
        learn(dataclasses.replace(TRAIN, tokens=20 * 24), start)
    with pytest.raises(UserError, match="other settings or another start"):
        learn(TRAIN, other)


def squares(params, frozen, batch):
    """The loss of parameters that should follow the batch."""
    return jnp.sum((params - batch) ** 2)


def test_progress_tells_the_last_step(tmp_path):
    told = []
    config = dataclasses.replace(TRAIN, tokens=50 * 24)
    trainer.train(
        jnp.zeros((3, 2)),
        squares,
        lambda step: jnp.float32(step == 49),
        config,
        tmp_path,
        {},
        progress=lambda *of: told.append(of),
    )
    assert [row[:2] for row in told] == [(20, 50), (40, 50), (50, 50)]
    assert told[-1][2] == pytest.approx(6, abs=0.5) and told[0][2] == 0
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3


def test_an_interrupted_training_is_gone_on_with(tmp_path):
    """Bit for bit, from the step that was at work."""

    def batch(step):
        asked.append(step)
        if step == 7 and asked.count(7) == 1:
            raise KeyboardInterrupt
        return jnp.float32(step)

    asked = []
    learn = lambda folder: trainer.train(
        jnp.zeros((3, 2)), squares, batch, TRAIN, tmp_path / folder, {}
    )
    with pytest.raises(KeyboardInterrupt):
        learn("cut")
    resumed = learn("cut")
    assert asked == [*range(8), *range(7, TRAIN.steps)]
    np.testing.assert_array_equal(resumed, learn("whole"))


def loss_of_nan(params, frozen, batch):
    """NaN from a batch on."""
    return squares(params, frozen, jnp.where(batch >= 7, jnp.nan, 0.0))


def loss_of_infinity(params, frozen, batch):
    """Infinite at one batch."""
    return squares(params, frozen, 0.0) + jnp.where(batch == 7, jnp.inf, 0.0)


def steep_loss(params, frozen, batch):
    """Finite, but its gradient is not, from a batch on: the root of 0."""
    return jnp.sqrt(jnp.sum(params**2) * jnp.maximum(7 - batch, 0))


@pytest.mark.parametrize("loss", [loss_of_nan, loss_of_infinity, steep_loss])
@pytest.mark.parametrize("save_every", [3, 100])
def test_a_step_that_is_not_finite_stops_the_training(tmp_path, loss, save_every):
    config = dataclasses.replace(TRAIN, save_every=save_every)
    asked = []

    def batch(step):
        asked.append(step)
        return jnp.float32(step)

    learn = lambda loss: trainer.train(jnp.ones((3, 2)), loss, batch, config, tmp_path, {})
    kept = "the checkpoint of step 6 is kept" if save_every == 3 else "no step is saved"
    with pytest.raises(UserError, match=rf"The loss of step 8 .*NaN or infinite \({kept}\)"):
        learn(loss)
    asked.clear()
    assert jnp.isfinite(learn(squares)).all()  # goes on from the last good step
    assert asked[0] == (6 if save_every == 3 else 0)


def test_a_loss_of_nan_is_told_where_a_training_is_interrupted(tmp_path):
    def batch(step):
        if step == 9:
            raise KeyboardInterrupt
        return jnp.float32(step)

    with pytest.raises(UserError, match="The loss of step 8"):
        trainer.train(jnp.ones((3, 2)), loss_of_nan, batch, TRAIN, tmp_path, {})


def test_the_schedule_rises_stays_and_falls_to_zero():
    rate = trainer.schedule(TrainConfig(tokens=1000 * 2304, warmup_steps=100, decay_share=0.4))
    assert rate(0) == 0 and rate(1000) == pytest.approx(0, abs=1e-9)
    assert rate(100) == rate(600) == pytest.approx(2e-3)
    assert rate(800) == pytest.approx(1e-3)


@pytest.mark.parametrize("change", [{"tokens": 0}, {"window": 0}, {"decay_share": 1.5}])
def test_an_impossible_training_is_refused(change):
    (name,) = change
    with pytest.raises(ValueError, match=f"{name} is {change[name]} but must"):
        TrainConfig(**change)


def test_a_mixed_batch_is_half_corpus_half_own_texts():
    config = dataclasses.replace(TRAIN, window=20, long_window=20, batch_tokens=160)
    mix = lambda: trainer.sample_mixed_batch(small.mixture(), small.texts(), config, 2)
    batch = mix()
    batch_BT = batch.token
    assert batch_BT.shape == (8, 21) and batch_BT.dtype == np.int32
    assert (batch.text == 1).all() and (batch.position[:, -1] == 20).all()
    half = dataclasses.replace(config, batch_tokens=80)
    assert np.array_equal(batch_BT[:4], trainer.sample_batch(small.mixture(), half, 2))
    own = {text.tobytes() for text in small.texts().astype(np.int32)}
    assert {row.tobytes() for row in batch_BT[4:]} <= own
    assert np.array_equal(batch_BT, mix().token)


def test_only_the_drafts_own_weights_learn(tmp_path):
    model, mixture = tiny.pair(0).model, small.mixture()
    config = dataclasses.replace(TRAIN, window=20, long_window=20, tokens=3 * 24)
    draft_config = dataclasses.replace(DRAFT, hidden_size=TARGET.hidden_size)
    vocabulary = pack.frequent_tokens(mixture.streams, DRAFT)
    start = draft.init(jax.random.key(0), draft_config, model.target.embedding, vocabulary)
    trained = trainer.train_draft(
        start,
        draft_config,
        TARGET,
        model.target,
        config,
        lambda step: trainer.sample_mixed_batch(mixture, small.texts(), config, step),
        tmp_path,
    )
    np.testing.assert_array_equal(trained.embedding, start.embedding)
    np.testing.assert_array_equal(trained.target_token, vocabulary)
    assert not np.array_equal(trained.head, start.head)


def test_devices_that_do_not_divide_a_batch_are_refused():
    batch = np.zeros((8, 3, 2), np.float32)
    assert trainer._divided(batch, jax.make_mesh((1,), (sharding.REPLICA,))).shape == (8, 3, 2)
    three = types.SimpleNamespace(shape={sharding.REPLICA: 3})
    with pytest.raises(UserError, match="3 devices do not divide a batch of 8 windows"):
        trainer._divided(batch, three)


@pytest.mark.parametrize(
    ("replicas", "devices", "words"),
    [(0, 1, "`replicas` is 0 but must"), (99, 1, "`replicas` is 99, but there is 1 to")]
    + [(99, 2, "`replicas` is 99 of 2 `devices` each, but"), (2, 0, "`devices` is 0 but must")],
)
def test_devices_that_are_not_there_are_refused(replicas, devices, words):
    with pytest.raises(UserError, match=words):
        sharding.mesh_of(devices, 2, replicas)
