"""Strictness of all tests: on the CPU, without silent broadcasting between ranks.

What is compiled is kept in .pytest_cache/, for the processes that tests start and for the next run.
"""

import os
from pathlib import Path

import hypothesis
import jax

os.environ["JAX_PLATFORMS"] = "cpu"  # for the processes that tests start
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")

COMPILED = Path(__file__).parents[1] / ".pytest_cache" / "compiled"
for name, value in (
    ("jax_compilation_cache_dir", str(COMPILED)),
    ("jax_persistent_cache_min_compile_time_secs", 0.1),
):
    os.environ[name.upper()] = str(value)
    jax.config.update(name, value)

hypothesis.settings.register_profile("tests", deadline=None)  # the first example compiles
hypothesis.settings.load_profile("tests")
