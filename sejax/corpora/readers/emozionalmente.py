"""The reader of Emozionalmente (Catania et al., 2023), crowdsourced Italian, from its release tree.

    audio/1606765283491.wav          nothing is in the name
    metadata/samples.csv             file_name, sentence, sentence_language, actor, emotion_expressed
    metadata/users.csv               username, gender, age, mother_tongue: actors and raters
    metadata/evaluations.csv         file_name, evaluator, audio_quality, emotion_recognized: 5 raters per file

Release 1.1 has official splits. They are read from a column `split` of samples.csv, or from another table in metadata
with `file_name` and that column, or that is called after a split, such as train.csv.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from sejax.corpora.files import require_folder, require_path, separate_absent
from sejax.corpora.labels import Labelled, LabelScheme, classify, find_scheme, plurality
from sejax.corpora.published import compare_counts
from sejax.corpora.rows import read_rows
from sejax.corpora.schema import Corpus, Utterance
from sejax.corpora.spelling import hash_words, show
from sejax.errors import InputError
from sejax.host.wording import count

_WORDS = {
    "anger": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "joy": "happiness",
    "neutrality": "neutral",
    "sadness": "sadness",
    "surprise": "surprise",
}
_CLASSES = tuple(_WORDS.values())
_MERGE = {name: name for name in _CLASSES}
_PERCEIVED = "perceived: plurality of 5 raters, no class for a tie"
EMOZIONALMENTE_SCHEMES = {
    scheme.name: scheme
    for scheme in (
        LabelScheme("intended", _CLASSES, _MERGE, source="intended"),
        LabelScheme("perceived", _CLASSES, _MERGE, source=_PERCEIVED),
        LabelScheme("soft", _CLASSES, _MERGE, soft=True, source=_PERCEIVED),
    )
}
INTENDED_COUNTS = {"utterances": 6902, "actors": 431, "votes": 34_510, **dict.fromkeys(_CLASSES, 986)}
PERCEIVED_COUNTS = {
    "utterances": 6902,
    "actors": 431,
    "votes": 34_510,
    "neutral": 1205,
    "sadness": 1111,
    "surprise": 1004,
    "anger": 846,
    "happiness": 788,
    "fear": 621,
    "disgust": 612,
    "no agreement": 715,
}
_GENDERS = {"f": "F", "female": "F", "m": "M", "male": "M"}
_SPLITS = {"train": "train", "dev": "val", "development": "val", "val": "val", "validation": "val", "test": "test"}


def read_emozionalmente(data_dir: str, labels: str = "default") -> Corpus:
    """Reads the release tree at `data_dir`.

    The scheme `intended` (the default) has the emotion that the actor expressed, `perceived` the one that most of the
    five raters recognised: a tie is left out there, and kept for its votes by `soft`. Votes belong to the latter two.

    Raises:
      InputError: no release is there, the scheme is unknown, or a row cannot be read (the message quotes it).
    """
    scheme = find_scheme("emozionalmente", EMOZIONALMENTE_SCHEMES, labels, default="intended")
    root = require_folder(data_dir, "Emozionalmente", "the folder with audio and metadata")
    metadata = require_path(root, "Emozionalmente", "metadata", "emozionalmente_dataset/metadata")
    audio = require_path(os.path.dirname(metadata), "Emozionalmente", "audio")
    votes, bad = _read_votes(require_path(metadata, "Emozionalmente", "evaluations.csv"))
    utterances, notes = _read_samples(metadata, audio)
    if scheme.name == "intended":
        labelled = [Labelled(utterance) for utterance in utterances]
    else:
        labelled = [_perceived(utterance, votes.get(utterance.id, ())) for utterance in utterances]
    n_votes = sum(map(len, votes.values()))
    found = Counter(item.utterance.label or "no agreement" for item in labelled)
    found.update(utterances=len(labelled), actors=len({u.speaker for u in utterances}), votes=n_votes)
    expected = INTENDED_COUNTS if scheme.name == "intended" else PERCEIVED_COUNTS
    unheard = votes.keys() - {utterance.id for utterance in utterances}
    if unheard:
        notes.append(
            f"votes for {count(len(unheard), 'file')} that samples.csv lacks left out (the first: {min(unheard)})"
        )
    if bad:
        notes.append(f"{count(bad, 'vote')} for audio of bad quality count like the others")
    notes.append("speakers from 10 years of age on are among the actors: minors")
    classified, outside = classify(labelled, scheme)
    present, dropped = separate_absent(classified)
    return Corpus(
        name="emozionalmente",
        classes=scheme.classes,
        vad_scale=(1.0, 5.0),  # unused: there is no VAD
        utterances=tuple(present),
        dropped=tuple(dropped),
        notes=(compare_counts("Emozionalmente", "counts", expected, found), *notes, *outside),
        label_source=scheme.source,
    )


def _perceived(utterance: Utterance, votes: tuple[tuple[str, ...], ...]) -> Labelled:
    return Labelled(replace(utterance, label=plurality(votes)), votes)


def _read_votes(path: str) -> tuple[dict[str, tuple[tuple[str, ...], ...]], int]:
    """Returns the class that each rater of a file recognised, and the number of votes for audio of bad quality."""
    votes: dict[str, tuple[tuple[str, ...], ...]] = {}
    bad = 0
    for where, row in read_rows(path, None, ("file_name", "emotion_recognized")):
        id = _stem(row["file_name"], where)
        votes[id] = (*votes.get(id, ()), (_class(row["emotion_recognized"], where),))
        bad += row.get("audio_quality", "").casefold() == "bad"
    return votes, bad


def _read_samples(metadata: str, audio: str) -> tuple[list[Utterance], list[str]]:
    samples = require_path(metadata, "Emozionalmente", "samples.csv")
    users = {
        row["username"]: row
        for _, row in read_rows(require_path(metadata, "Emozionalmente", "users.csv"), None, ("username", "gender"))
    }
    splits, notes = _read_splits(metadata)
    utterances = []
    for where, row in read_rows(
        samples, None, ("file_name", "sentence", "actor", "emotion_expressed"), free=("sentence",)
    ):
        id = _stem(row["file_name"], where)
        if not row["actor"]:
            raise InputError(f"{where}: actor is blank, expected a name of users.csv")
        split = _split(row["split"], where) if row.get("split") else splits.get(id)
        utterances.append(
            Utterance(
                id=id,
                path=os.path.join(audio, f"{id}.wav"),
                speaker=row["actor"],
                corpus="emozionalmente",
                text=hash_words(row["sentence"]),
                gender=_GENDERS.get(users.get(row["actor"], {}).get("gender", "").casefold()),
                label=_class(row["emotion_expressed"], where),
                split=split,
                place=where,
            )
        )
    unlisted = sorted({utterance.speaker for utterance in utterances} - users.keys())
    if unlisted:
        notes.append(
            f"users.csv lacks {count(len(unlisted), 'actor')}, whose gender is unknown (the first: {unlisted[0]})"
        )
    without = sum(utterance.split is None for utterance in utterances)
    if 0 < without < len(utterances):
        notes.append(f"{count(without, 'utterance')} of {len(utterances):,} have no split")
    return sorted(utterances, key=lambda utterance: utterance.id), notes


def _stem(file: str, where: str) -> str:
    stem, ending = os.path.splitext(os.path.basename(file))
    if ending.casefold() != ".wav" or not stem:
        raise InputError(f"{where}: file_name is {show(file)}, expected a name such as 1606765283491.wav")
    return stem


def _class(word: str, where: str) -> str:
    if word.casefold() not in _WORDS:
        raise InputError(f"{where}: the emotion is {show(word)}, expected one of {', '.join(_WORDS)}")
    return _WORDS[word.casefold()]


def _split(word: str, where: str) -> str:
    if word.casefold() not in _SPLITS:
        raise InputError(f"{where}: the split is {show(word)}, expected one of {', '.join(_SPLITS)}")
    return _SPLITS[word.casefold()]


def _read_splits(metadata: str) -> tuple[dict[str, str], list[str]]:
    """Returns the split of each file that a further table names, and notes about tables that name none."""
    splits: dict[str, str] = {}
    notes = []
    for name in sorted(os.listdir(metadata)):
        stem, ending = os.path.splitext(name.casefold())
        if ending != ".csv" or stem in ("samples", "users", "evaluations") or name.startswith("."):
            continue
        words = [_SPLITS[word] for word in re.split(r"[^a-z]+", stem) if word in _SPLITS]
        rows = list(read_rows(os.path.join(metadata, name), None, ()))
        columns: Mapping[str, str] = rows[0][1] if rows else {}
        if "file_name" not in columns or not ("split" in columns or len(words) == 1):
            notes.append(f"metadata/{name} is not read: it has no column file_name, or names no split")
            continue
        for where, row in rows:
            id = _stem(row["file_name"], where)
            split = _split(row["split"], where) if "split" in row else words[0]
            if splits.setdefault(id, split) != split:
                raise InputError(f"{where}: {id} is in {split} and in {splits[id]}, expected one split")
    return splits, notes
