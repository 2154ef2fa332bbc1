"""Methods by name: what is compiled for them, what they are set to, and what wrong names get."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from ltd_jax import files, presets
from ltd_jax.baselines import classifiers, published
from ltd_jax.baselines.cost_aware import CostAware
from ltd_jax.baselines.rules import DDD
from ltd_jax.config import PolicyConfig
from ltd_jax.decoding import benchmark, methods
from ltd_jax.files import UserError
from ltd_jax.policies import networks, saved
from ltd_jax.policies.policy import Constant
from ltd_jax.replay import latency
from tests.cycle import tiny
from tests.replay import synthetic

PAPER, EMBEDDED = presets.PAPER_CYCLE, presets.EMBEDDED_CYCLE
WIDTHS = PolicyConfig((8,), (8,), (8,), (8,))
CYCLE = tiny.CONFIG.cycle
GOLDEN = Path(__file__).parents[1] / "baselines" / "golden"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A policy, a disco classifier and a latency table of the tiny pair."""
    folder = tmp_path_factory.mktemp("files")
    origin = {"fingerprint": "unsaved", "latency": "t", "device": files.device_name()}
    policy = networks.init(jax.random.key(0), CYCLE, WIDTHS)
    saved.save(policy, folder / "policy.safetensors", CYCLE, origin)
    drawn = classifiers.init(
        jax.random.key(0), CYCLE, tiny.CONFIG.draft.hidden_size, 4, {"fingerprint": "unsaved"}
    )
    power_D = np.full(CYCLE.max_levels, 1.5, np.float32)
    trained = dataclasses.replace(drawn, networks={"disco": drawn.networks["disco"]}, power=power_D)
    classifiers.save(trained, folder / "classifiers.safetensors")
    latency.save(table_of(), folder / "latency.json")
    return folder


@pytest.fixture
def policy(folder):
    return {"policy": folder / "policy.safetensors"}


@pytest.fixture
def trained(folder):
    return {"classifiers": folder / "classifiers.safetensors"}


@pytest.fixture
def measured(folder):
    return {"latency": folder / "latency.json"}


def table_of(**origin):
    """A table as if measured here with the tiny pair, but for some of its origin."""
    here = {"fingerprint": "unsaved", "device": files.device_name(), "dtype": "float32"}
    return dataclasses.replace(synthetic.table(CYCLE), provenance=here | origin)


def parse(name, base=PAPER, **given):
    return methods.parse_method(name, base, **given)


def build(spec, pair=None, **flags):
    return methods.build_method(spec, pair or pair_with(spec.cycle), **flags)


def pair_with(cycle):
    """The tiny pair with another cycle."""
    pair = tiny.pair(0)
    config = dataclasses.replace(pair.config, cycle=cycle)
    return dataclasses.replace(pair, model=pair.model.replace(config=config))


def test_only_what_can_be_chosen_is_compiled():
    expected = dataclasses.replace(PAPER, max_levels=6, sizes=(0, 24))
    assert parse("constant:levels=6,size=24").cycle == expected
    assert parse("constant:levels=3,size=0").cycle.sizes == (0,)
    assert parse("autoregressive").cycle.max_levels == 1
    assert parse("eagle3").cycle == dataclasses.replace(PAPER, max_levels=8, sizes=(0, 60))
    small = dataclasses.replace(EMBEDDED, max_levels=5, sizes=(0, 16), context=99)
    assert parse("eagle3", EMBEDDED, context=99).cycle == small
    assert parse("c2t-as-run", EMBEDDED, context=99).cycle == small


def test_only_what_a_compared_method_can_choose_is_compiled(trained, measured):
    sizes = lambda *args, **given: parse(*args, **given).cycle.sizes
    assert sizes("ddd", EMBEDDED) == (0, 16)
    assert sizes("svip") == (0, 60)
    assert sizes("svip:size=7") == (0, 7)
    assert sizes("tiers:levels=1/3,sizes=2/9,start=1") == (0, 2, 9)
    assert sizes("cost-aware", **trained, **measured) == CYCLE.sizes
    expected = dataclasses.replace(CYCLE, sizes=(0, 6), context=80)
    assert parse("disco:size=6", context=80, **trained).cycle == expected


