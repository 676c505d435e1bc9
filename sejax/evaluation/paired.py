"""Differences between settings that are tested on the same utterances, paired over speakers.

The number that is tested is the number that is shown: the difference of the pooled metric, which is over all test
utterances. A mean of each speaker's difference would be another number, weigh a speaker of five utterances as one of
five hundred, and have no CCC for a speaker whose ratings are all equal.

Speakers are the units, because utterances of one speaker are not independent. The seeds of a speaker are one unit: a
metric is the mean over seeds of each seed's value, as in metrics.json.

- **p** is of a permutation test (Good 2005, ch. 3; of metrics that are no means, Yeh 2000): under the null hypothesis
  the two settings are exchangeable on each speaker, so that every way of exchanging their predictions speaker by
  speaker was equally likely. p is the share of these exchanges whose difference is at least as large, either way. All
  `2^n` exchanges of n speakers are tried, where they are no more than `draws`; else so many random ones, and the
  observed one counts as one of them: p = (b + 1) / (draws + 1) (Phipson & Smyth 2010).
- **ci95** is the percentile bootstrap of the difference, both settings on the same draws of speakers. Of few speakers
  it is somewhat too narrow: p decides.
- **p_holm** keeps the probability of any false difference, among all that are tested together, below the level (Holm
  1979).

What neither sees: the folds of a study share training speakers, so their models are not independent. p is of these
models on new draws of test speakers like these, not of new training sets.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from sejax.evaluation.intervals import CONFIDENCE, draw_speakers
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.sums import Sums, class_sums, defined, dimension_sums, grouped

DRAWS = 10_000
"""Of exchanges, and of the bootstrap."""

_TIE = 1e-10  # differences of a metric that are equal but for rounding
_BLOCK = 1 << 22  # numbers of a block of draws


class Pair(NamedTuple):
    """A setting, the one that it is compared with, and the metric."""

    setting: str
    against: str
    metric: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The pooled metric of a setting minus that of another, and what it is worth."""

    pair: Pair
    value: float
    ci95: tuple[float, float] | None  # none of one speaker
    p: float
    p_holm: float  # corrected for all differences that were asked for together
    smallest_p: float  # that so many speakers allow
    speakers: int
    differing: int  # speakers on whom the two do not predict the same
    exact: bool  # whether all exchanges were tried


@dataclass(frozen=True)
class _Scored:
    """The sums of each seed and speaker of one setting, and the metrics that they have."""

    sums: Sequence[Sums]
    by_speaker: Sequence[Float[np.ndarray, "seed speaker ..."]]
    speakers: Shaped[np.ndarray, " speaker"]

    def metric(self, name: str) -> tuple[Sums, Float[np.ndarray, "seed speaker *sum"]] | None:
        """Returns the functions and the sums of a metric; None where it is not defined over all rows."""
        for sums, by_speaker in zip(self.sums, self.by_speaker, strict=True):
            if name in sums.metrics and not sums.unpredicted_by(name).any():
                return sums, by_speaker
        return None


def compare(
    predictions: Mapping[str, Predictions], pairs: Sequence[Pair], *, draws: int = DRAWS, seed: int = 0
) -> list[Difference]:
    """Returns the differences of pairs of settings, in their order, without those that are not defined.

    A difference needs a metric that both settings have over all test utterances (a mean CCC over the same dimensions).
    Where both have as many seeds, the first of one stands beside the first of the other, and so on; else every one of
    one beside every one of the other. Either way the difference is that of the means over seeds.

    Args:
      predictions: by setting; each of one setting, all of the same test utterances.
      pairs: of which the differences are wanted.
      draws: of exchanges at most, and of the bootstrap.
      seed: of both.
    """
    names = dict.fromkeys(name for pair in pairs for name in (pair.setting, pair.against))
    scored = {name: _score(predictions[name]) for name in names}
    found = [_difference(pair, scored[pair.setting], scored[pair.against], draws, seed) for pair in pairs]
    defined_ones = [difference for difference in found if difference is not None]
    corrected = holm(np.array([difference.p for difference in defined_ones]))
    return [replace(difference, p_holm=float(p)) for difference, p in zip(defined_ones, corrected, strict=True)]


