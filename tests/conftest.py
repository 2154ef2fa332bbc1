"""Strictness of all tests: on the CPU, without silent broadcasting between ranks."""

import os

import hypothesis
import jax
import pytest

os.environ["JAX_PLATFORMS"] = "cpu"  # for the processes that tests start
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("tests", deadline=None)  # the first example compiles
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Compiled programs hold memory maps, and a process may have only so many of them."""
    yield
    jax.clear_caches()
