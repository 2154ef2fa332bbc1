"""The shape of the source: imports go one way, files and functions stay small, nothing unpickles.

A module imports its own layer and the ones above it in `LAYERS`. The contract of controllers stands
before the cycle, apart from the rest of `policies`: the compiled cycle asks the controller between
two draft passes and so needs its interface and its views, while the policies that fill this
interface need the cycle's observations. `pretrain` makes the pair that the others load: it knows
the models alone, and nothing in the package knows it.
"""

import ast
import graphlib
from pathlib import Path

import ltd_jax

ROOT = Path(ltd_jax.__file__).parent
LAYERS = (
    ("model_config", "learning_config", "sampling", "processor"),
    (
        "errors",
        "config",
        "presets",
        "checkpoint",
        "checkpoint_metrics",
        "prompts",
        "chat",
        "provenance",
        "repetition",
    ),
    ("models",),
    ("policies.controller",),
    ("cycle",),
    ("policies",),
    ("replay",),
    ("learning",),
    ("decoding",),
    ("report",),
    ("pipeline",),
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}
PRETRAIN_MAY_IMPORT = {*LAYERS[0], *LAYERS[1], "models", "pretrain"}
MOST_LINES, MOST_FUNCTION_LINES = 250, 40


def module_name(path: Path) -> str:
    """The name below ltd_jax: "models.layers", "report"; "" is ltd_jax itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def imported(tree: ast.Module) -> set[str]:
    """Full names of all imported modules, also of those imported inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner.removeprefix("ltd_jax.") in SOURCES else node.module)
    return found


def imported_modules(name: str) -> set[str]:
    """What a module imports of ltd_jax, as names below it."""
    own = {full for full in imported(TREES[name]) if full.split(".")[0] == "ltd_jax"}
    return {full.removeprefix("ltd_jax").removeprefix(".") for full in own} - {""}


def layer(name: str) -> int:
    """The number of a module's layer; KeyError for a folder that LAYERS does not know."""
    return LAYER_OF[name if name in LAYER_OF else name.split(".")[0]]


def test_imports_go_one_way():
    wrong = []
    for name in SOURCES:
        if name and name.split(".")[0] != "pretrain":
            below = [other for other in imported_modules(name) if is_below(name, other)]
            wrong += [f"{name} imports {other}" for other in below]
    assert not wrong


def is_below(name: str, other: str) -> bool:
    """Whether `other` stands in a layer behind the one of `name`."""
    return other.split(".")[0] == "pretrain" or layer(other) > layer(name)


def test_pretrain_knows_the_models_alone():
    for name in SOURCES:
        if name.split(".")[0] == "pretrain":
            tops = {other.split(".")[0] for other in imported_modules(name)}
            assert tops <= PRETRAIN_MAY_IMPORT, name


def test_no_module_is_part_of_a_circle():
    graph = {name: imported_modules(name) for name in SOURCES}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_the_package_stands_alone():
    for name, tree in TREES.items():
        tops = {full.split(".")[0] for full in imported(tree)}
        assert not tops & {"experiments", "tests", "pickle"}, name


def test_files_and_functions_are_small():
    long = []
    for name, tree in TREES.items():
        lines = len(SOURCES[name].read_text(encoding="utf-8").splitlines())
        if lines > MOST_LINES:
            long.append(f"{name}: {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                span = node.end_lineno - node.lineno + 1
                if span > MOST_FUNCTION_LINES:
                    long.append(f"{name}.{node.name}: {span} lines")
    assert not long


def test_the_rules_can_fail():
    assert is_below("cycle.step", "policies.networks")
    assert is_below("report", "pretrain.corpus")
    assert not is_below("cycle.step", "policies.controller")
    assert not is_below("policies.networks", "cycle.observe")
    assert imported(ast.parse("def f():\n    from ltd_jax.models import layers")) == {
        "ltd_jax.models.layers"
    }