def test_constants_are_set():
    method = build(parse("constant:levels=3,size=12"), tiny.pair(0))
    assert (method.name, method.policy) == ("constant:levels=3,size=12", Constant(3, 12))
    assert build(parse("eagle3")).policy == Constant(8, 60)


@pytest.mark.parametrize("name", ["plain", "autoregressive"])
def test_plain_decoding_has_no_policy(name):
    assert build(parse(name), tiny.pair(0)) == benchmark.Method(benchmark.PLAIN)


def test_a_constant_that_the_pairs_cycle_lacks_is_refused():
    with pytest.raises(UserError, match="size 5 is not one of the compiled sizes"):
        build(parse("constant:levels=3,size=5"), tiny.pair(0))


def test_policies_bring_their_cycle(policy):
    spec = parse("ltd", **policy)
    assert spec.cycle == CYCLE
    assert parse("ltd", context=CYCLE.context, **policy).cycle == CYCLE
    with pytest.raises(UserError, match=f"share of {CYCLE.context}; leave out `context`"):
        parse("ltd", context=1000, **policy)
    assert build(spec).policy.widths == WIDTHS
    with pytest.raises(UserError, match="trained for pair unsaved, not other"):
        build(spec, dataclasses.replace(tiny.pair(0), fingerprint="other"))


def test_published_policies_bring_their_cycle():
    size, depth = f"size={GOLDEN / 'size.zip'}", f"depth={GOLDEN / 'depth.zip'}"
    both = parse(f"sb3:{size},{depth}")
    assert both.policy.constant_length
    cycle = both.cycle
    assert (cycle.beam_width, cycle.max_levels, cycle.sizes) == (10, 13, published.SIZES)
    assert cycle.context == PAPER.context
    assert parse(f"sb3:{size}", EMBEDDED, context=99).cycle.max_levels == 9
    assert parse(f"sb3:{size}", EMBEDDED, context=99).cycle.context == 99
    trained = parse(f"sb3:{depth},length=true")
    assert not trained.policy.constant_length
    assert trained.cycle.sizes == (59,)
    assert build(both).policy is both.policy


def test_compared_methods_are_made_for_the_pair(measured):
    ddd = build(parse("ddd:threshold=-0.7,size=12,most_levels=5,checks=3/5"), tiny.pair(0)).policy
    assert isinstance(ddd, DDD) and (ddd.threshold, ddd.most_levels) == (-0.7, 5)
    costs = build(parse("cost-aware:speedup=2", **measured), tiny.pair(0)).policy
    assert isinstance(costs, CostAware)
    table = synthetic.table(CYCLE)
    assert float(costs.throughput) == pytest.approx(2 / table.plain_seconds.mean(), rel=1e-6)
    total_DV = costs.costs.draft_seconds[:, None] + costs.costs.verify_seconds
    np.testing.assert_allclose(total_DV, table.cycle_seconds.mean(axis=0), rtol=1e-5)


