"""The cost-aware tree against its limits, and against a plain search over all choices."""

import dataclasses

import numpy as np
import pytest

from ltd_jax.baselines import cost_aware
from ltd_jax.baselines.cost_aware import CostAware, Costs
from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from tests.policies import views
from tests.replay import synthetic

CYCLE = CycleConfig(beam_width=3, max_levels=4, sizes=(0, 1, 2, 4, 6), context=64)
VERIFY = np.asarray([1.0, 1.2, 1.3, 1.6, 2.0])
DRAFT = np.asarray([0.1, 0.2, 0.3, 0.4])
TREE = views.tree(np.zeros((4, 3, 3)), 4)


def priced(throughput, ratio=0.6, power=(1, 1, 1, 1), verify=VERIFY, draft=DRAFT):
    """The tree where a plain step takes a second."""
    costs = Costs(draft_seconds=draft, verify_seconds=verify, plain_seconds=1.0)
    power_D = np.asarray(power, np.float32)
    policy = CostAware(costs=costs, power=power_D, speedup=float(throughput), ratio=ratio)
    return views.Asked(policy, CYCLE)


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


def decided(policy, score_DWW, history=None, length=8):
    """Levels, size and history after the drafting of a cycle."""
    history = policy.init_history() if history is None else history
    for levels in range(1, CYCLE.max_levels + 1):
        view = views.level(score_DWW[levels - 1], levels, length=length)
        history = policy.observe_level(history, view)
        if not policy.keep_drafting(history, view):
            break
    return levels, policy.choose_size(history, TREE), history


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
    values, gains = [], [-throughput * VERIFY[0]]
    for levels in range(1, 5):
        value_V = [
            expected_by_hand(score_DWW, levels, size, power) - throughput * seconds
            for size, seconds in zip(CYCLE.sizes, VERIFY, strict=True)
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
    levels, size, _ = decided(priced(throughput, power=power), score_DWW)
    assert (levels, size) == (stop, CYCLE.sizes[int(np.argmax(values[stop - 1]))])


def test_time_that_is_worth_nothing_takes_everything():
    levels, size, _ = decided(priced(0.0, ratio=1.0), levels_of(1))
    assert (levels, size) == (CYCLE.max_levels, CYCLE.sizes[-1])


def test_time_that_is_worth_everything_takes_nothing():
    assert decided(priced(1e6), levels_of(1))[:2] == (1, 0)


def test_nodes_that_cost_nothing_are_all_verified():
    flat = np.ones_like(VERIFY)
    assert decided(priced(1.0, verify=flat), levels_of(2))[1] == CYCLE.sizes[-1]


@pytest.mark.parametrize("seed", range(3))
def test_only_tokens_per_second_times_seconds_counts(seed):
    one = decided(priced(1.4), levels_of(seed))[:2]
    two = decided(priced(0.7, verify=2 * VERIFY, draft=2 * DRAFT), levels_of(seed))[:2]
    assert one == two


def test_the_first_cycle_forgets_the_tree_of_the_last_one():
    policy, score_DWW = priced(0.0, ratio=1.0), levels_of(3)
    _, _, history = decided(policy, levels_of(5))
    again = decided(policy, score_DWW, history)[2]
    best = np.sort(score_DWW[score_DWW > -np.inf])[::-1][:6]
    np.testing.assert_allclose(again.log_prob, best, rtol=1e-6)


def test_costs_are_the_tables_mean_over_its_contexts():
    table = synthetic.table(CYCLE)
    costs = cost_aware.costs_of(table)
    total_DV = costs.draft_seconds[:, None] + costs.verify_seconds
    np.testing.assert_allclose(total_DV, table.cycle_seconds.mean(axis=0), rtol=1e-12)
    assert costs.plain_seconds == table.plain_seconds.mean() and costs.draft_seconds[0] == 0
    one = dataclasses.replace(
        table,
        **{
            name: getattr(table, name)[:1]
            for name in (
                "contexts",
                "cycle_seconds",
                "draft_seconds",
                "verify_seconds",
                "plain_seconds",
            )
        },
    )
    np.testing.assert_array_equal(cost_aware.costs_of(one).verify_seconds, one.cycle_seconds[0, 0])


def test_costs_and_calibrations_of_another_cycle_are_refused():
    policy = priced(1.0).policy
    other = dataclasses.replace(CYCLE, sizes=(0, 1, 2))
    with pytest.raises(UserError, match="costs are of 4 levels and 5 sizes, .* has 4 and 3"):
        policy.check(other)
    with pytest.raises(UserError, match="calibration is of 3 levels, but this cycle has 4"):
        policy.replace(power=np.ones(3)).check(CYCLE)
    with pytest.raises(UserError, match="speedup is -1 but must be a number of at least 0"):
        policy.replace(speedup=-1.0).check(CYCLE)
