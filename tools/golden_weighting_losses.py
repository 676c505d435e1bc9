r"""Writes tests/golden/weighting_losses.json: the weights by LibMTL and the papers' formulas for a sequence of losses.

LibMTL needs PyTorch. Only its package of weightings is loaded, because the rest needs an old torchvision:

    python3 -m venv /tmp/libmtl
    /tmp/libmtl/bin/pip install torch numpy
    /tmp/libmtl/bin/pip install --no-deps LibMTL
    /tmp/libmtl/bin/python tools/golden_weighting_losses.py

`uncertainty`, `dwa`, `geometric` and `rlw` are LibMTL's classes UW, DWA, GLS and RLW. Its release 1.1.5 has no
FAMO and no STCH, and its IMTL always includes the gradient part: `imtl_l`, `famo` and `stch` are the formulas of
their papers, differentiated by PyTorch.

The file holds the settings, the losses [step, task], and two values per scheme and step: `gradient`, the derivative of
the rule's total with respect to each loss, which is its weight before any scaling; and the learned parameter,
`log_variance`, `log_scale` or `logits`. For `rlw`, which is random, it holds mean, standard deviation and quantiles.
"""

import importlib
import importlib.util
import json
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from tools.golden import FOLDER, describe, run_tool, versions

GOLDEN = FOLDER / "weighting_losses.json"
SETTINGS: dict[str, Any] = {
    "prior": [0.5, 0.3, 0.2],  # of stch; the prior of the others is uniform
    "learning_rate": 0.02,
    "period": 6,
    "tau": 2.0,
    "gamma": 0.01,
    "mu": 0.1,
    "ideal": [0.1, 0.0, 0.02],
    "draws": 20_000,
    "quantiles": [0.05, 0.25, 0.5, 0.75, 0.95],
}


def losses(steps: int = 48) -> np.ndarray:
    """Returns three noisy losses of different scale, [step, task]. The first falls fast, the last hardly."""
    time = np.arange(steps)[:, None]
    noise = np.exp(0.1 * np.random.default_rng(0).standard_normal((steps, 3)))
    falling = np.array([1.0, 5.0, 0.05]) * (0.3 + np.exp(-time / np.array([10.0, 40.0, 200.0])))
    return np.round(falling * noise, 6)


def libmtl(name: str, n_tasks: int) -> Any:
    """Returns an instance of a weighting class of LibMTL, without the packages that its own `__init__` imports."""
    if "LibMTL" not in sys.modules:
        spec = importlib.util.find_spec("LibMTL")
        if spec is None or not spec.submodule_search_locations:
            raise ImportError("No module named 'LibMTL'")
        for package in ("LibMTL", "LibMTL.weighting"):
            module = types.ModuleType(package)
            module.__path__ = [str(Path(spec.submodule_search_locations[0], *package.split(".")[1:]))]
            sys.modules[package] = module
    method = getattr(importlib.import_module(f"LibMTL.weighting.{name}"), name)()
    method.task_num, method.device = n_tasks, "cpu"
    method.init_param()
    return method


def golden(torch: Any) -> dict[str, Any]:
    """Returns the contents of the file but for the versions."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    sequence = losses()
    n_tasks = sequence.shape[1]
    learning_rate = SETTINGS["learning_rate"]

    def steps(total: Callable[[Any], Any]) -> list[list[float]]:
        """Returns the derivative with respect to the losses of each step, after the backward pass in `total`."""
        rows = []
        for row in sequence:
            values = torch.tensor(row, requires_grad=True)
            total(values)
            rows.append(values.grad.tolist())
        return rows

    def learned(
        parameter: Any, rate: float, total: Callable[[Any], Any]
    ) -> tuple[list[list[float]], list[list[float]]]:
        """Returns the same for a rule whose parameter is learned together with the model, and the parameter."""
        sgd = torch.optim.SGD([parameter], lr=rate)
        after = []

        def step(values: Any) -> None:
            sgd.zero_grad()
            total(values)
            sgd.step()
            after.append(parameter.tolist())

        return steps(step), after

    uw = libmtl("UW", n_tasks)
    uw.loss_scale.data.zero_()  # it starts at -0.5
    uncertainty, log_variance = learned(uw.loss_scale, 2 * learning_rate, uw.backward)  # of half the loss

    scale = torch.zeros(n_tasks, requires_grad=True)
    imtl_l, log_scale = learned(scale, learning_rate, lambda values: (scale.exp() * values - scale).sum().backward())

    dwa = libmtl("DWA", n_tasks)
    dwa.train_loss_buffer = sequence.reshape(-1, SETTINGS["period"], n_tasks).mean(axis=1).T
    clock = iter(range(len(sequence)))

    def by_epoch(values: Any) -> None:
        dwa.epoch = next(clock) // SETTINGS["period"]
        dwa.backward(values, T=SETTINGS["tau"])

    gls = libmtl("GLS", n_tasks)
    prior, ideal = torch.tensor(SETTINGS["prior"]), torch.tensor(SETTINGS["ideal"])

    def smooth_maximum(values: Any) -> None:
        (SETTINGS["mu"] * torch.logsumexp(prior * (values - ideal) / SETTINGS["mu"], 0)).backward()

    logits = torch.zeros(n_tasks, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=learning_rate, weight_decay=SETTINGS["gamma"])
    previous: list[Any] = []
    after: list[list[float]] = []

    def fast_adaptive(values: Any) -> None:
        current = values.detach().log()
        if previous:  # the loss after the last step is that of the next batch
            adam.zero_grad()
            (torch.softmax(logits, 0) * (previous[-1] - current)).sum().backward()
            adam.step()
        previous.append(current)
        after.append(logits.tolist())
        (torch.softmax(logits.detach(), 0) * values.log()).sum().backward()

    rlw = libmtl("RLW", n_tasks)
    row = torch.tensor(sequence[0], requires_grad=True)
    draws = [rlw.backward(row, dist="Normal")[0] for _ in range(SETTINGS["draws"])]
    return {
        "settings": SETTINGS,
        "losses": sequence.tolist(),
        "uncertainty": {"gradient": uncertainty, "log_variance": log_variance},
        "dwa": {"gradient": steps(by_epoch)},
        "rlw": {"mean": np.mean(draws), "sd": np.std(draws), "quantiles": np.quantile(draws, SETTINGS["quantiles"])},
        "geometric": {"gradient": steps(gls.backward)},
        "imtl_l": {"gradient": imtl_l, "log_scale": log_scale},
        "famo": {"gradient": steps(fast_adaptive), "logits": after},
        "stch": {"gradient": steps(smooth_maximum)},
    }


def rounded(tree: Any) -> Any:
    """Returns the tree with floats of nine digits and arrays as lists."""
    if isinstance(tree, dict):
        return {name: rounded(value) for name, value in tree.items()}
    if isinstance(tree, (list, np.ndarray)):
        return [rounded(value) for value in tree]
    return float(f"{tree:.9g}") if isinstance(tree, float) else tree


def make(out: Path) -> None:
    """Writes the file."""
    import torch

    contents = rounded(golden(torch))
    made_with = versions("LibMTL", "torch", "numpy")
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in {"versions": made_with, **contents}.items()]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    describe(out, made_with)


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(make, out=GOLDEN, needs="LibMTL", description=__doc__, arguments=arguments)


if __name__ == "__main__":
    main()
