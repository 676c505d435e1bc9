"""A study of the frozen probe on random hidden states: SUPERB's, by `configs/probe.py`, at IEMOCAP's size.

The options are those of the configuration; its programs are made here, of the engine's parts, because a machine with a
GPU need not have what `sejax.config` imports. A test compares the options.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int

from sejax.data.order import Shuffle, prediction_rows
from sejax.data.types import Bucket, Data, Scale
from sejax.engine.augment import RATES
from sejax.engine.epoch import first_batch
from sejax.engine.feed import open_feed
from sejax.engine.plan import Placement, plan_program
from sejax.engine.program import Program
from sejax.engine.runs import RunKey, Setting, batch_orders, count_steps, enumerate_runs, hparams_of, selection_rows
from sejax.engine.step import Frozen, Network, Run, init_params
from sejax.evaluation.selection import validate_runs
from sejax.models.heads import Heads
from sejax.models.joint import JointModel, StreamSpec, Trunk
from sejax.protocols.folds import Fold
from tools.benchmarks.random_study import CLASSES, DIMENSIONS, SPEAKERS, default_options, durations, recipe_of

STREAM = "hubert"
PREDICT_BATCH = 64


def probe_options() -> dict[str, Any]:
    """Returns the options of `configs/probe.py` with `superb`, for the class alone."""
    options = default_options(
        streams=[STREAM],
        dropout=0.0,
        statistics_dropout=0.0,
        label_smoothing=0.0,
        weight_decay=0.0,
        epochs=50,
        alpha=1.0,
    )
    options["model"] |= {"fused": 256, "activation": False, "deviations": False}
    options["model"]["encoder"][STREAM] = "none"
    return options


@dataclass(frozen=True)
class Probe:
    """The size of a study of the probe. The hidden states are those of HuBERT base by default."""

    utterances: int = 5531
    states: int = 13
    size: int = 768
    folds: int = SPEAKERS
    seeds: int = 5
    learning_rates: Sequence[float] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    options: Mapping[str, Any] = field(default_factory=probe_options)

    @property
    def speaker(self) -> Int[np.ndarray, " utterance"]:
        """The speaker of each utterance: they take turns."""
        return np.arange(self.utterances) % self.folds

    @cached_property
    def divisions(self) -> list[Fold]:
        """The folds: one speaker is tested, the next one chooses the epoch."""
        n, who = self.folds, self.speaker
        return [
            Fold(str(test), (who != test) & (who != (test + 1) % n), who == (test + 1) % n, who == test)
            for test in range(n)
        ]

    @cached_property
    def runs(self) -> list[RunKey]:
        """Folds x learning rates x seeds."""
        settings = [
            Setting(
                f"learning_rate={rate}",
                {
                    **self.options,
                    "loss.focal_gamma": 0.0,
                    "augment.corrupted": 0.0,
                    **{f"augment.{name}": 0.0 for name in RATES},
                    "learning_rate": rate,
                },
            )
            for rate in self.learning_rates
        ]
        return enumerate_runs(self.folds, settings, range(self.seeds))

    @property
    def label(self) -> Int[np.ndarray, " utterance"]:
        """The class of each utterance."""
        return self.data.target.argmax(axis=1)

    @property
    def step_flops(self) -> float:
        """The operations of the products of a training step of one run: the projection, and both its gradients."""
        return 3 * 2.0 * self.options["batch_size"] * self.size * self.options["model"]["fused"]

    @property
    def state_bytes(self) -> float:
        """The bytes of a run's projection, its two moments and its average, read and written once."""
        return 2 * 4 * 4.0 * self.size * self.options["model"]["fused"]

    @cached_property
    def order(self) -> dict[tuple[int, int], int]:
        """The order of the batches of each seed and fold."""
        of_run = batch_orders(self.divisions, self.runs, shared=False).of_run
        assert of_run is not None, "the folds share no batches"
        return {(run.seed, run.fold): int(order) for run, order in zip(self.runs, of_run, strict=True)}

    @cached_property
    def data(self) -> Data:
        """The statistics of random hidden states, means and deviations of every state, and random labels."""
        random = np.random.default_rng(0)
        n = self.utterances
        label = random.integers(0, CLASSES, n)
        noise = random.standard_normal((n, 1, self.states, self.size), np.float32)
        # The classes are a part of every state, so that there is something to learn.
        of_class = 0.3 * random.standard_normal((CLASSES, 1, self.states, self.size), np.float32)
        statistics = np.stack([noise + of_class[label], noise], axis=3)
        return Data(
            (Bucket(np.arange(n, dtype=np.int32), {}, {}),),
            {STREAM: statistics.reshape(n, 1, -1)},
            np.eye(CLASSES, dtype=np.float32)[label],
            random.uniform(-1, 1, (n, DIMENSIONS)).astype(np.float32),
        )

    @cached_property
    def program(self) -> Program:
        """The program that trains all runs."""
        options, runs, data = self.options, self.runs, self.data
        orders = batch_orders(self.divisions, runs, shared=False)
        shuffle = Shuffle(
            utterances=[bucket.utterance for bucket in data.buckets],
            orders=orders.drawn,
            batch_size=options["batch_size"],
            views=1,
            class_temperature=orders.class_temperature,
        )
        epoch_steps, steps = count_steps(
            shuffle(1), orders.of_run, runs=len(runs), final=0, epochs=options["epochs"], warmup=options["warmup"]
        )
        fold = np.array([run.fold for run in runs])
        trained = np.stack([fold.train for fold in self.divisions])
        scale = self._scale(trained)
        predicted = {
            split: prediction_rows(data, selection_rows(self.divisions, split), PREDICT_BATCH)
            for split in ("val", "test")
        }
        names = ("width", "fused", "heads", "self_attention", "co_attention", "statistics", "deviations", "activation")
        trunk = Trunk(
            streams=(StreamSpec(STREAM, "none", 1, 2, self.states),), **{name: options["model"][name] for name in names}
        )
        return Program(
            structure={},
            runs=runs,
            network=Network(JointModel(trunk, Heads(CLASSES, DIMENSIONS)), recipe_of(options)),
            epoch_steps=epoch_steps,
            epochs=options["epochs"],
            data=data,
            frozen=Frozen({}, {}),
            start={},
            per_run=Run(
                hparams_of(runs, (options["weighting"],)),
                trained=trained[fold],
                class_weight=np.ones((len(runs), CLASSES), np.float32),
                frame_scale={},
                statistic_scale={STREAM: Scale(*(part[fold] for part in scale))},
                steps=steps,
            ),
            rows={split: tuple(rows) for split, (rows, _) in predicted.items()},
            columns={split: columns for split, (_, columns) in predicted.items()},
            order_of_run=orders.of_run,
            shuffle=shuffle,
        )

    def _scale(self, trained: Bool[np.ndarray, "fold utterance"]) -> Scale:
        """Returns the normalisation of each fold, from the moments of each speaker: one pass over the data."""
        x = self.data.statistics[STREAM][:, 0]
        spoken = [x[self.speaker == speaker] for speaker in range(self.folds)]
        moments = np.stack([(of_one.sum(axis=0), np.square(of_one).sum(axis=0)) for of_one in spoken])
        counted = np.stack([trained[:, self.speaker == speaker].any(axis=1) for speaker in range(self.folds)], axis=1)
        mean, square = np.moveaxis(np.tensordot(counted.astype(np.float32), moments, 1), 1, 0) / trained.sum(1)[:, None]
        return Scale(mean.astype(np.float32), (1 / np.sqrt(square - mean**2)).astype(np.float32))


