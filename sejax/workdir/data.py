"""The data that a workdir's runs were trained on: what identifies it, and what has changed since."""

import csv
import hashlib
import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sejax.corpora.schema import DIMENSIONS, SPLITS, Corpus, Utterance
from sejax.errors import InputError
from sejax.host.atomic import atomic_write
from sejax.host.json_files import read_json
from sejax.host.wording import count

CONFIG = "config.json"
RUNS = "runs.csv"
UTTERANCES = "utterances.csv"


def _number(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))


_COLUMNS: Mapping[str, Callable[[Utterance], str]] = {
    "id": lambda u: u.id,
    "speaker": lambda u: u.speaker,
    "label": lambda u: u.label or "",
    "distribution": lambda u: json.dumps(dict(u.distribution), sort_keys=True) if u.distribution else "",
    **{name: lambda u, place=place: _number(u.vad[place]) for place, name in enumerate(DIMENSIONS)},  # type: ignore[misc]
    "session": lambda u: u.session or "",
    "fold": lambda u: u.fold or "",
    "split": lambda u: u.split or "",
}
"""Everything about an utterance that changes what a run learns or how it is scored, but for its audio."""
AUDIO = "audio"  # the last column: the digest of the decoded samples
VECTORS = "vectors"  # of config.json: digests of what streams have of feature files, if there are any
FOLDERS = "folders"  # beside the digests of columns: of the folders that corruptions draw from, if there are any

Row = Mapping[str, str]


def rows_of(corpus: Corpus, audio: Mapping[str, str]) -> list[Row]:
    """Returns the row of utterances.csv of each usable utterance.

    Args:
      corpus: with usable utterances only.
      audio: the digest of the decoded samples, by utterance id.
    """
    return [{**row, AUDIO: audio[row["id"]]} for row in _table(corpus)]


def _table(corpus: Corpus) -> list[dict[str, str]]:
    """Returns the rows of utterances.csv without the column of the audio."""
    return [{name: of(u) for name, of in _COLUMNS.items()} for u in corpus.utterances]


def identity(
    corpus: Corpus, rows: Sequence[Row], folders: Mapping[str, str], vectors: Mapping[str, str]
) -> dict[str, Any]:
    """Returns what config.json holds of the data: counts, classes in order, VAD scale, a digest of each column.

    Args:
      folders: digests of the folders that corruptions draw from.
      vectors: digests of the vectors that streams have of feature files.
    """
    columns = {name: _digest([row[name] for row in rows]) for name in (*_COLUMNS, AUDIO)}
    return {
        "utterances": len(rows),
        "classes": list(corpus.classes),
        "vad_scale": list(corpus.vad_scale),
        "digests": columns | ({FOLDERS: _digest(folders)} if folders else {}),
        **({VECTORS: dict(vectors)} if vectors else {}),
    }


def digest(identity: Mapping[str, Any]) -> str:
    """Returns one digest of an identity, by which metrics.json names its data."""
    return _digest(identity)


def _digest(values: Any) -> str:
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()


