"""The public names: each has an example in its docstring, and every example runs as printed.

With the embedded pair, but in a small cycle, which compiles in a fraction of the time.
"""

import dataclasses
import doctest
import inspect
import sys
from collections.abc import Iterator

import pytest

import ltd_jax as ltd
from ltd_jax import presets
from ltd_jax.config import ExactConfig

PARSER = doctest.DocTestParser()
SMALL = ltd.CycleConfig(beam_width=2, max_levels=2, sizes=(2, 4), context=96)
NAMES = [name for name in ltd.__all__ if name not in ("__version__", "UserError", "baselines")]


@pytest.fixture(scope="module", autouse=True)
def small_cycle() -> Iterator[None]:
    """The embedded pair's preset with a small cycle."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "EMBEDDED", dataclasses.replace(presets.EMBEDDED, cycle=SMALL))
        yield


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What later examples take from those of `Simulator` and `train`."""
    pair = ltd.load()
    trace = ltd.record(pair, ["import os", "def f(x):"], new_tokens=8)
    table = ltd.LatencyTable.find("epyc-2-cores-embedded", pair.config.cycle)
    simulator = ltd.Simulator.of(trace, table, pair.config.cycle)
    few = ExactConfig(updates=1, environments=4, cycles=2, steps=1, minibatch=4)
    quick = ltd.LearningConfig(algorithm="exact", reward="average", exact=few)
    trained = ltd.train(simulator, presets.EMBEDDED_POLICY, quick)
    folder = tmp_path_factory.mktemp("examples")
    ltd.save_policy(trained.policy, folder / "policy.safetensors", table, pair.config.cycle)
    names = {"pair": pair, "table": table, "simulator": simulator, "trained": trained}
    return {"ltd": ltd, "folder": folder, **names}


@pytest.mark.parametrize("name", NAMES)
def test_example_runs_as_printed(
    name: str, shared: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(shared["folder"]))
    thing = getattr(ltd, name)
    module = sys.modules[thing.__module__]
    example = PARSER.get_doctest(
        inspect.getdoc(thing) or "", {**vars(module), **shared}, name, module.__file__, 0
    )
    assert example.examples, f"the docstring of {name} has no example"
    printed: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=printed.append)
    assert result.failed == 0, "".join(printed)


def test_the_compared_methods_are_policies() -> None:
    for name in ltd.baselines.__all__:
        assert issubclass(getattr(ltd.baselines, name), ltd.Policy)
