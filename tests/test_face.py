"""The public names: each has an example in its docstring, and every example runs as printed."""

import doctest
import inspect
import sys

import pytest

import ltd_jax as ltd
from ltd_jax import presets
from ltd_jax.config import ExactConfig

PARSER = doctest.DocTestParser()
NAMES = [name for name in ltd.__all__ if name not in ("__version__", "UserError", "baselines")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What later examples take from those of `Simulator` and `train`."""
    pair = ltd.load()
    trace = ltd.record(pair, ["import os", "def f(x):"], new_tokens=8)
    table = ltd.LatencyTable.find("epyc-2-cores-embedded", pair.config.cycle)
    simulator = ltd.Simulator.of(trace, table)
    few = ExactConfig(updates=1, environments=4, cycles=2, steps=1, minibatch=4)
    quick = ltd.LearningConfig(algorithm="exact", reward="average", exact=few)
    trained = ltd.train(simulator, presets.EMBEDDED_POLICY, quick)
    folder = tmp_path_factory.mktemp("examples")
    ltd.save_policy(trained.policy, folder / "policy.safetensors", table)
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
