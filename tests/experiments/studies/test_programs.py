import jax
import jax.numpy as jnp
import pytest

from experiments.studies import programs


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


@pytest.mark.parametrize(("maps", "forgotten"), [(3, False), (programs.MOST_MAPS + 1, True)])
def test_many_maps_make_it_forget(compiled, tmp_path, monkeypatch, maps, forgotten):
    (tmp_path / "maps").write_bytes(b"7f00-7f01 r-xp\n" * maps)
    monkeypatch.setattr(programs, "MAPS", tmp_path / "maps")
    assert programs.forget_if_many() == forgotten
    assert compiled() == 1 + forgotten


def test_a_system_without_maps_forgets_nothing(compiled, tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "MAPS", tmp_path / "none")
    assert not programs.forget_if_many() and compiled() == 1
