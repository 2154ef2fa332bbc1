"""Checkpoints survive damage, signals and other devices; what is restored is what was saved."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import struct

from ltd_jax import checkpoint
from ltd_jax.files import UserError


@struct.dataclass
class State:
    weights: jax.Array
    key: jax.Array
    step: jax.Array


def state_of(step: int) -> State:
    random = np.random.default_rng(step)
    weights = jnp.asarray(random.normal(size=(16, 40)), jnp.float32)
    return State(weights, jax.random.key(step), jnp.int32(step))


ABSTRACT = jax.eval_shape(lambda: state_of(0))


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> Path:
    """Two steps, 3 and 5."""
    folder = tmp_path_factory.mktemp("intact")
    with checkpoint.manager(folder) as checkpoints:
        for step in (3, 5):
            record = {"step": step, "table": "abc", "points": [0.1, 1e-30]}
            checkpoint.save(checkpoints, step, state_of(step), record)
    return folder


def read(folder: Path) -> tuple[checkpoint.Restored | None, list[str]]:
    """What is restored, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with checkpoint.manager(folder) as checkpoints:
            found = checkpoint.restore(checkpoints, ABSTRACT)
    return found, [str(each.message) for each in caught if "Checkpoint" in str(each.message)]


def same(found: checkpoint.Restored, step: int) -> None:
    expected = state_of(step)
    assert found.step == step and found.provenance["step"] == step
    assert set(found.provenance) == {"step", "table", "points"}
    np.testing.assert_array_equal(found.state.weights, expected.weights)
    assert found.state.key == expected.key and found.state.step == step


def files_of(folder: Path, step: int) -> list[Path]:
    return sorted(path for path in (folder / str(step)).rglob("*") if path.is_file())


def damage(path: Path, how: str, random: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    if how == "delete" or not content:
        path.unlink()
    elif how == "truncate":
        path.write_bytes(content[: random.integers(len(content))])
    else:
        content[random.integers(len(content))] ^= 1 << random.integers(8)
        path.write_bytes(content)


def test_what_was_saved_comes_back(intact):
    found, said = read(intact)
    same(found, 5)
    assert not said


def test_a_state_that_is_not_finite_is_not_written(intact, tmp_path):
    folder = shutil.copytree(intact, tmp_path / "copy")
    good = state_of(7)
    with checkpoint.manager(folder) as checkpoints:
        broken = good.replace(weights=good.weights.at[2, 3].set(jnp.inf))
        with pytest.raises(UserError, match=r"Checkpoint 7 .*weights\[2, 3\] is infinite"):
            checkpoint.save(checkpoints, 7, broken, {"step": 7})
        with pytest.raises(UserError, match=r"Checkpoint 7 .*points\[0\] is nan"):
            checkpoint.save(checkpoints, 7, good, {"points": [float("nan")]})
    same(read(folder)[0], 5)


@pytest.mark.parametrize("how", ["delete", "truncate", "flip"])
@pytest.mark.parametrize("seed", range(8))
def test_any_damage_is_noticed(intact, tmp_path, how, seed):
    random = np.random.default_rng([seed, len(how)])
    folder = shutil.copytree(intact, tmp_path / "copy")
    files = files_of(folder, 5)
    damage(files[random.integers(len(files))], how, random)
    found, said = read(folder)  # some files say nothing that a restore needs
    same(found, 3 if said else 5)
    assert all("Checkpoint 5" in line and "damaged" in line for line in said)


@pytest.mark.parametrize(
    ("pattern", "how"),
    [
        ("state/ocdbt.process_0/d/*", "truncate"),  # the arrays
        ("state/_METADATA", "delete"),
        ("state/manifest.ocdbt", "delete"),
        ("provenance/metadata", "delete"),
        ("provenance/metadata", "flip"),
    ],
)
def test_the_step_before_a_damaged_one_is_used(intact, tmp_path, pattern, how):
    folder = shutil.copytree(intact, tmp_path / "copy")
    found = list((folder / "5").glob(pattern))
    largest = max(found, key=lambda path: path.stat().st_size)
    damage(largest, how, np.random.default_rng(2))
    restored, said = read(folder)
    same(restored, 3)
    assert len(said) == 1 and "Checkpoint 5" in said[0] and str(folder) in said[0]


def test_a_flipped_bit_in_a_number_of_the_record_is_noticed(intact, tmp_path):
    folder = shutil.copytree(intact, tmp_path / "copy")
    path = folder / "5" / "provenance" / "metadata"
    path.write_text(path.read_text().replace('"abc"', '"abd"'))  # still good JSON
    restored, said = read(folder)
    same(restored, 3)
    assert "provenance" in said[0]


def test_training_goes_on_over_a_damaged_step(intact, tmp_path):
    folder = shutil.copytree(intact, tmp_path / "copy")
    (folder / "5" / "state" / "_METADATA").unlink()
    assert read(folder)[0].step == 3
    with checkpoint.manager(folder) as checkpoints:
        checkpoint.save(checkpoints, 4, state_of(4), {"step": 4, "table": "", "points": []})
    found, said = read(folder)
    same(found, 4)
    assert not said and not (folder / "5").exists()


def test_nothing_readable_is_one_sentence(intact, tmp_path):
    folder = shutil.copytree(intact, tmp_path / "copy")
    for step in (3, 5):
        shutil.rmtree(folder / str(step) / "state")
    with pytest.raises(UserError, match="None of the checkpoints .* delete the folder"):
        read(folder)


def test_a_damaged_step_with_none_before_it_is_one_sentence(intact, tmp_path):
    folder = shutil.copytree(intact, tmp_path / "copy")
    shutil.rmtree(folder / "3")
    (folder / "5" / "state" / "_METADATA").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "the one before it is tried" would be wrong
        with pytest.raises(UserError, match=r"None of the checkpoints \[5\] .* \(5: .*delete the"):
            with checkpoint.manager(folder) as checkpoints:
                checkpoint.restore(checkpoints, ABSTRACT)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch, capfd, caplog, steps):
    """However many saves later it comes out; the limit on a file's size stands for the disk."""
    shown = []
    reason = "File too large" if steps == 1 else ".*"  # of several writes any may fail first
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        with pytest.raises(UserError, match=rf"checkpoint to .*run \({reason}\); make room"):
            with checkpoint.manager(tmp_path / "run") as checkpoints:
                for step in range(steps):
                    checkpoint.save(checkpoints, step, state_of(step), {"step": step})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Traceback" not in "".join(capfd.readouterr()) + caplog.text
    assert not [each for each in shown if "loop" in str(each.exc_value)], shown
    with checkpoint.manager(tmp_path / "run") as checkpoints:
        checkpoint.save(checkpoints, 9, state_of(9), {"step": 9, "table": "", "points": []})
    same(read(tmp_path / "run")[0], 9)


