"""The groups of statistics that explanations and importance add up."""

from dataclasses import replace

import numpy as np
import pytest

from sejax.data.inputs import Input
from sejax.features.registry import FEATURES, defaults
from sejax.features.statistics import functional_names, functionals
from sejax.features.stf import STF_NAMES

GROUPED = [name for name, feature in FEATURES.items() if feature.groups]
TIME = np.arange(16_000) / 16_000


@pytest.mark.parametrize("name", GROUPED)
def test_every_statistic_has_a_group(name: str):
    feature, settings = FEATURES[name], defaults(name)
    samples = (0.3 * np.sin(2 * np.pi * 150 * TIME)).astype(np.float32)
    statistics = feature.summarise(feature.extract(samples, **settings), settings)
    assert feature.groups is not None
    groups = feature.groups(settings)
    assert len(groups) == len(statistics)
    assert 4 < len(set(groups)) < 20 and all(groups)


def test_the_names_are_those_of_the_numbers():
    """A track that changes alone changes the statistics of its name alone; a constant one has no deviation."""
    frames = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    names = functional_names(["a", "b", "c"])
    louder = functionals(frames + np.array([0, 5, 0], np.float32)) - functionals(frames)
    moved = {name for name, change in zip(names, louder, strict=True) if abs(change) > 1e-4}
    assert moved == {("b", "mean"), ("b", "percentiles")}  # changes and deviations stay
    steady = dict(zip(names, functionals(np.full_like(frames, 2.0)), strict=True))
    assert steady["a", "mean"] == 2 and steady["a", "deviation"] == 0 and steady["c", "delta percentiles"] == 0


def test_short_term_features_are_grouped_by_what_they_measure():
    groups = FEATURES["stf"].groups
    assert groups is not None
    assert set(groups(defaults("stf"))) == {"zcr", "energy", "spectral", "mfcc", "chroma"}
    assert groups(defaults("stf"))[: len(STF_NAMES)][-1] == "chroma"


def test_a_feature_that_names_no_groups_has_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(FEATURES, "mfcc", replace(FEATURES["mfcc"], groups=None))
    given = Input(feature="mfcc", settings=defaults("mfcc"), limit=None, dtype="float16")
    assert given.statistic_groups(560, None) == ["statistics"] * 560
