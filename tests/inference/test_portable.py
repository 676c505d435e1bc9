"""ONNX and StableHLO: the same numbers as the bundle's, computed without sejax."""

import importlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_study import write_voice

from sejax.inference.commands.export import main
from sejax.inference.model import Model
from sejax.inference.portable.inputs import choose_program, make_inputs, read_portable

NEEDED = {"onnx": ("jax2onnx", "onnxruntime"), "stablehlo": ("flatbuffers",)}
CASES = [("onnx", "encoded_bundle", "0.7"), ("onnx", "probe_bundle", "1"), ("stablehlo", "bundle", "")]
# What a program is run with: nothing of sejax, and of ONNX no jax either.
RUNNERS = {
    "onnx": """
import sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
found = session.run(None, dict(np.load(sys.argv[2])))
assert not {"jax", "sejax"} & set(sys.modules)
np.savez(sys.argv[3], **{output.name: x for output, x in zip(session.get_outputs(), found)})
""",
    "stablehlo": """
import json, os, sys
import jax.export
import numpy as np
described = json.load(open(os.path.join(os.path.dirname(sys.argv[1]), "model.json")))
program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
found = program.call(*dict(np.load(sys.argv[2])).values())
assert "sejax" not in sys.modules
np.savez(sys.argv[3], **{output["name"]: x for output, x in zip(described["outputs"], found)})
""",
}


@pytest.fixture
def voices(tmp_path: Path) -> list[str]:
    for seed in range(3):
        write_voice(tmp_path / f"{seed}.flac", seed=seed, sampling_rate=(16_000, 8_000, 44_100)[seed])
    return [str(tmp_path / f"{seed}.flac") for seed in range(3)]


def outputs(kind: str, folder: Path, arrays: Mapping[str, np.ndarray], file: str, tmp_path: Path) -> dict[str, Any]:
    """Runs a program in a process that has no sejax."""
    np.savez(tmp_path / "in.npz", **arrays)
    words = [
        sys.executable,
        "-c",
        RUNNERS[kind],
        str(folder / file),
        str(tmp_path / "in.npz"),
        str(tmp_path / "out.npz"),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(Path(importlib.import_module(NEEDED[kind][-1]).__file__ or "").parents[1])
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(np.load(tmp_path / "out.npz"))


def check(kind: str, bundle: Path, seconds: str, voices: list[str], tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / kind
    more = ["--seconds", seconds] if seconds else []
    assert main(["--model", str(bundle), "--to", str(folder), "--format", kind, *more]) == 0
    described = read_portable(folder)
    records = Model.load(bundle).predict(voices)
    from sejax.features.audio import load_audio

    samples = [load_audio(path).samples for path in voices]
    program = choose_program(described, max(map(len, samples)))
    made = [make_inputs(described, program, each) for each in samples]
    arrays = {name: np.concatenate([each[name] for each in made]) for name in made[0]}
    found = outputs(kind, folder, arrays, program["file"], tmp_path)
    expected = [list(record.probabilities.values()) for record in records]
    np.testing.assert_allclose(found["probabilities"], expected, rtol=0, atol=1e-4)
    confidence = found["calibrated"][np.arange(3), found["probabilities"].argmax(axis=1)]
    np.testing.assert_allclose(confidence, [record.confidence for record in records], rtol=0, atol=1e-4)
    expected = [list(record.dimensions.values()) for record in records]
    np.testing.assert_allclose(found["dimensions"], expected, rtol=0, atol=1e-4)
    alone = outputs(kind, folder, made[1], program["file"], tmp_path)
    np.testing.assert_allclose(alone["probabilities"][0], found["probabilities"][1], rtol=0, atol=1e-5)
    return described


@pytest.mark.parametrize(("kind", "which", "seconds"), CASES)
def test_equals_the_bundle(
    kind: str, which: str, seconds: str, voices: list[str], tmp_path: Path, request: pytest.FixtureRequest
):
    """Encoded streams, a frozen pretrained model, statistics; batches of three and of one."""
    for module in NEEDED[kind]:
        pytest.importorskip(module, reason=f"the extra {kind} is absent")
    described = check(kind, request.getfixturevalue(which), seconds, voices, tmp_path)
    assert described["classes"] == ["angry", "happy", "sad", "neutral"] and described["scale"] == [1.0, 5.0]
    assert [each["file"] for each in described["programs"]] == [f"model{f'-{seconds}s' if seconds else ''}.{kind}"]
    names = {each["name"] for each in described["programs"][0]["inputs"]}
    assert ("samples" in names) == (which == "probe_bundle")
    assert described.get("platforms") == (["cpu", "cuda", "rocm", "tpu"] if kind == "stablehlo" else None)
