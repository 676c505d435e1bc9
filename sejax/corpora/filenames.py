"""A reader for corpora whose file names say everything about an utterance, such as EmoDB's `03a01Fa.wav`."""

import glob
import math
import os
import re
import struct
import wave
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from lzma import LZMAError
from pathlib import PurePosixPath
from typing import IO, Any

from sejax.corpora.files import AudioFiles, check_regular
from sejax.corpora.labels import Labelled, LabelScheme, classify, find_scheme
from sejax.corpora.schema import Corpus, Dropped, Loss, Utterance
from sejax.corpora.spelling import printable
from sejax.errors import InputError
from sejax.host.archives import describe_damage
from sejax.host.wording import count

FIELDS = ("speaker", "text", "label", "gender", "session", "split")
# What zipfile raises for a damaged archive.
_ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    LZMAError,
    struct.error,
    EOFError,
    OSError,  # bzip2, and places outside the file
    RuntimeError,  # encryption, and an unknown method of compression
    ValueError,  # names and sizes
    OverflowError,
    KeyError,
)

# Bytes of a member beyond which it is no utterance but a mistake, or a bomb: it would be read into memory whole.
_LARGEST_MEMBER = 1 << 28


@dataclass(frozen=True)
class FileNames:
    """A corpus whose file names say everything.

    Args:
      name: the name of the corpus, a key of `sejax.corpora.read.CORPORA`.
      title: the name of the corpus in messages.
      example: a file name that `pattern` matches, with its folder, for messages.
      parts: the parts of a file name, for messages.
      pattern: matches a file name without its extension. A group that is called like one of `FIELDS` sets that
        field of the utterance. The groups, or `lookups`, have to set `speaker` and `label`.
      counts: the published number of utterances of each value of the field `label`.
      lookups: a field -> the group that decides it, and the field's value for each value of the group.
      folders: glob patterns of the folders with the wav files, below the corpus's folder ("." is that folder).
        The first pattern with a match is used, in an archive at any depth; "." is the whole archive there.
      schemes: further label schemes, which merge the values of the field `label`. The scheme "default" has a class
        for each value.
      label_source: of the scheme "default", see `Corpus.label_source`.
    """

    name: str
    title: str
    example: str
    parts: str
    pattern: re.Pattern[str]
    counts: Mapping[str, int]
    lookups: Mapping[str, tuple[str, Mapping[str, str]]] = field(default_factory=dict)
    folders: tuple[str, ...] = (".",)
    schemes: Mapping[str, LabelScheme] = field(default_factory=dict)
    label_source: str = "intended"

    @property
    def archive(self) -> str:
        """The name of the corpus's zip archive, for messages."""
        return f"{self.name}.zip"

    @property
    def label_schemes(self) -> Mapping[str, LabelScheme]:
        """All label schemes by name."""
        words = {label: label for label in self.counts}
        every_label = LabelScheme("default", tuple(self.counts), words, source=self.label_source)
        return {"default": every_label, **self.schemes}


def read_by_filename(corpus: FileNames, data_dir: str, labels: str) -> Corpus:
    """Reads the zip archive or the unpacked folder at `data_dir` under the label scheme `labels`.

    The path of a file in an archive is `<archive>::<member>`. `vad` is NaN. A wav file with a name that
    `corpus.pattern` does not match is dropped with a sentence, and so is what is no regular file. A file without a
    readable header has no duration: the extraction of its features reports it.

    Raises:
      InputError: `labels` names no scheme; `data_dir` is missing, is no zip archive, is a damaged one or has no
        utterance; a file name occurs twice; or the number of utterances is the published one, but the counts per
        label are not.
    """
    scheme = find_scheme(corpus.name, corpus.label_schemes, labels, "default")
    if not os.path.exists(data_dir):
        raise InputError(f"no {corpus.title} at {data_dir!r}: expected {corpus.archive} or its unpacked folder")
    data_dir = os.path.abspath(data_dir)
    read = _read_folder if os.path.isdir(data_dir) else _read_archive
    utterances, dropped, notes = read(corpus, data_dir)
    if not utterances:
        first = f" (the first of {len(dropped):,} that are not: {dropped[0].reason})" if dropped else ""
        raise InputError(f"{data_dir} has no {corpus.title} utterance: expected files like {corpus.example}{first}")
    notes = [_check_counts(corpus, utterances, data_dir), *notes]
    classified, outside = classify(map(Labelled, sorted(utterances, key=lambda utterance: utterance.id)), scheme)
    notes += outside
    return Corpus(
        name=corpus.name,
        classes=scheme.classes,
        vad_scale=(1.0, 5.0),  # unused: there is no VAD
        utterances=tuple(classified),
        dropped=tuple(sorted(dropped, key=lambda file: file.path)),
        notes=tuple(notes),
        label_source=scheme.source,
    )


def _check_counts(corpus: FileNames, utterances: Sequence[Utterance], data_dir: str) -> str:
    """Compares the number of utterances of each label with the published one and returns a note."""
    total = sum(corpus.counts.values())
    if len(utterances) != total:
        return f"{len(utterances)} utterances, the full {corpus.title} has {total}"
    counts = Counter(utterance.label for utterance in utterances)
    differ = [f"{label} {counts[label]} instead of {n}" for label, n in corpus.counts.items() if counts[label] != n]
    if differ:
        raise InputError(f"{data_dir} has {', '.join(differ)}, expected the published counts of {total} utterances")
    return f"full corpus: {total} utterances with the published counts per class"


