r"""Writes tests/golden/weighting_gradients.npz: the gradients that TorchJD's aggregators combine from matrices.

TorchJD needs PyTorch and solvers that sejax does not need, so this tool runs in an environment of its own:

    python3 -m venv /tmp/torchjd
    /tmp/torchjd/bin/pip install torch 'torchjd[full]==0.18.0' clarabel
    /tmp/torchjd/bin/python tools/golden_weighting_gradients.py

Everything is computed in float64, with the smallest tolerances of the solvers and without their regularisation.
The file holds, per matrix, `<matrix>` (float64 [task, parameter]) and `<matrix>_<scheme>` (float64
[parameter], the combined gradient; for `nash_mtl`, whose length is a setting, its direction), and, per number
of tasks, `orders_<K>` (int64 [task, order], in which the gradient of task i is projected by `pcgrad`), and the
versions of the packages.

If one gradient is 0, TorchJD's CAGrad returns 0, and its NashMTL returns its previous result. Here they get only the
other gradients (CAGrad's result is that of all, up to the factor by which the averages differ). NashMTL's iterations
also do not converge on some matrices. The bargain does not depend on scales, so unit gradients are tried then. A
result that does not solve the equation `G w = 1 / w` to 1e-6 is printed and left out of the file.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from tools.golden import FOLDER, run_tool, versions, write

GOLDEN = FOLDER / "weighting_gradients.npz"
PARAMETERS = 8
SEED = 0


def matrices(n_tasks: int) -> dict[str, np.ndarray]:
    """Returns gradients [task, parameter] by name."""
    random = np.random.default_rng(n_tasks)
    normal = random.standard_normal((3, n_tasks, PARAMETERS))
    direction = random.standard_normal(PARAMETERS)
    opposed = np.where(np.arange(n_tasks) % 2 == 0, 1, -1)[:, None] * direction
    zero = normal[1].copy()
    zero[-1] = 0
    return {
        f"plain_{n_tasks}": normal[0],
        f"conflicting_{n_tasks}": opposed + normal[1],
        f"parallel_{n_tasks}": direction * (1 + np.arange(n_tasks))[:, None] + 0.05 * normal[2],
        f"zero_{n_tasks}": zero,
        f"scales_{n_tasks}": normal[2] * np.geomspace(1, 1000, n_tasks)[:, None],
        f"conflicting_scales_{n_tasks}": (opposed + normal[0]) * np.geomspace(1, 1000, n_tasks)[::-1, None],
    }


def golden(torch: Any, aggregation: Any, projector: Any) -> dict[str, Any]:
    """Returns the arrays of the file by name."""

    def cagrad(matrix: Any) -> Any:
        some = matrix.norm(dim=1) > 0
        share = some.double().mean()  # the average of all is this share of the average of some, and so is d
        return share * aggregation.CAGrad(c=0.5, norm_eps=0.0)(matrix[some])

    def nash_mtl(matrix: Any) -> Any:
        norms = matrix.norm(dim=1, keepdim=True)
        rows = matrix[norms[:, 0] > 0]
        if len(rows) == 1:
            return rows[0] / rows[0].norm()
        for some in (rows, rows / rows.norm(dim=1, keepdim=True)):
            combined = aggregation.NashMTL(n_tasks=len(some), max_norm=0.0, optim_niter=1000)(some)
            direction = combined / combined.norm()
            weights = torch.linalg.lstsq(some.T, direction[:, None]).solution[:, 0]
            ones = weights * (some @ direction)  # all equal if the weights solve the equation
            if ((ones - ones.mean()).abs() < 1e-6 * ones.mean()).all():
                return direction
        return None

    def pcgrad(matrix: Any) -> Any:
        torch.manual_seed(SEED)
        return aggregation.PCGrad()(matrix)

    schemes: dict[str, Callable[[Any], Any]] = {
        "pcgrad": pcgrad,
        "cagrad": cagrad,
        "imtl_g": aggregation.IMTLG(),
        "mgda": aggregation.MGDA(epsilon=1e-14, max_iters=100_000),
        "aligned_mtl": aggregation.AlignedMTL(scale_mode="min"),
        "nash_mtl": nash_mtl,
        "upgrad": aggregation.UPGrad(projector=projector),
    }
    arrays: dict[str, Any] = {}
    for n_tasks in (2, 4):
        torch.manual_seed(SEED)
        arrays[f"orders_{n_tasks}"] = torch.stack([torch.randperm(n_tasks) for _ in range(n_tasks)]).numpy()
        for name, matrix in matrices(n_tasks).items():
            arrays[name] = matrix
            for scheme, aggregate in schemes.items():
                combined = aggregate(torch.from_numpy(matrix))
                if combined is None:
                    print(f"{name}: no solution by {scheme}")
                else:
                    arrays[f"{name}_{scheme}"] = combined.numpy()
    return arrays


def make(out: Path) -> None:
    """Writes the file."""
    import torch
    from torchjd import aggregation
    from torchjd.linalg import QuadprogProjector

    arrays = golden(torch, aggregation, QuadprogProjector(norm_eps=0.0, reg_eps=1e-12))
    write(out, arrays, versions("torchjd", "torch", "cvxpy", "clarabel", "ecos", "quadprog", "numpy"))


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(make, out=GOLDEN, needs="TorchJD", description=__doc__, arguments=arguments)


if __name__ == "__main__":
    main()
