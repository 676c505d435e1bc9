import errno
import os

import pytest

from sejax.host.disk import disk_problem


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
def test_a_refusal_of_the_disk_is_named(number: int):
    assert disk_problem(OSError(number, os.strerror(number), "/x/y")) == f"{os.strerror(number)}: /x/y"
    assert disk_problem(ValueError(f"UNKNOWN: [OS error {number}: {os.strerror(number)}]")) == os.strerror(number)


def test_it_is_found_among_the_causes():
    try:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise ValueError("cannot be written") from error
    except ValueError as error:
        assert disk_problem(error) == os.strerror(errno.ENOSPC)


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "No such file"), ValueError("no space"), KeyError("x")])
def test_other_errors_are_none(error: Exception):
    assert disk_problem(error) is None