def test_the_drafts_calibration_is_read(trained, measured):
    costs = build(parse("cost-aware", **trained, **measured), tiny.pair(0))
    assert float(costs.policy.power[0]) == 1.5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sb3:", "write sb3:size=FILE"),
        ("sb3:length=true", "write sb3:size=FILE"),
        ("sb3:size=a,size=b", "write sb3:size=FILE"),
        ("sb3:size=a,length=long", "write sb3:size=FILE"),
        ("sb3:size=missing.zip", "missing.zip cannot be read as a policy"),
        ("best", r"no method 'best'; choose plain, constant.* ddd, svip, gammatune"),
        ("ldt", "no method 'ldt'; did you mean ltd"),
        ("eagle3:size=4", "eagle3 has no settings"),
        ("sb3", "write sb3:size=FILE,depth=FILE"),
        ("constant", "called levels .* and size"),
        ("constant:levels=0,size=3", "levels .at least 1."),
        ("constant:level=2,size=3", "called levels"),
        ("constant:levels=1,levels=2,size=3", "called levels"),
        ("constant:levels=1,size=-3", "size .at least 0."),
        ("constant:levels=1,size=500", "constant:levels=1,size=500: size 500 is larger"),
        ("ltd", "ltd needs trained policies; give their file as `policy`"),
        ("ddd:depth=3", "ddd has no setting 'depth'; it has most_levels, "),
        ("svip:size=9999", "svip:size=9999: size 9999 is larger"),
        ("svip:size=inf", "svip"),
        ("disco", "disco needs its trained classifier; give the file with it as `classifiers`"),
        ("specdec++", "specdec.. needs its trained classifier"),
        ("cost-aware", "cost-aware needs this device's latencies; give their file as `latency`"),
    ],
)
def test_wrong_names_and_numbers(name, words):
    with pytest.raises(UserError, match=words):
        parse(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("svip:scale=-1", "svip: scale is -1 but must be a number of at least 0"),
        ("svip:most_levels=13", "svip: most_levels is 13 but must be .* at least 1 and at most 12"),
        ("tiers:every=0", "tiers: every is 0 but must be a whole number of at least 1"),
        ("tiers:levels=1/3/99", "tiers: levels is 99 but must be .* at most 12"),
        ("tiers:every=inf", "tiers: every is inf but must be a whole number"),
        ("ddd:checks=0", "ddd: checks is 0 but must be a whole number of at least 1"),
        ("gammatune:share=1.5", "gammatune: share is 1.5 but must be a number .* at most 1"),
        ("tiers:start=3", "tiers: start is 3 but the tiers are numbered 0 to 2"),
        ("gammatune:start=0", "gammatune: start is 0 but must be a whole number of at least 1"),
        ("tiers:levels=1/3,sizes=2/6/9", "tiers: levels must rise and have one size each"),
    ],
)
def test_settings_that_mean_nothing(name, words):
    with pytest.raises(UserError, match=words):
        parse(name)


@pytest.mark.parametrize("name", ["eagle3", "constant:levels=2,size=3", "sb3:size=a", "svip"])
def test_files_that_a_method_does_not_read(name, policy, trained, measured):
    word = name.partition(":")[0]
    with pytest.raises(UserError, match=f"method {word} does not read `policy`; leave it"):
        parse(name, **policy)
    with pytest.raises(UserError, match=f"method {word} does not read `latency`"):
        parse(name, **measured)
    if word != "svip":  # what is trained there says for which cycle
        with pytest.raises(UserError, match=f"method {word} does not read `classifiers`"):
            parse(name, **trained)


def test_a_context_that_no_tree_fits_in():
    with pytest.raises(UserError, match="ddd: max_levels 6 must be less than the context of 6"):
        parse("ddd", EMBEDDED, context=6)


def test_classifiers_of_another_pair_are_refused(trained):
    disco = parse("disco", **trained)
    other = dataclasses.replace(pair_with(disco.cycle), fingerprint="other")
    with pytest.raises(UserError, match="trained for pair unsaved, not other"):
        build(disco, other)
    with pytest.raises(UserError, match="c2t needs its trained classifier"):
        parse("c2t", **trained)


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ({"device": "abacus"}, "is of abacus, not .*`allow_other_hardware`"),
        ({"fingerprint": "other"}, "is of pair other, not unsaved"),
        ({"dtype": "bfloat16"}, "in bfloat16, not .* in float32"),
    ],
)
def test_latency_tables_of_other_pairs_and_devices_are_refused(origin, words, tmp_path):
    path = tmp_path / "table.json"
    latency.save(table_of(**origin), path)
    costs = parse("cost-aware", latency=path)
    with pytest.raises(UserError, match=words):
        build(costs, tiny.pair(0))
    if "device" in origin:
        with pytest.warns(UserWarning, match="is of abacus, not .*may be slow here"):
            build(costs, tiny.pair(0), other_hardware=True)


def test_a_shipped_table_is_fitted():
    spec = parse("cost-aware", EMBEDDED, latency="h100-llama-3.1-8b-modelled")
    assert spec.cycle == EMBEDDED
    assert len(spec.policy.costs.verify_seconds) == len(EMBEDDED.sizes)
