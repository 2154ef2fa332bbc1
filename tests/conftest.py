"""What all tests share: strictness, on the CPU; and a tiny pair on disk, written once."""

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


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The folder of target/ and draft/ of the tiny pair; only to be read."""
    from tests.system import tiny_pair

    return tiny_pair.write(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def root(whole, tmp_path):
    """A folder with links to the pair and a question file in asked/."""
    from tests.system import tiny_pair

    for name in ("target", "draft"):
        (tmp_path / name).symlink_to(whole / name)
    (tmp_path / "asked").mkdir()
    (tmp_path / "asked" / "mine.jsonl").write_text(tiny_pair.QUESTION + "\n")
    return tmp_path
