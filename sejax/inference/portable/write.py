"""From a bundle to a folder that runs without it: a program per length, and a description.

    model.json         inputs, outputs, classes, scale, temperature
    model-3.28s.onnx   the program for utterances of up to 3.28 s (.stablehlo likewise)
    model.onnx         where statistics alone are read
    README.md          the bundle's model card

Every program is compared with the bundle before the folder is there.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import InputError
from sejax.host.atomic import atomic_folder, require_replaceable
from sejax.host.json_files import write_json
from sejax.host.wording import count
from sejax.inference.bundle import CARD, find_bundle, load_bundle
from sejax.inference.model import Model
from sejax.inference.portable.function import SAMPLES, Portable, Tensor
from sejax.inference.portable.inputs import DESCRIPTION, make_inputs
from sejax.inference.portable.onnx import require_onnx, run_onnx, write_onnx
from sejax.inference.portable.stablehlo import PLATFORMS, require_stablehlo, run_stablehlo, write_stablehlo
from sejax.inference.records import Record

TOLERANCE = 1e-4  # of a program's outputs against the bundle's, dimensions in half scales


class _Format(NamedTuple):
    require: Callable[[], None]
    write: Callable[[Path, Portable, float], None]
    run: Callable[[Path, Mapping[str, np.ndarray]], Sequence[np.ndarray]]
    notes: Mapping[str, Any]


FORMATS = {
    "onnx": _Format(require_onnx, write_onnx, run_onnx, {}),
    "stablehlo": _Format(require_stablehlo, write_stablehlo, run_stablehlo, {"platforms": PLATFORMS}),
}


class Written(NamedTuple):
    """What was written."""

    folder: Path
    files: Sequence[str]
    difference: float  # the largest of a program's outputs from the bundle's


def write_portable(
    source: str, to: str, *, kind: str, revision: str = "main", runs: Sequence[str] = (), seconds: Sequence[float] = ()
) -> Written:
    """Writes a portable model.

    Args:
      source: a bundle, in a folder or on the hub.
      to: the folder that is written, which is new, empty, or holds a portable model.
      kind: a key of `FORMATS`.
      revision: on the hub.
      runs: of the bundle, by number or fold; by default all.
      seconds: lengths of the programs; see `Portable.lengths`.

    Raises:
      InputError: an argument cannot be used, or a program computes something else than the bundle.
    """
    how = FORMATS[kind]
    how.require()
    bundle = find_bundle(source, revision)
    if bundle is None:
        raise InputError(f"{source}: is no bundle of a study, expected what python -m sejax.export writes")
    folder = Path(to).expanduser().resolve()
    require_replaceable(folder, what=f"a model of --format {kind}", mark=DESCRIPTION, own=_is_own)
    scorer = load_bundle(bundle, runs=runs)
    portable, model = Portable(scorer), Model(scorer)
    if wrong := [each for each in seconds if not 0.1 <= each <= portable.longest]:
        raise InputError(
            f"--seconds has {wrong[0]:g}, expected lengths from 0.1 to {portable.longest:g} s, which the model reads"
        )
    with atomic_folder(folder) as partial:
        described = _describe(portable, kind, how, portable.lengths(seconds))
        worst = 0.0
        for program in described["programs"]:
            how.write(partial / program["file"], portable, program["seconds"])
            worst = max(worst, _difference(partial, described, program, how, model))
        if not worst <= TOLERANCE:  # also of NaN
            raise InputError(
                f"{folder}: the {kind} program's outputs differ from the bundle's by {worst:.2g}, expected at most "
                f"{TOLERANCE:g}; nothing is written"
            )
        if (bundle / CARD).is_file():
            shutil.copyfile(bundle / CARD, partial / CARD)
        write_json(partial / DESCRIPTION, described)
    return Written(folder, [program["file"] for program in described["programs"]], worst)


def describe(written: Written) -> str:
    """Returns what was written, in a sentence."""
    files = count(len(written.files), "program")
    return f"{written.folder}: {files}, whose outputs differ from the bundle's by {written.difference:.1g} at most"


def _is_own(name: str) -> bool:
    """Returns whether a file of that name is written here."""
    return name in (CARD, DESCRIPTION) or (name.startswith("model") and Path(name).suffix[1:] in FORMATS)


def _describe(portable: Portable, kind: str, how: _Format, lengths: Sequence[float]) -> dict[str, Any]:
    """Returns the content of model.json."""
    runs, names = portable.runs, portable.runs.names
    alone = len(lengths) == 1 and not any(SAMPLES in x.name or "frames" in x.name for x in portable.inputs(lengths[0]))
    calibration = runs.calibration
    half_width = calibration.half_width[:, runs.columns].mean(axis=0).tolist()
    return {
        "format": f"sejax {kind}",
        "classes": list(names.classes),
        "dimensions": list(names.dimensions),
        "scale": list(runs.vad_scale),
        "temperature": calibration.temperature[runs.label].tolist(),
        "intervals": {"level": calibration.level, "half_width": half_width} if names.intervals else None,
        "sampling_rate": SAMPLING_RATE,
        "streams": {
            name: {
                "feature": given.feature,
                "settings": dict(given.settings),
                "limit": given.limit,
                "statistics": list(given.statistics) if given.statistics else [None, None],
            }
            for name, given in runs.inputs.items()
            if name in portable.acoustic
        },
        "programs": [
            {
                "file": f"model.{kind}" if alone else f"model-{seconds:g}s.{kind}",
                "seconds": seconds,
                "inputs": [_as_json(each) for each in portable.inputs(seconds)],
            }
            for seconds in lengths
        ],
        "outputs": [_as_json(each) for each in portable.outputs],
        **how.notes,
    }


def _as_json(each: Tensor) -> dict[str, Any]:
    return {"name": each.name, "shape": ["batch", *each.shape], "dtype": each.dtype}


def _difference(
    folder: Path, described: Mapping[str, Any], program: Mapping[str, Any], how: _Format, model: Model
) -> float:
    """Returns the largest difference of a program's outputs from the bundle's, on two utterances of noise.

    A batch of both and a batch of one are computed, each utterance from its samples.
    """
    utterances = [_noise(share * program["seconds"], seed) for seed, share in enumerate((1.0, 0.6))]
    records = [model.predict_samples(samples, SAMPLING_RATE) for samples in utterances]
    made = [make_inputs(described, program, samples) for samples in utterances]
    names = [each["name"] for each in described["outputs"]]
    worst = 0.0
    for places in ([0, 1], [1]):
        arrays = {name: np.concatenate([made[place][name] for place in places]) for name in made[0]}
        found = dict(zip(names, how.run(folder / program["file"], arrays), strict=True))
        for row, place in enumerate(places):
            own = {name: x[row] for name, x in found.items()}
            worst = max(worst, _difference_from(records[place], own, described["scale"]))
    return worst


def _difference_from(record: Record, found: Mapping[str, np.ndarray], scale: Sequence[float]) -> float:
    """Returns the largest difference from a record; infinite where an output is not finite."""
    differences = []
    if "probabilities" in found:
        best = int(np.argmax(found["probabilities"]))
        differences += [found["probabilities"] - list(record.probabilities.values())]
        differences += [found["calibrated"][[best]] - record.confidence]
    if "dimensions" in found:
        low, high = scale
        differences += [(found["dimensions"] - list(record.dimensions.values())) * 2 / (high - low)]
    worst = np.abs(np.concatenate(differences)).max()
    return float(worst) if np.isfinite(worst) else math.inf


def _noise(seconds: float, seed: int) -> Float32[np.ndarray, " samples"]:
    """Returns a tone in noise that comes and goes, as voices do."""
    time = np.arange(int(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    random = np.random.default_rng(seed)
    tone = np.sin(2 * np.pi * (120 + 60 * seed) * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))
    return (0.3 * tone + 0.03 * random.standard_normal(len(time))).astype(np.float32)
