"""The direction of valence and arousal: a reader that takes one for the other, or a scale upside down, is found out."""

from sejax.corpora.common_classes import SPELLINGS
from sejax.corpora.schema import DIMENSIONS, Corpus

RULES = (("arousal", "anger", "sadness"), ("valence", "happiness", "anger"))
"""A dimension, the word whose mean is higher in every corpus that has both, and the word whose mean is lower."""


def wrong_directions(corpus: Corpus) -> list[str]:
    """Returns a sentence for each rule of `RULES` that the ratings of a corpus contradict, with both means."""
    found = []
    for dimension, higher, lower in RULES:
        place = DIMENSIONS.index(dimension)
        values: dict[str, list[float]] = {higher: [], lower: []}
        for utterance in corpus.utterances:
            word = SPELLINGS.get((utterance.label or "").casefold(), "")
            if word in values and utterance.vad[place] == utterance.vad[place]:  # NaN equals nothing
                values[word].append(utterance.vad[place])
        if not all(values.values()):
            continue
        means = {word: sum(of_word) / len(of_word) for word, of_word in values.items()}
        if means[higher] <= means[lower]:
            found.append(
                f"{corpus.name}: the mean {dimension} of {higher} is {means[higher]:.3g} and of {lower} "
                f"{means[lower]:.3g}, expected {higher} to be higher: is the scale upside down, or are the columns "
                "swapped?"
            )
    return found
