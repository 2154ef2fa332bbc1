"""The compared methods by name: their published settings, grids, and what wrong numbers get."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.studies import tuning
from ltd_jax import presets
from ltd_jax.baselines import catalogue, classifiers
from ltd_jax.baselines.catalogue import Needs
from ltd_jax.baselines.cost_aware import Costs
from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.policies.policy import Constant

CYCLES = (
    presets.PAPER_CYCLE,
    presets.EMBEDDED_CYCLE,
    CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 2, 4, 8), context=64),
    CycleConfig(beam_width=2, max_levels=1, sizes=(0,), context=64),
)
HIDDEN = 5


def needs(cycle: CycleConfig) -> Needs:
    """Random classifiers and costs."""
    drawn = classifiers.init(jax.random.key(0), cycle, HIDDEN, 4, {})
    power_D = np.full(cycle.max_levels, 1.5, np.float32)
    costs = Costs(
        draft_seconds=np.arange(cycle.max_levels),
        verify_seconds=1 + np.arange(len(cycle.sizes)),
        plain_seconds=1.0,
    )
    return Needs(dataclasses.replace(drawn, power=power_D), costs)


def parsed(name: str, cycle: CycleConfig = presets.PAPER_CYCLE):
    return catalogue.parse(name, catalogue.find(name.partition(":")[0]), cycle, needs(cycle))


@pytest.mark.parametrize("cycle", CYCLES, ids=["paper", "embedded", "small", "least"])
@pytest.mark.parametrize("name", catalogue.NAMES)
def test_published_and_tuned_settings_are_possible_and_share_a_program(name, cycle):
    baseline = catalogue.find(name)
    published = baseline.published(cycle, needs(cycle))
    grid = tuning.list_settings(name, published, cycle)
    assert len(grid) == (0 if name == "c2t-as-run" else 25)
    shapes = set()
    for policy in (published, *grid):
        assert catalogue.settings(policy).keys() == catalogue.settings(published).keys()
        policy.check(cycle)
        leaves, structure = jax.tree.flatten(policy.traced())
        shapes.add((structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)))
    assert len(shapes) == 1


def test_levels_of_the_paper_are_scaled():
    paper = parsed("gammatune")
    assert (paper.start, paper.least_levels, paper.most_levels, paper.step) == (8, 4, 12, 2)
    assert parsed("ddd").checks == (5, 7, 9)
    embedded = parsed("ddd", presets.EMBEDDED_CYCLE)
    assert (embedded.checks, embedded.most_levels) == ((3, 4, 5), 6)
    assert parsed("c2t-as-run", presets.EMBEDDED_CYCLE) == Constant(levels=5, size=16)


def test_numbers_replace_published_ones():
    ddd = parsed("ddd:threshold=-0.6,size=20,checks=2/4")
    assert (ddd.threshold, ddd.size, ddd.checks, ddd.most_levels) == (-0.6, 20, (2, 4), 12)
    tiers = parsed("tiers:levels=1/2/4/6,sizes=20/20/40/60")
    assert (tiers.levels, tiers.sizes) == ((1, 2, 4, 6), (20, 20, 40, 60))
    assert parsed("gammatune+").confidence == 0.4
    assert parsed("specdec++:any_row=1").any_row is True
    costs = parsed("cost-aware:speedup=2")
    assert catalogue.settings(costs) == {"speedup": 2.0, "ratio": 0.6}
    assert costs.power[0] == 1.5


def test_settings_are_json_numbers_by_name():
    assert catalogue.settings(parsed("svip")) == {
        "most_levels": 12,
        "size": 60,
        "threshold": 0.3,
        "scale": 0.15,
    }
    assert set(catalogue.settings(parsed("disco"))) == {"most_levels", "size", "threshold"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ddd:depth=3", "ddd has no setting 'depth'; it has most_levels, size, threshold, checks"),
        ("disco:network=3", "disco has no setting 'network'"),
        ("ddd:threshold", "'threshold' is not key=number"),
        ("ddd:threshold=-1,threshold=-2", "says threshold twice"),
        ("ddd:threshold=low", "'threshold=low' is not key=number"),
        ("svip:threshold=1/2", "svip: threshold takes one number, not 2"),
        ("svip:most_levels=2.5", "svip: most_levels is 2.5 but must be a whole number"),
        ("svip:size=inf", "svip: size is inf but must be a whole number"),
        ("c2t-as-run:levels=inf", "c2t-as-run: levels is inf but must be a whole number"),
        ("tiers:every=nan", "tiers: every is nan but must be a whole number"),
        ("specdec++:any_row=2", "any_row is 2 but must be 0 or 1"),
    ],
)
def test_numbers_that_no_setting_has(name, words):
    with pytest.raises(UserError, match=words):
        parsed(name)


def test_what_is_needed_must_be_there():
    cycle, everything = presets.PAPER_CYCLE, needs(presets.PAPER_CYCLE)
    served = [each.name for each in catalogue.BASELINES if each.lacks(Needs()) is None]
    assert set(catalogue.NAMES) - set(served) == {"disco", "specdec++", "c2t", "cost-aware"}
    assert all(each.lacks(everything) is None for each in catalogue.BASELINES)
    with pytest.raises(UserError, match="method c2t needs its trained classifier; give the file"):
        catalogue.find("c2t").published(cycle, Needs(costs=everything.costs))
    with pytest.raises(
        UserError, match="cost-aware needs this device's latencies; give .*`latency"
    ):
        catalogue.find("cost-aware").published(cycle, Needs(everything.classifiers))
    assert catalogue.find("best") is None
