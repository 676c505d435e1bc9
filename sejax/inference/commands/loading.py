"""The options with which a command names its model, and the loading of that model."""

import argparse
import sys
from typing import TYPE_CHECKING, TextIO

from sejax.pretrained.labels import PROBLEM_TYPES

if TYPE_CHECKING:
    from sejax.inference.model import Model


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds --model, --revision, --runs and --problem_type."""
    parser.add_argument("--model", required=True, help="a bundle, a folder in Hugging Face's layout, or a hub id")
    parser.add_argument("--revision", default="main", help="branch, tag or commit on the hub")
    parser.add_argument(
        "--runs", type=names_of, default=[], help="of a bundle: numbers or folds of its runs, by commas (default: all)"
    )
    parser.add_argument(
        "--problem_type",
        choices=tuple(PROBLEM_TYPES),
        help="of a published model: what its outputs are (default: what its config.json or its labels say)",
    )


def names_of(words: str) -> list[str]:
    """Returns the names that an option has by commas."""
    return [name for name in words.split(",") if name]


def load_model(given: argparse.Namespace, *, notes: TextIO | None = None) -> "Model":
    """Loads the model that the options name, and prints its notes.

    Args:
      given: the options.
      notes: where they are printed; by default on standard error.

    Raises:
      InputError: see `Model.load`.
    """
    from sejax.inference.model import Model

    model = Model.load(given.model, revision=given.revision, runs=given.runs, problem_type=given.problem_type)
    for note in model.notes:
        print(f"note: {note}", file=notes or sys.stderr)
    return model