def test_the_last_two_steps_are_kept(tmp_path):
    for steps in ((1, 2), (3, 4)):  # by two processes
        with checkpoint.manager(tmp_path) as checkpoints:
            for step in steps:
                checkpoint.save(checkpoints, step, state_of(step), {"step": step})
    with checkpoint.manager(tmp_path) as checkpoints:
        assert checkpoints.all_steps() == [3, 4]


def test_a_folder_that_kept_its_best_step_by_a_metric_goes_on(tmp_path):
    options = ocp.CheckpointManagerOptions(max_to_keep=2, best_fn=lambda metrics: metrics["score"])
    with ocp.CheckpointManager(tmp_path, options=options) as before:
        save = before.save
        before.save = lambda *args, **kwargs: save(*args, metrics={"score": 1.0}, **kwargs)
        checkpoint.save(before, 3, state_of(3), {"step": 3, "table": "", "points": []})
    found, said = read(tmp_path)
    same(found, 3)
    assert not said


@pytest.mark.parametrize("unknown", ["when saved", "when read"])
def test_arrays_that_no_single_host_holds_have_no_digest(tmp_path, monkeypatch, unknown):
    with monkeypatch.context() as patch:
        if unknown == "when saved":
            patch.setattr(checkpoint, "digest", lambda state: None)
        with checkpoint.manager(tmp_path) as checkpoints:
            checkpoint.save(checkpoints, 3, state_of(3), {"step": 3, "table": "", "points": []})
    if unknown == "when read":
        monkeypatch.setattr(checkpoint, "digest", lambda state: None)
    with checkpoint.manager(tmp_path) as checkpoints:
        found = checkpoint.restore(checkpoints, ABSTRACT)
    assert found is not None
    same(found, 3)


