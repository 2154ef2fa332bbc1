"""Training a target lowers its held-out loss, whether or not it was killed."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.pretrain import train_target
from ltd_jax.draft_training import train as trainer
from ltd_jax.models import target
from tests.draft_training import small
from tests.draft_training.small import TARGET, TRAIN


def test_training_lowers_the_held_out_loss_also_when_it_was_killed(tmp_path):
    config = dataclasses.replace(TRAIN, tokens=100 * 24, save_every=40)
    train = lambda name: train_target.train_target(TARGET, config, small.mixture(), tmp_path / name)
    whole = train("whole")

    class Killed(Exception):
        pass

    def dying(*args):
        if args[2] == 60:
            raise Killed
        return original(*args)

    original = trainer.sample_batch
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(trainer, "sample_batch", dying)
        train("cut")
    jax.tree.map(np.testing.assert_array_equal, whole, train("cut"))
    start = target.init(jax.random.key(config.seed), TARGET)
    stream = small.mixture().streams[0]
    loss = lambda params: train_target.held_out_loss(params, TARGET, stream, 12, 4)
    assert loss(whole) < 0.5 * loss(start)
