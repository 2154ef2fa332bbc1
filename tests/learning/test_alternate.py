import dataclasses
import signal

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ltd_jax import checkpoint, learning
from ltd_jax.files import UserError
from ltd_jax.learning import alternate, loop
from ltd_jax.learning.loop import CurvePoint, Splits, TrainResult
from ltd_jax.policies import networks
from ltd_jax.policies.networks import Learned
from ltd_jax.replay import optimum, simulate
from tests.learning import small
from tests.learning.small import CYCLE, POLICY

jax.config.update("jax_numpy_rank_promotion", "raise")

LEARNING = dataclasses.replace(small.ALTERNATE, depth_stage_size=3)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return small.splits()


@pytest.fixture(scope="module")
def trained(splits: Splits) -> TrainResult:
    return alternate.train(splits, POLICY, LEARNING)


def rate(splits: Splits, policy: Learned) -> float:
    return float(simulate.throughput(simulate.run(splits.validation, policy)))


def same(left: TrainResult, right: TrainResult) -> None:
    jax.tree.map(np.testing.assert_array_equal, left.policy, right.policy)
    timeless = [
        [dataclasses.replace(point, seconds=0) for point in each.curves] for each in (left, right)
    ]
    assert timeless[0] == timeless[1]


def test_learns_more_than_random_policies(splits: Splits, trained: TrainResult) -> None:
    random = [rate(splits, networks.init(jax.random.key(seed), CYCLE, POLICY)) for seed in range(8)]
    assert rate(splits, trained.policy) >= np.mean(random)


def test_is_deterministic_and_one_of_the_ways_to_learn(splits, trained: TrainResult) -> None:
    same(learning.train(splits, POLICY, LEARNING), trained)


def test_stages_in_the_papers_order(trained: TrainResult) -> None:
    names = ["size-alone", "depth-alone", "iter1-size", "iter2-depth"]
    assert list(trained.stages) == names
    assert list(dict.fromkeys(point.stage for point in trained.curves)) == names
    assert [phase.name for phase in alternate.phases(LEARNING)] == names
    assert trained.stages["size-alone"].depth is None
    jax.tree.map(np.testing.assert_array_equal, trained.stages["iter2-depth"], trained.policy)


def test_the_depth_policy_learns_alone_at_the_size_that_is_said_or_the_best_constants(splits):
    best = optimum.best_constant(splits.train).size
    other = next(size for size in CYCLE.sizes[1:] if size != best)
    depths = [
        alternate.train(
            splits,
            POLICY,
            dataclasses.replace(LEARNING, depth_stage_size=size),
            last="depth-alone",
        ).stages["depth-alone"]
        for size in (None, best, other)
    ]
    leaves = [np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(each)]) for each in depths]
    np.testing.assert_array_equal(leaves[0], leaves[1])
    assert np.abs(leaves[0] - leaves[2]).max() > 0


def test_alternation_never_loses_validation_throughput(
    splits: Splits, trained: TrainResult
) -> None:
    turns = [point.validation for point in trained.curves if point.stage.startswith("iter")]
    assert rate(splits, trained.policy) == pytest.approx(max(turns), rel=1e-6)


def test_curves_say_what_was_done(trained: TrainResult) -> None:
    alone = [point for point in trained.curves if point.stage == "size-alone"]
    assert [point.update for point in alone] == [0, 3, 4]
    assert [point.decisions for point in alone] == [0, 384, 512]
    assert alone[0].reward is None and np.isfinite(alone[-1].reward)
    seconds = [point.seconds for point in alone]
    assert seconds == sorted(seconds)
    assert all(np.isfinite(point.validation) for point in trained.curves)


class Killed(Exception):
    """Stands for a signal."""


def test_resumes_bit_for_bit_and_reads_what_is_finished(splits, trained, tmp_path) -> None:
    def kill(point: CurvePoint, share: float) -> None:
        if (point.stage, point.update) == ("iter1-size", 3):
            raise Killed

    def run(progress) -> TrainResult:
        return alternate.train(
            splits,
            POLICY,
            LEARNING,
            folder=tmp_path,
            provenance={"table": "abc"},
            progress=progress,
        )

    with pytest.raises(Killed):
        run(kill)
    seen = []
    resumed = run(lambda *said: seen.append(said))
    same(resumed, trained)
    assert [(point.stage, point.update) for point, _ in seen] == [
        ("iter1-size", 4),
        *(("iter2-depth", update) for update in (0, 3, 4)),
    ]
    shares = [share for _, share in seen]
    assert shares == sorted(shares) and shares[-1] == 1
    read = run(lambda *said: pytest.fail("nothing was left to do"))
    assert read.curves == resumed.curves
    same(read, trained)
    with checkpoint.manager(tmp_path / "size-alone") as checkpoints:
        provenance = checkpoints.restore(
            4, args=ocp.args.Composite(provenance=ocp.args.JsonRestore())
        )["provenance"]
    assert provenance["table"] == "abc" and len(provenance["points"]) == 3


def test_a_signal_is_obeyed_when_the_updates_under_way_are_saved(splits, tmp_path, monkeypatch):
    save = loop._save

    def interrupted(*args) -> None:
        signal.raise_signal(signal.SIGINT)
        save(*args)

    monkeypatch.setattr(loop, "_save", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            alternate.train(splits, POLICY, LEARNING, folder=tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    with checkpoint.manager(tmp_path / "size-alone") as checkpoints:
        assert checkpoints.all_steps() == [3]
        args = ocp.args.Composite(provenance=ocp.args.JsonRestore())
        record = checkpoints.restore(3, args=args)["provenance"]
        assert record[checkpoint.DIGESTS]["state"] is not None


def test_a_folder_of_another_training_is_refused(splits: Splits, tmp_path) -> None:
    def kill(point: CurvePoint, share: float) -> None:
        raise Killed

    with pytest.raises(Killed):
        alternate.train(splits, POLICY, LEARNING, folder=tmp_path, progress=kill)
    other = dataclasses.replace(LEARNING, seed=7)
    with pytest.raises(UserError, match=r"learning\.seed = 0, not 7"):
        alternate.train(splits, POLICY, other, folder=tmp_path)
    swapped = Splits(splits.validation, splits.train)
    with pytest.raises(UserError, match=r"simulator\.train"):
        alternate.train(swapped, POLICY, LEARNING, folder=tmp_path)


def test_the_fixed_size_is_the_nearest_compiled_one() -> None:
    best = optimum.BestConstant(levels=1, size=1, tokens_per_second=1.0)
    wanted = [dataclasses.replace(LEARNING, depth_stage_size=size) for size in (0, 3, 5, 60)]
    assert [alternate.fixed_size(CYCLE, each, best) for each in wanted] == [0, 2, 4, 8]
