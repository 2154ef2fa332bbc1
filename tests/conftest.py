"""Strictness of all tests: on the CPU, without silent broadcasting between ranks."""

import os

import hypothesis
import jax
import pytest

os.environ["JAX_PLATFORMS"] = "cpu"  # for the processes that tests start
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("tests", deadline=None)  # the first example compiles
hypothesis.settings.load_profile("tests")


AS_USERS_RUN = ("models", "test_lossless", "test_check_lossless", "test_sampling")


@pytest.fixture(scope="module", autouse=True)
def programs(request):
    """How a module's programs are compiled: nearly all of a test's time is XLA's optimising.

    The proofs of losslessness are compiled as users run, all else in half the time. Programs hold
    memory maps, and a process may have only so many of them: a module's are forgotten behind it.
    """
    optimised = {request.path.stem, request.path.parent.name} & set(AS_USERS_RUN)
    jax.config.update("jax_disable_most_optimizations", not optimised)
    yield
    jax.clear_caches()
