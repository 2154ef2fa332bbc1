"""Joint and exact learning as one program, in chunks, resumed, and seeds side by side."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax import learning
from ltd_jax.files import UserError
from ltd_jax.learning import environment, exact, joint, loop
from ltd_jax.learning.loop import TrainResult
from ltd_jax.policies import networks
from ltd_jax.replay import optimum, simulate
from tests.learning import small
from tests.learning.small import CYCLE, EXACT, JOINT, POLICY

jax.config.update("jax_numpy_rank_promotion", "raise")
REPLAYS = small.replays()
LEARNING = {"exact": EXACT, "joint": JOINT}
METHODS = {
    "exact": exact.method(CYCLE, POLICY, EXACT),
    "joint": joint.method(CYCLE, POLICY, JOINT),
}
RATE = optimum.best_constant(REPLAYS.train, CYCLE).tokens_per_second
both_ways = pytest.mark.parametrize("way", ["exact", "joint"])


@pytest.fixture(scope="module")
def learned() -> dict[str, TrainResult]:
    return {way: learning.train(REPLAYS, CYCLE, POLICY, LEARNING[way]) for way in LEARNING}


def rate(params) -> float:
    controller = networks.learned(CYCLE, POLICY)
    totals = simulate.run(REPLAYS.validation, CYCLE, controller, params, learned=True)
    return float(simulate.throughput(totals))


def same(left: TrainResult, right: TrainResult) -> None:
    jax.tree.map(np.testing.assert_array_equal, left.policies, right.policies)
    timeless = [
        [dataclasses.replace(point, seconds=0) for point in each.curves] for each in (left, right)
    ]
    assert timeless[0] == timeless[1]


@both_ways
def test_the_best_validated_policies_are_given(learned, way: str) -> None:
    curve = [point.validation for point in learned[way].curves]
    assert rate(learned[way].params) == pytest.approx(max(curve), rel=1e-6)
    assert max(curve) > curve[0]


@both_ways
def test_updates_are_rounded_up_to_whole_validations(learned, way: str) -> None:
    points = learned[way].curves
    assert [point.update for point in points] == [0, 3, 6, 9]
    assert points[0].reward is None and np.isfinite(points[-1].reward)
    cycles_made = 9 * (64 if way == "exact" else 128)
    assert 2 * cycles_made <= points[-1].decisions <= 3 * cycles_made  # D = 3: 1 or 2, and a size
    assert (points[-1].value_loss is None) == (way == "exact")


@both_ways
def test_resumes_bit_for_bit(learned, way: str, tmp_path) -> None:
    class Killed(Exception):
        pass

    def kill(point, share) -> None:
        if point.update == 3:
            raise Killed

    run = lambda progress: learning.train(
        REPLAYS, CYCLE, POLICY, LEARNING[way], folder=tmp_path, progress=progress
    )
    with pytest.raises(Killed):
        run(kill)
    shares = []
    same(run(lambda point, share: shares.append(share)), learned[way])
    assert shares == [pytest.approx(2 / 3), 1]
    other = dataclasses.replace(LEARNING[way], seed=3)
    with pytest.raises(UserError, match=r"learning\.seed = 0, not 3"):
        learning.train(REPLAYS, CYCLE, POLICY, other, folder=tmp_path)


@both_ways
def test_one_program_trains_many_seeds(learned, way: str) -> None:
    method = METHODS[way]
    learn, check = (environment.observe_all(each, CYCLE, POLICY) for each in REPLAYS)
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    train = jax.vmap(functools.partial(loop.program, method), (0, None, None, None))
    state, metrics = train(keys, jnp.float32(RATE), learn, check)
    first = [point.validation for point in learned[way].curves[1:]]
    np.testing.assert_allclose(metrics.validation[0, 2::3], first, rtol=0.05)
    assert metrics.validation.shape == (2, 9) and np.isnan(metrics.validation[:, :2]).all()
    kernels = state.best.size.actor["params"]["Dense_0"]["kernel"]
    assert not np.allclose(kernels[0], kernels[1])
    best = max(float(learned[way].curves[0].validation), *first)
    assert float(state.best_validation[0]) == pytest.approx(best, rel=0.05)


@both_ways
def test_every_seed_finds_the_same_program(way: str) -> None:
    made = {"exact": exact.method, "joint": joint.method}[way]
    again = made(CYCLE, POLICY, dataclasses.replace(LEARNING[way], seed=5))
    assert again == METHODS[way] and hash(again) == hash(METHODS[way])


@both_ways
def test_the_program_takes_expected_tokens(way: str) -> None:
    sampled = [each.replace(expected=1.0 + each.accepted) for each in REPLAYS]
    learn, check = (environment.observe_all(each, CYCLE, POLICY) for each in sampled)
    program = functools.partial(loop.program, METHODS[way])
    state, _ = jax.eval_shape(program, jax.random.key(0), jnp.float32(RATE), learn, check)
    assert state.best_validation.dtype == jnp.float32


@both_ways
def test_policies_may_have_no_memory(way: str) -> None:
    seen = dataclasses.replace(POLICY.observation, recent=False)
    forgetful = dataclasses.replace(POLICY, observation=seen)
    short = dataclasses.replace(LEARNING[way], validate_every=1)
    short = dataclasses.replace(
        short,
        joint=dataclasses.replace(short.joint, total_steps=128),
        exact=dataclasses.replace(short.exact, updates=1),
    )
    made = {"exact": exact.method, "joint": joint.method}[way](CYCLE, forgetful, short)
    learn, check = (environment.observe_all(each, CYCLE, forgetful) for each in REPLAYS)
    program = functools.partial(loop.program, made)
    state, _ = jax.eval_shape(program, jax.random.key(0), jnp.float32(RATE), learn, check)
    assert state.starts.memory.size == 0
