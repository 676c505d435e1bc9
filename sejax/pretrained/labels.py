"""What the outputs of an emotion checkpoint are called, and whether they are classes or values.

A config.json without `problem_type` says it by the names alone: those of dimensions are of values, those of emotions
are of classes. With any other name among them, nothing says it, and the user has to.
"""

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
    "valence": "valence val v emoval pleasure p pleasantness positivity valenz valencia valência valenza валентность "
    "效价 愉悦度 感情価 快度 긍정도",
    "arousal": "arousal aro a emoact emoaro activation act activity energy erregung aktivierung activación excitación "
    "ativação excitação éveil attivazione возбуждение активация 唤醒度 激活度 覚醒度 각성도",
    "dominance": "dominance dom d emodom control potency power dominanz kontrolle dominancia dominación dominância "
    "dominanza доминирование доминантность 支配度 优势度 控制度 지배도",
    "predictability": "predictability unpredictability expectancy",
    "liking": "liking likability",
    "intensity": "intensity",
}
"""The names of the dimensions of emotion, in several languages."""
FILLERS = (
    "emo emotion emotional dim dimension msp pred predicted mean avg norm score value level rating vad pad avd adv "
    "reg regression"
)
"""Words beside a dimension in labels such as EmoVal or arousal_score."""
CLASSES = {
    "English": "neutral neutrality calm calmness happy happiness joy joyful sad sadness angry anger fear fearful "
    "afraid scared disgust disgusted surprise surprised boredom bored contempt frustration frustrated excitement "
    "excited anxiety anxious amusement amused amuse sleepy sleepiness sarcasm sarcastic love pain confusion confused "
    "enthusiasm enthusiastic irritation irritated aggression aggressive despair elation panic shame guilt pride proud "
    "relief interest hate tenderness other others unknown unk xxx positive negative ps",
    "abbreviations": "neu neut hap ang sad fea dis sur cal bor fru exc con oth anx amu neg pos",
    "German": "neutral ruhig glücklich freude froh fröhlich traurig trauer wut wütend ärger zorn angst ängstlich ekel "
    "überraschung überrascht langeweile verachtung",
    "French": "neutre calme joie heureux heureuse tristesse triste colère peur dégoût surprise ennui mépris",
    "Spanish": "neutro neutral calma alegría alegre felicidad feliz tristeza triste enojo enfado ira miedo asco "
    "sorpresa aburrimiento desprecio",
    "Italian": "neutro neutrale neutralità gioia felicità tristezza rabbia paura disgusto sorpresa noia",
    "Portuguese": "neutro neutra calmo alegria felicidade feliz tristeza triste raiva medo nojo surpresa tédio",
    "Russian": "нейтрально нейтральный радость счастье грусть печаль злость гнев страх отвращение удивление",
    "Turkish": "nötr mutlu üzgün kızgın korku iğrenme şaşkın",
    "Chinese": "中性 中立 平静 高兴 开心 快乐 喜悦 悲伤 难过 伤心 生气 愤怒 恐惧 害怕 厌恶 惊讶 吃惊 其他 未知",
    "Japanese": "中立 平静 喜び 幸せ 悲しみ 怒り 恐れ 嫌悪 驚き",
    "Korean": "중립 기쁨 행복 슬픔 분노 화남 공포 불안 혐오 당황 놀람",
}
"""The names of emotions as classes."""
BESIDE_CLASSES = "male female man woman men women emotion pleasant speech"
"""Words beside an emotion in labels such as female_angry."""
CODES = ("a d f h n sa su", "w l e a f t n")
"""The letters of SAVEE's and of EmoDB's classes."""
LEVELS = "low mid middle medium high neutral negative positive weak strong"
"""Words that make a class of a dimension, as in low arousal."""
_DIMENSIONS = {name: dimension for dimension, names in SYNONYMS.items() for name in names.split()}
_FILLERS, _LEVELS = set(FILLERS.split()), set(LEVELS.split())
_CLASSES = {name for names in CLASSES.values() for name in names.split()}


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
    found = {_DIMENSIONS.get(word) for word in _words(label) - _FILLERS}
    return found.pop() if len(found) == 1 else None


def _words(label: str) -> set[str]:
    spaced = re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", label))
    return {word.casefold() for word in re.findall(r"[^\W\d_]+", spaced)}


def _is_class(label: str) -> bool:
    """Returns whether a label is called after an emotion, or after a level of a dimension."""
    words = _words(label)
    if words & _LEVELS and {word in _DIMENSIONS for word in words - _LEVELS} == {True}:
        return True
    return bool(words & _CLASSES) and words <= _CLASSES | set(BESIDE_CLASSES.split())


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
            "right one as the option --problem_type"
        )
    if given is not None:
        found, source = given, "as the option --problem_type says"
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
    known = {dimension(label) for label in labels} - {None}
    # A and D alone may be anger and disgust.
    letters = all(len(label) == 1 for label in labels) and "valence" not in known
    if len(known) == len(labels) and not letters:
        return "regression"
    folded = {label.casefold() for label in labels}
    if all(map(_is_class, labels)) or (len(folded) > 3 and any(folded <= set(code.split()) for code in CODES)):
        return "single_label_classification"
    few = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
    raise InputError(
        f"{path}: has no problem_type, and its labels ({few}) do not say whether they are classes or values, "
        f"expected one of {', '.join(PROBLEM_TYPES)}: give it as the option --problem_type"
    )
