r"""Writes tests/golden/joint_torch.npz: outputs, losses and gradients of PyTorch's joint model on a small batch.

sejax does not need PyTorch, so this tool runs in an environment of its own:

    python3 -m venv /tmp/joint
    /tmp/joint/bin/pip install torch --index-url https://download.pytorch.org/whl/cpu
    /tmp/joint/bin/pip install numpy
    /tmp/joint/bin/python tools/golden_joint.py

The model is `tools/benchmarks/torch_joint` with the default study's kinds of encoder. The file holds, by stream,
`frames/<stream>` [batch, time, feature], `lengths/<stream>` and `statistics/<stream>`; the labels, `target` and
`rated`; `logits`, `vad` and `losses` (class and VAD); by the Flax model's paths `params/<path>` and, of the sum of the
losses, `gradients/<path>`; and the versions that made it.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from tools.golden import FOLDER, run_tool, versions, write

GOLDEN = FOLDER / "joint_torch.npz"
ENCODERS = {"recurrent": "lstm", "self": "transformer", "local": "conv"}
WIDTH, FUSED, HEADS, STRIDE, FEATURES, STATISTICS, LABEL_SMOOTHING = 8, 8, 2, 4, 3, 5, 0.1
LENGTHS = {"recurrent": (24, 9, 14, 1), "self": (7, 16, 22, 3), "local": (5, 21, 12, 30)}


def golden(torch: Any) -> dict[str, Any]:
    """Returns the arrays of the file."""
    from tools.benchmarks.torch_joint.losses import losses as joint_losses
    from tools.benchmarks.torch_joint.model import JointModel, Network, Stream
    from tools.benchmarks.torch_joint.weights import flax_views, to_flax

    random = np.random.default_rng(0)
    torch.manual_seed(0)
    lengths = {name: np.array(n_frames) for name, n_frames in LENGTHS.items()}
    frames = {}
    for name, n in lengths.items():
        x = random.standard_normal((len(n), n.max(), FEATURES), np.float32)
        frames[name] = np.where(np.arange(n.max())[None, :, None] < n[:, None, None], x, np.float32(0))
    statistics = {name: random.standard_normal((len(n), STATISTICS), np.float32) for name, n in lengths.items()}
    target = random.dirichlet(np.ones(4), 4).astype(np.float32)
    rated = random.uniform(-1, 1, (4, 3)).astype(np.float32)

    streams = tuple(Stream(name, kind, 1, STRIDE) for name, kind in ENCODERS.items())
    model = JointModel(
        Network(streams, WIDTH, FUSED, HEADS),
        dict.fromkeys(ENCODERS, FEATURES),
        dict.fromkeys(ENCODERS, STATISTICS),
        classes=4,
        dimensions=3,
        rate=0.0,
        statistics_rate=0.0,
    )
    for _, views in flax_views(model).values():  # fresh biases are 0: every parameter has to matter
        for view in views:
            view.add_(0.2 * torch.randn(view.shape))
    as_tensors = [{name: torch.from_numpy(x) for name, x in arrays.items()} for arrays in (frames, lengths, statistics)]
    logits, vad = model(*as_tensors)
    losses = joint_losses(logits, vad, torch.from_numpy(target), torch.from_numpy(rated), LABEL_SMOOTHING)
    losses.sum().backward()

    by_kind = {
        "frames": frames,
        "lengths": lengths,
        "statistics": statistics,
        "params": to_flax(model),
        "gradients": to_flax(model, lambda p: p.grad),
    }
    outputs = {"logits": logits, "vad": vad, "losses": losses}
    return (
        {"target": target, "rated": rated}
        | {name: x.detach().numpy() for name, x in outputs.items()}
        | {f"{kind}/{name}": x for kind, arrays in by_kind.items() for name, x in arrays.items()}
    )


def make(out: Path) -> None:
    """Writes the file."""
    import torch

    write(out, golden(torch), versions("torch", "numpy"))


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(make, out=GOLDEN, needs="PyTorch", description=__doc__, arguments=arguments)


if __name__ == "__main__":
    main()
