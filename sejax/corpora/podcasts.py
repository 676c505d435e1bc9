"""A reader for podcast corpora in the form of MSP-Podcast: a table of consensus labels, raters, splits, audio.

    Labels/labels_consensus.csv (also labels_concensus.csv)   FileName, EmoClass, EmoAct, EmoVal, EmoDom, SpkrID, ...
    Labels/labels_detailed.csv                                FileName, "WORKER; Angry; Annoyed; A:5; V:2; D:4;"
    Labels/labels.txt                                         both as text, in old releases the only list
    Partitions.txt, Speaker_ids.txt                           Test3; NAME.wav         NAME.wav; Speaker_12
    Audios/NAME.wav

The columns are arousal (EmoAct), valence and dominance in this order, and are read by their names.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sejax.corpora.files import find_path, read_text, require_folder, require_path, separate_absent
from sejax.corpora.labels import Labelled, LabelScheme, classify, find_scheme, plurality
from sejax.corpora.msp import (
    CLASS_OF_WORD,
    Rater,
    RaterCounts,
    parse_letter,
    parse_rater,
    read_evaluations,
    secondary_shares,
    votes_of,
)
from sejax.corpora.published import compare_counts
from sejax.corpora.ratings import describe_ratings, parse_rating
from sejax.corpora.rows import read_cells, read_rows
from sejax.corpora.schema import Corpus, Utterance, unknown_speaker
from sejax.corpora.spelling import find_control, show
from sejax.errors import InputError
from sejax.host.wording import count

VAD_SCALE = (1.0, 7.0)

# The order of the challenges.
_EIGHT = ("anger", "sadness", "happiness", "surprise", "fear", "disgust", "contempt", "neutral")
_FOUR = ("anger", "happiness", "sadness", "neutral")

_SPLITS = {
    "train": "train",
    "development": "val",
    "validation": "val",
    "test": "test",
    "test1": "test1",
    "test2": "test2",
    "test3": "test3",
}
_GENDERS = {"male": "M", "female": "F"}
_UNKNOWN = ("", "unknown", "nan")
_TABLES = ("labels_consensus.csv", "labels_concensus.csv")
_FOLDERS = ("Labels", "label", ".")


@dataclass(frozen=True)
class Release:
    """The published number of utterances of a release.

    Args:
      name: of the release.
      total: all utterances, hidden ones included unless `labelled_only`.
      counts: published counts of parts and classes, where they are known.
      labelled_only: whether `total` leaves out the utterances with hidden labels.
    """

    name: str
    total: int
    counts: Mapping[str, int]
    labelled_only: bool = False


@dataclass(frozen=True)
class Podcasts:
    """A corpus in this form.

    Args:
      name: a key of `sejax.corpora.read.CORPORA`.
      title: its name in messages.
      source: of the labels, see `Corpus.label_source`.
      releases: the known ones.
      faults: the name of an utterance -> what is known about it, as a phrase.
    """

    name: str
    title: str
    source: str
    releases: tuple[Release, ...]
    faults: Mapping[str, str]

    @property
    def label_schemes(self) -> Mapping[str, LabelScheme]:
        """The label schemes by name."""
        eight, four = ({name: name for name in names} for names in (_EIGHT, _FOUR))
        schemes = (
            LabelScheme("eight", _EIGHT, eight, keep_rated=True, source=self.source),
            LabelScheme("four", _FOUR, four, source=self.source),
            LabelScheme("soft", _EIGHT, eight, soft=True, keep_rated=True, source=self.source),
        )
        return {scheme.name: scheme for scheme in schemes}


def read_podcasts(corpus: Podcasts, data_dir: str, labels: str) -> Corpus:
    """Reads the release at `data_dir`.

    The scheme `eight` (the default) and `soft` keep the utterances of other labels (O, X) for their ratings, without a
    class; `four` leaves them out. An utterance of an unknown speaker has a speaker of its own. What is in a test set
    without labels is kept as hidden.

    Raises:
      InputError: no release is there, the scheme is unknown, or a line cannot be read (the message names it).
    """
    scheme = find_scheme(corpus.name, corpus.label_schemes, labels, default="eight")
    root = require_folder(data_dir, corpus.title, "the folder with Labels and Audios")
    audio = require_path(root, corpus.title, "Audios", "Audio", "wavs", "wav")
    utterances, raters = _read_tables(corpus, root, audio)
    utterances, raters_notes = _add_partitions(utterances, root, audio, corpus.name), RaterCounts()
    labelled = list(_with_votes(utterances, raters, raters_notes))
    notes = [
        _compare_with_releases(corpus, utterances),
        *_describe_files(utterances, raters, audio),
        *raters_notes.notes(),
    ]
    notes += _describe_speakers(utterances)
    notes += [f"{name} {fault}" for name, fault in corpus.faults.items() if any(u.id == name for u in utterances)]
    classified, outside = classify(labelled, scheme)
    present, dropped = separate_absent(classified)
    return Corpus(
        name=corpus.name,
        classes=scheme.classes,
        vad_scale=VAD_SCALE,
        utterances=tuple(present),
        dropped=tuple(dropped),
        notes=(*notes, *outside, *describe_ratings(present, VAD_SCALE)),
        label_source=scheme.source,
    )


def _read_tables(corpus: Podcasts, root: str, audio: str) -> tuple[list[Utterance], dict[str, list[Rater]]]:
    """Returns every utterance of the label files, with its own label, and the raters of each."""
    table = find_path(root, *(f"{folder}/{name}".removeprefix("./") for name in _TABLES for folder in _FOLDERS))
    text = find_path(root, *(f"{folder}/labels.txt".removeprefix("./") for folder in _FOLDERS))
    raters: dict[str, list[Rater]] = {}
    if table is not None:
        utterances = list(_read_consensus(table, audio, corpus.name))
        detailed = find_path(os.path.dirname(table), "labels_detailed.csv")
        if detailed is not None:
            raters = _read_detailed(detailed)
        elif text is not None:
            raters = {evaluation.name: evaluation.raters for evaluation in read_evaluations(text, VAD_SCALE)}
    elif text is not None:
        utterances = []
        for evaluation in read_evaluations(text, VAD_SCALE):
            raters[evaluation.name] = evaluation.raters
            label, vad = evaluation.label, evaluation.vad
            utterances.append(_utterance(evaluation.name, audio, corpus.name, evaluation.where, label=label, vad=vad))
    else:
        raise InputError(f"no {corpus.title} in {root!r}: expected Labels/{_TABLES[0]} or Labels/labels.txt in it")
    first: dict[str, str] = {}
    for utterance in utterances:
        place = first.setdefault(utterance.id, utterance.place)
        if place != utterance.place:
            raise InputError(f"{utterance.place}: {utterance.id} occurs twice, first in {place}, expected once")
    return utterances, raters


def _utterance(name: str, audio: str, corpus: str, where: str, speaker: str = "", **fields: Any) -> Utterance:
    """Returns an utterance. Without a speaker it has an unknown one. `fields` are further fields."""
    return Utterance(
        id=name,
        path=os.path.join(audio, f"{name}.wav"),
        speaker=speaker or unknown_speaker(name),
        corpus=corpus,
        speaker_known=bool(speaker),
        place=where,
        **fields,
    )


def _read_consensus(table: str, audio: str, corpus: str) -> Iterator[Utterance]:
    for where, row in read_rows(table, None, ("FileName", "EmoAct", "EmoVal", "EmoDom")):
        vad = tuple(
            parse_rating(row[column], dimension, VAD_SCALE, where)
            for column, dimension in (("EmoVal", "valence"), ("EmoAct", "arousal"), ("EmoDom", "dominance"))
        )
        speaker = row.get("SpkrID", "")
        split = _parse_split(row["Split_Set"], where) if row.get("Split_Set") else None
        yield _utterance(
            _stem(row["FileName"], where),
            audio,
            corpus,
            where,
            "" if speaker.casefold() in _UNKNOWN else speaker,
            label=_label(row, where),
            vad=vad,
            gender=_GENDERS.get(row.get("Gender", "").casefold()),
            split=split,
        )


def _label(row: Mapping[str, str], where: str) -> str | None:
    """Returns the class of a row: the column EmoClass, or of the columns of classes the one with the largest share."""
    if "EmoClass" in row:
        word = row["EmoClass"]
        if word.casefold() in _UNKNOWN:
            return None
        if word.casefold() in CLASS_OF_WORD:
            return CLASS_OF_WORD[word.casefold()]
        return parse_letter(word, f"{where}: the row")
    shares = {}
    for column, cell in row.items():
        name = CLASS_OF_WORD.get(column.casefold())
        if name is not None:
            shares[name] = parse_rating(cell, f"the share of {column}", (0.0, 1.0), where)
    if not shares:
        raise InputError(f"{where}: the row has neither EmoClass nor a share of a class, expected the column EmoClass")
    most = max((share for share in shares.values() if share == share), default=0.0)
    named = [name for name, share in shares.items() if abs(share - most) < 1e-6]
    return named[0] if len(named) == 1 else None


def _stem(file: str, where: str) -> str:
    stem, ending = os.path.splitext(file)
    if ending.casefold() != ".wav" or "/" in stem or "\\" in stem or find_control(stem):
        raise InputError(f"{where}: the file is {show(file)}, expected a name such as MSP-PODCAST_0001_0008.wav")
    return stem


def _parse_split(word: str, where: str) -> str:
    split = _SPLITS.get(re.sub(r"[\s_-]", "", word.casefold()))
    if split is None:
        raise InputError(
            f"{where}: the split is {show(word)}, expected Train, Development, Validation, Test, Test1, Test2 or Test3"
        )
    return split


def _read_detailed(path: str) -> dict[str, list[Rater]]:
    """Reads `labels_detailed.csv`: a header of any form, then a file and a rater's line in each record."""
    raters: dict[str, list[Rater]] = {}
    file = name = ""
    for number, (where, cells) in enumerate(read_cells(path)):
        if not any(map(str.strip, cells)) or (number == 0 and ";" not in "".join(cells)):
            continue
        if len(cells) < 2:
            raise InputError(f"{where}: found {','.join(cells)!r}, expected a file and a rater's line")
        if cells[0] != file:  # the lines of a file stand together
            file, name = cells[0], _stem(cells[0].strip(), where)
        raters.setdefault(name, []).append(parse_rater(",".join(cells[1:]), where))
    return raters


