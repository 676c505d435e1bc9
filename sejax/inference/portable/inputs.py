"""From audio to the arrays that a portable model reads, without jax:

    python -m sejax.inference.portable.inputs FOLDER PATH... --to FOLDER

writes a NAME.npz per audio file. The arrays are for the program that holds the utterance; of a longer one, the first
frames. FOLDER is what `python -m sejax.export --format onnx` or `--format stablehlo` wrote.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Num

from sejax.corpora.schema import SAMPLING_RATE
from sejax.features.audio import load_audio
from sejax.features.registry import FEATURES
from sejax.host.json_files import read_json
from sejax.inference.commands.running import run

DESCRIPTION = "model.json"


def read_portable(folder: Path) -> dict[str, Any]:
    """Reads the description of a portable model.

    Raises:
      InputError: the folder is none.
    """
    return read_json(folder / DESCRIPTION, "what python -m sejax.export --format onnx writes")


def choose_program(described: Mapping[str, Any], samples: int) -> Mapping[str, Any]:
    """Returns the program for an utterance: the shortest that holds it, else the longest."""
    programs = described["programs"]
    held = [each for each in programs if each["seconds"] * SAMPLING_RATE >= samples]
    return held[0] if held else programs[-1]


def make_inputs(
    described: Mapping[str, Any], program: Mapping[str, Any], samples: Float32[np.ndarray, " samples"]
) -> dict[str, Num[np.ndarray, "one ..."]]:
    """Returns the arrays of one utterance for a program, as a batch of one.

    Args:
      described: the description of the model.
      program: one of its programs.
      samples: at 16 kHz, full scale at -1 and 1.

    Raises:
      InputError: a feature cannot be computed.
    """
    made: dict[str, np.ndarray] = {"samples": samples}
    for name, given in described["streams"].items():
        feature = FEATURES[given["feature"]]
        frames = feature.extract(samples, **given["settings"])
        made[f"{name}_frames"] = frames
        made[f"{name}_statistics"] = feature.summarise(frames, given["settings"])[slice(*given["statistics"])]
    found: dict[str, np.ndarray] = {}
    for each in program["inputs"]:
        name, shape = each["name"], each["shape"][1:]
        if not name.endswith("_length"):
            found[name] = np.zeros((1, *shape), each["dtype"])
            kept = made[name][: shape[0]]
            found[name][0, : len(kept)] = kept
        else:
            of = name.removesuffix("_length")
            source = made[of] if of in made else made[f"{of}_frames"]
            most = next(other["shape"][1] for other in program["inputs"] if other["name"] in (of, f"{of}_frames"))
            limit = described["streams"].get(of, {}).get("limit") or most
            found[name] = np.array([min(len(source), most, limit)], each["dtype"])
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sejax.inference.portable.inputs", description="Computes what a portable model reads."
    )
    parser.add_argument("folder", help="of the portable model")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="audio files")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="of the .npz files")
    given = parser.parse_args(arguments)
    return run(lambda: _write(given), interrupted="the files that are written are complete")


def _write(given: argparse.Namespace) -> int:
    described = read_portable(Path(given.folder))
    folder = Path(given.to)
    folder.mkdir(parents=True, exist_ok=True)
    for path in given.paths:
        samples = load_audio(path).samples
        program = choose_program(described, len(samples))
        arrays: dict[str, Any] = make_inputs(described, program, samples)
        np.savez(folder / f"{Path(path).stem}.npz", **arrays)
        print(f"{folder / Path(path).stem}.npz: for {program['file']}")
        if len(samples) > program["seconds"] * SAMPLING_RATE:
            held = f"the longest program holds {program['seconds']:g} s"
            print(f"note: {path}: lasts {len(samples) / SAMPLING_RATE:.3g} s, {held}: the rest is cut", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