class Epoch:
    """An epoch of all runs as a study trains it; each call continues from `states`."""

    def __init__(self, probe: Probe, devices: Sequence[jax.Device]) -> None:
        program, placement = probe.program, Placement(frames_on="device", runs_per_chunk=0, memory_fraction=0.9)
        began = time.perf_counter()
        plan = plan_program(program, devices, placement, None)
        self.compile_seconds = time.perf_counter() - began
        self.probe, self.program, self.feed = probe, program, open_feed(plan)
        self.states = self.feed.init_states()
        self.best = self.feed.init_best(self.states)
        self.number = 0

    def __call__(self) -> None:
        self.number += 1
        program, feed = self.program, self.feed
        self.states, metrics = feed.train_epoch(self.states, self.number)
        outputs = feed.predict(self.states.averaged, "val")
        self.metrics, (prob, vad) = feed.layout.collect((metrics, outputs))
        validation = validate_runs(
            program.runs,
            program.learnable,
            program.columns["val"],
            prob,
            vad,
            program.data.target,
            program.data.vad,
            label=self.probe.label,
            vad_loss=program.network.recipe.vad_loss,
        )
        scores = np.array([of_run["score"] for of_run in validation], np.float32)
        self.best = feed.keep_best(self.best, self.states, scores, np.isfinite(scores), self.number)
        jax.block_until_ready(self.best)


def start_of(probe: Probe) -> dict[str, np.ndarray]:
    """Returns the parameters that a run of the first seed starts from, for PyTorch. They do not depend on the data."""
    small = Probe(2 * probe.folds, probe.states, probe.size, probe.folds, 1, probe.learning_rates[:1], probe.options)
    program = small.program
    run, batch = jax.tree.map(lambda x: x[0], program.per_run), first_batch(program.data)
    start = jax.jit(partial(init_params, program.network, program.frozen, program.start))
    params = jax.device_get(start(run, batch, jax.random.key(0)))
    return {
        "scores": params["trunk"][f"{STREAM}_mix"]["layer_weights"],
        "kernel": params["trunk"]["fusion"]["kernel"],
        "bias": params["trunk"]["fusion"]["bias"],
        "label_kernel": params["head"]["label"]["kernel"],
        "label_bias": params["head"]["label"]["bias"],
    }


