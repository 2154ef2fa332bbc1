"""Commands that show or prove something of the library: `python -m experiments.NAME`, from here."""

import importlib.util
import sys

import ltd_jax  # noqa: F401, it says what a Python without its libraries lacks

MISSING = [name for name in ("matplotlib", "scipy") if importlib.util.find_spec(name) is None]
if MISSING and sys.argv[0] == "-m":
    sys.exit(
        f"error: {sys.executable} lacks {' and '.join(MISSING)}, which experiments need; run "
        "`pip install '.[experiments]'` here."
    )
