"""The experiment on layers: its readings differ in what is read alone, and the choice sees validation alone."""

import json
from pathlib import Path

import numpy as np

from configs.probe import get_config
from experiments.pretrained import probe
from sejax.evaluation.predictions import Predictions


def test_readings_differ_in_what_is_read_alone():
    base = get_config("emodb,whisper")
    configs = probe.readings(base, "whisper", 6)
    assert list(configs) == [probe.JOINED, probe.MIXED, *(f"layer {i}" for i in range(7))]
    assert configs[probe.JOINED].to_dict() == base.to_dict()
    for config in configs.values():
        config.model.joined_states = base.model.joined_states
        config.features.ssl.whisper.layers = base.features.ssl.whisper.layers
        assert config.to_dict() == base.to_dict()


def _predictions(correct: float) -> Predictions:
    """Returns two folds of one speaker and two seeds each, of two utterances, with this probability of the truth."""
    keys = [(fold, seed, i) for fold in "ab" for seed in (0, 1) for i in (0, 1)]
    label = np.array([i for _, _, i in keys])
    prob = np.full((8, 2), 1 - correct)
    prob[np.arange(8), label] = correct
    speaker = np.array([fold for fold, _, _ in keys])
    return Predictions(
        classes=("calm", "angry"),
        run=np.arange(8) // 2,
        fold=speaker,
        seed=np.array([seed for _, seed, _ in keys]),
        setting=np.full(8, "static"),
        split=np.full(8, "test"),
        id=np.array([f"{fold}{i}" for fold, _, i in keys]),
        speaker=speaker,
        label=label,
        prob=prob,
        vad=np.full((8, 3), np.nan),
        pred_vad=np.full((8, 3), np.nan),
    )


def test_each_run_takes_the_reading_that_is_best_on_its_validation(tmp_path: Path):
    rows = [
        {"epoch": e, "run": 0, "fold": "a", "seed": 0, "setting": "static", "score": s}
        for e, s in ((1, 0.2), (2, 0.7), (3, 0.5))
    ]
    (tmp_path / "history.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert probe.best_validation(tmp_path) == {("a", 0): 0.7}

    predictions = {"right": _predictions(0.9), "wrong": _predictions(0.2)}
    runs = [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    scores = {"right": dict(zip(runs, (0.5, 0.1, 0.5, 0.5), strict=True)), "wrong": dict.fromkeys(runs, 0.3)}
    chosen = probe.choose(predictions, scores)
    assert chosen.id.tolist() == predictions["right"].id.tolist()
    assert (chosen.predicted_class() == chosen.label).tolist() == [True, True, False, False, True, True, True, True]
    lines = probe.table({probe.JOINED: predictions["right"], probe.CHOSEN: chosen}, n_bootstrap=10).splitlines()
    assert lines[2].startswith("| joined | 100.0") and lines[2].endswith("|  |  |  |")
    assert lines[3].startswith("| chosen on validation | 75.0") and "| -25.0 [" in lines[3]
