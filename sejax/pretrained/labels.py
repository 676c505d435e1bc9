"""What the outputs of an emotion checkpoint are called, and whether they are classes or values."""

import re
import reprlib
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sejax.errors import InputError

PROBLEM_TYPES = {
    "regression": "values, not probabilities",
    "single_label_classification": "probabilities of classes that exclude each other",
    "multi_label_classification": "probabilities of labels, each for itself",
}
"""What the outputs of a head are, by transformers' `problem_type`."""

SYNONYMS = {
    "valence": "valence val v pleasure p pleasantness positivity valenz valencia valência valenza валентность 效价 "
    "愉悦度 感情価 快度 긍정도",
    "arousal": "arousal aro a activation act activity energy erregung aktivierung activación excitación ativação "
    "excitação éveil attivazione возбуждение активация 唤醒度 激活度 覚醒度 각성도",
    "dominance": "dominance dom d control potency power dominanz kontrolle dominancia dominación dominância dominanza "
    "доминирование доминантность 支配度 优势度 控制度 지배도",
    "predictability": "predictability unpredictability expectancy",
    "liking": "liking likability",
    "intensity": "intensity",
}
"""The names of the dimensions of emotion, in several languages."""
FILLERS = {
    "emo",
    "emotion",
    "emotional",
    "dim",
    "dimension",
    "msp",
    "pred",
    "predicted",
    "mean",
    "avg",
    "norm",
    "score",
}
FILLERS |= {"value", "level", "rating"}
"""Words beside a dimension in labels such as EmoVal or arousal_score."""
_DIMENSIONS = {name: dimension for dimension, names in SYNONYMS.items() for name in names.split()}
_UNNAMED = re.compile(r"(label|output|out|logit|score|value|dim)?[\s_-]*[0-9]+", re.IGNORECASE)


def read_labels(config: Mapping[str, Any], path: Path, outputs: int) -> tuple[str, ...]:
    """Returns the names of a head's outputs, in order: `id2label`, or transformers' names where it is left out.

    Args:
      config: the content of config.json.
      path: of it, named in errors.
      outputs: of the head.

    Raises:
      InputError: the outputs are not numbered from 0 without a gap, or a name is no name, or occurs twice.
    """
    labels = config.get("id2label")
    if labels is None or labels == {}:
        # transformers writes no names of the two outputs that it has by default.
        if outputs != config.get("num_labels", 2):
            raise InputError(f"{path}: has no id2label, expected the names of the head's {outputs} outputs")
        return tuple(f"LABEL_{i}" for i in range(outputs))
    numbers = [str(i) for i in range(len(labels))] if isinstance(labels, dict) else []
    if not isinstance(labels, dict) or set(labels) != set(numbers):
        raise InputError(
            f"{path}: id2label is {reprlib.repr(labels)}, expected names of the outputs by their numbers from 0"
        )
    names: list[str] = []
    for number in numbers:
        name = labels[number]
        if type(name) is int:
            name = str(name)
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InputError(f"{path}: id2label calls output {number} {reprlib.repr(name)}, expected a name")
        if name in names:
            raise InputError(
                f"{path}: id2label calls outputs {names.index(name)} and {number} both {name!r}, expected two names"
            )
        names.append(name)
    return tuple(names)


def dimension(label: str) -> str | None:
    """Returns the dimension of emotion that a label is called after, None if it is not called after one.

    Example:
      >>> [dimension(label) for label in ("Activation", "EmoVal", "dominance_score", "low arousal", "happy")]
      ['arousal', 'valence', 'dominance', None, None]
    """
    spaced = re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", label))
    words = {word.casefold() for word in re.findall(r"[^\W\d_]+", spaced)} - FILLERS
    found = {_DIMENSIONS.get(word) for word in words}
    return found.pop() if len(found) == 1 else None


def read_problem_type(
    labels: Sequence[str], config: Mapping[str, Any], path: Path, given: str | None = None
) -> tuple[str, str]:
    """Returns what the outputs are (a key of `PROBLEM_TYPES`), and what says so, as a part of a sentence.

    Args:
      labels: the names of the outputs.
      config: the content of config.json.
      path: of it, named in errors.
      given: by the user; None: as config.json or else the labels say.

    Raises:
      InputError: nothing says it, config.json has another word, or a single output is said to be a class.
    """
    stated = config.get("problem_type")
    if given is None and stated is not None and (not isinstance(stated, str) or stated not in PROBLEM_TYPES):
        raise InputError(
            f"{path}: problem_type is {reprlib.repr(stated)}, expected one of {', '.join(PROBLEM_TYPES)}: give the "
            "right one as the option problem_type"
        )
    if given is not None:
        found, source = given, "as the option problem_type says"
    elif stated is not None:
        found, source = stated, "as problem_type in config.json says"
    else:
        found, source = _by_names(labels, path), "by the names of the labels"
    if found == "single_label_classification" and len(labels) == 1:
        raise InputError(f"{path}: has the single label {labels[0]!r}, expected two or more of a {found}")
    return found, source


def _by_names(labels: Sequence[str], path: Path) -> str:
    """Returns what the outputs are by their names. A single one has a value, as in transformers."""
    if len(labels) == 1:
        return "regression"
    dimensions = [dimension(label) for label in labels]
    known = {name for name in dimensions if name}
    # A and D alone may be anger and disgust.
    letters = all(len(label) == 1 for label in labels) and "valence" not in known
    if len(known) == len(labels) and not letters:
        return "regression"
    named = any(name and len(label) > 3 for name, label in zip(dimensions, labels, strict=True))
    if named or len(known) == len(labels) or all(_UNNAMED.fullmatch(label) for label in labels):
        few = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
        raise InputError(
            f"{path}: has no problem_type, and its labels ({few}) do not say whether they are classes or values, "
            f"expected one of {', '.join(PROBLEM_TYPES)}: give it as the option problem_type"
        )
    return "single_label_classification"
