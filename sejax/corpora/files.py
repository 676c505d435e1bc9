"""The files of a corpus: whether a path names one, what stands there instead, and their text."""

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import PurePath

import soundfile

from sejax.corpora.schema import Dropped, Loss, Utterance
from sejax.errors import InputError
from sejax.host.archives import open_file, special_kind, split_archive

# What files of libsndfile's formats are called, beside the formats' own names.
_SUFFIXES = {".wave", ".aif", ".aifc", ".oga", ".opus", ".snd", ".sph", ".nist", ".mp2", ".mpeg"}
# Audio and video that cannot be read here: a folder's other files are passed over, these are named with an error.
_FOREIGN = {".m4a", ".mp4", ".aac", ".wma", ".amr", ".3gp", ".webm", ".mkv", ".mov", ".avi"}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.*")
_HOME = re.compile(r"(?:^|/)(~[^/]*|\$\{?\w+\}?)(?:/|$)")


class AudioFiles:
    """Tells what is wrong with a path that should name an audio file. It opens nothing, and lists a folder once."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._alike: dict[tuple[str, bool], dict[str, str]] = {}

    def problem(self, path: str) -> tuple[Loss, str] | None:
        """Returns the kind of what is wrong and a sentence that names the path, None for a regular file."""
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return self._absent(path)
        except OSError as error:  # a circle of links, a name that is too long, a folder that may not be entered
            kind = Loss.LINK if error.errno == errno.ELOOP else Loss.ABSENT
            return kind, f"{path} cannot be looked up ({error.strerror})"
        if stat.S_ISREG(mode):
            return None
        if stat.S_ISDIR(mode):
            return Loss.FOLDER, f"{path} is a folder, expected an audio file"
        return Loss.SPECIAL, f"{path} is {special_kind(mode)}, expected an audio file"

    def _absent(self, path: str) -> tuple[Loss, str]:
        if url := _URL.search(path):
            return Loss.URL, f"{url[0]} is a URL, expected a file on this machine (download it first)"
        if os.path.islink(path):
            return Loss.LINK, f"{path} is a link to {os.readlink(path)}, which is not there"
        absent = f"there is no audio file {path}"
        if other := self._find(path, fold_case=False):
            form = next((form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, other)), "mixed")
            return Loss.OTHER_FORM, (
                f"{absent}, but its name in another Unicode form ({form}) is there: write it in that form, or rename "
                "the file (for instance with convmv)"
            )
        return Loss.ABSENT, absent + self._hint(path)

    def _hint(self, path: str) -> str:
        """Returns what may be meant by a path that names no file, as the end of a sentence; empty if nothing shows."""
        if "\\" in path:
            return " (folders are separated by /, not by \\)"
        if home := _HOME.search(path):
            return f" ({home[1]} is not replaced here: write the whole path)"
        if ".zip::" in path:
            return " (an archive has to be unpacked)"
        if other := self._find(path, fold_case=True):
            return f" (capitals matter: there is {other})"
        return ""

    def _find(self, path: str, *, fold_case: bool) -> str | None:
        """Returns the path whose names are those of `path` up to Unicode form, and case if asked; None without one."""
        folder, names = path, []
        while folder and not os.path.isdir(folder):
            folder, name = os.path.split(folder)
            names.append(name)
        for name in reversed(names):
            other = self._names_alike(folder, fold_case).get(_canonical(name, fold_case))
            if other is None:
                return None
            folder = os.path.join(folder, other)
        return folder

    def _names_alike(self, folder: str, fold_case: bool) -> dict[str, str]:
        if (folder, fold_case) not in self._alike:
            self._alike[folder, fold_case] = {_canonical(name, fold_case): name for name in self._list(folder)}
        return self._alike[folder, fold_case]

    def _list(self, folder: str) -> list[str]:
        if folder not in self._names:
            try:
                self._names[folder] = sorted(os.listdir(folder or "."))
            except OSError:
                self._names[folder] = []
        return self._names[folder]


def is_audio(name: str) -> bool:
    """Returns whether a file is called as audio is."""
    suffix = PurePath(name).suffix.casefold()
    return suffix in _SUFFIXES | _FOREIGN or suffix.removeprefix(".").upper() in soundfile.available_formats()


def _canonical(name: str, fold_case: bool) -> str:
    canonical = unicodedata.normalize("NFC", name)
    return canonical.casefold() if fold_case else canonical


def separate_absent(utterances: Iterable[Utterance]) -> tuple[list[Utterance], list[Dropped]]:
    """Returns the utterances whose audio is there, and the others as dropped ones, each with a sentence."""
    files = AudioFiles()
    present, dropped = [], []
    for utterance in utterances:
        problem = files.problem(utterance.path)
        if problem is None:
            present.append(utterance)
            continue
        kind, sentence = problem
        listed = f"{utterance.place}: " if utterance.place else ""
        dropped.append(Dropped(utterance.id, utterance.path, f"{listed}{utterance.id} is listed, but {sentence}", kind))
    return present, dropped


def find_path(root: str, *candidates: str) -> str | None:
    """Returns the first of some paths below a folder that is there, capitals aside; None if none is.

    Args:
      root: the folder.
      candidates: paths relative to it, with `/`.
    """
    for candidate in candidates:
        path = root
        for part in candidate.split("/"):
            if not os.path.isdir(path):
                break
            names = {name.casefold(): name for name in sorted(os.listdir(path), reverse=True)}
            name = part if part in names.values() else names.get(part.casefold())
            if name is None:
                break
            path = os.path.join(path, name)
        else:
            return path
    return None


def require_path(root: str, title: str, *candidates: str) -> str:
    """Returns what `find_path` finds.

    Args:
      root: the folder.
      title: the name of the corpus, for messages.
      candidates: paths relative to it.

    Raises:
      InputError: none of them is there.
    """
    path = find_path(root, *candidates)
    if path is None:
        raise InputError(f"no {title} in {root!r}: expected {' or '.join(candidates)} in it")
    return path


def require_folder(data_dir: str, title: str, what: str) -> str:
    """Returns the absolute path of a corpus's folder.

    Raises:
      InputError: there is none.
    """
    if not os.path.isdir(data_dir):
        raise InputError(f"no {title} at {data_dir!r}: expected {what}")
    return os.path.abspath(data_dir)


def read_text(path: str) -> str:
    """Returns the text of a file of a release, whatever its newlines are.

    Ids, labels and numbers are ASCII in every release. Comments need not be decodable: they may hold U+FFFD.

    Raises:
      InputError: see `read_bytes`.
    """
    text = read_bytes(path, "a text file of the release").decode("utf-8-sig", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_regular(path: str, what: str) -> None:
    """Checks that a path names a regular file: reading a FIFO could last forever.

    Args:
      path: the file.
      what: what is expected there, for messages.

    Raises:
      InputError: it names none, or cannot be looked up.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise InputError(f"{path} cannot be looked up ({error.strerror}), expected {what}") from error
    if not stat.S_ISREG(mode):
        is_what = "a folder" if stat.S_ISDIR(mode) else special_kind(mode)
        raise InputError(f"{path} is {is_what}, expected {what}")


def read_bytes(path: str, what: str) -> bytes:
    """Returns the contents of a regular file, or of a member of a zip archive (`archive.zip::member`).

    Raises:
      InputError: see `check_regular` and `open_file`; or the file may not be read.
    """
    if split_archive(path)[1] is not None:
        with open_file(path) as member:
            return member.read()
    check_regular(path, what)
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}), expected {what}") from error
