r"""Writes tests/golden/stf_pyaudioanalysis.npz: pyAudioAnalysis's own features of short synthetic signals.

pyAudioAnalysis needs packages that sejax does not, so this tool runs in an environment of its own:

    python3 -m venv /tmp/paa
    /tmp/paa/bin/pip install pyAudioAnalysis numpy scipy scikit-learn matplotlib tqdm hmmlearn simplejson \
        eyed3 pydub imblearn plotly pandas
    /tmp/paa/bin/python tools/golden_stf.py

The file holds, per signal, `<name>_samples` (int16, 16 kHz) and, per window,
`<name>_<win_length>_<hop_length>` (float32 [frame, 68]), and the versions that made it.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from tools.golden import FOLDER, run_tool, versions, write

SAMPLING_RATE = 16_000
# 25 ms every 10 ms, and 50 ms every 25 ms, where that library's lowest bin lies below the lowest pitch.
WINDOWS = ((400, 160), (800, 400))
GOLDEN = FOLDER / "stf_pyaudioanalysis.npz"

FeatureExtraction = Callable[[np.ndarray, int, int, int], tuple[np.ndarray, list[str]]]


def signals(seconds: float = 0.4) -> dict[str, np.ndarray]:
    """Name -> int16 samples: a sine, a gliding voice, a noise burst between exact silences, a noisy step."""
    random = np.random.default_rng(0)
    time = np.arange(int(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    fundamental = 2 * np.pi * np.cumsum(120 + 160 * time) / SAMPLING_RATE
    voice = sum(np.sin(k * fundamental) / k for k in range(1, 25)) * np.hanning(len(time))
    noise = random.standard_normal(len(time))
    burst = np.where((time > 0.4 * seconds) & (time < 0.7 * seconds), noise, 0)
    step = 0.02 * noise + np.where(time > 0.5 * seconds, np.sin(2 * np.pi * 2500 * time), 0) + 0.1
    sine = 0.5 * np.sin(2 * np.pi * 1000 * time)
    floats = {"sine": sine, "voice": voice, "burst": burst, "step": step}
    return {name: (x / np.abs(x).max() * 20_000).astype(np.int16) for name, x in floats.items()}


def golden(feature_extraction: FeatureExtraction) -> dict[str, Any]:
    """The arrays of the file, from the library's function."""
    arrays: dict[str, Any] = {}
    for name, samples in signals().items():
        arrays[f"{name}_samples"] = samples
        for win_length, hop_length in WINDOWS:
            features, names = feature_extraction(samples, SAMPLING_RATE, win_length, hop_length)
            arrays[f"{name}_{win_length}_{hop_length}"] = features.T.astype(np.float32)
    arrays["names"] = np.array(names)
    return arrays


def make(out: Path) -> None:
    """Writes the file."""
    from pyAudioAnalysis.ShortTermFeatures import feature_extraction

    write(out, golden(feature_extraction), versions("pyAudioAnalysis", "numpy", "scipy"))


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(make, out=GOLDEN, needs="pyAudioAnalysis", description=__doc__, arguments=arguments)


if __name__ == "__main__":
    main()
