"""The tiny pair on disk, written once."""

import pytest

from tests.system import tiny_pair


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The folder of target/ and draft/; only to be read."""
    return tiny_pair.write(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def root(whole, tmp_path):
    """A folder with links to the pair and a question file in asked/."""
    for name in ("target", "draft"):
        (tmp_path / name).symlink_to(whole / name)
    (tmp_path / "asked").mkdir()
    (tmp_path / "asked" / "mine.jsonl").write_text(tiny_pair.QUESTION + "\n")
    return tmp_path