def _torch_recipe(probe: Probe, learning_rates: Sequence[float]) -> Any:
    from tools.benchmarks.torch_probe import Recipe

    options, steps = probe.options, probe.program.per_run.steps
    assert steps is not None
    warmup, total = int(steps.warmup[0]), int(steps.total[0])  # all runs take as many
    return Recipe(learning_rates, options["weight_decay"], options["clip_norm"], options["averaging"], warmup, total)


class Pooled:
    """An epoch of a share of the runs in PyTorch, on means: those of some folds and seeds, with every learning rate."""

    def __init__(self, probe: Probe, share: float, *, chained: bool) -> None:
        import torch

        from tools.benchmarks import torch_probe

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        every = [(seed, fold) for seed in range(probe.seeds) for fold in range(probe.folds)]
        self._chosen = every[: max(1, round(share * len(every)))]
        self.n_runs = len(self._chosen) * len(probe.learning_rates)
        self._probe, self._device, self._torch, start = probe, device, torch_probe, start_of(probe)
        means = probe.data.statistics[STREAM].reshape(-1, probe.states, 2, probe.size)[:, :, 0].copy()
        means, label = torch.from_numpy(means).to(device), torch.from_numpy(probe.label).to(device)
        self._data, self.runs = [], []
        for _, fold in self._chosen:
            run = next(run.number for run in probe.runs if run.fold == fold)
            scale = probe.program.per_run.statistic_scale[STREAM]
            mean, inverse = (
                torch.from_numpy(x[run].reshape(probe.states, 2, probe.size)[:, 0].copy()).to(device) for x in scale
            )
            self._data.append(torch_probe.Scaled(means, mean, inverse, label))
            recipe = _torch_recipe(probe, probe.learning_rates)
            self.runs.append(torch_probe.Runs(start, recipe, device, chained=chained))
        self._number = 0

    def __call__(self) -> None:
        import torch

        self._number += 1
        probe, (rows,) = self._probe, self._probe.program.shuffle(self._number).rows
        order = probe.order
        self.losses, self.accuracy = [], []
        for key, data, runs in zip(self._chosen, self._data, self.runs, strict=True):
            batches = rows[order[key]].reshape(-1, probe.options["batch_size"])
            batches = torch.from_numpy(batches.astype(np.int64)).to(self._device)
            self.losses.append(self._torch.train_pooled(runs, data, batches))
            held_out = torch.from_numpy(np.flatnonzero(probe.divisions[key[1]].val)).to(self._device)
            prob = self._torch.predict_pooled(runs, data, held_out)
            self.accuracy.append((prob.argmax(dim=2) == data.label[held_out]).float().mean(dim=1).cpu())


class Framed:
    """Some steps of one run in PyTorch, on the frames of some utterances, whose means are those of the study's data."""

    def __init__(self, probe: Probe, utterances: int, steps: int) -> None:
        import torch

        from tools.benchmarks import torch_probe

        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._torch, self._probe = torch_probe, probe
        first = probe.runs[0]
        recipe = _torch_recipe(probe, [first.setting.values["learning_rate"]])
        self.run = torch_probe.Runs(start_of(probe), recipe, self._device, chained=False)
        order = probe.program.shuffle(1).rows[0][probe.order[first.seed, first.fold]]
        batches = order.reshape(-1, probe.options["batch_size"])[:steps]
        wanted = np.unique(batches)
        kept = np.random.default_rng(0).permutation(wanted)[:utterances]
        stands_for = {row: kept[place % len(kept)] for place, row in enumerate(wanted)}
        stands_for |= {row: row for row in kept}
        self._batches = torch.from_numpy(np.vectorize(stands_for.get)(batches).astype(np.int64))
        lengths = (durations(len(kept)) * 50).astype(int) + 1  # frames of 20 ms
        scale = probe.program.per_run.statistic_scale[STREAM]
        random = torch.Generator().manual_seed(0)
        self._frames = {}
        for row, length in zip(kept.tolist(), np.random.default_rng(1).permutation(lengths).tolist(), strict=True):
            x = torch.randn(length, probe.states, probe.size, generator=random)
            own = ((probe.data.statistics[STREAM][row, 0] - scale.mean[0]) * scale.inverse[0]).clip(-8, 8)
            own = torch.from_numpy(own.reshape(probe.states, 2, probe.size)[:, 0].copy())
            self._frames[row] = x.sub_(x.mean(dim=0)).add_(own)
        self._label = torch.from_numpy(probe.label).to(self._device)

    def __call__(self) -> None:
        self.losses = self._torch.train_on_frames(
            self.run, self._frames, self._label, self._batches, self._device
        ).cpu()
