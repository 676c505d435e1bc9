"""The frozen probe in PyTorch, in the two ways that people train it.

On frames (`train_on_frames`): run by run, on padded batches of all hidden states, as s3prl and EmoBox do. On the means
over time (`train_pooled`), which is the same function: the runs of a fold and seed, which share their batches, are
trained together. Both take AdamW, the clip, the schedule and the moving average of `sejax.engine`, and give its losses.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

TASKS = 2  # of the joint model: the class has their whole weight


class Recipe(NamedTuple):
    """How runs are trained."""

    learning_rates: Sequence[float]  # of each run
    weight_decay: float
    clip_norm: float
    averaging: float
    warmup_steps: int
    total_steps: int

    def schedule(self, step: int) -> float:
        """Returns the share of the learning rate: a linear warm-up, then a cosine to 0."""
        if step < self.warmup_steps:
            return step / self.warmup_steps
        done = min(1.0, (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1))
        return 0.5 + 0.5 * math.cos(math.pi * done)


class Runs:
    """Runs that share their batches: parameters `[run, ...]`, their moving average and their optimizer.

    Args:
      start: the parameters of one run, as numpy arrays: `scores` [state], `kernel` [size, fused], `bias` [fused],
        `label_kernel` [fused, class], `label_bias` [class]. All runs start from them.
      chained: whether the two kernels are multiplied first, which is less to compute where there are fewer classes than
        utterances in a batch.
    """

    def __init__(self, start: Mapping[str, np.ndarray], recipe: Recipe, device: torch.device, *, chained: bool) -> None:
        self.recipe, self.chained, self.step = recipe, chained, 0
        n = len(recipe.learning_rates)
        self.params = {
            name: torch.from_numpy(np.stack([x] * n)).to(device).requires_grad_() for name, x in start.items()
        }
        self.averaged = {name: x.detach().clone() for name, x in self.params.items()}
        # One parameter group per run: views of the stacked parameters, so that each has its own learning rate.
        self._views = [[x.detach()[run] for x in self.params.values()] for run in range(n)]
        groups = [
            {
                "params": [x],
                "lr": 0.0,
                "weight_decay": recipe.weight_decay if name.endswith("kernel") else 0.0,
                "run": run,
            }
            for run, views in enumerate(self._views)
            for name, x in zip(self.params, views, strict=True)
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)

    def logits(self, mixed: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Returns logits `[run, batch, class]` of the mixed means `[run, batch, size]`."""
        kernel, bias = params["kernel"], params["bias"][:, None]
        label_kernel, label_bias = params["label_kernel"], params["label_bias"][:, None]
        if self.chained:
            return torch.baddbmm(torch.baddbmm(label_bias, bias, label_kernel), mixed, torch.bmm(kernel, label_kernel))
        return torch.baddbmm(label_bias, torch.baddbmm(bias, mixed, kernel), label_kernel)

    def update(self, logits: Tensor, label: Tensor) -> Tensor:
        """Makes one update of each run, given its logits; returns the losses `[run]`."""
        runs, batch, classes = logits.shape
        each = F.cross_entropy(logits.reshape(-1, classes), label.repeat(runs), reduction="none")
        losses = each.view(runs, batch).mean(dim=1)
        (TASKS * losses).sum().backward()
        rate = self.recipe.schedule(self.step)
        gradients = [x.grad for x in self.params.values()]
        for run, views in enumerate(self._views):
            own = [x[run] for x in gradients]
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(own)))
            torch._foreach_mul_(own, (self.recipe.clip_norm / norm).clamp(max=1.0))
            for view, gradient in zip(views, own, strict=True):
                view.grad = gradient
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.learning_rates[group["run"]] * rate
        self._optimizer.step()
        for x in self.params.values():
            x.grad = None
        decay = min(self.recipe.averaging, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.averaged.values()), [x.detach() for x in self.params.values()], 1 - decay)
        self.step += 1
        return losses.detach()


class Scaled(NamedTuple):
    """The means of all utterances and the normalisation of one fold."""

    means: Tensor  # [utterance, state, size]
    mean: Tensor  # [state, size]
    inverse: Tensor  # [state, size]
    label: Tensor  # [utterance]

    def mixed(self, rows: Tensor, scores: Tensor) -> Tensor:
        """Returns the mixture `[run, batch, size]` of the normalised means of some rows, by scores `[run, state]`."""
        x = self.means[rows].sub_(self.mean).mul_(self.inverse).clamp_(-8.0, 8.0)
        states = x.transpose(0, 1).reshape(x.shape[1], -1)
        return (torch.softmax(scores, dim=1) @ states).view(len(scores), len(rows), -1)


def train_pooled(runs: Runs, data: Scaled, batches: Tensor) -> Tensor:
    """Trains runs on batches of utterances `[step, batch]`; returns the losses `[step, run]`."""
    losses = []
    for rows in batches:
        mixed = data.mixed(rows, runs.params["scores"])
        losses.append(runs.update(runs.logits(mixed, runs.params), data.label[rows]))
    return torch.stack(losses)


@torch.no_grad()
def predict_pooled(runs: Runs, data: Scaled, rows: Tensor) -> Tensor:
    """Returns probabilities `[run, utterance, class]` by the averaged parameters."""
    mixed = data.mixed(rows, runs.averaged["scores"])
    return torch.softmax(runs.logits(mixed, runs.averaged), dim=2)


def collate(frames: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns frames `[batch, time, state, size]` padded with zeros, and the number of frames of each utterance."""
    return torch.nn.utils.rnn.pad_sequence(list(frames), batch_first=True), torch.tensor([len(x) for x in frames])


def train_on_frames(
    run: Runs, frames: Mapping[int, Tensor], label: Tensor, batches: Tensor, device: torch.device
) -> Tensor:
    """Trains one run on batches of utterances `[step, batch]`, on their frames; returns the losses `[step]`.

    Args:
      frames: `[time, state, size]` of utterances by their rows, normalised.
    """
    losses = []
    for rows in batches:
        x, lengths = (part.to(device) for part in collate([frames[row] for row in rows.tolist()]))
        mixed = torch.einsum("btlf,l->btf", x, torch.softmax(run.params["scores"][0], dim=0))
        projected = F.linear(mixed, run.params["kernel"][0].T, run.params["bias"][0])
        valid = torch.arange(x.shape[1], device=device) < lengths[:, None]
        pooled = (projected * valid[..., None]).sum(dim=1) / lengths[:, None]
        logits = F.linear(pooled, run.params["label_kernel"][0].T, run.params["label_bias"][0])
        losses.append(run.update(logits[None], label[rows])[0])
    return torch.stack(losses)
