"""Values that a user might give an option by mistake, and which of them are sane: for tests and drills of all options.

The bounds are written down here a second time, on purpose: they say what makes sense to a person who has not read
`sejax.config`.
"""

import math
from functools import cache
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from sejax.config import default_config

_NUMBERS = (-1, 0, 1, 2, 1000, 10**9, 2**31, 10**400)
_FLOATS = (-1.0, -1e-9, 0.0, 0.5, 1.0, 1e8, math.nan, math.inf)
_OTHERS = (None, True, False, "", " ", "abc", "1", "\0", b"1", (), (1,), ("mfcc",), [], [0.5], {}, {"a"}, 1j, object())
_NUMPY = (np.int64(2), np.float32(0.5), np.bool_(True), np.array([1.0, 2.0]), np.float64("nan"))
_TUPLES = (
    (1.0, 1.0),
    (0.9, 1.0),
    (1.0, math.nan),
    (1.0, -1.0),
    (1.0, 1e9),
    ("mfcc", "mfcc"),
    ("mfcc", "mell"),
    ("mfcc", 3),
    (("mfcc",), ("mfcc",)),
    ("class",),
    ("vad", "class"),
    ([1],),
)

# Ranges of numbers, whole ones and others. What is not here may be 1 to a few thousand (whole) or 0 to 1 (others).
_WHOLE: dict[str, tuple[float, float]] = {
    "seed": (0, 2**31 - 1),
    "synthetic.seed": (0, 2**31 - 1),
    "search.seed": (0, 2**31 - 1),
    "search.draws": (0, 1e4),
    "search.halving": (0, 10),
    "epochs": (1, 1e5),
    "patience": (0, 1e5),
    "checkpoint_every": (1, 1e5),
    "workers": (0, 1e4),
    "devices": (0, 1e5),
    "runs_per_chunk": (0, 1e5),
    "buckets": (1, 100),
    "batch_size": (1, 1e5),
    "bootstrap": (0, 1e6),
    "explain": (0, 100),
    "importance": (0, 1000),
    "model.layers": (0, 100),
    "model.stride": (1, 100),
    "model.width": (2, 1e5),
    "model.heads": (1, 1e3),
    "model.fused": (1, 1e5),
    "finetune.frozen_layers": (0, 1e3),
    "augment.time_masks": (0, 1e3),
    "augment.time_mask_frames": (0, 1e4),
    "augment.feature_masks": (0, 1e3),
}
_REAL: dict[str, tuple[float, float]] = {
    "max_seconds": (0, 1e5),
    "clip_norm": (0, 1e7),
    "tau": (1e-4, 1e7),
    "weight_decay": (0, 1e4),
    "learning_rate": (1e-30, 100),
    "finetune.learning_rate": (1e-30, 1e4),
    "finetune.lora_alpha": (1e-30, 1e7),
    "finetune.layer_decay": (1e-30, 10),
    "synthetic.fraction": (1e-30, 1),
    "memory_fraction": (1e-30, 1),
    "corpus_temperature": (1, 1e7),
    "augment.gain": (0, 100),
    "augment.mixup": (0, 1000),
    "class_temperature": (1, 1e7),
    "loss.focal_gamma": (0, 100),
    "loss.prior_tau": (0, 100),
}
# Those whose default is None, the checkpoint's own value, which the others may be too.
_WHOLE_OR_NONE = {
    "finetune.time_mask_length": (1, 1e3),
    "finetune.feature_mask_length": (1, 1e3),
    "finetune.time_mask_min": (0, 1e3),
    "finetune.feature_mask_min": (0, 1e3),
}
_BELOW_ONE = (
    "averaging",
    "dropout",
    "statistics_dropout",
    "label_smoothing",
    "loss.effective_beta",
    "finetune.layer_drop",
    "finetune.time_mask_prob",
    "finetune.feature_mask_prob",
    "finetune.dropout",
    "finetune.attention_dropout",
    "finetune.activation_dropout",
    "finetune.projection_dropout",
)


@cache
def options() -> dict[str, Any]:
    """Returns the default of every option by its full name, those of the grid too."""
    return flatten_dict(default_config().to_dict(), sep=".")


def odd_values(name: str) -> list[Any]:
    """Returns values of every kind for an option: negative, zero, huge, not a number, of other types, empty, nested."""
    values = [*_NUMBERS, *_FLOATS, *_OTHERS, *_NUMPY, *_TUPLES]
    if isinstance(options()[name], float) or (options()[name] is None and name not in _WHOLE_OR_NONE):
        values.remove(10**400)  # ConfigDict makes a float of it, which is an OverflowError
    if name.startswith(("grid.", "search.between.")):
        return [*_OTHERS, *((value,) for value in values), (0.5, 0.5), (2, 2), (True, True)]
    return values


def set_option(config: ConfigDict, name: str, value: Any) -> None:
    """Gives an option any value, also one of another type than its default's."""
    *folders, option = name.split(".")
    node = config
    for folder in folders:
        node = node[folder]
    with config.ignore_type():
        node[option] = value


def sane(name: str, value: Any) -> bool:
    """Returns whether a value makes sense for an option, whatever the others are."""
    default = options()[name]
    if isinstance(value, list):  # ConfigDict makes a tuple of it
        value = tuple(value)
    if name.startswith("grid."):
        option = name.removeprefix("grid.")
        return (
            isinstance(value, tuple)
            and all(sane(option, each) for each in value)
            and all(a != b for i, a in enumerate(value) for b in value[:i])
        )
    if name.startswith("search.between."):
        option = name.removeprefix("search.between.")
        pair = isinstance(value, tuple) and all(sane(option, each) for each in value) and len(value) in (0, 2)
        return pair and (not value or value[0] < value[1])
    if default is None and value is None:
        return True
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, str):
        paths = ("data_dir", "model.guided")
        return isinstance(value, str) and "\0" not in value and (bool(value.strip()) or name in paths)
    if isinstance(default, tuple):
        return isinstance(value, tuple) and _sane_tuple(name, value)
    if name == "folds":
        return isinstance(value, int) and not isinstance(value, bool) and (value == 0 or 3 <= value <= 1000)
    real = isinstance(default, float) or (default is None and name not in _WHOLE_OR_NONE)
    if isinstance(value, bool) and real:  # ConfigDict makes a number of it
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(min(value, 1e308)):
        return False
    if not real:
        low, high = (_WHOLE | _WHOLE_OR_NONE).get(name, (1, 1e5))
        return isinstance(value, int) and low <= value <= high
    low, high = _REAL.get(name, (3, 1e5) if name.endswith("max_seconds") else (0, 1))
    return low <= value <= high and not (name in _BELOW_ONE and value >= 1)


def _sane_tuple(name: str, value: tuple[Any, ...]) -> bool:
    if name == "speeds":
        numbers = all(isinstance(x, int | float) and not isinstance(x, bool) and 0.1 <= x <= 10 for x in value)
        return numbers and value[:1] == (1.0,) and len(set(value)) == len(value)
    # No odd value is `reader:path`, `OPTION=VALUE`, `name=path`, `<stream>_svm` or `--OPTION`.
    if name in ("corpora", "settings", "feature_files", "baselines", "beam_options"):
        return not value
    if name == "corruptions" and value == ():
        return True
    if name == "augment.noise_snr":
        return len(value) == 2 and -100 <= value[0] <= value[1] <= 100
    return len(value) > 0 and all(isinstance(x, str) for x in value) and len(set(value)) == len(value)
