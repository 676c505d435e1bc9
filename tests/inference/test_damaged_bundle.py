"""Bundles that were edited or damaged are a sentence, and no numbers of something else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sejax.errors import InputError
from sejax.inference.export import export_bundle
from sejax.inference.model import Model

ARRAYS = "model.safetensors"


@pytest.fixture
def bundle(study: Path, tmp_path: Path) -> Path:
    return export_bundle(str(study), str(tmp_path / "bundle"), runs=("folds",)).folder


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda tree: tree["classes"].pop(), "different ones, as the model has outputs"),
        (lambda tree: tree["classes"].append("more"), "different ones, as the model has outputs"),
        (lambda tree: tree["classes"].__setitem__(0, tree["classes"][1]), "different ones, as the model has outputs"),
        (lambda tree: tree.pop("pretrained"), "its 'pretrained' cannot be read"),
        (lambda tree: tree["calibration"].__setitem__("temperature", [1e999] * 99), "its 'calibration' cannot be read"),
    ],
)
def test_an_edited_description(bundle: Path, edit: Callable[[dict[str, Any]], Any], said: str):
    path = bundle / "config.json"
    tree = json.loads(path.read_text())
    edit(tree)
    path.write_text(json.dumps(tree))
    with pytest.raises(InputError, match=said):
        Model.load(bundle)


@pytest.mark.parametrize("kind", ["params", "statistic_scale"])
def test_arrays_that_are_not_finite(bundle: Path, kind: str):
    arrays = load_file(bundle / ARRAYS)
    name = next(name for name in sorted(arrays) if name.startswith(kind))
    arrays[name][0, ..., 0] = np.nan
    save_file(arrays, bundle / ARRAYS)
    with pytest.raises(InputError, match="has values that are not finite"):
        Model.load(bundle)


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("statistic_scale/mfcc/mean", lambda x: x[:, :1], "its normalisation 1"),
        ("params/trunk/fusion/kernel", lambda x: x[:, :-1], "do not fit together"),
        ("params/head/vad/bias", lambda x: None, "do not fit together"),
    ],
)
def test_arrays_of_another_shape(bundle: Path, voice: str, kind: str, change: Callable[[np.ndarray], Any], said: str):
    """A normalisation of one value would be taken for all features, without a word."""
    arrays = load_file(bundle / ARRAYS)
    if (changed := change(arrays.pop(kind))) is not None:
        arrays[kind] = np.ascontiguousarray(changed)
    save_file(arrays, bundle / ARRAYS)
    with pytest.raises(InputError, match=said):
        Model.load(bundle).predict([voice])
