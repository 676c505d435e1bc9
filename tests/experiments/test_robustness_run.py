"""The experiment on noise: its studies differ in what they train on, and its table pairs the last with the first."""

import numpy as np

from experiments.robustness import run
from sejax.config import check_config
from sejax.evaluation.predictions import Predictions


def test_the_studies_differ_in_what_is_trained_on_alone():
    configs = run.study_configs("emodb.zip", "cache", seeds=2)
    assert list(configs) == ["clean", "white", "white and pink"]
    for name, config in configs.items():
        check_config(config)
        assert bool(config.corruptions) == (name != "clean")
        config.corruptions, config.augment.corrupted = (), 0.0
        assert config.to_dict() == configs["clean"].to_dict()


def _predictions(wrong_speakers: str) -> Predictions:
    """Returns four speakers with two utterances each; those of some speakers are all taken for the other class."""
    speaker, label = np.repeat(list("abcd"), 2), np.tile([0, 1], 4)
    right = ~np.isin(speaker, list(wrong_speakers))
    prob = np.where((np.arange(2) == label[:, None]) == right[:, None], 0.9, 0.1)
    return Predictions(
        classes=("calm", "angry"),
        run=np.repeat(np.arange(4), 2),
        fold=speaker,
        seed=np.zeros(8, int),
        setting=np.full(8, "static"),
        split=np.full(8, "test"),
        id=np.array([f"u{i}" for i in range(8)]),
        speaker=speaker,
        label=label,
        prob=prob,
        vad=np.full((8, 3), np.nan),
        pred_vad=np.full((8, 3), np.nan),
    )


def test_the_table_has_a_row_per_condition_and_pairs_speakers():
    found = {("clean", "noise:5"): _predictions("ab"), ("noisy", "noise:5"): _predictions("a")}
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in run.table(found).splitlines()]
    assert rows[0] == ["tested on", "clean", "noisy", "noisy, paired with clean", "p", "Holm"]
    ((condition, clean, noisy, gain, p, holm),) = rows[2:]
    assert (condition, clean.split()[0], noisy.split()[0]) == ("noise:5", "50.0", "75.0")
    assert (gain.split()[0], p, holm) == ("+25.0", "1.000", "1.000")
