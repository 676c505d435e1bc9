"""Fabricated studies for the tests of this folder."""

import dataclasses

import numpy as np

from sejax.evaluation.predictions import Predictions

CLASSES = ("angry", "happy", "sad")
DIMENSIONS = ("valence", "arousal", "dominance")


def study(n_speakers=5, per_speaker=8, seeds=(0, 1), settings=("static", "joint"), rng_seed=0, classes=CLASSES):
    """Leave-one-speaker-out predictions, somewhat better than chance."""
    rng = np.random.default_rng(rng_seed)
    speakers = [f"s{number}" for number in range(n_speakers)]
    n = n_speakers * per_speaker
    speaker = np.repeat(speakers, per_speaker)
    ids = np.array([f"u{number:03d}" for number in range(n)])
    label = rng.integers(0, len(classes), n)
    vad = np.round(rng.uniform(1, 5, (n, 3)) * 2) / 2
    parts = []
    for index, (seed, setting) in enumerate((seed, setting) for seed in seeds for setting in settings):
        logits = rng.normal(size=(n, len(classes))) + 1.5 * np.eye(len(classes))[label]
        prob = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        parts.append(
            Predictions(
                classes=classes,
                run=index * n_speakers + np.repeat(np.arange(n_speakers), per_speaker),
                fold=speaker,
                seed=np.full(n, seed),
                setting=np.full(n, setting),
                id=ids,
                speaker=speaker,
                label=label,
                prob=prob,
                vad=vad,
                pred_vad=vad + rng.normal(size=(n, 3)),
            )
        )
    return joined(parts)


def joined(parts):
    names = [field.name for field in dataclasses.fields(Predictions) if field.name != "classes"]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Predictions(classes=parts[0].classes, **columns)