def write_rows(workdir: str, rows: Sequence[Row]) -> None:
    """Writes utterances.csv."""
    with atomic_write(Path(workdir, UTTERANCES)) as file:
        writer = csv.DictWriter(file, (*_COLUMNS, AUDIO), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def check_identity(begun: Any, path: Path) -> None:
    """Checks the shape of an identity that was read from a config.json.

    Raises:
      InputError: it is not as `identity` returns it.
    """
    if not isinstance(begun, dict) or not isinstance(begun.get("digests"), dict):
        raise InputError(
            f"{path} has no object 'digests' in 'data', expected what a training run writes; restore it, or use "
            "another --workdir"
        )


def changes(workdir: str, begun: Mapping[str, Any], here: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    """Returns what differs between the data a workdir was begun with and the data that is there now, in words.

    Args:
      workdir: its utterances.csv says which utterances differ.
      begun: the identity in its config.json.
      here: the identity of the data now.
      rows: the rows of the data now.
    """
    found = _changed_scheme(begun, classes=here["classes"], vad_scale=here["vad_scale"])
    digests = begun["digests"]
    columns = [name for name in (*_COLUMNS, AUDIO) if here["digests"][name] != digests.get(name)]
    if columns:
        found += _changed_rows(_read_rows(workdir, digests), rows, columns) or [
            f"the column {name} (of which utterances cannot be said: {UTTERANCES} is not as it was written)"
            for name in columns
        ]
    if here["digests"].get(FOLDERS) != digests.get(FOLDERS):
        found.append("the files that corruptions draw from")
    if here.get(VECTORS) != begun.get(VECTORS):
        found.append(f"the vectors of {', '.join(here.get(VECTORS, ()))} (config.feature_files)")
    if not found and here["utterances"] != begun.get("utterances"):
        found = [f"{count(here['utterances'], 'utterance')} (config.json names {_words(begun.get('utterances'))})"]
    return found


def changes_of_table(workdir: str, begun: Mapping[str, Any], corpus: Corpus) -> list[str]:
    """Returns what differs before any audio is read: other labels, speakers, folds; utterances that are gone.

    Utterances that are new alone are no change yet: their audio may prove unusable, as it was before.

    Args:
      workdir: see `changes`.
      begun: see `changes`.
      corpus: as its reader returns it.
    """
    there, here = _read_rows(workdir, begun["digests"]), _table(corpus)
    if there is None:
        return []
    known = {row["id"] for row in there}
    found = _changed_scheme(begun, classes=list(corpus.classes), vad_scale=list(corpus.vad_scale))
    if found or _changed_rows(there, [row for row in here if row["id"] in known], list(_COLUMNS)):
        found += _changed_rows(there, here, list(_COLUMNS))
    return found


def _changed_scheme(begun: Mapping[str, Any], **here: Any) -> list[str]:
    return [
        f"{name} {_words(value)} (was {_words(begun.get(name))})"
        for name, value in here.items()
        if value != begun.get(name)
    ]


def read_rows(workdir: str) -> list[Row] | None:
    """Returns the rows of utterances.csv, None if a workdir has none, or others than it was begun with."""
    try:
        digests = read_json(Path(workdir, CONFIG), "what a training run writes")["data"]["digests"]
        return _read_rows(workdir, dict(digests))
    except (InputError, KeyError, TypeError, ValueError):
        return None


def held_out_speakers(workdir: str, numbers: Sequence[int]) -> list[list[str]] | None:
    """Returns the speakers whom each run was neither trained on nor had its epoch chosen by.

    Args:
      workdir: whose runs.csv says it; None is returned if it cannot be read.
      numbers: of the runs.
    """
    try:
        with open(Path(workdir, RUNS), encoding="utf-8", newline="") as file:
            runs = {int(row["run"]): row for row in csv.DictReader(file)}
        train, val, test = (
            [set(shlex.split(runs[number][f"{split}_speakers"])) for number in numbers] for split in SPLITS
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error):
        return None
    return [sorted(tested - trained - chosen) for trained, chosen, tested in zip(train, val, test, strict=True)]


def _read_rows(workdir: str, digests: Mapping[str, str]) -> list[Row] | None:
    """Returns the rows of utterances.csv, None if it is not the file that config.json was written with."""
    try:
        with open(Path(workdir, UTTERANCES), encoding="utf-8", newline="") as file:
            rows: list[Row] = list(csv.DictReader(file))
        intact = all(_digest([row[name] for row in rows]) == digests.get(name) for name in (*_COLUMNS, AUDIO))
    except (OSError, ValueError, KeyError, csv.Error):
        return None
    return rows if intact else None


def _changed_rows(begun: Sequence[Row] | None, here: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """Returns what differs by column: in how many utterances, and the first of them."""
    if begun is None:
        return []
    there, now = {row["id"]: row for row in begun}, {row["id"]: row for row in here}
    found = []
    for what, ids in (("new", now.keys() - there.keys()), ("gone", there.keys() - now.keys())):
        if ids:
            found.append(f"{count(len(ids), 'utterance')} {what} (the first {min(ids)!r})")
    both = sorted(there.keys() & now.keys())
    for name in columns:
        differ = [id_ for id_ in both if there[id_][name] != now[id_][name]]
        if differ:
            first = differ[0]
            shown = "" if name == AUDIO else f" is {_words(now[first][name])} now, was {_words(there[first][name])}"
            more = ", or is decoded by another version of libsndfile or soxr" if len(differ) == len(both) > 1 else ""
            found.append(
                f"{name} of {len(differ)} of {count(len(both), 'utterance')} (the first: {first!r}{shown})"
                f"{more if name == AUDIO else ''}"
            )
    return found


def _words(value: Any) -> str:
    return "blank" if value in ("", None) else repr(value)
