"""What all tests share: strictness, on the CPU; one cache of programs; a tiny pair on disk.

Nearly all of a test's time is compiling, and many tests compile the same programs of the same tiny
shapes, also in other processes. So all processes of one run share a cache of compiled programs,
which is empty when the run begins and deleted when it ends.
"""

import os
import shutil
import tempfile

import hypothesis
import jax
import pytest
from jax._src import compiler

os.environ["JAX_PLATFORMS"] = "cpu"  # for the processes that tests start
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
EMITTERS = "xla_cpu_use_fusion_emitters"  # most of what compiling takes without optimisations
KNOWS_EMITTERS = jax.__version_info__ < (0, 11)  # XLA ends a process for a flag that it lacks
if KNOWS_EMITTERS and EMITTERS not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{EMITTERS}=false".strip()
CACHE = "LTD_JAX_TEST_PROGRAMS"  # names the run's cache to the processes that it starts
if CACHE not in os.environ:
    OWNED = os.environ[CACHE] = tempfile.mkdtemp(prefix="ltd-jax-programs-")
else:
    OWNED = None
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ[CACHE]
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_compilation_cache_dir", os.environ[CACHE])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("tests", deadline=None)  # the first example compiles
hypothesis.settings.load_profile("tests")


def pytest_unconfigure(config):
    """Deletes the run's programs when all workers are done."""
    if OWNED is not None:
        shutil.rmtree(OWNED, ignore_errors=True)


LONGEST = ("test_quickstart", "test_arena", "test_golden_policies", "test_face", "test_split")


def pytest_collection_modifyitems(items):
    """The longest files come first, so that no worker waits for another one at the end."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


AS_USERS_RUN = (
    *("experiments/proofs/test_check_lossless", "system/test_lossless", "system/test_sampling"),
    *("models/test_embedded", "models/test_families"),
    *("learning/test_golden_policies", "learning/test_alternate", "learning/test_loop"),
)


usual_options = compiler.get_compile_options


def with_emitters(*args, **kwargs):
    """JAX's options for one compilation, with what XLA_FLAGS leaves out."""
    options = usual_options(*args, **kwargs)
    options.env_option_overrides = [*options.env_option_overrides, (EMITTERS, True)]
    return options


@pytest.fixture(scope="module", autouse=True)
def programs(request):
    """How a module's programs are compiled: nearly all of a test's time is XLA's optimising.

    The proofs of losslessness and what is compared with transformers are compiled as users run, and
    so are the golden policies, whose programs others find in the cache; all else in a third of the
    time. Programs hold memory maps, and a process may have only so many of them: a module's are
    forgotten behind it.
    """
    name = request.path.relative_to(request.config.rootpath / "tests").with_suffix("")
    optimised = name.as_posix() in AS_USERS_RUN
    jax.config.update("jax_disable_most_optimizations", not optimised)
    with pytest.MonkeyPatch.context() as patch:
        if optimised and KNOWS_EMITTERS:
            patch.setattr(compiler, "get_compile_options", with_emitters)
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
