"""What every kind of model has to do to predict."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from sejax.errors import InputError
from sejax.features.extract import Contents, Extraction, Loaded
from sejax.inference.records import Names, Outputs

Made = Sequence[Extraction | Loaded]
"""What a scorer's contents made of an utterance, in their order."""


class Scorer(ABC):
    """A model as a function from what it reads of utterances to its outputs."""

    digest: str  # of its files
    contents: Sequence[Contents]  # what it reads of an utterance
    card: str = ""  # its model card, in Markdown

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
