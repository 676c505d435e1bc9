r"""Write tests/golden/joint_torch.npz: outputs, losses and gradients of PyTorch's joint model on a small batch.

sejax does without PyTorch, so this runs in an environment of its own:

    python3 -m venv /tmp/joint
    /tmp/joint/bin/pip install torch --index-url https://download.pytorch.org/whl/cpu
    /tmp/joint/bin/pip install numpy
    /tmp/joint/bin/python tools/golden_joint.py

The model is `tools/benchmarks/torch_joint.py` with the default study's kinds of encoder. The file holds, by stream,
`frames/<stream>` [batch, time, feature], `lengths/<stream>` and `statistics/<stream>`; the labels, `target` and
`rated`; `logits`, `vad` and `losses` (class and VAD); by the Flax model's paths `params/<path>` and, of the sum of the
losses, `gradients/<path>`; and the versions that made it.
"""

import argparse
import importlib.metadata
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "joint_torch.npz"
ENCODERS = {"recurrent": "lstm", "self": "transformer", "local": "conv"}
WIDTH, FUSED, HEADS, STRIDE, FEATURES, STATISTICS, LABEL_SMOOTHING = 8, 8, 2, 4, 3, 5, 0.1
LENGTHS = {"recurrent": (24, 9, 14, 1), "self": (7, 16, 22, 3), "local": (5, 21, 12, 30)}


def golden(torch: Any, torch_joint: Any) -> dict[str, Any]:
    """The arrays of the file."""
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    lengths = {name: np.array(own) for name, own in LENGTHS.items()}
    frames = {}
    for name, own in lengths.items():
        x = random.standard_normal((len(own), own.max(), FEATURES), np.float32)
        frames[name] = np.where(np.arange(own.max())[None, :, None] < own[:, None, None], x, np.float32(0))
    statistics = {name: random.standard_normal((len(own), STATISTICS), np.float32) for name, own in lengths.items()}
    target = random.dirichlet(np.ones(4), 4).astype(np.float32)
    rated = random.uniform(-1, 1, (4, 3)).astype(np.float32)

    model = torch_joint.JointModel(
        [torch_joint.Stream(name, kind, 1, STRIDE) for name, kind in ENCODERS.items()],
        dict.fromkeys(ENCODERS, FEATURES),
        dict.fromkeys(ENCODERS, STATISTICS),
        classes=4,
        dimensions=3,
        width=WIDTH,
        fused=FUSED,
        heads=HEADS,
        rate=0.0,
        statistics_rate=0.0,
    )
    for _, views in torch_joint.flax_views(model).values():  # no part is idle: fresh biases are 0
        for view in views:
            view.add_(0.2 * torch.randn(view.shape))
    as_tensors = [{name: torch.from_numpy(x) for name, x in own.items()} for own in (frames, lengths, statistics)]
    logits, vad = model(*as_tensors)
    losses = torch_joint.losses(logits, vad, torch.from_numpy(target), torch.from_numpy(rated), LABEL_SMOOTHING)
    losses.sum().backward()

    by_kind = {
        "frames": frames,
        "lengths": lengths,
        "statistics": statistics,
        "params": torch_joint.to_flax(model),
        "gradients": torch_joint.to_flax(model, lambda p: p.grad),
    }
    outputs = {"logits": logits, "vad": vad, "losses": losses}
    return (
        {"target": target, "rated": rated}
        | {name: x.detach().numpy() for name, x in outputs.items()}
        | {f"{kind}/{name}": x for kind, own in by_kind.items() for name, x in own.items()}
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=GOLDEN, help="the file to write")
    out: Path = parser.parse_args(arguments).out
    try:
        import torch

        from tools.benchmarks import torch_joint
    except ImportError as error:
        parser.exit(1, f"PyTorch is not installed here ({error}): see --help for its environment.\n")
    versions = [f"{package} {importlib.metadata.version(package)}" for package in ("torch", "numpy")]
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        out,
        versions=np.array([f"python {platform.python_version()}", *versions]),
        **golden(torch, torch_joint),
    )
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB, made with {', '.join(versions)}")


if __name__ == "__main__":
    main()
