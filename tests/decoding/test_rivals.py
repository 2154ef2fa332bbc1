"""The compared methods by name: what is compiled for them, and which sentence wrong use gets."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax import presets
from ltd_jax.baselines import classifiers, cost_aware, rules
from ltd_jax.baselines.classifiers import Parts
from ltd_jax.decoding import methods
from ltd_jax.decoding.methods import Files
from ltd_jax.files import ASSETS, UserError, device_name
from ltd_jax.replay import latency
from tests.cycle import tiny
from tests.replay import synthetic

EMBEDDED, OTHER = ASSETS / "target", Path("some/target")
CYCLE = tiny.CONFIG.cycle


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A disco classifier of the tiny pair and a latency table."""
    folder = tmp_path_factory.mktemp("files")
    features = jnp.zeros(classifiers.feature_width("disco", CYCLE, 0))
    head = classifiers.head_network("disco", 4).init(jax.random.key(0), features)
    parts = Parts({"disco": head}, {"disco": 4}, np.full(CYCLE.max_levels, 1.5, np.float32))
    origin = {"fingerprint": tiny.pair(0).fingerprint}
    classifiers.save_heads(folder / "heads", parts, CYCLE, tiny.CONFIG.draft.hidden_size, origin)
    latency.save(table_of(), folder / "latency.json")
    return Files(folder / "heads", folder / "latency.json")


def table_of(**origin):
    """A table as if measured here with the tiny pair, but for some of its origin."""
    own = {"fingerprint": "unsaved", "device": device_name(), "dtype": "float32"}
    return dataclasses.replace(synthetic.table(CYCLE), provenance=own | origin)


def only(files, name):
    """One of the files, for methods that read no other."""
    return Files(**{name: getattr(files, name)})


def asked(name, target=OTHER, files=None):
    return methods.parse_method(name, target, None, files or Files())


def test_only_what_a_method_can_choose_is_compiled(files):
    sizes = lambda *given: methods.cycle_for(asked(*given), given[1], None).sizes
    assert sizes("ddd", EMBEDDED) == (0, presets.EAGLE3_SIZE)
    assert sizes("svip", OTHER) == (0, 60)
    assert sizes("svip:size=7", OTHER) == (0, 7)
    assert sizes("tiers:levels=1/3,sizes=2/9,start=1", OTHER) == (0, 2, 9)
    assert sizes("cost-aware", OTHER, files) == CYCLE.sizes
    disco = asked("disco:size=6", OTHER, only(files, "classifiers"))
    expected = dataclasses.replace(CYCLE, sizes=(0, 6), context=80)
    assert methods.cycle_for(disco, OTHER, 80) == expected


def test_levels_of_the_paper_are_scaled():
    paper = asked("gammatune", OTHER).rival.setting
    assert [paper[key] for key in ("start", "least", "most", "step")] == [(8,), (4,), (12,), (2,)]
    assert asked("ddd", OTHER).rival.setting["checks"] == (5, 7, 9)
    own = asked("ddd", EMBEDDED).rival.setting
    assert own["checks"] == (3, 4, 5) and own["most"] == (6,)


def test_methods_are_made_for_the_pair(files):
    pair = tiny.pair(0)
    ddd = asked("ddd:threshold=-0.7,size=6,most=5", OTHER)
    made = methods.build_method(ddd, pair)
    assert made.controller is rules.mass_rule()
    assert float(made.params.threshold) == pytest.approx(-0.7)
    costs = methods.build_method(asked("cost-aware:speedup=2", OTHER, only(files, "latency")), pair)
    assert costs.controller is cost_aware.cost_rule(CYCLE)
    table = synthetic.table(CYCLE)
    expected = 2 / table.plain_seconds.mean()
    assert float(costs.params.throughput) == pytest.approx(expected, rel=1e-6)
    total = costs.params.draft_seconds[:, :, None] + costs.params.verify_seconds[:, None]
    np.testing.assert_allclose(total, table.cycle_seconds, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("best", r"no controller 'best'; choose autoregressive, .* ddd, svip, gammatune"),
        ("ddd:depth=3", "ddd has no setting 'depth'; it has threshold, "),
        ("ddd:threshold", "'threshold' is not key=number"),
        ("ddd:threshold=-1,threshold=-2", "says threshold twice"),
        ("svip:size=inf", "svip"),
        ("ddd:threshold=low", "'threshold=low' is not key=number"),
        ("svip:threshold=1/2", "svip: threshold takes one number, not 2"),
        ("svip:size=9999", "svip:size=9999: size 9999 is larger"),
        ("disco", "disco needs its trained classifier; name its folder by --classifiers"),
        ("specdec++", "specdec.. needs its trained classifier"),
        ("cost-aware", "cost-aware needs this device's latencies; name --latency"),
    ],
)
def test_wrong_names_and_numbers(name, words):
    with pytest.raises(UserError, match=words):
        asked(name)


