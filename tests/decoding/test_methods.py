"""Methods by name: what is compiled, and which sentence wrong names get."""

import dataclasses
from pathlib import Path

import jax
import pytest

from ltd_jax import files, presets
from ltd_jax.baselines import published
from ltd_jax.config import PolicyConfig
from ltd_jax.decoding import methods
from ltd_jax.decoding.methods import Files
from ltd_jax.files import ASSETS, UserError
from ltd_jax.policies import networks, saved
from tests.cycle import tiny

EMBEDDED, OTHER = ASSETS / "target", Path("some/target")
WIDTHS = PolicyConfig((8,), (8,), (8,), (8,))
CYCLE = tiny.CONFIG.cycle


@pytest.fixture
def policies(tmp_path):
    origin = {"fingerprint": "unsaved", "latency": "t", "device": files.device_name()}
    params = networks.init_learned(jax.random.key(0), CYCLE, WIDTHS)
    saved.save(tmp_path, params, CYCLE, WIDTHS, origin)
    return tmp_path


def cycle_of(name, target=OTHER, context=None):
    return methods.cycle_for(methods.parse_method(name, target, None), target, context)


def test_only_what_can_be_chosen_is_compiled():
    paper = presets.PAPER_CYCLE
    expected = dataclasses.replace(paper, max_levels=6, sizes=(0, 24))
    assert cycle_of("constant:levels=6,size=24") == expected
    assert cycle_of("constant:levels=3,size=0").sizes == (0,)
    assert cycle_of("autoregressive").max_levels == 1
    assert cycle_of("eagle3") == dataclasses.replace(paper, max_levels=8, sizes=(0, 60))
    own = dataclasses.replace(presets.EMBEDDED_CYCLE, max_levels=5, sizes=(0, 16), context=99)
    assert cycle_of("eagle3", EMBEDDED, 99) == own


def test_constants_are_set():
    asked = methods.parse_method("constant:levels=3,size=6", OTHER, None)
    method = methods.build_method(asked, tiny.pair(0))
    assert int(method.params.levels) == 3
    assert CYCLE.sizes[int(method.params.size)] == 6
    plain = methods.build_method(methods.parse_method("autoregressive", OTHER, None), tiny.pair(0))
    assert plain.controller is None


def test_policies_bring_their_cycle(policies):
    asked = methods.parse_method("ltd", OTHER, policies)
    assert methods.cycle_for(asked, OTHER, None) == CYCLE
    assert methods.cycle_for(asked, OTHER, CYCLE.context) == CYCLE
    with pytest.raises(UserError, match=f"share of {CYCLE.context}"):
        methods.cycle_for(asked, OTHER, 1000)
    method = methods.build_method(asked, tiny.pair(0))
    assert method.controller is networks.learned(CYCLE, WIDTHS)
    with pytest.raises(UserError, match="trained for pair unsaved, not other"):
        methods.build_method(asked, dataclasses.replace(tiny.pair(0), fingerprint="other"))


def test_published_policies_bring_their_cycle():
    golden = Path(__file__).parents[1] / "policies" / "golden"
    size, depth = f"size={golden / 'size.zip'}", f"depth={golden / 'depth.zip'}"
    both = methods.parse_method(f"sb3:{size},{depth}", OTHER, None)
    assert both.published is not None and both.published[0].constant_length
    cycle = methods.cycle_for(both, OTHER, None)
    assert (cycle.beam_width, cycle.max_levels, cycle.sizes) == (10, 13, published.SIZES)
    assert cycle.context == presets.PAPER_CYCLE.context
    assert cycle_of(f"sb3:{size}", EMBEDDED, 99).max_levels == 9
    assert cycle_of(f"sb3:{size}", EMBEDDED, 99).context == 99
    trained = methods.parse_method(f"sb3:{depth},length=true", OTHER, None)
    assert not trained.published[0].constant_length
    assert methods.cycle_for(trained, OTHER, None).sizes == (59,)
    pair = tiny.pair(0)
    config = dataclasses.replace(pair.config, cycle=cycle)
    method = methods.build_method(both, dataclasses.replace(pair, config=config))
    assert method.controller is published.controller(cycle, both.published[0])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sb3:", "write sb3:size=FILE"),
        ("sb3:length=true", "write sb3:size=FILE"),
        ("sb3:size=a,size=b", "write sb3:size=FILE"),
        ("sb3:size=a,length=long", "write sb3:size=FILE"),
        ("sb3:size=missing.zip", "missing.zip cannot be read as a policy"),
        ("best", "no controller 'best'; choose autoregressive, constant"),
        ("constant", "no controller 'constant'"),
        ("constant:levels=0,size=3", "no controller"),
        ("constant:size=3,levels=2", "no controller"),
        ("ltd", "needs trained policies"),
    ],
)
def test_wrong_names(name, words):
    with pytest.raises(UserError, match=words):
        methods.parse_method(name, OTHER, None)


@pytest.mark.parametrize("name", ["eagle3", "constant:levels=2,size=3", "sb3:size=a", "svip"])
def test_files_that_a_method_does_not_read(name, policies):
    word = name.partition(":")[0]
    with pytest.raises(UserError, match=f"controller {word} does not read --policies; leave it"):
        methods.parse_method(name, OTHER, policies)
    with pytest.raises(UserError, match=f"controller {word} does not read --latency"):
        methods.parse_method(name, OTHER, None, Files(latency=policies / "latency.json"))
    if word != "svip":  # what is trained there says for which cycle
        with pytest.raises(UserError, match=f"controller {word} does not read --classifiers"):
            methods.parse_method(name, OTHER, None, Files(classifiers=policies))


def test_a_setting_that_no_tree_has():
    with pytest.raises(UserError, match="ddd: max_levels 6 must be less than the context of 6"):
        cycle_of("ddd", EMBEDDED, 6)
    with pytest.raises(UserError, match="constant:levels=1,size=500: size 500 is larger"):
        cycle_of("constant:levels=1,size=500")