def test_a_checkpoint_moves_between_one_device_and_eight(intact, tmp_path):
    program = f"""
        import jax, numpy as np
        from pathlib import Path
        from jax.sharding import Mesh, NamedSharding, PartitionSpec
        from ltd_jax import checkpoint
        from tests.test_checkpoint import ABSTRACT, state_of
        mesh = Mesh(np.asarray(jax.devices()), "B")
        place = lambda leaf: NamedSharding(mesh, PartitionSpec(*["B"][:leaf.ndim]))
        abstract = jax.tree.map(lambda leaf: leaf.update(sharding=place(leaf)), ABSTRACT)
        with checkpoint.manager(Path({str(intact)!r})) as checkpoints:
            found = checkpoint.restore(checkpoints, abstract)
        assert len(found.state.weights.addressable_shards) == 8
        assert found.state.weights.addressable_shards[0].data.shape == (2, 40)
        np.testing.assert_array_equal(found.state.weights, state_of(5).weights)
        with checkpoint.manager(Path({str(tmp_path)!r})) as checkpoints:
            checkpoint.save(checkpoints, 5, found.state, found.provenance)
        empty = {{"memory": jax.ShapeDtypeStruct((8, 0), np.float32)}}
        empty["memory"] = empty["memory"].update(sharding=place(empty["memory"]))
        with checkpoint.manager(Path({str(tmp_path / "empty")!r})) as checkpoints:
            checkpoint.save(checkpoints, 1, {{"memory": np.zeros((8, 0), np.float32)}}, {{}})
        with checkpoint.manager(Path({str(tmp_path / "empty")!r})) as checkpoints:
            memory = checkpoint.restore(checkpoints, empty).state["memory"]
        assert memory.sharding == empty["memory"].sharding and memory.shape == (8, 0)
    """
    flags = "--xla_force_host_platform_device_count=8"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found, said = read(tmp_path)
    same(found, 5)
    assert not said and len(found.state.weights.sharding.device_set) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_block(number):
    seen = []
    before = signal.signal(number, lambda number, frame: seen.append(number))
    try:
        with checkpoint.uninterrupted():
            signal.raise_signal(number)
            assert not seen
        assert seen == [number]
        with checkpoint.uninterrupted():
            signal.raise_signal(number)
            signal.raise_signal(number)
            assert seen == [number] * 2  # the second one is not held back
        with pytest.raises(KeyError), checkpoint.uninterrupted():
            raise KeyError
        assert signal.getsignal(number).__name__ == "<lambda>"
    finally:
        signal.signal(number, before)


def test_other_threads_are_left_alone():
    done = []

    def work() -> None:
        with checkpoint.uninterrupted():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_arrays_without_numbers_come_back(tmp_path):
    state = {"memory": jnp.zeros((4, 0)), "rest": jnp.arange(3.0)}
    with checkpoint.manager(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, 1, state, {})
    with checkpoint.manager(tmp_path) as checkpoints:
        found = checkpoint.restore(checkpoints, jax.eval_shape(lambda: state))
    assert found.state["memory"].shape == (4, 0) and found.state["memory"].dtype == jnp.float32
    np.testing.assert_array_equal(found.state["rest"], state["rest"])


def test_shardings_that_are_asked_for_are_kept_also_of_arrays_without_numbers(tmp_path):
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), "B")
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("B"))
    state = {"memory": jnp.zeros((4, 0)), "rest": jnp.arange(4.0)}
    with checkpoint.manager(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, 1, state, {})
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=split), state
    )
    with checkpoint.manager(tmp_path) as checkpoints:
        found = checkpoint.restore(checkpoints, abstract)
    assert all(leaf.sharding == split for leaf in jax.tree.leaves(found.state))


def test_what_is_restored_finds_the_programs_of_what_was_saved(intact, tmp_path):
    """An array is bound to a device only where that was asked for: bound ones compile anew."""
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    asked = jax.tree.map(lambda leaf: leaf.update(sharding=here), ABSTRACT)
    program = jax.jit(lambda state: state)
    program(state_of(5))
    for abstract, programs in ((ABSTRACT, 1), (asked, 2)):
        with checkpoint.manager(intact) as checkpoints:
            found = checkpoint.restore(checkpoints, abstract)
        same(found, 5)
        program(found.state)
        assert program._cache_size() == programs
    arrays = {"free": jnp.arange(3.0), "bound": jax.device_put(jnp.arange(3.0), here)}
    with checkpoint.manager(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, 1, arrays, {})
    with checkpoint.manager(tmp_path) as checkpoints:
        state = checkpoint.restore(checkpoints, arrays).state
    assert state["bound"].committed and not state["free"].committed