def test_classifiers_of_another_pair_are_refused(files):
    disco = asked("disco", OTHER, only(files, "classifiers"))
    other = dataclasses.replace(tiny.pair(0), fingerprint="other")
    with pytest.raises(UserError, match="trained for pair unsaved, not other"):
        methods.build_method(disco, other)
    with pytest.raises(UserError, match="c2t needs its trained classifier"):
        asked("c2t", OTHER, only(files, "classifiers"))


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ({"device": "abacus"}, "is of abacus, not .*--allow-other-hardware"),
        ({"fingerprint": "other"}, "measured with pair other, not unsaved"),
        ({"dtype": "bfloat16"}, "in bfloat16, not .* in float32"),
    ],
)
def test_latency_tables_of_other_pairs_and_devices_are_refused(origin, words, tmp_path):
    path = tmp_path / "table.json"
    latency.save(table_of(**origin), path)
    costs = asked("cost-aware", OTHER, Files(latency=path))
    with pytest.raises(UserError, match=words):
        methods.build_method(costs, tiny.pair(0))
    if "device" in origin:
        with pytest.warns(UserWarning, match="is of abacus, not .*may be slow here"):
            methods.build_method(costs, tiny.pair(0), True)


def test_a_published_table_is_fitted():
    table = "h100-llama-3.1-8b-modelled"
    found = asked("cost-aware", EMBEDDED, Files(latency=Path(table))).rival
    assert found.cycle == presets.EMBEDDED_CYCLE and found.table.sizes == found.cycle.sizes


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("svip:most=2.5", "svip: most is 2.5 but must be a whole number of at least 1 and at most"),
        ("svip:scale=-1", "svip: scale is -1 but must be a number of at least 0"),
        ("tiers:every=0", "tiers: every is 0 but must be a whole number of at least 1"),
        ("tiers:levels=1/3/99", "tiers: levels is 99 but must be .* at most 12"),
        ("c2t-as-run:levels=inf", "c2t-as-run: levels is inf but must be a whole number"),
        ("tiers:every=inf", "tiers: every is inf but must be a whole number of at least 1"),
        ("ddd:checks=0", "ddd: checks is 0 but must be a whole number of at least 1"),
        ("gammatune:share=1.5", "gammatune: share is 1.5 but must be a number .* at most 1"),
    ],
)
def test_numbers_that_mean_nothing(name, words):
    with pytest.raises(UserError, match=words):
        asked(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tiers:start=3", "tiers: start is 3 but the tiers are numbered 0 to 2"),
        ("gammatune:start=0", "gammatune: start is 0 but must be at least 1"),
    ],
)
def test_a_start_that_is_none(name, words):
    rival = asked(name).rival
    with pytest.raises(UserError, match=words):
        methods.baseline_method(name, rival, dataclasses.replace(tiny.pair(0), config=of(rival)))


def of(rival):
    return dataclasses.replace(tiny.CONFIG, cycle=rival.cycle)


def test_the_drafts_calibration_is_read(files):
    pair = tiny.pair(0)
    costs = methods.build_method(asked("cost-aware", OTHER, files), pair)
    assert float(costs.params.power[0]) == 1.5


def test_tiers_need_a_size_for_every_level():
    tiers = asked("tiers:levels=1/3,sizes=2/6/9", OTHER)
    with pytest.raises(UserError, match="levels must rise and have one size each"):
        methods.baseline_method("tiers", tiers.rival, tiny.pair(0))
