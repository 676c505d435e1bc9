"""Fabricated studies for the tests of this folder."""

import dataclasses

import numpy as np

from sejax.evaluation.predictions import Predictions

CLASSES = ("angry", "happy", "sad")
DIMENSIONS = ("valence", "arousal", "dominance")


def study(
    n_speakers=5,
    per_speaker=8,
    seeds=(0, 1),
    settings=("static", "joint"),
    rng_seed=0,
    classes=CLASSES,
    validated=False,
    sharpness=1.0,
):
    """Leave-one-speaker-out predictions, somewhat better than chance.

    Args:
      validated: whether each fold also has the predictions for its validation speaker, who is the next one.
      sharpness: factor of the logits, of which those at 1 are calibrated.
    """
    rng = np.random.default_rng(rng_seed)
    speakers = [f"s{number}" for number in range(n_speakers)]
    n = n_speakers * per_speaker
    speaker = np.repeat(speakers, per_speaker)
    ids = np.array([f"u{number:03d}" for number in range(n)])
    label = rng.integers(0, len(classes), n)
    vad = np.round(rng.uniform(1, 5, (n, 3)) * 2) / 2
    utterance = np.arange(n)
    parts = []
    for index, (seed, setting) in enumerate((seed, setting) for seed in seeds for setting in settings):
        for split, shift in (("val", 1), ("test", 0))[not validated :]:
            logits = rng.normal(size=(n, len(classes))) + 1.5 * np.eye(len(classes))[label]
            prob = np.exp(1.5 * sharpness * logits)
            # The fold of a validation speaker is that of the speaker before.
            fold = (utterance // per_speaker - shift) % n_speakers
            parts.append(
                Predictions(
                    classes=classes,
                    run=index * n_speakers + fold,
                    fold=np.array(speakers)[fold],
                    seed=np.full(n, seed),
                    setting=np.full(n, setting),
                    split=np.full(n, split),
                    id=ids,
                    speaker=speaker,
                    label=label,
                    prob=prob / prob.sum(axis=1, keepdims=True),
                    vad=vad,
                    pred_vad=vad + rng.normal(size=(n, 3)),
                )
            )
    return joined(parts)


def joined(parts):
    names = [field.name for field in dataclasses.fields(Predictions) if field.name != "classes"]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Predictions(classes=parts[0].classes, **columns)
