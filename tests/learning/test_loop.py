"""The training loop: as one program, in chunks, resumed, seeds side by side, and what it keeps."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax import learning
from ltd_jax.files import UserError
from ltd_jax.learning import TrainResult, environment, loop
from ltd_jax.learning.exact import Exact
from ltd_jax.learning.joint import Joint
from ltd_jax.policies.networks import Learned
from ltd_jax.replay import optimum, simulate
from tests.learning import small
from tests.learning.small import EXACT, JOINT, POLICY
from tests.replay import synthetic

jax.config.update("jax_numpy_rank_promotion", "raise")
SPLITS = small.splits()
LEARNING = {"exact": EXACT, "joint": JOINT}
MAKE = {"exact": Exact.of, "joint": Joint.of}
ALGORITHMS = {name: MAKE[name](POLICY, LEARNING[name]) for name in LEARNING}
RATE = jnp.float32(optimum.best_constant(SPLITS.train).tokens_per_second)
both_ways = pytest.mark.parametrize("way", ["exact", "joint"])


@pytest.fixture(scope="module")
def trained() -> dict[str, TrainResult]:
    return {way: learning.train(SPLITS, POLICY, LEARNING[way]) for way in LEARNING}


def rate(policy: Learned) -> float:
    return float(simulate.throughput(simulate.run(SPLITS.validation, policy)))


def same(left: TrainResult, right: TrainResult) -> None:
    jax.tree.map(np.testing.assert_array_equal, left.policy, right.policy)
    timeless = [
        [dataclasses.replace(point, seconds=0) for point in each.curves] for each in (left, right)
    ]
    assert timeless[0] == timeless[1]


def observed(splits, policy=POLICY):
    return [environment.observe_all(each, policy.observation) for each in splits]


@both_ways
def test_the_best_validated_policies_are_given(trained, way: str) -> None:
    curve = [point.validation for point in trained[way].curves]
    assert rate(trained[way].policy) == pytest.approx(max(curve), rel=1e-6)
    assert max(curve) > curve[0]


@both_ways
def test_updates_are_rounded_up_to_whole_validations(trained, way: str) -> None:
    points = trained[way].curves
    assert [point.update for point in points] == [0, 3, 6, 9]
    assert points[0].reward is None and np.isfinite(points[-1].reward)
    cycles_made = 9 * (64 if way == "exact" else 128)
    assert 2 * cycles_made <= points[-1].decisions <= 3 * cycles_made  # D = 3: 1 or 2, and a size
    assert (points[-1].value_loss is None) == (way == "exact")


@both_ways
def test_resumes_bit_for_bit(trained, way: str, tmp_path) -> None:
    class Killed(Exception):
        pass

    def kill(point, share) -> None:
        if point.update == 3:
            raise Killed

    run = lambda progress: learning.train(
        SPLITS, POLICY, LEARNING[way], folder=tmp_path, progress=progress
    )
    with pytest.raises(Killed):
        run(kill)
    shares = []
    same(run(lambda point, share: shares.append(share)), trained[way])
    assert shares == [pytest.approx(2 / 3), 1]
    other = dataclasses.replace(LEARNING[way], seed=3)
    with pytest.raises(UserError, match=r"learning\.seed = 0, not 3"):
        learning.train(SPLITS, POLICY, other, folder=tmp_path)


@pytest.fixture
def half_the_time():
    """Compiles a test's own programs without most of the optimisations."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@both_ways
def test_one_program_trains_many_seeds(trained, half_the_time, way: str) -> None:
    data, validation = observed(SPLITS)
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    train = jax.vmap(functools.partial(loop.program, ALGORITHMS[way]), (0, None, None, None))
    state, metrics = train(keys, RATE, data, validation)
    first = [point.validation for point in trained[way].curves[1:]]
    np.testing.assert_allclose(metrics.validation[0, 2::3], first, rtol=0.05)
    assert metrics.validation.shape == (2, 9) and np.isnan(metrics.validation[:, :2]).all()
    kernels = state.best.size.actor["params"]["Dense_0"]["kernel"]
    assert not np.allclose(kernels[0], kernels[1])
    best = max(float(trained[way].curves[0].validation), *first)
    assert float(state.best_validation[0]) == pytest.approx(best, rel=0.05)