_Read = tuple[list[Utterance], list[Dropped], list[str]]  # and notes


def _read_folder(corpus: FileNames, folder: str) -> _Read:
    for pattern in corpus.folders:
        folders = [path for path in glob.glob(os.path.join(glob.escape(folder), pattern)) if os.path.isdir(path)]
        if folders:
            break
    paths = sorted(os.path.normpath(os.path.join(path, name)) for path in folders for name in os.listdir(path))
    files = AudioFiles()
    problems = {path: problem for path in paths if _is_wav(path) and (problem := files.problem(path)) is not None}
    utterances, dropped = _read_files(corpus, [path for path in paths if path not in problems], _open_file)
    dropped += [_dropped(path, sentence, kind) for path, (kind, sentence) in problems.items()]
    return utterances, dropped, []


def _open_file(path: str) -> IO[bytes]:
    return open(path, "rb")


def _read_archive(corpus: FileNames, archive: str) -> _Read:
    """Reads the list of members, and of each wav file the header. Nothing is unpacked whole."""
    expected = f"expected {corpus.archive} or its unpacked folder"
    check_regular(archive, f"{corpus.archive} or its unpacked folder")
    if not archive.endswith(".zip"):  # the path of a member is split there
        raise InputError(f"{archive} has a name that does not end in .zip, {expected}")
    prefix = archive + "::"
    try:
        with zipfile.ZipFile(archive) as file:
            sizes = {member.filename: member.file_size for member in file.infolist() if _is_wav(member.filename)}
            members = [member for member in file.namelist() if member in sizes]
            for pattern in corpus.folders:
                chosen = [member for member in members if _is_in(member, pattern)]
                if chosen:
                    break
            large = [member for member in chosen if sizes[member] > _LARGEST_MEMBER]
            utterances, dropped = _read_files(
                corpus,
                [prefix + member for member in chosen if member not in large],
                lambda path: file.open(path.removeprefix(prefix)),
            )
    except InputError:
        raise
    except _ARCHIVE_ERRORS as error:
        raise InputError(f"{archive} {describe_damage(archive, error)}") from error
    for member in large:
        reason = f"{prefix}{member} has {sizes[member]:,} bytes unpacked, expected at most {_LARGEST_MEMBER:,}"
        dropped.append(_dropped(prefix + member, reason, Loss.AUDIO))
    inside = set(chosen)
    others = [member for member in members if member not in inside]
    notes = []
    if others:
        notes.append(
            f"{count(len(others), 'wav file')} outside the folder {pattern} of the archive left out (the first: "
            f"{others[0]})"
        )
    return utterances, dropped, notes


def _dropped(path: str, reason: str, kind: Loss) -> Dropped:
    """Returns a dropped file. What is no text in its name is shown by its codes: results hold text only."""
    path = printable(path)
    return Dropped(_stem(path), path, printable(reason), kind)


def _is_in(member: str, pattern: str) -> bool:
    """Returns whether a member of an archive is in a folder, at any depth."""
    folder = PurePosixPath(member.replace("\\", "/")).parent
    return pattern == "." or folder.match(pattern)


def _is_wav(path: str) -> bool:
    name = re.split(r"[/\\]", path)[-1]
    return name.lower().endswith(".wav") and not name.startswith(".")  # macOS writes files called ._*


def _stem(path: str) -> str:
    return os.path.splitext(re.split(r"[/\\]", path)[-1])[0]


def _read_files(
    corpus: FileNames, paths: Iterable[str], open_file: Callable[[str], IO[bytes]]
) -> tuple[list[Utterance], list[Dropped]]:
    """Returns an utterance, with its label before any scheme, or a dropped file for each wav file of `paths`."""
    utterances: dict[str, Utterance] = {}
    dropped: list[Dropped] = []
    for path in paths:
        if not _is_wav(path):
            continue
        stem = _stem(path)
        match = corpus.pattern.fullmatch(stem)
        if match is None or any(match[group] not in values for group, values in corpus.lookups.values()):
            example = corpus.example.rpartition("/")[2]
            dropped.append(_dropped(path, f"{stem}.wav is not named like {example} ({corpus.parts})", Loss.NAME))
            continue
        if stem in utterances:
            raise InputError(f"the utterance {stem} occurs twice, in {utterances[stem].path} and {path}, expected once")
        fields: dict[str, Any] = {name: value for name, value in match.groupdict().items() if name in FIELDS}
        fields |= {name: values[match[group]] for name, (group, values) in corpus.lookups.items()}
        utterances[stem] = Utterance(
            id=stem, path=path, corpus=corpus.name, duration=_seconds(open_file, path), **fields
        )
    return list(utterances.values()), dropped


def _seconds(open_file: Callable[[str], IO[bytes]], path: str) -> float | None:
    """Returns the duration according to the header, None without a readable header."""
    try:
        with open_file(path) as file, wave.open(file) as audio:
            seconds = audio.getnframes() / audio.getframerate()
    except (wave.Error, ZeroDivisionError, *_ARCHIVE_ERRORS):
        return None
    return seconds if math.isfinite(seconds) else None