def holm(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Returns p-values corrected for their number by Holm's step-down procedure (Holm 1979).

    The smallest of m is multiplied by m, the next by m - 1, and so on; none is smaller than one before, or above 1.
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def _score(predictions: Predictions) -> _Scored:
    """Returns the sums of a setting; the order of its rows does not matter."""
    rows = predictions.rounded()
    rows = rows.select(np.lexsort((rows.fold, rows.id, rows.seed)))
    speakers, speaker = np.unique(rows.speaker, return_inverse=True)
    _, seed = np.unique(rows.seed, return_inverse=True)
    sums = (class_sums(rows), dimension_sums(rows))
    return _Scored(sums, [grouped(of.per_row, seed, speaker) for of in sums], speakers)


def _difference(pair: Pair, first: _Scored, second: _Scored, draws: int, seed: int) -> Difference | None:
    """Returns a difference that is not corrected yet; None where it is not defined."""
    of_first, of_second = first.metric(pair.metric), second.metric(pair.metric)
    if of_first is None or of_second is None:
        return None
    sums = of_first[0]
    if sums.truths[pair.metric] != of_second[0].truths[pair.metric]:  # means over other dimensions
        return None
    ours, theirs = _beside(of_first[1], of_second[1])
    of_sums, n = sums.metrics[pair.metric], len(first.speakers)

    def difference(
        of_ours: Float[np.ndarray, "draw seed *sum"], of_theirs: Float[np.ndarray, "draw seed *sum"]
    ) -> Float[np.ndarray, " draw"]:
        return (of_sums(of_ours) - of_sums(of_theirs)).mean(axis=1)

    value = float(difference(ours.sum(axis=1)[None], theirs.sum(axis=1)[None])[0])
    if np.isnan(value):
        return None
    # Exchanging a speaker moves what the two differ by from one to the other; the sum of both stays.
    differs = (ours != theirs).any(axis=tuple(axis for axis in range(ours.ndim) if axis != 1))
    change, total = (theirs - ours)[:, differs], (ours + theirs).sum(axis=1)
    larger = tried = 0
    for exchanges in _exchanges(change.shape[1], draws, seed, size=_block(change)):
        exchanged = ours.sum(axis=1) + _over_speakers(exchanges, change)
        found = difference(exchanged, total - exchanged)
        larger += int((~(np.abs(found) < abs(value) - _TIE)).sum())  # an undefined one speaks against the difference
        tried += len(found)
    exact = 2 ** change.shape[1] <= draws
    rng, size = np.random.default_rng(seed), _block(ours)
    blocks = (draw_speakers(rng, n, min(size, draws - start)) for start in range(0, draws, size))
    resampled = defined(
        np.concatenate([difference(_over_speakers(block, ours), _over_speakers(block, theirs)) for block in blocks])
    )
    p = larger / tried if exact else (larger + 1) / (tried + 1)
    return Difference(
        pair=pair,
        value=value,
        ci95=tuple(np.percentile(resampled, CONFIDENCE).tolist()) if n > 1 and resampled.size else None,
        p=p,
        p_holm=p,
        smallest_p=smallest_p(change.shape[1], draws),
        speakers=n,
        differing=change.shape[1],
        exact=exact,
    )


def smallest_p(speakers: int, draws: int = DRAWS) -> float:
    """Returns the smallest p that so many speakers allow: of all exchanges the observed one and its opposite.

    Args:
      speakers: on whom two settings do not predict the same.
      draws: of exchanges at most.
    """
    return min(1.0, 2.0 ** (1 - speakers)) if 2**speakers <= draws else 1 / (draws + 1)


def _beside(
    ours: Float[np.ndarray, "seed speaker *sum"], theirs: Float[np.ndarray, "other speaker *sum"]
) -> tuple[Float[np.ndarray, "pair speaker *sum"], Float[np.ndarray, "pair speaker *sum"]]:
    """Returns the seeds of two settings side by side: in order, or every one beside every other."""
    if len(ours) == len(theirs):
        return ours, theirs
    return np.repeat(ours, len(theirs), axis=0), np.concatenate([theirs] * len(ours))


def _exchanges(n: int, draws: int, seed: int, *, size: int) -> Iterator[Float[np.ndarray, "draw speaker"]]:
    """Yields, in blocks, which of n speakers are exchanged (1): all ways, if they are no more than `draws`."""
    if 2**n <= draws:
        for start in range(0, 2**n, size):
            numbers = np.arange(start, min(start + size, 2**n))
            yield (numbers[:, None] >> np.arange(n) & 1).astype(np.float64)
        return
    rng = np.random.default_rng(seed)
    for start in range(0, draws, size):
        yield rng.integers(0, 2, (min(size, draws - start), n)).astype(np.float64)


def _block(by_speaker: Float[np.ndarray, "seed speaker *sum"]) -> int:
    """Returns how many draws are computed at once."""
    speakers = max(1, by_speaker.shape[1])
    return max(1, _BLOCK // (speakers + by_speaker.size // speakers))


def _over_speakers(
    weights: Float[np.ndarray, "draw speaker"], by_speaker: Float[np.ndarray, "seed speaker *sum"]
) -> Float[np.ndarray, "draw seed *sum"]:
    """Returns the weighted sums over speakers of each draw."""
    return np.tensordot(weights, by_speaker, axes=(1, 1))
