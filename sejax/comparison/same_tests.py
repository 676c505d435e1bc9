"""Settings can be paired if they are tested on the same utterances: the check, and its sentence."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sejax.comparison.rows import Row
from sejax.errors import InputError
from sejax.evaluation.predictions import Predictions
from sejax.host.wording import count

_MOST_EXAMPLES = 3
_WHAT_TO_DO = (
    "expected the same test utterances: train both on the same data with the same corpus, labels and protocol, or "
    "compare other settings"
)
_Truth = tuple[str, str, tuple[float, ...]]  # speaker, label, VAD


def require_same_tests(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows with their classes in the order of the first, after a check that they can be paired.

    Every seed of every setting must test the utterances that the first one tests, as often as it does, with the same
    speakers, labels and ratings. The folds, and with them the training sets, may differ.

    Raises:
      InputError: they differ; the sentence says which, how many, and what to do.
    """
    first = rows[0]
    of_first = _tests(next(iter(first.predictions.by("seed").values())))
    ordered = []
    for row in rows:
        if set(row.predictions.classes) != set(first.predictions.classes):
            there, here = (", ".join(one.predictions.classes) or "none" for one in (first, row))
            raise InputError(
                f"{row.name} has the classes {here}, and {first.name} has {there}, expected the same: train both with "
                "the same labels, or compare other settings"
            )
        row = replace(row, predictions=_in_order(row.predictions, first.predictions.classes))
        for seed, rows_of_seed in row.predictions.by("seed").items():
            if problem := _problem(_tests(rows_of_seed), of_first, first.name):
                raise InputError(f"{row.name} (seed {seed}) {problem}; {_WHAT_TO_DO}")
        ordered.append(row)
    return ordered


def _in_order(predictions: Predictions, classes: Sequence[str]) -> Predictions:
    """Returns predictions with the same classes in another order."""
    place = [predictions.classes.index(name) for name in classes]
    number = np.array([*(classes.index(name) for name in predictions.classes), -1])  # the label -1 is the last
    return replace(
        predictions, classes=tuple(classes), prob=predictions.prob[:, place], label=number[predictions.label]
    )


def _tests(predictions: Predictions) -> dict[str, Counter[_Truth]]:
    """Returns how often each utterance is tested, by its id, and its truths there."""
    names = np.array([*predictions.classes, ""])
    truths = zip(
        predictions.speaker.tolist(),
        names[predictions.label].tolist(),
        map(tuple, np.where(np.isnan(predictions.vad), np.inf, predictions.vad).tolist()),  # NaN is not equal to itself
        strict=True,
    )
    found: dict[str, Counter[_Truth]] = {}
    for utterance, truth in zip(predictions.id.tolist(), truths, strict=True):
        found.setdefault(utterance, Counter())[truth] += 1
    return found


def _problem(here: dict[str, Counter[_Truth]], there: dict[str, Counter[_Truth]], name: str) -> str:
    """Returns what differs from the tests of the setting of that name, as a part of a sentence; empty if nothing."""
    lacking, more = sorted(there.keys() - here.keys()), sorted(here.keys() - there.keys())
    if lacking or more:
        parts = [f"lacks {_examples(lacking)}"] * bool(lacking) + [f"has {_examples(more)} more"] * bool(more)
        return f"tests {count(len(here), 'utterance')}, and {name} {len(there):,}: it {' and '.join(parts)}"
    differing = [utterance for utterance in sorted(here) if here[utterance] != there[utterance]]
    often = [u for u in differing if here[u].total() != there[u].total()]
    if often:
        return f"tests {_examples(often)} another number of times than {name}"
    kinds = {
        "speaker": [u for u in differing if _part(here[u], 0) != _part(there[u], 0)],
        "label": [u for u in differing if _part(here[u], 1) != _part(there[u], 1)],
        "ratings": [u for u in differing if _part(here[u], 2) != _part(there[u], 2)],
    }
    parts = [f"another {kind} for {_examples(which)}" for kind, which in kinds.items() if which]
    return f"has {' and '.join(parts)} than {name}".replace("another ratings", "other ratings") if parts else ""


def _part(truths: Counter[_Truth], place: int) -> Counter:
    found: Counter = Counter()
    for truth, number in truths.items():
        found[truth[place]] += number
    return found


def _examples(ids: Sequence[str]) -> str:
    """Returns the number of utterances with the first of them."""
    shown = ", ".join(ids[:_MOST_EXAMPLES]) + ", ..." * (len(ids) > _MOST_EXAMPLES)
    return f"{count(len(ids), 'utterance')} ({shown})"
