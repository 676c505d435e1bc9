"""What every kind of model has to do to predict."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from sejax.errors import InputError
from sejax.features.extract import Contents, Extraction, Loaded
from sejax.inference.records import Names, Outputs
from sejax.inference.seen import Heard
from sejax.pretrained.convert import fingerprint

Made = Sequence[Extraction | Loaded]
"""What a scorer's contents made of an utterance, in their order."""


class Scorer(ABC):
    """A model as a function from what it reads of utterances to its outputs."""

    folder: Path  # of its files
    contents: Sequence[Contents]  # what it reads of an utterance
    card: str = ""  # its model card, in Markdown
    trained_on: str = ""  # the name of the corpus of its study; empty if there is none
    labels: str = ""  # the option `labels` of its study
    heard: Heard | None = None  # what its runs have heard, if it knows that

    @cached_property
    def digest(self) -> str:
        """A digest of its files, all of which are read for it."""
        return fingerprint(self.folder)

    @property
    @abstractmethod
    def names(self) -> Names:
        """The names of the outputs."""

    @property
    @abstractmethod
    def notes(self) -> tuple[str, ...]:
        """Sentences about the model and its outputs."""

    @property
    @abstractmethod
    def scale(self) -> tuple[float, float] | None:
        """The least and the greatest value of the dimensions; None where the model does not say it."""

    @abstractmethod
    def score(self, group: Sequence[Made]) -> list[Outputs | InputError]:
        """Returns the outputs of each utterance, or why there are none."""

    def require_explainable(self, task: str) -> None:
        """Checks that an output can be explained.

        Raises:
          InputError: it cannot.
        """
        raise InputError(
            f"{self.folder}: is a published model, expected a bundle of a study, whose outputs are explained"
        )

    def explain(
        self, made: Made, samples: Float32[np.ndarray, " samples"], task: str
    ) -> tuple[Outputs, dict[str, Any]]:
        """Returns the outputs of an utterance, and an explanation of one of them (`sejax.evaluation.explanation`).

        Args:
          made: what the contents made of the utterance.
          samples: of the utterance at 16 kHz.
          task: what is explained, after `require_explainable`; "class" is the class that is named.

        Raises:
          InputError: there are no outputs.
        """
        raise NotImplementedError
