"""The cost-aware tree against its limits, and against a plain search over all choices."""

import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.baselines import cost_aware
from ltd_jax.baselines.cost_aware import CostParams
from ltd_jax.config import CycleConfig
from tests.policies import views

CYCLE = CycleConfig(beam_width=3, max_levels=4, sizes=(0, 1, 2, 4, 6), context=64)
RULE = views.compiled(cost_aware.cost_rule(CYCLE))
VERIFY = np.asarray([[1.0, 1.2, 1.3, 1.6, 2.0]])
DRAFT = np.asarray([[0.1, 0.2, 0.3, 0.4]])


def params(throughput, ratio=0.6, power=(1, 1, 1, 1), verify=VERIFY, draft=DRAFT, contexts=(8,)):
    return CostParams(
        throughput=jnp.float32(throughput),
        ratio=jnp.float32(ratio),
        power=jnp.asarray(power, jnp.float32),
        contexts=jnp.asarray(contexts, jnp.float32),
        draft_seconds=jnp.asarray(draft, jnp.float32),
        verify_seconds=jnp.asarray(verify, jnp.float32),
    )


def levels_of(seed):
    """Scores of four levels as a draft grows them."""
    random = np.random.default_rng(seed)
    frontier, rows = np.zeros(1), []
    for _ in range(CYCLE.max_levels):
        score = np.full((3, 3), -np.inf)
        score[: len(frontier)] = frontier[:, None] - random.exponential(0.7, (len(frontier), 3))
        frontier = -np.sort(-score.reshape(-1))[:3]
        rows.append(score)
    return np.stack(rows)


def decided(chosen, score_DWW, state=None, length=8):
    """Levels, size and state after the drafting of a cycle."""
    state = RULE.init() if state is None else state
    for levels in range(1, CYCLE.max_levels + 1):
        view = views.level(score_DWW[levels - 1], levels, length=length)
        state = RULE.notice(chosen, state, view)
        if not bool(RULE.keep_drafting(chosen, state, view)):
            break
    return levels, CYCLE.sizes[int(RULE.choose_size(chosen, state, None))], state


def expected_by_hand(score_DWW, levels, size, power=(1, 1, 1, 1)):
    """The sum of the calibrated probabilities of the `size` best nodes."""
    rows = [
        (-score, place, np.exp(power[level] * score))
        for level in range(levels)
        for place, score in enumerate(score_DWW[level].reshape(-1), 9 * level)
    ]
    return sum(chance for *_, chance in sorted(rows)[:size])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("throughput", [0.5, 1.5, 3.0])
def test_it_stops_and_chooses_as_the_plain_search_says(seed, throughput):
    score_DWW, power = levels_of(seed), (0.9, 1.0, 1.2, 1.5)
    values, gains = [], [-throughput * VERIFY[0, 0]]
    for levels in range(1, 5):
        value_V = [
            expected_by_hand(score_DWW, levels, size, power) - throughput * seconds
            for size, seconds in zip(CYCLE.sizes, VERIFY[0], strict=True)
        ]
        values.append(value_V)
        gains.append(max(value_V))
    ratios, stop = [], 4
    for levels in range(1, 4):
        step = gains[levels] - gains[levels - 1]
        if levels > 1:
            before = gains[levels - 1] - gains[levels - 2]
            if before > 0:
                ratios.append(np.clip(step / max(before, 1e-6), 0, 1))
        ratio = (sum(ratios) + (cost_aware.MEMORY - len(ratios)) * 0.6) / cost_aware.MEMORY
        if not ratio * step > throughput * 0.1:
            stop = levels
            break
    levels, size, _ = decided(params(throughput, power=power), score_DWW)
    assert (levels, size) == (stop, CYCLE.sizes[int(np.argmax(values[stop - 1]))])


def test_time_that_is_worth_nothing_takes_everything():
    levels, size, _ = decided(params(0.0, ratio=1.0), levels_of(1))
    assert (levels, size) == (CYCLE.max_levels, CYCLE.sizes[-1])


def test_time_that_is_worth_everything_takes_nothing():
    assert decided(params(1e6), levels_of(1))[:2] == (1, 0)


def test_nodes_that_cost_nothing_are_all_verified():
    flat = np.ones_like(VERIFY)
    assert decided(params(1.0, verify=flat), levels_of(2))[1] == CYCLE.sizes[-1]


@pytest.mark.parametrize("seed", range(3))
def test_only_tokens_per_second_times_seconds_counts(seed):
    one = decided(params(1.4), levels_of(seed))[:2]
    two = decided(params(0.7, verify=2 * VERIFY, draft=2 * DRAFT), levels_of(seed))[:2]
    assert one == two


def test_the_first_cycle_forgets_the_tree_of_the_last_one():
    chosen, score_DWW = params(0.0, ratio=1.0), levels_of(3)
    _, _, state = decided(chosen, levels_of(5))
    again = decided(chosen, score_DWW, state)[2]
    best = np.sort(score_DWW[score_DWW > -np.inf])[::-1][:6]
    np.testing.assert_allclose(again.score, best, rtol=1e-6)


def test_seconds_lie_between_the_measured_contexts():
    verify = np.concatenate([VERIFY, 3 * VERIFY])
    chosen = params(1.0, verify=verify, draft=np.tile(DRAFT, (2, 1)), contexts=(10, 30))
    for length, factor in ((5, 1.0), (20, 2.0), (30, 3.0), (99, 3.0)):
        found = cost_aware._at(chosen, chosen.verify_seconds, jnp.int32(length))
        np.testing.assert_allclose(found, factor * VERIFY[0], rtol=1e-6)
