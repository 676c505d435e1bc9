"""Predicts the emotions of audio files with a published model, and prints them as CSV:

    python -m sejax.predict --model FOLDER_OR_ID [--revision R] FILE...

FOLDER_OR_ID is an emotion model in Hugging Face's layout (`sejax.pretrained.heads`). A row has the file and a column
per label: probabilities of classes, or values of dimensions. A file that cannot be used gives a sentence on standard
error. The other files are printed nevertheless, and the exit status is 1. Each file is read as a whole. Memory grows
with the square of its duration: cut recordings of more than a few minutes into utterances first.
"""

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sejax.errors import InputError

if TYPE_CHECKING:
    from sejax.pretrained.heads import Classifier


def predict(classifier: "Classifier", path: str) -> list[float]:
    """Returns the value of each label for one file.

    Raises:
      InputError: the file cannot be used (`load_audio`), or is too short for the model.
    """
    import jax.numpy as jnp
    import numpy as np

    from sejax.corpora.schema import SAMPLING_RATE
    from sejax.features.audio import load_audio
    from sejax.pretrained.extract import padded_length
    from sejax.pretrained.heads import classify

    samples = load_audio(path).samples
    window = classifier.checkpoint.backbone.window
    if len(samples) < window:
        raise InputError(
            f"{path}: lasts {1000 * len(samples) / SAMPLING_RATE:.1f} ms, expected at least the "
            f"{1000 * window / SAMPLING_RATE:.1f} ms that the model's first frame sees"
        )
    padded = np.pad(samples, (0, padded_length(len(samples)) - len(samples)))
    scores = classify(classifier, jnp.asarray(padded)[None], jnp.asarray([len(samples)], jnp.int32))
    return np.asarray(scores.values[0]).tolist()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sejax.predict",
        description="Predicts the emotions of audio files as CSV: a row per file, a column per label.",
    )
    parser.add_argument("--model", required=True, help="a folder in Hugging Face's layout, or a hub id")
    parser.add_argument("--revision", default="main", help="branch, tag or commit on the hub")
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio of any format and rate")
    given = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from sejax.pretrained.heads import load_classifier

    try:
        classifier = load_classifier(given.model, revision=given.revision)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["file", *classifier.labels])
    status = 0
    for path in given.files:
        try:
            values = predict(classifier, path)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 1
        else:
            rows.writerow([path, *(f"{value:.6g}" for value in values)])
            sys.stdout.flush()
    return status
