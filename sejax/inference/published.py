"""A published emotion model (`sejax.pretrained.heads`) as a function from utterances to outputs."""

import math
from collections.abc import Sequence

import numpy as np

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import InputError
from sejax.features.extract import Contents, Extraction, Loaded
from sejax.inference.records import Names, Outputs
from sejax.inference.scorer import Made, Scorer
from sejax.pretrained.heads import classifier as classifiers
from sejax.pretrained.heads.classifier import Classifier


class Published(Scorer):
    """The heads of a published model."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self.folder = classifier.checkpoint.folder
        self.contents = (
            Contents("raw", {}, {}, size=1, dtype=np.float32, window=classifier.checkpoint.backbone.window),
        )
        self._is_class = np.array(
            [group.problem_type != "regression" for group in classifier.head.groups for _ in group.columns], bool
        )

    @property
    def names(self) -> Names:
        """The names of the outputs."""
        named = list(zip(self._classifier.labels, self._is_class, strict=True))
        classes = tuple(label for label, is_class in named if is_class)
        return Names(classes, tuple(label for label, is_class in named if not is_class), intervals=False, spread=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about the model and its outputs."""
        return self._classifier.notes

    @property
    def scale(self) -> None:
        """The notes say it in words, if anything does."""

    def score(self, group: Sequence[Made]) -> list[Outputs | InputError]:
        """Returns the outputs of each utterance, or why there are none."""
        return [self._score(loaded) for (loaded,) in group]

    def _score(self, loaded: Extraction | Loaded) -> Outputs | InputError:
        if isinstance(loaded, Extraction):
            return InputError(loaded.error)
        values = np.asarray(classifiers.classify_utterance(self._classifier, loaded.samples).values, np.float64)
        if not np.isfinite(values).all():
            return InputError(f"the model gives {values[0].tolist()} for it, expected finite values")
        prob, dimensions = values[:, self._is_class], values[:, ~self._is_class]
        return Outputs(prob, prob, dimensions, np.full(dimensions.shape[1], np.nan), self._note(loaded))

    def _note(self, loaded: Loaded) -> str:
        notes = [loaded.note] if loaded.note else []
        seconds = len(loaded.samples) / SAMPLING_RATE
        if seconds > self._classifier.window_seconds:
            notes.append(
                f"lasts {seconds:.0f} s, read in overlapping windows of {self._classifier.window_seconds:.0f} s"
            )
        shortest, longest = self._classifier.head.TRAINED_SECONDS or (0.0, math.inf)
        if not shortest <= seconds <= longest:
            trained = f"{shortest:.0f} to {longest:.0f} s" if shortest else f"up to {longest:.0f} s"
            notes.append(f"lasts {seconds:.1f} s, the model was trained on {trained}")
        return "; ".join(notes)