def _add_partitions(utterances: list[Utterance], root: str, audio: str, corpus: str) -> list[Utterance]:
    """Adds what the lists of partitions and speakers say, and the utterances of a test set with hidden labels."""
    splits = _read_partitions(root)
    speakers, genders = _read_speakers(root)
    listed = {utterance.id for utterance in utterances}
    hidden = {name: where for name, (split, where) in splits.items() if split == "test3" and name not in listed}
    for file in sorted(os.listdir(audio)):
        name, ending = os.path.splitext(file)
        if ending == ".wav" and re.search(r"_test3_", name, re.IGNORECASE) and name not in listed:
            hidden.setdefault(name, os.path.join(audio, file))
    complete = []
    for utterance in utterances:
        if utterance.split is None and utterance.id in splits:
            utterance = replace(utterance, split=splits[utterance.id][0])
        if not utterance.speaker_known and utterance.id in speakers:
            utterance = replace(utterance, speaker=speakers[utterance.id], speaker_known=True)
        if utterance.gender is None and utterance.speaker in genders:
            utterance = replace(utterance, gender=genders[utterance.speaker])
        if utterance.split == "test3" and not utterance.has_truth:
            utterance = replace(utterance, hidden=True)
        complete.append(utterance)
    for name, where in sorted(hidden.items()):
        complete.append(_utterance(name, audio, corpus, where, split="test3", hidden=True))
    return sorted(complete, key=lambda utterance: utterance.id)


