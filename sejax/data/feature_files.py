"""Feature files: vectors of the user's own, one per utterance id, as streams of statistics alone.

    x.npz   utterance id -> [d] vector, as `numpy.savez("x.npz", **vectors)` writes it
    x.csv   a column `id`; all others are numbers

A file is read once per start and is not copied into the cache of features. Values are float32, of both kinds of file.
"""

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numpy.typing import ArrayLike

from sejax.corpora.files import read_bytes
from sejax.corpora.rows import check_header, read_cells
from sejax.corpora.schema import Corpus
from sejax.corpora.spelling import clean, show, trim
from sejax.errors import InputError
from sejax.host.wording import count, first_line

ID = "id"  # the column of a CSV file
_SOURCE = re.compile(r"([^=]*)=(.+)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SUFFIXES = (".npz", ".csv")
_FIRST = 3  # ids that a sentence quotes

Place = tuple[str, str, Float32[np.ndarray, " _value"]]
"""Where a vector is, for errors; the id of its utterance; the vector."""


def parse_feature_files(sources: Sequence[str], taken: Collection[str]) -> dict[str, str]:
    """Returns the files that an option `feature_files` names, each as `name=path`, by the name of their stream.

    Args:
      sources: the option.
      taken: the names that streams of other features have.

    Raises:
      InputError: a source is not of that form, a name is taken or there twice, or a file is neither npz nor CSV.
    """
    files: dict[str, str] = {}
    for source in sources:
        match = _SOURCE.fullmatch(source)
        if match is None:
            raise InputError(
                f"config.feature_files has {show(source)}, expected name=path, such as xvector=/x/xvector.npz"
            )
        name, path = match.groups()
        if not _NAME.fullmatch(name):
            raise InputError(
                f"config.feature_files has a stream {show(name)}, expected a name of letters, digits and underscores "
                "that begins with a letter"
            )
        if name in taken:
            raise InputError(
                f"config.feature_files has a stream {show(name)}, expected another name than that of a feature which "
                f"sejax computes, such as own_{name}"
            )
        if name in files:
            raise InputError(f"config.feature_files has two streams {show(name)}, expected a name for each")
        if not path.lower().endswith(_SUFFIXES):
            raise InputError(f"config.feature_files has {show(source)}, expected a file that ends in .npz or .csv")
        files[name] = path
    return files


@dataclass(frozen=True)
class FeatureFile:
    """The vectors of a file, as it holds them."""

    path: str
    rows: Mapping[str, int]  # of `vectors`, by utterance id
    vectors: Float32[np.ndarray, "row value"]

    def require(self, corpus: Corpus, max_missing: float) -> None:
        """Refuses a file in which too many utterances of a corpus have no vector.

        Args:
          corpus: its utterances.
          max_missing: the largest share of them that may lack one.

        Raises:
          InputError: counts those that do, and names the first of them.
        """
        ids = [utterance.id for utterance in corpus.utterances]
        missing = [id_ for id_ in ids if id_ not in self.rows]
        if len(missing) <= max_missing * len(ids):
            return
        hint = ""
        if unused := self.unused(corpus):
            hint = f"; ids of the file that none of them has: {_first(unused)}"
        raise InputError(
            f"{self.path}: has no vector for {len(missing):,} of {count(len(ids), 'utterance')} ({_first(missing)}), "
            f"expected one for each of the corpus {corpus.name}{hint}"
        )

    def unused(self, corpus: Corpus) -> list[str]:
        """Returns the ids that no utterance of a corpus has, nor one that was dropped."""
        known = {utterance.id for utterance in corpus.utterances} | {dropped.id for dropped in corpus.dropped}
        return [id_ for id_ in self.rows if id_ not in known]

    def note(self, corpus: Corpus) -> str:
        """Returns a sentence about vectors that no utterance of a corpus has; empty if there are none."""
        unused = self.unused(corpus)
        if not unused:
            return ""
        vectors = count(len(unused), "vector")
        return f"{self.path}: {vectors} not used, whose id no utterance of the corpus has ({_first(unused)})"

    def of(self, corpus: Corpus) -> Float32[np.ndarray, "utterance value"]:
        """Returns the vectors of the utterances of a corpus.

        Raises:
          InputError: an utterance has none.
        """
        self.require(corpus, 0.0)
        return self.vectors[[self.rows[utterance.id] for utterance in corpus.utterances]]


def digest(vectors: Float32[np.ndarray, "utterance view value"]) -> str:
    """Returns the digest of the vectors of a corpus, by which a workdir knows them again."""
    return hashlib.blake2b(repr(vectors.shape).encode() + vectors.tobytes(), digest_size=16).hexdigest()


def read_feature_file(path: str) -> FeatureFile:
    """Reads the vectors of a file.

    Args:
      path: ends in .npz or .csv.

    Raises:
      InputError: the file cannot be read or has no vectors; an id occurs twice; a vector has another length than the
        first; or a value is no finite number of float32.
    """
    places = _read_csv(path) if path.lower().endswith(".csv") else _read_npz(path)
    rows: dict[str, int] = {}
    vectors: list[Float32[np.ndarray, " value"]] = []
    for where, id_, vector in places:
        if not id_:
            raise InputError(f"{where}: the id is blank, expected that of an utterance")
        if id_ in rows:
            raise InputError(f"{where}: the id {show(id_)} occurs twice, expected one vector for each utterance")
        if vectors and len(vector) != len(vectors[0]):
            raise InputError(
                f"{where}: the vector of {show(id_)} has {count(len(vector), 'number')}, expected {len(vectors[0]):,} "
                f"as the one of {show(next(iter(rows)))}"
            )
        if wrong := np.flatnonzero(~np.isfinite(vector)).tolist():
            raise InputError(
                f"{where}: {len(wrong):,} of {count(len(vector), 'number')} of {show(id_)} are not finite in float32 "
                f"(the first: number {wrong[0] + 1:,}), expected finite ones"
            )
        rows[id_] = len(rows)
        vectors.append(vector)
    if not vectors:
        raise InputError(f"{path}: has no vectors, expected one for each utterance")
    return FeatureFile(path, rows, np.stack(vectors))


def _read_csv(path: str) -> Iterator[Place]:
    records = read_cells(path)
    header = [clean(name) for name in next(records, ("", []))[1]]
    check_header(header, None, (ID,), (), path)
    if len(header) == 1:
        raise InputError(f"{path}, line 1: has the column {ID} alone, expected columns of numbers beside it")
    place = header.index(ID)
    names = header[:place] + header[place + 1 :]
    for where, cells in records:
        if not any(trim(cell) for cell in cells):
            continue
        if len(cells) != len(header):
            raise InputError(f"{where}: {len(cells)} cells, expected the {len(header)} columns of the header")
        id_ = clean(cells.pop(place))
        try:
            values = list(map(float, cells))
        except ValueError as error:
            name, cell = next(pair for pair in zip(names, cells, strict=True) if not _is_float(pair[1]))
            raise InputError(f"{where}: {name} is {show(cell)}, expected a number") from error
        yield where, id_, _single(values)


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_npz(path: str) -> Iterator[Place]:
    what = "an npz file: a vector for each utterance id, as numpy.savez writes it"
    data = read_bytes(path, what)
    try:
        file = np.load(io.BytesIO(data), allow_pickle=False)
        names = list(file.files)  # an .npy file has none
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as npz ({first_line(error)}), expected {what}") from error
    with file:
        for name in names:
            try:
                vector = np.asarray(file[name])
            except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
                raise InputError(
                    f"{path}: {show(name)} cannot be read ({first_line(error)}), expected a vector of numbers"
                ) from error
            if vector.dtype.kind not in "fiu":
                raise InputError(f"{path}: {show(name)} is of the type {vector.dtype}, expected real numbers")
            if vector.ndim != 1 or not vector.size:
                averaged = " (of frames, their mean or other statistics)" if vector.ndim == 2 else ""
                raise InputError(
                    f"{path}: {show(name)} is an array of shape {list(vector.shape)}, expected one vector for an "
                    f"utterance{averaged}"
                )
            yield path, clean(name), _single(vector)


def _single(values: ArrayLike) -> Float32[np.ndarray, " value"]:
    """Returns numbers as float32; those beyond its range are infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float64).astype(np.float32)


def _first(ids: Sequence[str]) -> str:
    """Returns the first of some ids, in quotes."""
    return f"the first: {', '.join(map(show, ids[:_FIRST]))}"
