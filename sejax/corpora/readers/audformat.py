"""The reader of databases in audformat, such as those of `audb`, by its conventions for emotion.

`emotion.categories.<split>.desired` holds the class that was asked for, `.gold_standard` the one that raters agreed on
(`no_agreement` without one), `.votes` the number of raters for each class; a further word is the modality that was
rated (`.face`). The columns valence, arousal and dominance of `emotion.dimensions.<split>...` are ratings. The column
speaker, usually of the table `files`, says who speaks, and its scheme the gender.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sejax.corpora.audformat_database import Database, Table, open_database, read_segments
from sejax.corpora.described import GENDERS, MOST_VOTES, UNKNOWN, describe_unknown, find_duration
from sejax.corpora.files import AudioFiles
from sejax.corpora.labels import Labelled, LabelScheme, classify, plurality
from sejax.corpora.schema import DIMENSIONS, Corpus, Dropped, Loss, Utterance
from sejax.corpora.spelling import show
from sejax.corpora.split_names import WORDS
from sejax.corpora.vad_scale import find_vad_scale, parse_vad_scale
from sejax.errors import InputError, shown
from sejax.host.wording import count

EMOTION = "emotion"
"""The scheme and the column of classes."""
NO_AGREEMENT = "no_agreement"
TEXTS = ("transcription", "text", "sentence")
"""Columns whose values are ids of texts if their scheme lists them; the first that there is counts."""

_GENDERS = ("gender", "sex")
_TRUTHS = "emotion, votes and ratings"
_SOURCES = ("desired", "gold_standard", "votes")
_TOPICS = {EMOTION, "categories", "dimensions", "files", *DIMENSIONS}
_TYPES = {"train": "train", "dev": "val", "test": "test"}


class Key(NamedTuple):
    """A file, or a part of it; times in seconds."""

    file: str
    start: float | None
    end: float | None


@dataclass
class Truth:
    """What the tables say about a file or a part of it."""

    place: str
    split: str | None = None  # its id in the database
    label: str = ""
    votes: tuple[tuple[str, ...], ...] = ()
    vad: dict[str, float] = field(default_factory=dict)


def read_audformat(data_dir: str, labels: str = "default") -> Corpus:
    """Reads the database in the folder `data_dir`.

    The classes are the labels of the scheme `emotion` that occur, in its order. `desired` labels are intended, and
    stand without the raters' votes; others have the votes as a distribution. Where a column for each rater, or their
    votes, stands alone, the class is the one that most raters named. An utterance without agreement has no class: it
    is kept for its votes or ratings. Where a rating has a column for each rater, it is their mean. The scale of the
    ratings is that of their scheme. Splits are those of the tables; several tests are numbered. A file of a test split
    of which all this is missing is hidden. Files that a table names without their folder are found by their name.

    Args:
      data_dir: the folder with `db.yaml`.
      labels: the kind of labels, if the database has several (such as `desired` or `gold_standard.face`), the scale of
        valence, arousal and dominance (`1..7`), or both with a comma between. By default, the only kind; kinds that
        agree in every label are one.

    Raises:
      InputError: what `open_database` and `read_segments` refuse; no table with emotions or ratings; several kinds and
        none named, or one that is not there; a file in two splits, with two labels or two speakers; votes that are no
        whole numbers; ratings that are no numbers, or on different scales.
    """
    kind, scale = _parse_options(labels)
    reader = _Reader(open_database(data_dir))
    chosen, rated = reader.choose(kind)
    truths = reader.read_truths(chosen, rated)
    utterances, dropped, notes = reader.describe(truths)
    scheme = reader.scheme(utterances, chosen)
    classified, outside = classify(utterances, scheme)
    vad_scale, about_scale = find_vad_scale(classified, scale or reader.declared_scale(rated), data_dir)
    return Corpus(
        name="audformat",
        classes=scheme.classes,
        vad_scale=vad_scale,
        utterances=tuple(classified),
        dropped=tuple(dropped),
        notes=(*notes, *outside, *about_scale, *describe_unknown(classified, _TRUTHS)),
        label_source=scheme.source,
    )


def _parse_options(labels: str) -> tuple[str | None, tuple[float, float] | None]:
    kind = scale = None
    for part in [] if labels == "default" else labels.split(","):
        part = part.strip()
        if (scale if ".." in part else kind) is not None:
            raise InputError(f"config.labels is {shown(labels)}, expected one kind of labels, one scale, or both")
        if ".." in part:
            scale = parse_vad_scale(part)
        else:
            kind = part
    return kind, scale


class _Reader:
    """Reads the tables of one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.labelled = _by_kind(database, [table for table in database.tables if _label_columns(table)])
        self.voted = _by_kind(database, [table for table in database.tables if "votes" in table.name.split(".")])
        self.rated = _by_kind(database, [table for table in database.tables if _rating_columns(table)])
        self._moved: dict[str, str] = {}  # file of a table -> the file that has its name
        self._strange: dict[tuple[str, str], str] = {}  # by place and column
        self._known: dict[str, set[str]] = {}  # name of a file -> the files of all tables that have it

    def choose(self, kind: str | None) -> tuple[str | None, str | None]:
        """Returns the kind of labels, or else of votes, and the kind of ratings; None where the database has none."""
        kinds = self.labelled or self.voted
        if kind is not None and kind not in {*kinds, *self.rated}:
            known = ", ".join(dict.fromkeys((*kinds, *self.rated))) or "none"
            raise InputError(f"config.labels is {shown(kind)}, expected a kind of labels of this database: {known}")
        if not kinds and not self.rated:
            raise InputError(
                f"{self.database.folder} has no table with emotions or ratings, found "
                f"{', '.join(table.name for table in self.database.tables)}, expected columns {EMOTION}, "
                f"{', '.join(DIMENSIONS)}"
            )
        chosen = kind if kind in kinds else self._only_kind()
        rated = next((name for name in (kind, chosen, "gold_standard") if name in self.rated), None)
        if rated is None and self.rated:
            rated = self._one_of(list(self.rated), "ratings")
        return chosen, rated

    def _only_kind(self) -> str | None:
        kinds = self.labelled or self.voted
        if len(kinds) < 2:
            return next(iter(kinds), None)
        # A database may have its labels twice, with splits and without.
        found: dict[str, dict[Key, str]] = {}
        for kind in sorted(
            kinds, key=lambda kind: all(_split_id(self.database, table) is None for table in kinds[kind])
        ):
            labels = {key: truth.label for key, truth in self.read_truths(kind, None).items()}
            if labels not in found.values():
                found[kind] = labels
        return self._one_of([kind for kind in kinds if kind in found], "labels")

    def _one_of(self, kinds: Sequence[str], what: str) -> str:
        if len(kinds) > 1:
            raise InputError(
                f"{self.database.folder} has {what} of the kinds {', '.join(kinds)}, expected one of them as "
                "config.labels"
            )
        return kinds[0]

    def read_truths(self, kind: str | None, rated: str | None) -> dict[Key, Truth]:
        """Returns what tables of a kind of labels, with its votes, and of a kind of ratings say, by file and part."""
        truths: dict[Key, Truth] = {}
        for table in self.labelled.get(kind or "", []):
            self._add_labels(truths, table)
        if self._is_perceived(kind):
            for votes, tables in self.voted.items():
                if _modality(votes) == _modality(kind or ""):
                    for table in tables:
                        self._add_votes(truths, table)
        if self._is_voted(kind):
            for truth in truths.values():
                truth.label = plurality(truth.votes) or (NO_AGREEMENT if truth.votes else "")
        for table in self.rated.get(rated or "", []):
            self._add_ratings(truths, table)
        return truths

    def _is_voted(self, kind: str | None) -> bool:
        """Returns whether a kind of labels has the raters' words or their votes, and no column of classes."""
        return kind is not None and all(len(_label_columns(table)) != 1 for table in self.labelled.get(kind, []))

    def _is_perceived(self, kind: str | None) -> bool:
        return self._is_voted(kind) or "gold_standard" in (kind or "").split(".")

    def _rows(self, table: Table, columns: Sequence[str]) -> Iterator[tuple[str, Key, dict[str, str]]]:
        """Yields the rows of a table. A value that is none of the labels of its scheme is missing, as in audformat."""
        for where, file, start, end, cells in read_segments(self.database, table, columns):
            for column, cell in cells.items():
                scheme = self.database.schemes.get(table.columns[column] or "")
                if cell and scheme is not None and scheme.labels is not None and cell not in scheme.labels:
                    self._strange[where, column] = cell
                    cells[column] = ""
            yield where, Key(self._find(file), start, end), cells

    def _find(self, file: str) -> str:
        """Returns a file, or where it is absent the only file of any table that has its name and is there."""
        if file not in self._moved:
            there = file
            if not self._exists(file):
                if not self._known:
                    for table in self.database.tables:
                        for _, other, *_ in read_segments(self.database, table, []):
                            self._known.setdefault(os.path.basename(other), set()).add(other)
                others = [other for other in self._known.get(os.path.basename(file), ()) if self._exists(other)]
                there = others[0] if len(others) == 1 else file
            self._moved[file] = there
        return self._moved[file]

    def _exists(self, file: str) -> bool:
        return os.path.exists(os.path.join(self.database.folder, file))

    def _truth(self, truths: dict[Key, Truth], key: Key, where: str, table: Table) -> Truth:
        truth = truths.setdefault(key, Truth(where))
        split = _split_id(self.database, table)
        if split is not None and truth.split not in (None, split):
            raise InputError(
                f"{where}: {key.file} is in the split {split}, and in {truth.split} ({truth.place}), expected one split"
            )
        truth.split = truth.split or split
        return truth

    def _add_labels(self, truths: dict[Key, Truth], table: Table) -> None:
        columns = _label_columns(table)
        for where, key, cells in self._rows(table, columns):
            truth = self._truth(truths, key, where, table)
            words = tuple((self._word(cells[column]),) for column in columns if cells[column])
            if len(columns) > 1:
                truth.votes += words
            elif words:
                if truth.label not in ("", words[0][0]):
                    raise InputError(
                        f"{where}: {key.file} is {words[0][0]}, and {truth.label} ({truth.place}), expected one label"
                    )
                truth.label = words[0][0]

    def _add_votes(self, truths: dict[Key, Truth], table: Table) -> None:
        scheme = self.database.schemes.get(EMOTION)
        known = None if scheme is None else scheme.labels
        columns = [name for name in table.columns if (known is None or name in known) and name != NO_AGREEMENT]
        for where, key, cells in self._rows(table, columns):
            truth = self._truth(truths, key, where, table)
            for column in columns:
                votes = self._number(cells[column], column, where)
                if math.isnan(votes):
                    continue
                if not (votes.is_integer() and 0 <= votes <= MOST_VOTES):
                    raise InputError(
                        f"{where}: {column} is {cells[column]}, expected the number of raters who named it, 0 to "
                        f"{MOST_VOTES:,}"
                    )
                truth.votes += ((self._word(column),),) * int(votes)

    def _add_ratings(self, truths: dict[Key, Truth], table: Table) -> None:
        columns = _rating_columns(table)
        for where, key, cells in self._rows(table, [name for names in columns.values() for name in names]):
            truth = self._truth(truths, key, where, table)
            for dimension, names in columns.items():
                values = [self._number(cells[name], name, where) for name in names]
                values = [value for value in values if not math.isnan(value)]
                if values:
                    truth.vad[dimension] = sum(values) / len(values)

    def _number(self, cell: str, column: str, where: str) -> float:
        if not cell:
            return math.nan
        try:
            number = float(cell)
        except ValueError:
            number = math.inf
        if math.isinf(number):
            raise InputError(f"{where}: {column} {show(cell)} is not a number, expected one such as 1.5")
        return number

    def _word(self, code: str) -> str:
        """Returns a label; where labels are numbers that stand for words, the word."""
        scheme = self.database.schemes.get(EMOTION)
        text = ((scheme and scheme.labels) or {}).get(code, {}).get("text")
        return text if isinstance(text, str) and code.lstrip("-").isdecimal() else code

    def describe(self, truths: Mapping[Key, Truth]) -> tuple[list[Labelled], list[Dropped], list[str]]:
        """Returns the utterances before any label scheme, those that cannot be used, and notes."""
        splits, notes = self._splits(truths)
        attributes = {name: self._attribute(name) for name in ("speaker", "session", *_GENDERS, *TEXTS)}
        files = AudioFiles()
        utterances: list[Labelled] = []
        dropped: list[Dropped] = []
        for key, truth in sorted(truths.items(), key=lambda item: (item[0].file, item[0].start or 0, item[0].end or 0)):
            known = {
                name: values.get(key, values.get(Key(key.file, None, None))) for name, values in attributes.items()
            }
            path = os.path.normpath(os.path.join(self.database.folder, key.file))
            problem = files.problem(path)
            utterance = self._utterance(key, truth, known, path, splits.get(truth.split or ""))
            if not utterance.has_truth and not truth.votes and truth.label != NO_AGREEMENT and not utterance.hidden:
                reason = f"{truth.place}: {key.file} has no {_TRUTHS}"
                dropped.append(Dropped(utterance.id, path, reason, Loss.UNLABELLED))
            elif problem is not None:
                dropped.append(Dropped(utterance.id, path, f"{truth.place}: {problem[1]}", problem[0]))
            else:
                utterances.append(Labelled(utterance, truth.votes))
        if self._strange:
            (where, column), value = next(iter(self._strange.items()))
            notes.append(
                f"{count(len(self._strange), 'value')} not among the labels of the scheme, taken as missing (such as "
                f"{column} {show(value)}, {where})"
            )
        if moved := [file for file, there in self._moved.items() if file != there]:
            notes.append(
                f"{count(len(moved), 'file')} named without their folder, found by their names (such as "
                f"{show(moved[0])}: {self._moved[moved[0]]})"
            )
        return utterances, dropped, notes

    def _utterance(
        self, key: Key, truth: Truth, known: Mapping[str, str | None], path: str, split: str | None
    ) -> Utterance:
        times = ["" if time is None else f"{time:.10g}" for time in (key.start, key.end)]
        name = os.path.splitext(key.file)[0] + (f"#{times[0]}-{times[1]}" if any(times) else "")
        speaker = known["speaker"]
        scheme = self.database.schemes.get("speaker")
        about = ((scheme and scheme.labels) or {}).get(speaker or "", {})
        gender = next((str(word) for name in _GENDERS if (word := about.get(name) or known[name])), "")
        valence, arousal, dominance = (truth.vad.get(dimension, math.nan) for dimension in DIMENSIONS)
        has_truth = bool(truth.label or truth.votes or truth.vad)
        return Utterance(
            id=name,
            path=path,
            corpus="audformat",
            speaker=speaker or f"{UNKNOWN}-{name}",
            session=known["session"],
            start=key.start,
            end=key.end,
            text=next((text for name in TEXTS if (text := known[name])), None),
            gender=GENDERS.get(gender.lower()),
            label=truth.label if truth.label != NO_AGREEMENT and truth.label else None,
            vad=(valence, arousal, dominance),
            duration=find_duration(path, key.start, key.end),
            split=split,
            speaker_known=speaker is not None,
            hidden=not has_truth and split is not None and split.startswith("test"),
            place=truth.place,
        )

    def _attribute(self, column: str) -> dict[Key, str]:
        """Returns the values of a column by file and part, from all tables that have it; ids of listed texts alone."""
        found: dict[Key, tuple[str, str]] = {}
        for table in self.database.tables:
            scheme = self.database.schemes.get(table.columns.get(column) or "")
            if column not in table.columns or (column in TEXTS and (scheme is None or scheme.labels is None)):
                continue
            for where, key, cells in self._rows(table, [column]):
                value, place = found.setdefault(key, (cells[column], where))
                if column == "speaker" and cells[column] and value and cells[column] != value:
                    raise InputError(
                        f"{where}: the speaker of {key.file} is {cells[column]}, and {value} ({place}), expected one"
                    )
                found[key] = (value or cells[column], place)
        return {key: value for key, (value, _) in found.items() if value}

    def _splits(self, truths: Mapping[Key, Truth]) -> tuple[dict[str, str], list[str]]:
        """Returns our split of each split of the database; none unless every file has one."""
        used = {truth.split for truth in truths.values()}
        declared = self.database.splits
        types = {name: _TYPES.get(declared[name]) if name in declared else WORDS.get(name) for name in used if name}
        order = sorted(types, key=lambda name: [*declared, *types].index(name))
        tests = [name for name in order if types[name] == "test"]
        splits = {name: split for name in order if (split := types[name])}
        if len(tests) > 1:
            splits |= {name: f"test{number}" for number, name in enumerate(tests, start=1)}
        if not splits or (None not in used and len(splits) == len(used)):
            renamed = [f"{name} is {split}" for name, split in splits.items() if split not in (name, types[name])]
            several = len(set(splits.values())) > 1
            return splits if several else {}, [f"splits: {', '.join(renamed)}"] if renamed else []
        lacking = sum(truth.split not in splits for truth in truths.values())
        return {}, [
            f"{count(lacking, 'file')} of {len(truths):,} are in no split for training or tests: no splits are used"
        ]

    def scheme(self, utterances: Sequence[Labelled], kind: str | None) -> LabelScheme:
        """Returns the scheme with a class for each word that occurs."""
        words = {utterance.label for utterance, _ in utterances if utterance.label is not None}
        words |= {word for _, votes in utterances for named in votes for word in named} - {NO_AGREEMENT}
        scheme = self.database.schemes.get(EMOTION)
        listed = [self._word(code) for code in (scheme and scheme.labels) or ()]
        classes = (*(word for word in listed if word in words), *sorted(words - set(listed)))
        merge = {word: word for word in classes}
        return LabelScheme(kind or EMOTION, classes, merge, soft=True, keep_rated=True, source=self._source(kind))

    def _source(self, kind: str | None) -> str:
        parts = (kind or "").split(".")
        of_what = f" of {_modality(kind)}" if kind and _modality(kind) else ""
        if "desired" in parts:
            return "intended"
        if "gold_standard" in parts:
            return f"perceived: the database's gold standard{of_what}, no class where it is {NO_AGREEMENT}"
        return f"perceived: plurality of the votes{of_what}, no class for a tie" if self._is_voted(kind) else "unknown"

    def declared_scale(self, rated: str | None) -> tuple[float, float] | None:
        """Returns the scale that the schemes of the ratings have, None if one says nothing."""
        scales: dict[tuple[float | None, float | None], str] = {}
        for table in self.rated.get(rated or "", []):
            for names in _rating_columns(table).values():
                for name in names:
                    scheme = self.database.schemes.get(table.columns[name] or "")
                    scales.setdefault(
                        (scheme.minimum, scheme.maximum) if scheme else (None, None), f"{table.name}.{name}"
                    )
        if len(scales) > 1:
            found = ", ".join(f"{name} from {low} to {high}" for (low, high), name in scales.items())
            raise InputError(
                f"{self.database.folder} has ratings on different scales ({found}), expected one scale, which "
                "config.labels may name (lowest..highest)"
            )
        low, high = next(iter(scales), (None, None))
        return None if low is None or high is None else (low, high)


