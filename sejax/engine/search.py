"""The settings of a study: every combination of a grid, or some drawn at random; and successive halving among them.

Random search (Bergstra and Bengio 2012) draws each option by itself: where few options matter, it tries more values of
these than a grid of as many settings. Successive halving (Jamieson and Talwalkar 2016) gives most settings a part of
the epochs: at each rung a fold keeps the settings that are best on its own validation speakers, and stops the others.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from sejax.engine.runs import RunKey, Setting, written
from sejax.errors import InputError

_DIGITS = 4  # of a number that is drawn, so that its name says it exactly
_TRIES = 100  # to draw a setting that is not there yet


def expand_grid(base: Mapping[str, Any], grid: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """Returns every combination of the grid's values over the base values, the last name varying fastest.

    A setting is named by the options that the grid varies, `alpha=0.5 weighting=joint`; without a grid it is named by
    its weighting. The base holds all of `HParams`; the grid may also vary options that shape the program.
    """
    varied = {name: tuple(values) for name, values in grid.items() if len(values)}
    return list_settings(base, [dict(zip(varied, point, strict=True)) for point in product(*varied.values())])


def list_settings(base: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> list[Setting]:
    """Returns a setting for each point: the base values, but for those that the point names."""
    return [_setting(base, point) for point in points]


def draw_settings(
    base: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    between: Mapping[str, tuple[float, float]],
    *,
    draws: int,
    seed: int,
) -> list[Setting]:
    """Returns different settings drawn at random.

    Args:
      base: the values of the options that are not varied.
      grid: the values of options, of which each is equally likely.
      between: the ranges of numbers: log-uniform where the highest is at least ten times the lowest, else uniform.
      draws: the number of settings.
      seed: of the draws. More draws begin with the same settings.

    Raises:
      InputError: there are fewer settings.
    """
    rng = np.random.default_rng(seed)
    settings: dict[str, Setting] = {}
    for _ in range(draws * _TRIES):
        point = {name: values[int(rng.integers(len(values)))] for name, values in grid.items()}
        point |= {name: _draw(rng, *ends) for name, ends in between.items()}
        setting = _setting(base, point)
        settings.setdefault(setting.name, setting)
        if len(settings) == draws:
            return list(settings.values())
    raise InputError(
        f"config.search.draws is {draws}, but only {len(settings)} different settings were found among those of "
        f"{', '.join((*grid, *between))}, expected at most as many draws as there are settings"
    )


def _draw(rng: np.random.Generator, low: float, high: float) -> float:
    spread = low > 0 and high >= 10 * low
    drawn = math.exp(rng.uniform(math.log(low), math.log(high))) if spread else rng.uniform(low, high)
    return min(max(float(f"{drawn:.{_DIGITS}g}"), low), high)


def _setting(base: Mapping[str, Any], point: Mapping[str, Any]) -> Setting:
    resolved = {**base, **point}
    return Setting(" ".join(f"{k}={written(v)}" for k, v in point.items()) or str(resolved["weighting"]), resolved)


def comparable_settings(settings: Sequence[Setting]) -> list[Setting]:
    """Returns the settings that train all tasks which any setting trains: only their validation scores compare."""
    tasks = [task for task in ("class", "vad") if any(setting.trains(task) for setting in settings)]
    return [setting for setting in settings if all(setting.trains(task) for task in tasks)]


def mean_scores(
    runs: Sequence[RunKey], score: Float[np.ndarray, " run"], settings: Sequence[Setting]
) -> dict[int, dict[str, float]]:
    """Returns the mean score over the seeds, by fold and by the name of one of some settings.

    Args:
      runs: those that have a score.
      score: of each of these runs.
      settings: the others' scores are not read.
    """
    names = {setting.name for setting in settings}
    scores: dict[int, dict[str, list[float]]] = {}
    for run, own in zip(runs, score.tolist(), strict=True):
        if run.setting.name in names:
            scores.setdefault(run.fold, {}).setdefault(run.setting.name, []).append(own)
    return {fold: {name: float(np.mean(own)) for name, own in of_fold.items()} for fold, of_fold in scores.items()}


def rungs(runs: Sequence[RunKey], *, epochs: int, factor: int) -> dict[int, int]:
    """Returns how many settings a fold keeps after which epoch: at each rung one of `factor`, rounded up.

    The rungs are at epochs / factor^k, so that each costs about the same number of epochs of all settings together; as
    many as there are settings and epochs for. 30 epochs and 20 settings by 3: 7 after epoch 3, 3 after epoch 10.

    Args:
      runs: of a program. Those of other programs have rungs of their own.
      epochs: of the study.
      factor: 2 or more; 0 for no rungs.
    """
    if not factor:
        return {}
    n_settings = len(comparable_settings(list({run.setting.name: run.setting for run in runs}.values())))
    levels = 0
    while factor ** (levels + 1) <= min(n_settings, epochs):
        levels += 1
    kept, found = n_settings, {}
    for level in range(levels, 0, -1):
        kept = -(-kept // factor)
        found[epochs // factor**level] = kept
    return found


def survivors(
    runs: Sequence[RunKey], score: Float[np.ndarray, " run"], alive: Bool[np.ndarray, " run"], kept: int
) -> Bool[np.ndarray, " run"]:
    """Returns the runs that go on: in each fold those of the `kept` best settings, by the mean score over their seeds.

    Settings whose scores do not compare with the others' go on.

    Args:
      runs: of a program.
      score: the best of each run so far, on its own validation speakers.
      alive: the runs that have not been stopped.
      kept: number of settings that a fold keeps.
    """
    settings = comparable_settings([run.setting for run in runs])
    compared = {setting.name for setting in settings}
    going = [run for run, goes_on in zip(runs, alive.tolist(), strict=True) if goes_on]
    means = mean_scores(going, score[alive], settings)
    best = {fold: sorted(mean, key=mean.__getitem__, reverse=True)[:kept] for fold, mean in means.items()}
    names = [run.setting.name not in compared or run.setting.name in best[run.fold] for run in runs]
    return alive & np.array(names)
