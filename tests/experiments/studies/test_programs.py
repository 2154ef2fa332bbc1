import jax
import jax.numpy as jnp
import pytest

from experiments.studies import arena


@pytest.fixture
def compiled():
    """A jitted function that was run once, and how often it was traced."""
    traces = []

    @jax.jit
    def double(value):
        traces.append(value)
        return 2 * value

    double(jnp.float32(1))
    return lambda: (double(jnp.float32(1)), len(traces))[1]


@pytest.mark.parametrize(("maps", "forgotten"), [(3, False), (arena.MOST_MAPS + 1, True)])
def test_many_maps_make_it_forget(compiled, tmp_path, monkeypatch, maps, forgotten):
    (tmp_path / "maps").write_bytes(b"7f00-7f01 r-xp\n" * maps)
    monkeypatch.setattr(arena, "MAPS", tmp_path / "maps")
    assert arena.forget_programs_if_many() == forgotten
    assert compiled() == 1 + forgotten


def test_a_system_without_maps_forgets_nothing(compiled, tmp_path, monkeypatch):
    monkeypatch.setattr(arena, "MAPS", tmp_path / "none")
    assert not arena.forget_programs_if_many() and compiled() == 1
