"""Training in PyTorch, one fold after the other."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sejax.data.types import Data
from tools.benchmarks.torch_joint.data import Bucket, Corpus, Scale, bands, fold_scales, load_corpus, normalise
from tools.benchmarks.torch_joint.losses import losses
from tools.benchmarks.torch_joint.model import JointModel, Network
from tools.benchmarks.torch_joint.weights import flax_views


@dataclass(frozen=True)
class Recipe:
    """The options of `sejax.config` that training needs, under their names there."""

    epochs: int
    learning_rate: float
    weight_decay: float
    warmup: float  # share of all steps
    clip_norm: float
    dropout: float
    statistics_dropout: float
    label_smoothing: float
    averaging: float
    time_masks: int
    time_mask_frames: int
    feature_masks: int
    feature_mask_share: float

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Recipe":
        """Returns the recipe of a config, given as nested mappings."""
        options = {**config, **config["augment"]}
        return cls(**{field.name: options[field.name] for field in fields(cls)})


class Fold:
    """One fold: its model, the moving average of its parameters, its optimizer and its scales."""

    def __init__(
        self,
        model: JointModel,
        frame_scale: Mapping[str, Scale],
        statistic_scale: Mapping[str, Scale],
        recipe: Recipe,
        total_steps: int,
    ) -> None:
        self.model, self.recipe, self.total_steps = model.train(), recipe, total_steps
        self.frame_scale, self.statistic_scale = frame_scale, statistic_scale
        self.params = [p for p in model.parameters() if p.requires_grad]
        self.averaged = [p.detach().clone() for p in self.params]
        kernels, rest = [p for p in self.params if p.dim() > 1], [p for p in self.params if p.dim() == 1]
        groups = [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
        self.step = 0

    def losses(self, corpus: Corpus, bucket: Bucket, rows: Tensor) -> Tensor:
        """Returns the losses [class, vad] of some rows of a bucket, under the random masks of SpecAugment."""
        recipe, frames = self.recipe, {}
        lengths = {name: x[rows] for name, x in bucket.lengths.items()}
        for name, stored in bucket.frames.items():
            batch, (time, feature) = len(rows), stored.shape[1:]
            in_time = torch.arange(time, device=rows.device) < lengths[name][:, None]
            if recipe.time_masks:
                in_time &= bands(batch, recipe.time_masks, time, recipe.time_mask_frames, rows.device)
            in_feature = None
            if recipe.feature_masks:
                widest = recipe.feature_mask_share * feature
                in_feature = bands(batch, recipe.feature_masks, feature, widest, rows.device)[:, None]
            x = normalise(stored[rows], self.frame_scale[name], in_feature)
            frames[name] = x.mul_(in_time[..., None])
        utterance = bucket.utterance[rows]
        statistics = {
            name: normalise(x[utterance], self.statistic_scale[name]) for name, x in corpus.statistics.items()
        }
        with torch.autocast("cuda", torch.bfloat16, enabled=rows.is_cuda):
            logits, vad = self.model(frames, lengths, statistics)
        target, rated = corpus.target[utterance], corpus.vad[utterance]
        return losses(logits.float(), vad.float(), target, rated, recipe.label_smoothing)

    def train_step(self, corpus: Corpus, bucket: Bucket, rows: Tensor) -> None:
        """Makes one update, without waiting for the device."""
        self.losses(corpus, bucket, rows).sum().backward()
        nn.utils.clip_grad_norm_(self.params, self.recipe.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * self._schedule()
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(self.recipe.averaging, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.averaged, [p.detach() for p in self.params], 1 - decay)
        self.step += 1

    def _schedule(self) -> float:
        """Returns the share of the learning rate: a linear warm-up, then a cosine to 0."""
        warmup = round(self.recipe.warmup * self.total_steps)
        if self.step < warmup:
            return self.step / warmup
        done = min(1.0, (self.step - warmup) / max(self.total_steps - warmup, 1))
        return 0.5 + 0.5 * math.cos(math.pi * done)


class Folds:
    """All folds of a corpus, each with a model of its own that is trained on the fold's own utterances.

    On a GPU the data is kept on the device, matrices are multiplied in bfloat16 under autocast and in TensorFloat-32
    elsewhere.

    Args:
      data: the corpus, as numpy arrays.
      trained: [fold, utterance], whether a fold trains on an utterance.
      compile_model: whether `torch.compile` makes a program for each bucket's shape. On a CPU it gains next to
        nothing.

    Attributes:
      folds: the folds, each with its model.
      facts: numbers to report; `steps` is the number of steps in an epoch of all folds.

    Raises:
      ValueError: when an utterance lacks its class or one of the dimensions.
    """

    def __init__(
        self,
        data: Data,
        trained: np.ndarray,
        network: Network,
        recipe: Recipe,
        *,
        batch_size: int,
        seed: int,
        compile_model: bool = False,
    ) -> None:
        torch.manual_seed(seed)
        torch.set_float32_matmul_precision("high" if torch.cuda.is_available() else "highest")
        self._device = device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._batch_size, self._random = batch_size, np.random.default_rng(seed)
        self._corpus = corpus = load_corpus(data, [stream.name for stream in network.streams], device)
        self._rows = [[np.flatnonzero(fold[bucket.utterance]) for bucket in data.buckets] for fold in trained]
        self._n_batches = [[-(-len(rows) // batch_size) for rows in buckets] for buckets in self._rows]
        frame_scale, statistic_scale = fold_scales(corpus, torch.from_numpy(trained).to(device))
        self.folds = []
        for number, n_batches in enumerate(self._n_batches):
            model = JointModel(
                network,
                {name: x.shape[-1] for name, x in corpus.buckets[0].frames.items()},
                {name: x.shape[-1] for name, x in corpus.statistics.items()},
                classes=data.target.shape[1],
                dimensions=data.vad.shape[1],
                rate=recipe.dropout,
                statistics_rate=recipe.statistics_dropout,
            ).to(device)
            if compile_model:
                torch._dynamo.config.recompile_limit = 64  # buckets, times the pieces around the LSTM
                model.compile(dynamic=False)
            scales = [
                {name: Scale(x.mean[number], x.inverse[number]) for name, x in by_fold.items()}
                for by_fold in (frame_scale, statistic_scale)
            ]
            self.folds.append(Fold(model, scales[0], scales[1], recipe, recipe.epochs * sum(n_batches)))
        self.facts: dict[str, Any] = {
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "dtype": "bfloat16" if device.type == "cuda" else "float32",
            "compiled": compile_model,
            "threads": torch.get_num_threads(),
            "folds": len(self.folds),
            "steps": sum(map(sum, self._n_batches)),
            "parameters": sum(x.numel() for _, parts in flax_views(self.folds[0].model).values() for x in parts),
        }

    def train_epoch(self) -> None:
        """Trains an epoch of all folds, one after the other.

        Every batch is full and from one bucket; where a bucket's utterances do not fill its last batch, some are
        repeated.
        """
        for fold, rows_of_buckets, batches in zip(self.folds, self._rows, self._n_batches, strict=True):
            steps = []
            for bucket, rows, n in zip(self._corpus.buckets, rows_of_buckets, batches, strict=True):
                order = np.resize(self._random.permutation(rows), (n, self._batch_size))
                steps += [(bucket, batch) for batch in torch.from_numpy(order).to(self._device)]
            for i in self._random.permutation(len(steps)):
                fold.train_step(self._corpus, *steps[i])
        if self._device.type == "cuda":
            torch.cuda.synchronize()
