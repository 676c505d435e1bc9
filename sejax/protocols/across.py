"""Protocols over several corpora: a matrix of corpora, a corpus that is held out, speakers held out of the union.

Validation speakers are always of the corpora that a fold trains on.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from sejax.corpora.schema import Utterance
from sejax.errors import InputError
from sejax.host.wording import count
from sejax.protocols.folds import Fold, leave_one_speaker_out, ordered

VALIDATED = 5
"""Every fifth speaker of a corpus, the first among them, validates where no speaker of it is tested."""

Mask = Bool[np.ndarray, " utterance"]


def across_corpora(utterances: Sequence[Utterance], most: int = 0) -> tuple[Fold, ...]:
    """Returns the folds of a matrix: each corpus is trained on and tests on every other, and on its own speakers.

    A corpus has a fold that trains on its speakers but those who validate, and tests on all other corpora; and the
    folds of `leave_one_speaker_out` among its own speakers, which are what they are for the corpus alone. One with two
    known speakers has the first kind only; one with a single speaker is tested on and not trained on.

    Args:
      utterances: of two corpora or more.
      most: see `leave_one_speaker_out`, of each corpus.

    Raises:
      InputError: there is one corpus, or none has two speakers.
    """
    folds = []
    for name, mine in _corpora(utterances).items():
        val = _validation(utterances, mine)
        if (mine & ~val).any() and val.any():
            folds.append(Fold(f"{name}>", mine & ~val, val, ~mine, trained_on=name))
        folds += [replace(fold, trained_on=name, within=True) for fold in _within(utterances, mine, most)]
    if not folds:
        raise InputError("no corpus has two speakers, expected one to train on and one to validate on")
    return tuple(folds)


def leave_one_corpus_out(utterances: Sequence[Utterance]) -> tuple[Fold, ...]:
    """Returns a fold per corpus, which is tested on; some speakers of each other corpus validate.

    Raises:
      InputError: there is one corpus, or the others have too few speakers.
    """
    corpora = _corpora(utterances)
    folds = []
    for name, test in corpora.items():
        val = np.any([_validation(utterances, mine) for other, mine in corpora.items() if other != name], axis=0)
        train = ~test & ~val
        if not (train.any() and val.any()):
            raise InputError(f"the corpora beside {name} have one speaker each, expected some to train and to validate")
        folds.append(Fold(name, train, val, test))
    return tuple(folds)


def leave_speakers_out_of_all(utterances: Sequence[Utterance], most: int = 0) -> tuple[Fold, ...]:
    """Returns folds that train on all corpora: each leaves out what one fold of every corpus alone leaves out.

    There are as many as the corpus with the most folds has. The folds of a smaller one have all tested its speakers
    before; then those whom its fold tests train.

    Args:
      utterances: of two corpora or more.
      most: see `leave_one_speaker_out`, of each corpus.

    Raises:
      InputError: there is one corpus, or one with fewer than three speakers.
    """
    of_corpora = []
    for name, mine in _corpora(utterances).items():
        of_corpora.append(_within(utterances, mine, most))
        if not of_corpora[-1]:
            raise InputError(f"the corpus {name} has fewer than 3 known speakers, expected 3 or more to leave some out")
    folds = []
    for number in range(max(map(len, of_corpora))):
        own = [of_corpus[number % len(of_corpus)] for of_corpus in of_corpora]
        val = np.any([fold.val for fold in own], axis=0)
        tested = [fold.test for fold, all_own in zip(own, of_corpora, strict=True) if number < len(all_own)]
        test = np.any(tested, axis=0)
        folds.append(Fold(str(number + 1), ~val & ~test, val, test))
    return tuple(folds)


def _corpora(utterances: Sequence[Utterance]) -> dict[str, Mask]:
    """Returns the utterances of each corpus.

    Raises:
      InputError: there is one corpus.
    """
    corpus = np.array([utterance.corpus for utterance in utterances])
    names = dict.fromkeys(corpus.tolist())
    if len(names) < 2:
        raise InputError(
            f"there is {count(len(names), 'corpus')} ({', '.join(names)}), expected several (config.corpora) for a "
            "protocol across corpora"
        )
    return {name: corpus == name for name in names}


def _validation(utterances: Sequence[Utterance], mine: Mask) -> Mask:
    """Returns the utterances of the speakers of a corpus who validate: every fifth of those who are known."""
    rows = np.flatnonzero(mine).tolist()
    speakers = ordered(utterances[row].speaker for row in rows if utterances[row].speaker_known)
    chosen = set(speakers[::VALIDATED])
    return np.array([bool(mine[row]) and u.speaker in chosen for row, u in enumerate(utterances)])


def _within(utterances: Sequence[Utterance], mine: Mask, most: int) -> list[Fold]:
    """Returns the folds of a corpus's own speakers as folds of the whole; none if it has fewer than three."""
    rows = np.flatnonzero(mine).tolist()
    own = [utterances[row] for row in rows]
    if len({u.speaker for u in own if u.speaker_known}) < 3:
        return []

    def whole(mask: Bool[np.ndarray, " own"]) -> Bool[np.ndarray, " all"]:
        of_all = np.zeros(len(utterances), bool)
        of_all[rows] = mask
        return of_all

    prefix = f"{own[0].corpus}:"
    return [
        Fold(prefix + fold.name.removeprefix(prefix), whole(fold.train), whole(fold.val), whole(fold.test))
        for fold in leave_one_speaker_out(own, most)
    ]
