"""Which classes of a corpus the classes of a model are, where the two do not know each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sejax.corpora.common_classes import SPELLINGS, CommonScheme
from sejax.corpora.spelling import show
from sejax.errors import InputError
from sejax.evaluation.metrics import divide


@dataclass(frozen=True)
class ClassMap:
    """What each class of a model is among the classes of a corpus; see `match_classes`."""

    model_classes: tuple[str, ...]
    classes: tuple[str, ...]  # of the corpus
    class_of: Mapping[str, str]  # of a class of the model; those that are no class of the corpus are not in it

    @property
    def shared(self) -> tuple[str, ...]:
        """The classes of the corpus that the model can name."""
        return tuple(name for name in self.classes if name in self.class_of.values())

    @property
    def outside(self) -> tuple[str, ...]:
        """The classes of the model that are none of the corpus's."""
        return tuple(name for name in self.model_classes if name not in self.class_of)

    def apply(self, prob: Float[np.ndarray, "row model_class"]) -> Float[np.ndarray, "row class"]:
        """Returns the probabilities of the corpus's classes.

        Those of the model's classes that are one class are summed. What the model gives to classes outside is left
        out, and the rest is scaled to sum to 1; where no rest is left, the shared classes are equally probable. A
        class that the model cannot name has 0. Without a shared class all are NaN: the model predicts none.
        """
        member = np.array(
            [[self.class_of.get(name) == of_corpus for of_corpus in self.classes] for name in self.model_classes], float
        ).reshape(len(self.model_classes), len(self.classes))
        shared = member.any(axis=0)
        if not shared.any():
            return np.full((len(prob), len(self.classes)), np.nan)
        summed = prob @ member
        total = summed.sum(axis=1, keepdims=True)
        return np.where(total == 0, shared / shared.sum(), divide(summed, total))

    def apart(self, prob: Float[np.ndarray, "row model_class"]) -> Float[np.ndarray, " row"]:
        """Returns the share of the probability that the model gives to classes outside; NaN where it gives none."""
        outside = np.array([name not in self.class_of for name in self.model_classes], bool)
        return divide(prob[:, outside].sum(axis=1), prob.sum(axis=1))


def match_classes(
    model_classes: Sequence[str], classes: Sequence[str], scheme: CommonScheme | None = None, *, trained_on: str = ""
) -> ClassMap:
    """Returns which classes of a corpus the classes of a model are.

    A class of the model is, of the corpus's classes, the first that there is of

    1. the one that the common scheme makes of the word, if the corpus has the classes of one: so the scheme maps the
       model's words as it has mapped the corpus's;
    2. the one with the same word, upper and lower case apart;
    3. the one that is another spelling of the same word (`SPELLINGS`).

    Several classes of the model may be one class of the corpus. One without a class there is outside.

    Args:
      model_classes: the words of the model.
      classes: of the corpus.
      scheme: whose classes those of the corpus are; None: they are the corpus's own words, or the model has been
        trained on the scheme's classes.
      trained_on: the corpus that the model was trained on, if it is known: a scheme has rows for some corpora.

    Raises:
      InputError: a word of the model may be several classes of the corpus.
    """
    found = {}
    for word in model_classes:
        if scheme is not None and (mapped := scheme.class_of(word, trained_on)) is not None:
            same = [name for name in classes if name == mapped]
        else:
            same = [name for name in classes if name.casefold() == word.casefold()] or [
                name for name in classes if _word(name) == _word(word)
            ]
        if len(same) > 1:
            raise InputError(
                f"the model's class {show(word)} may be {' or '.join(map(show, same))} of the corpus, expected one: "
                "common classes (config.labels=four) or a CSV file with the columns label and class say which"
            )
        if same:
            found[word] = same[0]
    return ClassMap(tuple(model_classes), tuple(classes), found)


def _word(name: str) -> str:
    return SPELLINGS.get(name.casefold(), name.casefold())
