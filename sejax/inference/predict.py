"""Predicts the emotions of audio files with a published model, and prints them as CSV:

    python -m sejax.predict --model FOLDER_OR_ID [--revision R] [--problem_type T] FILE...

FOLDER_OR_ID is an emotion model on the Hugging Face hub, or a folder with its files (`sejax.pretrained.heads` lists the
layouts). A row has the file and a column per label: probabilities of classes, or values of dimensions; a note on
standard error says which. Columns of dimensions are called valence, arousal and dominance and are in this order,
whatever the model's names and order are; their scale is the model's, and the note says it. Where the checkpoint does
not say what its outputs are, `--problem_type` has to. A file that cannot be used gives a sentence on standard error.
The other files are printed nevertheless, and the exit status is 1. Audio longer than a minute, or than the model's
longest input, is read in overlapping windows, whose frames are pooled together; a note says so, and what else is
unusual about a file.
"""

import argparse
import csv
import math
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sejax.errors import InputError
from sejax.host.disk import disk_problem
from sejax.host.output import discard_output
from sejax.pretrained.labels import PROBLEM_TYPES

if TYPE_CHECKING:
    from sejax.pretrained.heads.classifier import Classifier


class Prediction(NamedTuple):
    """The outputs of a model for one file."""

    values: list[float]  # of each label
    note: str  # what is unusual about the file; "" if nothing is


def predict(classifier: "Classifier", path: str) -> Prediction:
    """Returns the value of each label for one file.

    Raises:
      InputError: the file cannot be used (`load_audio`), is too short for the model or too long for the memory, or
        gives values that are not finite.
    """
    import jax
    import numpy as np

    from sejax.corpora.schema import SAMPLING_RATE
    from sejax.features.audio import load_audio
    from sejax.pretrained.heads.classifier import classify_utterance

    try:
        samples, note = (audio := load_audio(path)).samples, audio.note
        seconds, window = len(samples) / SAMPLING_RATE, classifier.checkpoint.backbone.window
        if len(samples) < window:
            raise InputError(
                f"{path}: lasts {1000 * seconds:.1f} ms, expected at least the "
                f"{1000 * window / SAMPLING_RATE:.1f} ms that the model's first frame sees"
            )
        values = np.asarray(classify_utterance(classifier, samples).values[0])
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        raise InputError(
            f"{path}: the model cannot be run on it ({' '.join(str(error).split())[:200]}), expected enough memory"
        ) from error
    if not np.isfinite(values).all():
        raise InputError(f"{path}: the model gives {values.tolist()} for it, expected finite values")
    notes = [note] if note else []
    if seconds > classifier.window_seconds:
        notes.append(f"lasts {seconds:.0f} s, read in overlapping windows of {classifier.window_seconds:.0f} s")
    shortest, longest = classifier.head.TRAINED_SECONDS or (0.0, math.inf)
    if not shortest <= seconds <= longest:
        trained = f"{shortest:.0f} to {longest:.0f} s" if shortest else f"up to {longest:.0f} s"
        notes.append(f"lasts {seconds:.1f} s, the model was trained on {trained}")
    return Prediction(values.tolist(), "; ".join(notes))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sejax.predict",
        description="Predicts the emotions of audio files as CSV: a row per file, a column per label.",
    )
    parser.add_argument("--model", required=True, help="a folder in Hugging Face's layout, or a hub id")
    parser.add_argument("--revision", default="main", help="branch, tag or commit on the hub")
    parser.add_argument(
        "--problem_type",
        choices=tuple(PROBLEM_TYPES),
        help="what the model's outputs are (default: what its config.json or its labels say)",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio of any format and rate")
    given = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        status = _predict_all(given.model, given.revision, given.problem_type, given.files)
        sys.stdout.flush()
        return status
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted, the rows above are complete", file=sys.stderr)
        return 130
    except BrokenPipeError:  # as of any command whose reader wants no more (`| head`)
        discard_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.filename or not (problem := disk_problem(error)):
            raise
        discard_output()
        print(f"error: standard output cannot be written ({problem}), expected a disk with room", file=sys.stderr)
        return 1


def _predict_all(model: str, revision: str, problem_type: str | None, files: Sequence[str]) -> int:
    """Prints a row per file that can be used and returns the exit status."""
    from sejax.pretrained.heads.classifier import load_classifier

    classifier = load_classifier(model, revision=revision, problem_type=problem_type)
    for note in classifier.notes:
        print(f"note: {note}", file=sys.stderr)
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["file", *classifier.labels])
    status = 0
    for path in files:
        try:
            found = predict(classifier, path)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 1
            continue
        rows.writerow([path, *(f"{value:.6g}" for value in found.values)])
        sys.stdout.flush()
        if found.note:
            print(f"note: {path}: {found.note}", file=sys.stderr)
    return status
