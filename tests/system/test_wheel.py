"""A wheel built from the tree, installed where the tree is not on the path, finds its assets."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USE_THE_INSTALLED = """
import ltd_jax as ltd
from ltd_jax import questions

print(ltd.__file__)
pair = ltd.load()
for asked in questions.load_question_set(questions.QuestionConfig(prompts=2), "test").values():
    for question in asked:
        pair.encode(question.turns[0])
print(pair.fingerprint)
"""


def run(*command: str | Path, **settings) -> str:
    """The command's output; the test fails with both streams where the command fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing of an older build comes along."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ltd_jax", tree / "ltd_jax", ignore=caches)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tree / "out", tree)
    (built,) = (tree / "out").glob("*.whl")
    return built


def test_wheel_holds_the_package_and_nothing_else(wheel):
    files = {path for path in (ROOT / "ltd_jax").rglob("*") if path.is_file()}
    expected = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_installed_wheel_finds_its_assets(wheel, tmp_path):
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
        *("--target", target, wheel),
    )
    environment = os.environ | {"PYTHONPATH": str(target)}
    output = run(sys.executable, "-c", USE_THE_INSTALLED, cwd=elsewhere, env=environment)
    path, fingerprint = output.split()
    (command,) = (target / "bin").glob("ltd*")
    assert "ltd generate" in run(command, "--help", cwd=elsewhere, env=environment)
    assert Path(path).is_relative_to(target)
    assert len(fingerprint) == 12