def _label_columns(table: Table) -> list[str]:
    """Returns the column of classes, or one for each rater; none where there are neither."""
    if EMOTION in table.columns:
        return [EMOTION]
    return [name for name, scheme in table.columns.items() if scheme == EMOTION]


def _rating_columns(table: Table) -> dict[str, list[str]]:
    """Returns the columns of each dimension: one, or one for each rater."""
    columns = {
        dimension: [dimension]
        if dimension in table.columns
        else [name for name, scheme in table.columns.items() if scheme == dimension]
        for dimension in DIMENSIONS
    }
    return {dimension: names for dimension, names in columns.items() if names}


def _split_id(database: Database, table: Table) -> str | None:
    """Returns the split of a table by its header, or else by its name."""
    words = (part for part in table.name.split(".") if part in database.splits or part in WORDS)
    return table.split or next(words, None)


def _by_kind(database: Database, tables: Sequence[Table]) -> dict[str, list[Table]]:
    """Returns tables by what their names say beside topic and split: `gold_standard`, `desired.face`, or `emotion`."""
    kinds: dict[str, list[Table]] = {}
    for table in tables:
        parts = table.name.split(".")
        rest = [part for part in parts if part not in _TOPICS and part not in database.splits and part not in WORDS]
        kinds.setdefault(".".join(rest) or EMOTION, []).append(table)
    return kinds


def _modality(kind: str) -> str:
    return ".".join(part for part in kind.split(".") if part not in (*_SOURCES, EMOTION))