@both_ways
def test_every_seed_finds_the_same_program(way: str) -> None:
    again = MAKE[way](POLICY, dataclasses.replace(LEARNING[way], seed=5))
    assert again == ALGORITHMS[way] and hash(again) == hash(ALGORITHMS[way])
    learning.train(SPLITS, POLICY, dataclasses.replace(LEARNING[way], seed=5))
    before = loop.init._cache_size(), loop.advance._cache_size()
    learning.train(SPLITS, POLICY, dataclasses.replace(LEARNING[way], seed=6))
    assert (loop.init._cache_size(), loop.advance._cache_size()) == before


@both_ways
def test_the_program_takes_expected_tokens(way: str) -> None:
    sampled = [each.replace(expected=1.0 + each.accepted) for each in SPLITS]
    program = functools.partial(loop.program, ALGORITHMS[way])
    state, _ = jax.eval_shape(program, jax.random.key(0), RATE, *observed(sampled))
    assert state.best_validation.dtype == jnp.float32


@both_ways
def test_policies_may_have_no_history(way: str) -> None:
    seen = dataclasses.replace(POLICY.observation, acceptance_ema=False)
    forgetful = dataclasses.replace(POLICY, observation=seen)
    short = dataclasses.replace(LEARNING[way], validate_every=1)
    short = dataclasses.replace(
        short,
        joint=dataclasses.replace(short.joint, total_steps=128),
        exact=dataclasses.replace(short.exact, updates=1),
    )
    program = functools.partial(loop.program, MAKE[way](forgetful, short))
    state, _ = jax.eval_shape(program, jax.random.key(0), RATE, *observed(SPLITS, forgetful))
    assert state.environments.history.size == 0


def test_of_one_simulator_some_texts_are_set_aside(tmp_path, monkeypatch) -> None:
    trace = synthetic.trace(small.CYCLE, text_tokens=tuple(range(5, 25)))
    whole = simulate.build(trace, synthetic.table(small.CYCLE), small.CYCLE)
    first, other = learning.split(whole), learning.split(whole, seed=1)
    lengths = [each.tokens_left[each.text_start].tolist() for each in (*first, *other)]
    assert len(lengths[1]) == 3 and sorted(lengths[0] + lengths[1]) == list(range(5, 25))
    assert lengths[1] != lengths[3]
    claims = []

    def claim(folder, settings) -> None:
        claims.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "claim", claim)
    for data in (whole, first):
        with pytest.raises(KeyboardInterrupt):
            learning.train(data, POLICY, EXACT, folder=tmp_path)
    assert claims[0] == claims[1]
    with pytest.raises(UserError, match="leaves none to validate on"):
        learning.train(simulate.take_texts(whole, [0]), POLICY, EXACT)


@both_ways
def test_parameters_that_are_not_finite_are_never_the_best(trained, way: str) -> None:
    data, validation = observed(SPLITS)
    state = loop.init(ALGORITHMS[way], jax.random.key(0), RATE, data, validation)
    broken = state.replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, state.params))
    after, metrics = loop.advance(ALGORITHMS[way], broken, data, validation)
    assert np.isnan(metrics.validation[-1])
    assert after.best_validation == state.best_validation
    jax.tree.map(np.testing.assert_array_equal, after.best, state.best)


@pytest.mark.parametrize("number", [jnp.nan, jnp.inf])
def test_updates_that_are_not_finite_stop_the_training(tmp_path, monkeypatch, number) -> None:
    """The last checkpoint is from before them, and a training goes on from there."""
    advance = loop.advance

    def gone_wrong(algorithm, state, data, validation):
        if state.update == 3:
            bad = lambda leaf: leaf.at[(0,) * leaf.ndim].set(number)
            state = state.replace(params=jax.tree.map(bad, state.params))
        return advance(algorithm, state, data, validation)

    run = lambda progress: learning.train(SPLITS, POLICY, EXACT, folder=tmp_path, progress=progress)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "advance", gone_wrong)
        with pytest.raises(
            UserError, match="exact has gone wrong in one of the updates 4 to 6: .*nan"
        ):
            run(lambda point, share: None)
    updates = []
    run(lambda point, share: updates.append(point.update))
    assert updates == [6, 9]
