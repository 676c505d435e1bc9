"""A reader for corpora whose file names say everything about an utterance, such as EmoDB's `03a01Fa.wav`."""

import math
import os
import re
import wave
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sejax.corpora.labels import Labelled, LabelScheme, classify, find_scheme
from sejax.corpora.schema import Corpus, Dropped, Loss, Utterance
from sejax.corpora.trees import ARCHIVE_ERRORS, AudioTree, dropped_file, last_names, open_tree
from sejax.errors import InputError
from sejax.host.magic import FIRST_BYTES, describe_contents, is_git_lfs_pointer
from sejax.host.wording import count, printable

FIELDS = ("id", "speaker", "text", "label", "gender", "session", "split")
# How many names a note quotes.
_QUOTED = 10


class Fault(NamedTuple):
    """Something wrong with a release: a note says it where all of its files are there."""

    names: tuple[str, ...]  # ids of utterances
    sentence: str
    unusable: bool = False  # whether to drop the files


@dataclass(frozen=True)
class FileNames:
    """A corpus whose file names say everything.

    A name is read in three steps, and each sees what the one before has found: `pattern` takes it to pieces, `lookups`
    say what a piece means, `formats` put pieces together. Whatever is called like one of `FIELDS` then is that field of
    the utterance. `speaker` and `label` have to be set; `id` is the file's name if nothing sets it.

    Args:
      name: the name of the corpus, a key of `sejax.corpora.read.CORPORA`.
      title: the name of the corpus in messages.
      example: a file name that `pattern` matches, with its folder, for messages.
      parts: the parts of a file name, for messages.
      pattern: matches a file name without its ending.
      counts: the published number of utterances of each value of the field `label`.
      lookups: a field, or a piece for `formats` -> the group that decides it, and its value for each value of the
        group. A file with another value of the group has no name of the corpus. A group that takes no part in the match
        sets nothing.
      formats: a field -> a format string of groups and lookups, such as "{speaker}_{number}".
      folders: glob patterns of the folders with the audio files, see `open_tree`.
      schemes: further label schemes, which merge the values of the field `label`.
      words: the name of the label scheme that has a class for each value of the field `label`.
      default: the label scheme that is used unless the user names another.
      label_source: of the scheme `words`, see `Corpus.label_source`.
      with_folder: whether `pattern` matches the name of the file's folder, a slash and the file's name.
      endings: of audio files, in lower case.
      renamed: broken file names of the release -> what they should be, both without ending. A note says so.
      aside: what other parts of the release are, and a pattern of their file names. They are left out with a note.
      copies: whether the release is in circulation with its tree in it twice. Of two files of the same name and size
        the one in fewer folders is then read, and a note counts the others.
      speakers: the published number of speakers, or of utterances of each speaker.
      names: returns the ids that the release is known to have, which may depend on those that are there.
      faults: what is known to be wrong with the release.
      remarks: notes about every copy of the corpus, one sentence each.
    """

    name: str
    title: str
    example: str
    parts: str
    pattern: re.Pattern[str]
    counts: Mapping[str, int]
    lookups: Mapping[str, tuple[str, Mapping[str, str]]] = field(default_factory=dict)
    formats: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = (".",)
    schemes: Mapping[str, LabelScheme] = field(default_factory=dict)
    words: str = "default"
    default: str = "default"
    label_source: str = "intended"
    with_folder: bool = False
    endings: tuple[str, ...] = (".wav",)
    renamed: Mapping[str, str] = field(default_factory=dict)
    aside: tuple[str, re.Pattern[str]] | None = None
    copies: bool = False
    speakers: int | Mapping[str, int] | None = None
    names: Callable[[Collection[str]], Iterable[str]] | None = None
    faults: tuple[Fault, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def data_dir(self) -> str:
        """What the corpus is on disk, for messages."""
        return f"{self.name}.zip or its unpacked folder"

    @property
    def label_schemes(self) -> Mapping[str, LabelScheme]:
        """All label schemes by name."""
        same = {label: label for label in self.counts}
        every_label = LabelScheme(self.words, tuple(self.counts), same, source=self.label_source)
        return {self.words: every_label, **self.schemes}

    def find_scheme(self, labels: str) -> LabelScheme:
        """Returns the label scheme called `labels`; "default" is another name for the default one.

        Raises:
          InputError: there is none of that name.
        """
        return find_scheme(self.name, self.label_schemes, labels, self.default)

    def parse(self, folder: str, stem: str) -> dict[str, Any] | None:
        """Returns the fields of an utterance, None for a name of another form.

        Args:
          folder: the name of the file's folder.
          stem: the file's name without its ending.
        """
        stem = self.renamed.get(stem, stem)
        match = self.pattern.fullmatch(f"{folder}/{stem}" if self.with_folder else stem)
        if match is None:
            return None
        pieces: dict[str, Any] = {"id": stem, **match.groupdict()}
        for piece, (group, meanings) in self.lookups.items():
            found = match[group]
            if found is not None and found not in meanings:
                return None
            pieces[piece] = None if found is None else meanings[found]
        for name, form in self.formats.items():
            pieces[name] = form.format_map(pieces)
        return {name: pieces[name] for name in FIELDS if name in pieces}


class Found(NamedTuple):
    """What the files of a corpus say, before any label scheme: each utterance's `label` is the corpus's own word."""

    utterances: list[Utterance]  # sorted by id
    dropped: list[Dropped]
    notes: list[str]


def read_by_filename(corpus: FileNames, data_dir: str, labels: str) -> Corpus:
    """Reads the zip archive or the unpacked folder at `data_dir` under the label scheme `labels`.

    Raises:
      InputError: `labels` names no scheme; or see `find_utterances`.
    """
    scheme = corpus.find_scheme(labels)
    found = find_utterances(corpus, data_dir)
    return label_found(corpus, found, map(Labelled, found.utterances), scheme)


def find_utterances(corpus: FileNames, data_dir: str) -> Found:
    """Finds the utterances in the zip archive or the unpacked folder at `data_dir`.

    The path of a file in an archive is `<archive>::<member>`. `vad` is NaN. An audio file with a name of another form
    is dropped with a sentence, and so is what is no regular file, and a pointer of git-lfs. A file without a readable
    header has no duration: the extraction of its features reports it.

    Raises:
      InputError: `data_dir` is missing, is no zip archive, is a damaged one or has no utterance; an utterance occurs
        twice (see `FileNames.copies`); or the number of utterances is the published one, but the counts per label are
        not.
    """
    if not os.path.exists(data_dir):
        raise InputError(f"no {corpus.title} at {data_dir!r}: expected {corpus.data_dir}")
    data_dir = os.path.abspath(data_dir)
    with open_tree(data_dir, corpus.folders, corpus.endings, corpus.data_dir) as tree:
        utterances, dropped, notes = _read_files(corpus, tree)
    dropped = sorted([*dropped, *tree.dropped], key=lambda file: file.path)
    if not utterances:
        first = f" (the first of {len(dropped):,} that are not: {dropped[0].reason})" if dropped else ""
        raise InputError(f"{data_dir} has no {corpus.title} utterance: expected files like {corpus.example}{first}")
    return Found(
        sorted(utterances, key=lambda utterance: utterance.id),
        dropped,
        [*_compare(corpus, utterances, dropped, data_dir), *tree.notes, *notes, *corpus.remarks],
    )


def label_found(corpus: FileNames, found: Found, labelled: Iterable[Labelled], scheme: LabelScheme) -> Corpus:
    """Returns the corpus of what was found, under a label scheme.

    Args:
      corpus: the declaration.
      found: dropped files and notes.
      labelled: the utterances with the labels and votes that the scheme merges.
      scheme: one of the corpus's label schemes.
    """
    utterances, outside = classify(labelled, scheme)
    return Corpus(
        name=corpus.name,
        classes=scheme.classes,
        vad_scale=(1.0, 5.0),  # unused: there is no VAD
        utterances=tuple(utterances),
        dropped=tuple(found.dropped),
        notes=(*found.notes, *outside),
        label_source=scheme.source,
    )


# ---- files


def _read_files(corpus: FileNames, tree: AudioTree) -> tuple[list[Utterance], list[Dropped], list[str]]:
    """Returns an utterance, with its label before any scheme, or a dropped file for each audio file, and notes."""
    utterances: dict[str, Utterance] = {}
    dropped: list[Dropped] = []
    renamed, aside, copies = [], [], []
    unusable = {name: fault.sentence for fault in corpus.faults if fault.unusable for name in fault.names}
    for path in tree.paths:
        folder, file_name = last_names(path)
        stem = os.path.splitext(file_name)[0]
        fields = corpus.parse(folder, stem)
        if fields is None:
            if corpus.aside and corpus.aside[1].fullmatch(stem):
                aside.append(path)
                continue
            example = last_names(corpus.example)[1]
            reason = f"{file_name} is not named like {example} ({corpus.parts})"
            dropped.append(dropped_file(path, reason, Loss.NAME))
            continue
        name = fields["id"]
        if name in utterances:
            first = utterances[name].path
            if not corpus.copies or tree.size(first) != tree.size(path):
                raise InputError(f"the utterance {name} occurs twice, in {first} and {path}, expected once")
            copies.append(path)
            continue
        seconds, problem = _inspect(tree, path)
        if problem is not None or name in unusable:
            reason = problem or f"{path}: {unusable[name]}"
            dropped.append(replace(dropped_file(path, reason, Loss.AUDIO), id=name))
            continue
        if stem in corpus.renamed:
            renamed.append(f"{stem} as {corpus.renamed[stem]}")
        utterances[name] = Utterance(path=path, corpus=corpus.name, duration=seconds, **fields)
    notes = [
        fault.sentence
        for fault in corpus.faults
        if not fault.unusable and all(name in utterances for name in fault.names)
    ]
    if renamed:
        notes.append(f"broken file names of the release are read as they are meant: {_listed(sorted(renamed))}")
    if corpus.aside and aside:
        notes.append(
            f"{count(len(aside), 'file')} of {corpus.aside[0]} left out (the first: {last_names(aside[0])[1]})"
        )
    if copies:
        notes.append(
            f"{count(len(copies), 'file')} of the same name and size as others, in a copy of the tree, left out (the "
            f"first: {printable(copies[0])})"
        )
    return list(utterances.values()), dropped, notes


def _inspect(tree: AudioTree, path: str) -> tuple[float | None, str | None]:
    """Returns the duration according to a wav header, None without a readable one, and why a file is no audio."""
    try:
        with tree.open(path) as file:
            start = file.read(FIRST_BYTES)
            if is_git_lfs_pointer(start):
                return None, f"{path} is {describe_contents(start)}"
            file.seek(0)
            with wave.open(file) as audio:
                seconds = audio.getnframes() / audio.getframerate()
    except (wave.Error, ZeroDivisionError, *ARCHIVE_ERRORS):
        return None, None
    return (seconds if math.isfinite(seconds) else None), None


# ---- the published corpus


def _compare(
    corpus: FileNames, utterances: Sequence[Utterance], dropped: Sequence[Dropped], data_dir: str
) -> list[str]:
    """Compares the utterances with the published corpus and returns notes.

    Raises:
      InputError: their number is the published one, but the counts per label are not.
    """
    total = sum(corpus.counts.values())
    labels = _differences(corpus.counts, Counter(utterance.label for utterance in utterances))
    if len(utterances) == total and labels:
        counts = ", ".join(f"{label} {n} instead of {published}" for label, published, n in labels)
        raise InputError(f"{data_dir} has {counts}, expected the published counts of {total} utterances")
    there = {utterance.id for utterance in utterances}
    known = set(corpus.names(there)) if corpus.names else set[str]()
    missing = sorted(known - there - {lost.id for lost in dropped})
    foreign = sorted(there - known) if len(known) == total else []
    if len(utterances) == total and not missing and not foreign:
        notes = [f"full corpus: {total} utterances with the published counts per class"]
    elif corpus.speakers is None:
        notes = [f"{len(utterances)} utterances, the full {corpus.title} has {total}"]
    else:
        names = [
            f"{_listed(which)} {'is' if len(which) == 1 else 'are'} {what}"
            for which, what in ((missing, "not there"), (foreign, "not of the release"))
            if which
        ]
        which_ones = f": {'; '.join(names)}" if names else ""
        notes = [f"expected {total:,} utterances of the full {corpus.title}, found {len(utterances):,}{which_ones}"]
    if corpus.speakers is None:
        return notes
    speakers = Counter(utterance.speaker for utterance in utterances)
    differ = [f"{label} {published:,} (found {n:,})" for label, published, n in labels]
    if isinstance(corpus.speakers, Mapping):
        per_speaker = _differences(corpus.speakers, speakers)
        differ += [f"speaker {speaker} {published:,} (found {n:,})" for speaker, published, n in per_speaker]
    elif len(speakers) != corpus.speakers:
        differ.append(f"{corpus.speakers} speakers (found {len(speakers)})")
    return [*notes, f"expected as published: {_listed(differ)}"] if differ else notes


def _differences(published: Mapping[str, int], found: Mapping[Any, int]) -> list[tuple[str, int, int]]:
    """Returns the words with another number than the published one, that one, and the number found."""
    return [(word, n, found.get(word, 0)) for word, n in published.items() if found.get(word, 0) != n]


def _listed(words: Sequence[str]) -> str:
    """Returns words with commas, of many the first ones and the number of the others."""
    more = f" and {len(words) - _QUOTED:,} more" if len(words) > _QUOTED else ""
    return ", ".join(words[:_QUOTED]) + more
