"""The reader of VAM-Audio, "Vera am Mittag" (Grimm et al., ICME 2008), from its release tree: dimensions, no classes.

    data/<speaker's folder>/Satz01001.wav    two digits of the speaker, three of the sentence
                           /Satz01001.ewe    the merged ratings: the evaluator weighted estimator
                           /Satz01001.eva    a row per rater, which is not read

Ratings are valence, activation (arousal), dominance in this order, each from -1 to 1, unless a header names them.
"""

import os
import re
from collections import Counter

from sejax.corpora.files import find_path, read_text, require_folder
from sejax.corpora.labels import LabelScheme, find_scheme
from sejax.corpora.published import compare_counts
from sejax.corpora.ratings import describe_ratings, parse_rating
from sejax.corpora.schema import DIMENSIONS, Corpus, Dropped, Loss, Utterance
from sejax.errors import InputError

VAD_SCALE = (-1.0, 1.0)
COUNTS = {"utterances": 947, "speakers": 47}
VAM_SCHEMES = {
    "default": LabelScheme(
        "default", (), {}, keep_rated=True, source="perceived: mean of 6 or 17 raters weighted by their reliability"
    ),
}
_NAME = re.compile(r"Satz(\d\d)(\d{3})", re.IGNORECASE)
_COLUMNS = {"valence": "valence", "activation": "arousal", "arousal": "arousal", "dominance": "dominance"}


def read_vam(data_dir: str, labels: str = "default") -> Corpus:
    """Reads the release tree at `data_dir`. There are ratings and no classes.

    A sentence without merged ratings is dropped with a sentence. The sheets of speakers and transcripts are not read:
    gender and text are unknown.

    Raises:
      InputError: no sentence is there, the scheme is unknown, a sentence occurs twice, or a file of ratings cannot be
        read (the message quotes it).
    """
    scheme = find_scheme("vam", VAM_SCHEMES, labels, default="default")
    root = require_folder(data_dir, "VAM-Audio", "the folder with data")
    utterances: dict[str, Utterance] = {}
    dropped: list[Dropped] = []
    unnamed = Counter[str]()
    for folder, _, names in os.walk(find_path(root, "data") or root):
        by_name = {name.casefold(): name for name in names}
        for name in sorted(names):
            stem, ending = os.path.splitext(name)
            if ending.casefold() != ".wav" or name.startswith("."):
                continue
            path, match = os.path.join(folder, name), _NAME.fullmatch(stem)
            if match is None:
                unnamed[path] += 1
                continue
            id = f"Satz{match[1]}{match[2]}"
            if id in utterances:
                raise InputError(f"{path}: {id} occurs twice, first in {utterances[id].path}, expected once")
            ratings = by_name.get(f"{stem}.ewe".casefold())
            if ratings is None:
                reason = f"{path} has no file {stem}.ewe with the merged ratings beside it"
                dropped.append(Dropped(id, path, reason, Loss.UNLABELLED))
                continue
            place = os.path.join(folder, ratings)
            utterances[id] = Utterance(
                id=id, path=path, speaker=match[1], corpus="vam", vad=parse_merged(read_text(place), place), place=place
            )
    if not utterances and not dropped:
        raise InputError(f"no VAM-Audio in {data_dir!r}: expected data/<folder>/Satz01001.wav in it")
    found = {"utterances": len(utterances), "speakers": len({u.speaker for u in utterances.values()})}
    notes = [compare_counts("VAM-Audio", "counts", COUNTS, found)]
    if unnamed:
        first = min(unnamed)
        notes.append(f"{len(unnamed)} wav files that are not called like Satz01001.wav left out (the first: {first})")
    rated = [utterance for _, utterance in sorted(utterances.items())]
    return Corpus(
        name="vam",
        classes=(),
        vad_scale=VAD_SCALE,
        utterances=tuple(rated),
        dropped=tuple(dropped),
        notes=(*notes, *describe_ratings(rated, VAD_SCALE)),
        label_source=scheme.source,
    )


def parse_merged(text: str, path: str) -> tuple[float, float, float]:
    """Reads the merged ratings of a sentence: one line with three numbers, and before it a header or none.

    Returns:
      Valence, arousal, dominance.

    Raises:
      InputError: there is another line, no line of numbers, or more than one. The message quotes it.
    """
    order, values = DIMENSIONS, None
    for number, line in enumerate(text.split("\n"), start=1):
        words = [word for word in re.split(r"[\s,;]+", line.strip()) if word]
        where = f"{path}, line {number}"
        if not words:
            continue
        named = tuple(_COLUMNS[word.casefold()] for word in words if word.casefold() in _COLUMNS)
        if values is None and len(words) == len(named) == 3 and len(set(named)) == 3:
            order = named
            continue
        if len(words) != 3 or values is not None:
            raise InputError(f"{where}: found {line.strip()!r}, expected one line with valence, activation, dominance")
        rated = {name: parse_rating(word, name, VAD_SCALE, where) for name, word in zip(order, words, strict=True)}
        values = rated["valence"], rated["arousal"], rated["dominance"]
    if values is None:
        raise InputError(f"{path} is empty, expected a line with valence, activation, dominance")
    return values
