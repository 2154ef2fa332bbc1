import numpy as np
import pytest

from ltd_jax.models.hf.torch_file import TorchFile, places
from tests import torch_writer
from tests.torch_writer import Call, Global


def test_tensors_are_read_again(tmp_path):
    random = np.random.default_rng(0)
    arrays = {
        "matrix": random.normal(size=(3, 4)).astype(np.float32),
        "turned": random.normal(size=(3, 4)).astype(np.float32).T,
        "scalar": np.array(7, np.int64),
        "nothing": np.zeros((0, 2), np.float16),
        "cube": random.integers(0, 255, (2, 3, 4)).astype(np.uint8),
    }
    path = tmp_path / "file.pth"
    path.write_bytes(torch_writer.tensors({"kept": {"step": 1}, **arrays}))
    file = TorchFile(path)
    assert set(file.places) == set(arrays)
    for name, array in arrays.items():
        found = file.read(name)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_atoms_and_containers_are_what_a_state_dict_is_made_of():
    inner = [None, True, False, 3, -0.5, "word", (), (1, 2), {}, {"a": [1]}]
    assert places(torch_writer.instructions({"inner": inner})) == {}  # read to the end


def test_names_and_calls_are_refused_by_our_own_reader():
    program = torch_writer.instructions(Call(Global("os", "getcwd"), ()))
    with pytest.raises(Exception, match="os.getcwd"):
        places(program)


def test_other_objects_are_not_written():
    with pytest.raises(TypeError, match="A set is not written"):
        torch_writer.instructions({1})