def _pairs(path: str) -> Iterator[tuple[str, str, str]]:
    """Yields place and fields of each line `one; other` of a list."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        fields = [field.strip() for field in line.strip().rstrip(";").split(";")]
        if not any(fields):
            continue
        where = f"{path}, line {number}"
        if len(fields) != 2:
            raise InputError(f"{where}: found {line.strip()!r}, expected two fields with a semicolon between them")
        yield where, fields[0], fields[1]


def _read_partitions(root: str) -> dict[str, tuple[str, str]]:
    """Returns the split and the place of each utterance that the list of partitions names."""
    path = find_path(root, *(name for stem in ("Partitions.txt", "Partition.txt") for name in (stem, f"Labels/{stem}")))
    splits = {}
    for where, one, other in _pairs(path) if path else ():
        word, file = (other, one) if one.casefold().endswith(".wav") else (one, other)
        splits[_stem(file, where)] = (_parse_split(word, where), where)
    return splits


def _read_speakers(root: str) -> tuple[dict[str, str], dict[str, str]]:
    """Returns utterance -> speaker and speaker -> gender, as far as the list of speakers names them."""
    path = find_path(root, "Speaker_ids.txt", "Labels/Speaker_ids.txt")
    speakers, genders = {}, {}
    for where, one, other in _pairs(path) if path else ():
        if other.casefold() in _GENDERS:
            genders[one] = _GENDERS[other.casefold()]
        elif one.casefold().endswith(".wav"):
            if other.casefold() not in _UNKNOWN:
                speakers[_stem(one, where)] = other
        elif other.casefold() not in _UNKNOWN:
            raise InputError(f"{where}: found {one!r} and {other!r}, expected a wav file and its speaker")
    return speakers, genders


def _with_votes(
    utterances: Iterable[Utterance], raters: Mapping[str, Sequence[Rater]], counts: RaterCounts
) -> Iterator[Labelled]:
    for utterance in utterances:
        listed = [] if utterance.hidden else counts.each_once(raters.get(utterance.id, ()))
        votes = votes_of(listed)
        if votes:
            counts.compare(utterance.id, utterance.label, plurality(votes))
        if secondary := secondary_shares(listed):
            utterance = replace(utterance, secondary=secondary)
        yield Labelled(utterance, votes)


def _compare_with_releases(corpus: Podcasts, utterances: Sequence[Utterance]) -> str:
    """Compares the counts with those of the release whose total is the nearest."""
    hidden = sum(utterance.hidden for utterance in utterances)
    found = Counter(utterance.split for utterance in utterances if utterance.split is not None)
    found.update(utterance.label or "no agreement" for utterance in utterances if not utterance.hidden)

    def total(release: Release) -> int:
        return len(utterances) - hidden * release.labelled_only

    nearest = min(corpus.releases, key=lambda release: abs(release.total - total(release)))
    title = f"{corpus.title} {nearest.name}, the nearest of the known releases"
    expected = {"utterances": nearest.total, **nearest.counts}
    return compare_counts(title, "counts", expected, {**found, "utterances": total(nearest)})


def _describe_files(utterances: Sequence[Utterance], raters: Iterable[str], audio: str) -> list[str]:
    listed = {os.path.basename(utterance.path) for utterance in utterances}
    others = sorted(name for name in os.listdir(audio) if name.endswith(".wav") and name not in listed)
    others = [name for name in others if not name.startswith(".")]
    hidden = sum(utterance.hidden for utterance in utterances)
    notes = []
    if others:
        notes.append(f"{count(len(others), 'wav file')} without a label left out (the first: {others[0]})")
    unlisted = sorted(set(raters) - {utterance.id for utterance in utterances})
    if unlisted:
        notes.append(f"raters of {count(len(unlisted), 'file')} without a label left out (the first: {unlisted[0]})")
    if hidden:
        notes.append(f"{count(hidden, 'utterance')} of test3 with hidden labels: predicted, not scored")
    return notes


def _describe_speakers(utterances: Sequence[Utterance]) -> list[str]:
    unknown = Counter(utterance.split or "no split" for utterance in utterances if not utterance.speaker_known)
    if not unknown:
        return []
    parts = ", ".join(f"{split} {n:,}" for split, n in sorted(unknown.items()))
    return [
        f"the speakers of {count(unknown.total(), 'utterance')} are unknown ({parts}): each has a speaker of its own, "
        "and whether one of them speaks in two splits cannot be told"
    ]
