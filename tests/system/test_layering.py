"""The shape of the source: imports go one way, and what is small or long says why.

A module of ltd_jax imports its own layer and those before it in `LAYERS`; experiments import the
library, never the other way. A file above 600 lines, a function above 60, and a module below 60
that only one other imports, give a reason in their docstring: a sentence that begins with
"Long because", "Long:" or "Small because". A function's docstring does not count as its length.
"""

import ast
import functools
import graphlib
import re
from pathlib import Path

import pytest

import experiments
import ltd_jax

ROOT = Path(ltd_jax.__file__).parents[1]
LAYERS = (
    ("config", "files", "finite"),
    ("checkpoint", "presets", "text", "questions"),
    ("models",),
    ("policies",),
    ("cycle",),
    ("replay",),
    ("learning",),
    ("baselines", "draft_training"),
    ("decoding",),
    ("workflow",),
    ("tune", "flags"),
    ("drafts",),
    ("cli",),
    ("__main__",),
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}
MOST_LINES, MOST_FUNCTION_LINES, LEAST_LINES = 600, 60, 60
REASON = re.compile(r"\b(Long|Small) because\b|\bLong:")


def module_name(path: Path) -> str:
    """The module's full name; that of a package for its __init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FOLDERS = [Path(package.__file__).parent for package in (ltd_jax, experiments)]
SOURCES = {module_name(path): path for folder in FOLDERS for path in sorted(folder.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}
LIBRARY = [name for name in SOURCES if name.split(".")[0] == "ltd_jax" and name != "ltd_jax"]


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
                found.add(inner if inner in SOURCES else str(node.module))
    return found


@functools.cache
def imports_of(name: str) -> set[str]:
    """Modules of this project that a module imports."""
    return {other for other in imported(TREES[name]) if other in SOURCES and other != name}


def layer(name: str) -> int:
    """The number of a module's layer; KeyError for a folder that LAYERS does not know."""
    return LAYER_OF[name.split(".")[1]]


def is_backward(name: str, other: str) -> bool:
    """Whether a module of the library imports one of a later layer."""
    return other != "ltd_jax" and layer(other) > layer(name)


def length(function: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = function.body[0]
    docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) else 0
    return function.end_lineno - function.lineno + 1 - docstring


def functions(tree: ast.Module) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def has_reason(node: ast.Module | ast.FunctionDef) -> bool:
    return REASON.search(ast.get_docstring(node) or "") is not None


def test_imports_go_one_way():
    pairs = [(name, other) for name in LIBRARY for other in imports_of(name)]
    assert not [f"{name} imports {other}" for name, other in pairs if is_backward(name, other)]


def test_no_module_is_part_of_a_circle():
    graph = {name: imports_of(name) - {"ltd_jax", "experiments"} for name in SOURCES}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_the_library_stands_alone():
    for name in LIBRARY:
        tops = {full.split(".")[0] for full in imported(TREES[name])}
        assert not tops & {"experiments", "tests"}, name


def test_nothing_unpickles():
    """`pickle` is imported where torch files are read, by an allow-list, and nowhere else."""
    allowed = {"ltd_jax.models.hf.torch_file"}
    users = {name for name, tree in TREES.items() if "pickle" in imported(tree)}
    assert users <= allowed


@pytest.mark.parametrize("name", SOURCES)
def test_long_parts_say_why(name):
    tree = TREES[name]
    lines = len(SOURCES[name].read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES or has_reason(tree), f"{name} has {lines} lines"
    for node in functions(tree):
        span = length(node)
        assert span <= MOST_FUNCTION_LINES or has_reason(node), f"{node.name}: {span} lines"


def test_small_modules_of_one_importer_say_why():
    for name in LIBRARY:
        path = SOURCES[name]
        lines = len(path.read_text(encoding="utf-8").splitlines())
        users = [other for other in SOURCES if name in imports_of(other)]
        if path.name != "__init__.py" and lines < LEAST_LINES and len(users) == 1:
            assert has_reason(TREES[name]), f"{name} has {lines} lines, for {users[0]} alone"


def test_the_rules_can_fail():
    assert is_backward("ltd_jax.cycle.step", "ltd_jax.replay.trace")
    assert not is_backward("ltd_jax.cycle.step", "ltd_jax.policies.observe")
    assert imported(ast.parse("def f():\n    from ltd_jax.models import layers")) == {
        "ltd_jax.models.layers"
    }
    wordy = ast.parse('"""A list.\n\nLong because it is one."""')
    assert has_reason(wordy) and not has_reason(ast.parse('"""A list, as long as it is."""'))
