from pathlib import Path

import pytest

from sejax.errors import InputError
from sejax.host.atomic import atomic_write


def test_the_file_appears_whole_and_as_given(tmp_path: Path):
    path = tmp_path / "table.csv"
    with atomic_write(path) as file:
        file.write("ä\n")
        file.write("b\r\n")
        assert not path.exists()
    assert path.read_bytes() == "ä\nb\r\n".encode()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_no_other(tmp_path: Path, error: type[BaseException]):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(error), atomic_write(str(path)) as file:
        file.write("new")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_of_that_name_is_a_sentence(tmp_path: Path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(InputError, match=r"a\.txt: is a folder, expected a file"), atomic_write(tmp_path / "a.txt"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
