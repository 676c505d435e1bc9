"""Several corpora as one, under common classes: `('emodb:emodb.zip', 'table:korean/korean.csv')`.

Every utterance knows its corpus. Ids, speakers and sessions begin with `<corpus>:`, so that nobody of one corpus is
taken for somebody of another. Texts do so too where they are numbers of a corpus's own; those of tables are compared
between corpora, because whoever writes a table can give equal texts equal ids.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from sejax.corpora.common_classes import (
    COMMON_SCHEMES,
    SPELLINGS,
    CommonScheme,
    find_common,
    with_common_classes,
    without_empty_classes,
)
from sejax.corpora.read import CORPORA, read_corpus
from sejax.corpora.schema import Corpus, Dropped, Utterance
from sejax.corpora.spelling import show
from sejax.corpora.vad_scale import in_scale
from sejax.errors import InputError

OWN_TEXTS = ("table", "audio_folder", "audformat")
"""The readers whose texts the user writes."""
COMMON_SCALE = (0.0, 1.0)
"""The scale of valence, arousal and dominance where those of the corpora differ."""

_SOURCE = re.compile(r"(?:([^=/:]+)=)?(?P<reader>\w+)(?:/([^:]+))?:(.*)", re.DOTALL)


class Source(NamedTuple):
    """One corpus of several."""

    name: str  # in ids, tables and figures
    reader: str  # a key of `CORPORA`
    labels: str  # of the reader: a label scheme, or a table's VAD scale
    path: str


def parse_sources(sources: Sequence[str]) -> tuple[Source, ...]:
    """Returns the corpora that an option `corpora` names, each as `[name=]reader[/labels]:path`.

    A corpus without a name of its own is called by its reader; a table, of which there may be many, by its file or
    folder. The label scheme of the reader matters where a corpus has labels of several sources
    (`cremad/perceived_voice:CREMA-D`) and where the scale of a table has to be said (`table/1..7:mine.csv`).

    Raises:
      InputError: a source is not of that form, its reader is unknown, or two corpora have one name.
    """
    parsed = []
    for source in sources:
        match = _SOURCE.fullmatch(source)
        if match is None or match["reader"] not in CORPORA:
            raise InputError(
                f"config.corpora has {show(source)}, expected [name=]reader[/labels]:path, such as "
                f"emodb:emodb.zip, with a reader out of {', '.join(CORPORA)}"
            )
        name, reader, labels, path = match.groups()
        if not path and CORPORA[reader].prepare is None:
            raise InputError(f"config.corpora has {show(source)}, expected {CORPORA[reader].data_dir} behind the colon")
        stem = os.path.splitext(os.path.basename(os.path.normpath(path)))[0]
        own = stem if reader in OWN_TEXTS and path else reader
        parsed.append(Source(name or own, reader, labels or CORPORA[reader].words, path))
    for name in (source.name for source in parsed):
        if ":" in name or ">" in name or not name.strip():
            raise InputError(f"config.corpora names a corpus {show(name)}, expected a name without : and >")
        if sum(source.name.casefold() == name.casefold() for source in parsed) > 1:
            raise InputError(
                f"config.corpora names two corpora {show(name)}, expected a name for each: "
                f"{show(f'{name}1=' + sources[0])} and so on"
            )
    return tuple(parsed)


def read_corpora(
    sources: Sequence[str], labels: str, *, locate: Callable[[str, str], str] = lambda _, path: path
) -> Corpus:
    """Reads several corpora as one.

    Args:
      sources: see `parse_sources`.
      labels: see `read_each`; the words of corpora that keep them have to be spelled alike.
      locate: see `read_each`.

    Raises:
      InputError: see `read_each`; or two words are spellings of one.
    """
    corpora = read_each(sources, labels, locate=locate)
    if labels == "default":
        _require_same_words(corpora)
    return without_empty_classes(join(corpora))


def read_each(
    sources: Sequence[str], labels: str, *, locate: Callable[[str, str], str] = lambda _, path: path
) -> list[Corpus]:
    """Reads several corpora, each by itself: with its own ids, speakers and scale.

    Args:
      sources: see `parse_sources`.
      labels: a common scheme (see `find_common`), or "default": every corpus keeps its words.
      locate: returns the place of a corpus on disk, given its reader and its path; a generated one is written first.

    Raises:
      InputError: see `parse_sources`, `read_corpus` and `with_common_classes`; or the labels are neither.
    """
    parsed = parse_sources(sources)
    scheme = find_common(labels)
    if scheme is None and labels != "default":
        raise InputError(
            f"config.labels is {show(labels)}, expected for several corpora one of {', '.join(COMMON_SCHEMES)}, a CSV "
            "file with the columns label and class, or default (the words of the corpora)"
        )
    return [_read(source, scheme, locate(source.reader, source.path)) for source in parsed]


def _read(source: Source, scheme: CommonScheme | None, path: str) -> Corpus:
    """Reads one corpus under the common scheme; its name is then that of the source."""
    corpus = read_corpus(source.reader, path, labels=source.labels)
    if scheme is not None:
        corpus = with_common_classes(corpus, scheme, called=source.name)
    utterances = [replace(u, corpus=source.name) for u in corpus.utterances]
    if source.reader not in OWN_TEXTS:
        utterances = [replace(u, text=_within(source.name, u.text)) for u in utterances]
    return replace(corpus, name=source.name, utterances=tuple(utterances))


def _within(corpus: str, name: str | None) -> str | None:
    """Returns a name of one corpus as a name among all."""
    return None if name is None else f"{corpus}:{name}"


def _require_same_words(corpora: Sequence[Corpus]) -> None:
    """Refuses words of different corpora that are spellings of one: `anger` and `angry` would be two classes."""
    first: dict[str, tuple[str, str]] = {}
    for corpus in corpora:
        for name in corpus.classes:
            word = SPELLINGS.get(name.casefold(), name)
            other, where = first.setdefault(word, (name, corpus.name))
            if other != name:
                raise InputError(
                    f"{where} has the class {show(other)} and {corpus.name} the class {show(name)}, expected one "
                    f"spelling: config.labels={' or '.join(COMMON_SCHEMES)} brings corpora to common classes"
                )


def join(corpora: Sequence[Corpus]) -> Corpus:
    """Returns corpora with different names as one corpus.

    Its classes are those of the corpora, in the order in which they first occur. Where the scales of corpora that have
    ratings differ, all ratings are brought to `COMMON_SCALE`: the lowest value of each scale to 0, the highest to 1.
    """
    scales = {corpus.name: corpus.vad_scale for corpus in corpora if any(u.is_rated for u in corpus.utterances)}
    one_scale = len(set(scales.values())) <= 1
    scale = next(iter(scales.values()), corpora[0].vad_scale) if one_scale else COMMON_SCALE
    utterances, dropped, notes = [], [], []
    for corpus in corpora:
        utterances += [
            _member(u, corpus, scale if corpus.name in scales else corpus.vad_scale) for u in corpus.utterances
        ]
        dropped += [Dropped(f"{corpus.name}:{d.id}", d.path, d.reason, d.kind) for d in corpus.dropped]
        notes += [f"{corpus.name}: {note}" for note in corpus.notes]
    if not one_scale:
        spelled = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in scales.items())
        notes.append(
            f"valence, arousal and dominance are brought from the scales of the corpora ({spelled}) to 0 to 1: equal "
            "values do not mean equal feelings"
        )
    return Corpus(
        name="+".join(corpus.name for corpus in corpora),
        classes=tuple(dict.fromkeys(name for corpus in corpora for name in corpus.classes)),
        vad_scale=scale,
        utterances=tuple(sorted(utterances, key=lambda utterance: utterance.id)),
        dropped=tuple(dropped),
        notes=tuple(notes),
        label_source="; ".join(f"{corpus.name}: {corpus.label_source}" for corpus in corpora),
    )


def _member(utterance: Utterance, corpus: Corpus, scale: tuple[float, float]) -> Utterance:
    """Returns an utterance of one corpus as one of the union."""
    valence, arousal, dominance = (in_scale(value, corpus.vad_scale, scale) for value in utterance.vad)
    return replace(
        utterance,
        id=f"{corpus.name}:{utterance.id}",
        speaker=f"{corpus.name}:{utterance.speaker}",
        session=_within(corpus.name, utterance.session),
        fold=_within(corpus.name, utterance.fold),
        vad=(valence, arousal, dominance),
    )


def is_joined(utterances: Sequence[Utterance]) -> bool:
    """Returns whether utterances are of several corpora that were joined."""
    return len({u.corpus for u in utterances}) > 1 and all(u.id.startswith(f"{u.corpus}:") for u in utterances)


def members(corpus: Corpus) -> dict[str, Corpus]:
    """Returns the corpora that a corpus was joined of, by what their ids begin with in the union (`emodb:`).

    They have their utterances' own ids; classes, scale and notes are those of the union. A corpus that is not joined is
    its one member, with the empty beginning.
    """
    names = dict.fromkeys(utterance.corpus for utterance in corpus.utterances)
    if not is_joined(corpus.utterances):
        return {"": corpus}
    parts = {}
    for name in names:
        prefix = f"{name}:"
        own = [replace(u, id=u.id.removeprefix(prefix)) for u in corpus.utterances if u.corpus == name]
        lost = [replace(d, id=d.id.removeprefix(prefix)) for d in corpus.dropped if d.id.startswith(prefix)]
        parts[prefix] = replace(corpus, name=name, utterances=tuple(own), dropped=tuple(lost))
    return parts
