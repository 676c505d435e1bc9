"""Batches in which classes are as frequent as one wants: how often an epoch visits the utterances of each class."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

_MOST_ITERATIONS = 200
_CLOSE = 1e-4  # of a visit: the visits are rounded to whole ones


def balance_classes(
    rows: Sequence[Int[np.ndarray, " _row"]],
    label: Sequence[Int[np.ndarray, " _row"]],
    places: Sequence[int],
    temperature: float,
    rng: np.random.Generator,
) -> list[Int[np.ndarray, " _place"]]:
    """Returns shuffled rows of each bucket as often as an epoch visits them, shuffled again.

    The epoch is as long as it was: frequent classes are not visited as a whole, and rare ones repeatedly. Of each class
    the first rows of the shuffle are visited, or are visited once more than the others.

    Args:
      rows: shuffled rows of each bucket.
      label: their classes, -1 without one.
      places: of each bucket in the batches of the epoch.
      temperature: see `class_visits`.
      rng: shuffles what is visited.
    """
    n_classes = max((int(of_bucket.max(initial=-1)) for of_bucket in label), default=-1) + 1
    count = np.array([np.bincount(of_bucket + 1, minlength=n_classes + 1) for of_bucket in label])
    visits = class_visits(count, np.array(places), temperature)
    balanced = []
    for of_bucket, classes, often in zip(rows, label, visits, strict=True):
        parts = [np.resize(of_bucket[classes == number - 1], n) for number, n in enumerate(often) if n]
        balanced.append(rng.permutation(np.concatenate(parts)) if parts else of_bucket)
    return balanced


def class_visits(
    count: Int[np.ndarray, "bucket group"], places: Int[np.ndarray, " bucket"], temperature: float
) -> Int[np.ndarray, "bucket group"]:
    """Returns how many places of each bucket each class gets.

    A class of n utterances has a share of the labelled places proportional to n^(1 / temperature): as they are for 1,
    equal for infinity. Utterances without a class keep their share. Each bucket's places are filled. Among the tables
    with these sums it is the one that is closest to the utterances' own (iterative proportional fitting, Deming and
    Stephan, *On a Least Squares Adjustment of a Sampled Frequency Table*, 1940), so that lengths stay as mixed as they
    can. Where no table has these sums, as a class is in few buckets only, the sums of the buckets are kept.

    Args:
      count: utterances of each bucket, first those without a class, then those of each class.
      places: of each bucket; a bucket without utterances fills none.
      temperature: above 0.
    """
    places = np.where(count.sum(axis=1) > 0, places, 0)
    of_group = count.sum(axis=0).astype(np.float64)
    share = np.where(of_group > 0, of_group, 1.0) ** (1 / temperature) * (of_group > 0)
    labelled = of_group[1:].sum() / max(of_group.sum(), 1)
    wanted = places.sum() * np.append(1 - labelled, labelled * share[1:] / max(share[1:].sum(), 1e-9))
    visits = count.astype(np.float64)
    for _ in range(_MOST_ITERATIONS):
        before = visits
        visits = visits * _factor(wanted, visits.sum(axis=0))[None]
        visits = visits * _factor(places.astype(np.float64), visits.sum(axis=1))[:, None]
        if np.abs(visits - before).max() < _CLOSE:
            break
    return np.stack([_whole(of_bucket, int(n)) for of_bucket, n in zip(visits, places, strict=True)])


def _factor(wanted: Float[np.ndarray, " group"], found: Float[np.ndarray, " group"]) -> Float[np.ndarray, " group"]:
    return np.divide(wanted, found, out=np.zeros_like(found), where=found > 0)


def _whole(visits: Float[np.ndarray, " group"], total: int) -> Int[np.ndarray, " group"]:
    """Returns whole numbers of that sum: what is left of the total goes to the largest fractions."""
    whole = np.floor(visits + 1e-9).astype(int)
    first = np.argsort(whole - visits, kind="stable")[: total - int(whole.sum())]
    whole[first] += 1
    return whole
