"""Files to read: regular files and members of zip archives."""

import errno
import io
import os
import shlex
import stat
import zipfile
from functools import lru_cache, partial
from io import BufferedIOBase

from sejax.errors import InputError
from sejax.host.magic import FIRST_BYTES, describe_contents
from sejax.host.wording import first_line

# The largest member of an archive that is unpacked into memory, in bytes.
MEMBER_BYTES = 2**30
_PIECE = 2**20
_NO_DIRECTORY = "File is not a zip file"  # in the words of zipfile

_KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def split_archive(path: str) -> tuple[str, str | None]:
    """Returns the file on disk, and the member inside it where the path is "archive.zip::member"."""
    archive, separator, member = path.partition(".zip::")
    return (f"{archive}.zip", member) if separator else (path, None)


def open_file(path: str) -> BufferedIOBase:
    """Opens a regular file, or the member of an archive ("archive.zip::member"), for random access.

    Nothing else is opened: to open a pipe would wait for its writer forever.

    Raises:
      InputError: there is no such file or member, it is not a regular file, the archive is damaged or encrypted, or the
        member is larger than `MEMBER_BYTES`.
    """
    file, member = split_archive(path)
    try:
        status = os.stat(file)
        mode = status.st_mode
        if stat.S_ISREG(mode) and member is None:
            return open(file, "rb")
    except OSError as error:
        raise InputError(f"{path}: {_reason(file, error)}") from error
    except ValueError as error:  # a path with a NUL or a lone surrogate
        raise InputError(f"{path!r}: cannot be the path of a file ({error})") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder, expected a file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is {special_kind(mode)}, expected a file: write its contents to one first")
    assert member is not None
    try:
        archive = _archive(file, status.st_size, status.st_mtime_ns)
    except Exception as error:  # zipfile raises anything from struct.error to OverflowError for damaged archives
        raise InputError(f"{path}: its archive {describe_damage(file, error)}") from error
    return io.BytesIO(_read_member(path, archive, member))


def special_kind(mode: int) -> str:
    """Returns what a file of that mode is, which is neither a regular one nor a folder."""
    return _KINDS.get(stat.S_IFMT(mode), "not a regular file")


def describe_damage(archive: str, error: Exception) -> str:
    """Returns what is wrong with an archive that zipfile does not read, as the predicate of a sentence."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        return f"cannot be read ({error.strerror}), expected a zip archive"
    with open(archive, "rb") as file:
        start = file.read(FIRST_BYTES)
    remedy = "expected a whole zip archive: download it again"
    if not start.startswith(b"PK"):
        return f"is {describe_contents(start) or 'no zip archive'}, {remedy}"
    if str(error) == _NO_DIRECTORY:
        return f"is cut short or damaged (no directory at its end), {remedy}"
    # A place in front of the file is an invalid argument to the system.
    return f"is damaged ({'a wrong place in it' if isinstance(error, OSError) else first_line(error)}), {remedy}"


def shell_command(program: str, path: str, arguments: str) -> str:
    """Returns a command that reads a file, to be copied into a shell: `program` with its path, then `arguments`."""
    file, member = split_archive(path)
    return f"`{program} {shlex.quote(os.path.basename(member) if member else file)} {arguments}`" + (
        f" after `unzip -j {shlex.quote(file)} {shlex.quote(member)}`" if member else ""
    )


def _reason(file: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        is_address = file.startswith(("http://", "https://", "s3://", "gs://", "hf://", "ftp://"))
        return "is a web address, expected a file: download it first" if is_address else "no such file"
    return f"cannot be opened ({error.strerror or error})"


@lru_cache(maxsize=4)
def _archive(file: str, size: int, mtime_ns: int) -> zipfile.ZipFile:
    """Opens an archive once per process: its list of members takes longer to read than a member.

    Size and time of change are arguments so that an archive is opened again after it was replaced.
    """
    return zipfile.ZipFile(file)


def _read_member(path: str, archive: zipfile.ZipFile, member: str) -> bytes:
    try:
        info = archive.getinfo(member)
    except KeyError as error:
        raise InputError(f"{path}: the archive {archive.filename} has no such member") from error
    if info.is_dir():
        raise InputError(f"{path}: is a folder, expected a file")
    if info.flag_bits & 1:
        raise InputError(f"{path}: is encrypted, expected a file without a password: unpack the archive first")
    if info.file_size > MEMBER_BYTES:
        raise InputError(
            f"{path}: has {info.file_size} bytes unpacked, expected at most {MEMBER_BYTES} in an archive: unpack it "
            "first"
        )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Python unpacks bzip2 and LZMA without a bound on memory.
        raise InputError(f"{path}: is compressed by another method than deflate, unpack the archive first")
    try:
        # In pieces: unpacked at once, a damaged member may take much more memory than its archive says.
        with archive.open(info) as file:
            return b"".join(iter(partial(file.read, _PIECE), b""))
    except Exception as error:  # see `open_file`
        raise InputError(f"{path}: its archive {describe_damage(str(archive.filename), error)}") from error
