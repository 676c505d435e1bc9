"""The steps of one run on one batch: pure functions of arrays, which `epoch` maps over all runs.

`visible_inputs` decides what a fold may see: an utterance with weight 0 in a run enters that run as zeros, so that
nothing of a held-out speaker, not even a NaN, reaches the run's parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from sejax import weighting
from sejax.data.types import AnyArray, Batch, Scale
from sejax.engine.augment import RATES, Augment, Seen, corrupt_audio, mixup, spec_augment
from sejax.engine.leaves import Leaves
from sejax.engine.losses import cross_entropy, dimensions_present, vad_loss
from sejax.engine.optimizer import adamw
from sejax.engine.tasks import Task
from sejax.models.joint import JointModel, Rates, tuned_name
from sejax.nn.layers import valid_frames
from sejax.pretrained import finetune


class HParams(NamedTuple):
    """The numbers in which stacked runs may differ; each is traced, none is branched on."""

    learning_rate: Float[AnyArray, ""]
    weight_decay: Float[AnyArray, ""]
    dropout: Float[AnyArray, ""]
    statistics_dropout: Float[AnyArray, ""]
    label_smoothing: Float[AnyArray, ""]
    alpha: Float[AnyArray, ""]  # prior share of the class task; the others have equal parts of the rest
    tau: Float[AnyArray, ""]  # temperature of the schemes dynamic and dwa
    weighting: Int[AnyArray, ""]  # index into Recipe.schemes
    noise: Float[AnyArray, ""]  # share of the utterances whose raw audio gets noise
    gain: Float[AnyArray, ""]  # largest change of the level of raw audio, in dB
    mixup: Float[AnyArray, ""]  # parameter of the Beta distribution of the shares of a mixture; 0: none
    focal_gamma: Float[AnyArray, ""]  # of the class loss; 0: cross-entropy

    @classmethod
    def options(cls) -> dict[str, str]:
        """Returns the option that each field has the value of, by its full name."""
        folder = {**dict.fromkeys(RATES, "augment."), "focal_gamma": "loss."}
        return {name: folder.get(name, "") + name for name in cls._fields}


class Run(NamedTuple):
    """All that tells a run from the others, beside its state. Runs are stacked as `[chunk, slot, ...]`."""

    hparams: HParams
    trained: Bool[AnyArray, " utterance"]  # the training speakers' utterances
    class_weight: Float[AnyArray, " class"]
    frame_scale: dict[str, Scale]
    statistic_scale: dict[str, Scale]
    steps: "Steps | None" = None  # None: the run is not trained
    prior: "ClassPrior | None" = None
    label_weight: Float[AnyArray, " utterance"] | None = None  # in the class loss; None: 1


class ClassPrior(NamedTuple):
    """How frequent the classes are among training utterances, by corpus: what is added to the logits in training."""

    log: Float[AnyArray, "corpus class"]
    corpus: Int[AnyArray, " utterance"]


class Steps(NamedTuple):
    """How many steps a run takes."""

    epoch: Int[AnyArray, ""]
    warmup: Int[AnyArray, ""]  # in which the learning rate rises
    total: Int[AnyArray, ""]


class Frozen(NamedTuple):
    """The arrays of pretrained models that no run changes, by stream: the device holds them once."""

    lower: dict[str, Any]  # below the cut (`finetune.Tuning`)
    upper: dict[str, Any]  # above it


class State(NamedTuple):
    """The part of a run that training changes. Parameters, and what an optimizer keeps of each, are vectors."""

    params: Float[Array, " parameter"]  # see `Leaves`
    averaged: Float[Array, " parameter"]  # exponential moving average of params, which is evaluated
    optimizer: Any
    weighting: Any
    step: Int[Array, ""]


class StepMetrics(NamedTuple):
    losses: Float[AnyArray, " task"]
    weights: Float[AnyArray, " task"]
    present: Bool[AnyArray, " task"]

    @classmethod
    def none(cls, *shape: int) -> "StepMetrics":
        """Returns the metrics of steps that are not taken yet, on the host: zeros, and no task present."""
        return cls(np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, bool))


@dataclass(frozen=True)
class Recipe:
    """The choices that shape the program, equal for all runs stacked in it."""

    clip_norm: float
    vad_loss: str  # a key of `losses.VAD_LOSSES`
    averaging: float  # decay of the moving average of the parameters; 0: none
    augment: Augment
    tasks: tuple[Task, ...]  # the class task, then those of VAD: a value of `tasks.TASKS`
    schemes: tuple[str, ...]  # names of `weighting.SCHEMES`, those of the runs
    gradients_at: str  # where schemes measure gradients: "representation" or "parameters"
    focal: bool = False  # whether some run has a focal loss


@dataclass(frozen=True)
class Network:
    """A model and how it is trained: the static argument of a program."""

    model: JointModel
    recipe: Recipe
    leaves: Leaves | None = None  # of the parameters of a run; None: their shapes are not known yet


def init_params(network: Network, frozen: Frozen, start: Any, run: Run, batch: Batch, key: Key[Array, ""]) -> Any:
    """Returns the parameters of a run before its first step, equal for all runs of one seed.

    Args:
      start: pretrained values of trained parameters, by stream.
    """
    model = network.model
    batch = frozen_forward(model, frozen, batch, None)
    frames, masks, statistics = visible_inputs(batch, run, jnp.ones_like(batch.utterance, bool))
    rates = Rates(run.hparams.dropout, run.hparams.statistics_dropout)
    params = dict(model.init(key, frames, masks, statistics, rates)["params"])
    params["trunk"] = dict(params["trunk"])
    for name, tuning in _tuned(model).items():
        if upper := params["trunk"].pop(tuned_name(name), None):
            trained = finetune.merge(finetune.trained(upper, tuning), start.get(name, {}))
            params["trunk"] |= {tuned_name(name): trained} if trained else {}
    return params


def init_state(network: Network, frozen: Frozen, start: Any, run: Run, batch: Batch, key: Key[Array, ""]) -> State:
    """Returns the state of a run before its first step; arguments as for `init_params`."""
    params = init_params(network, frozen, start, run, batch, key)
    leaves, recipe = Leaves.of(params), network.recipe
    vector = leaves.join(params)
    return State(
        params=vector,
        averaged=vector,
        optimizer=_optimizer(network.model, run, recipe, leaves).init(vector),
        weighting=_weighting(run, recipe, jax.random.randint(key, (), 0, 2**31 - 1)).init(params),
        step=jnp.zeros((), jnp.int32),
    )


def train_step(
    network: Network, frozen: Frozen, state: State, run: Run, batch: Batch, key: Key[Array, ""]
) -> tuple[State, StepMetrics]:
    """Updates one run once.

    The frozen forward pass runs first. It does not depend on the run, so `vmap` over runs computes it once. Held-out
    utterances are zeroed after it. The trunk then needs one forward and one backward pass: each task's gradient is
    taken at the fused representation, where the weighting combines them; the heads, which are small, get theirs
    from the same pass. With gradients at the parameters the trunk needs one backward pass per task.

    Args:
      network: with its leaves.
    """
    model, recipe, leaves = network.model, network.recipe, network.leaves
    assert leaves is not None
    params = leaves.split(state.params)
    mask_key, dropout_key = jax.random.split(key)
    batch = batch._replace(frames=spec_augment(model, batch, recipe.augment, mask_key))
    if {"noise", "gain"} & set(recipe.augment.used):  # the frozen pass is then of each run
        audio_key = jax.random.fold_in(key, 2)  # 0 and 1 are those of the split
        heard = corrupt_audio(batch, recipe.augment, run.hparams.noise, run.hparams.gain, audio_key)
        batch = batch._replace(frames=heard)
    batch = frozen_forward(model, frozen, batch, mask_key)
    weight = run.trained[batch.utterance]
    frames, masks, statistics = visible_inputs(batch, run, weight)
    seen = Seen(frames, masks, statistics, batch.target, batch.vad)
    if "mixup" in recipe.augment.used:
        seen = mixup(seen, weight, run.hparams.mixup, jax.random.fold_in(key, 3))
    frames, masks, statistics, target, vad_target = seen
    rates = Rates(run.hparams.dropout, run.hparams.statistics_dropout)
    rngs = {"dropout": dropout_key, "masking": mask_key}

    def represent(trunk):
        params = {"trunk": _with_frozen(trunk, frozen)}
        return model.apply({"params": params}, frames, masks, statistics, rates, rngs=rngs, method="represent")

    labelled = (weight & (target.sum(axis=-1) > 0)).astype(jnp.float32)
    if run.label_weight is not None:
        # A mixture has the weight of the utterance itself.
        labelled = jnp.where(labelled > 0, run.label_weight[batch.utterance], 0.0)
    counts = (weight[:, None] & jnp.isfinite(vad_target)).astype(jnp.float32)

    def task_losses(head, fused):
        # Flax types an apply by what it might also return.
        outputs: Any = model.apply({"params": {"head": head}}, fused, rates, rngs=rngs, method="predict")
        logits, vad = outputs
        if run.prior is not None:
            # Logit adjustment (Menon et al. 2021), balanced softmax (Ren et al. 2020): what is frequent has to be
            # learned from its prior, not from its sound. Predictions are without it.
            logits = logits + run.prior.log[run.prior.corpus[batch.utterance]]
        loss_class = cross_entropy(
            logits,
            target,
            labelled.astype(logits.dtype),
            label_smoothing=run.hparams.label_smoothing,
            class_weight=run.class_weight,
            focal_gamma=run.hparams.focal_gamma if recipe.focal else None,
        )
        losses_vad = [vad_loss(recipe.vad_loss, *_columns(task, vad, vad_target, counts)) for task in recipe.tasks[1:]]
        return jnp.stack([loss_class, *losses_vad])

    fused, trunk_backward = jax.vjp(represent, params["trunk"])
    losses, heads_backward = jax.vjp(task_losses, params["head"], fused)
    head_grads, fused_grads = jax.vmap(heads_backward)(jnp.eye(len(losses), dtype=losses.dtype))
    rated = [dimensions_present(recipe.vad_loss, *_columns(task, counts)).any() for task in recipe.tasks[1:]]
    present = jnp.stack([(labelled > 0).any(), *rated])

    weigh = partial(_weighting(run, recipe).update, state=state.weighting, losses=losses, present=present)
    if recipe.gradients_at == "parameters":
        (trunk_grads,) = jax.vmap(trunk_backward)(fused_grads)
        trunk_grad, weighting_state = weigh(trunk_grads)
    else:
        fused_grad, weighting_state = weigh(fused_grads)
        (trunk_grad,) = trunk_backward(fused_grad)
    head_grad = weighting.combine(head_grads, weighting_state.head_weights)

    grad = leaves.join({"trunk": trunk_grad, "head": head_grad})
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to its integer counters
        optimizer = _optimizer(model, run, recipe, leaves)
        updates, optimizer_state = optimizer.update(grad, state.optimizer, state.params)
    vector = optax.apply_updates(state.params, updates)
    averaged = _moving_average(state.averaged, vector, state.step, recipe.averaging)
    state = State(vector, averaged, optimizer_state, weighting_state, state.step + 1)
    return state, StepMetrics(losses, weighting_state.weights, present)


def predict_step(
    model: JointModel, frozen: Frozen, params: Any, run: Run, batch: Batch
) -> tuple[Float[Array, "batch class"], Float[Array, "batch dim"]]:
    """Returns logits, and dimensions in half scales, of every utterance of the batch, whoever speaks."""
    return predict_above(model, frozen, params, run, frozen_forward(model, frozen, batch, None))


def predict_above(
    model: JointModel, frozen: Frozen, params: Any, run: Run, batch: Batch
) -> tuple[Float[Array, "batch class"], Float[Array, "batch dim"]]:
    """Returns `predict_step` of a batch that has passed through the frozen part of each tuned model."""
    inputs = visible_inputs(batch, run, jnp.ones_like(batch.utterance, bool))
    outputs, _ = predict_visible(model, frozen, params, run, inputs)
    return outputs


def predict_visible(
    model: JointModel, frozen: Frozen, params: Any, run: Run, inputs: Any, *, mutable: Sequence[str] = ()
) -> tuple[tuple[Float[Array, "batch class"], Float[Array, "batch dim"]], Any]:
    """Returns `predict_above` of inputs as the run sees them, and the collections that are mutable.

    Args:
      inputs: of `visible_inputs`.
    """
    rates = Rates(run.hparams.dropout, run.hparams.statistics_dropout)
    params = {**params, "trunk": _with_frozen(params["trunk"], frozen)}
    outputs: Any = model.apply({"params": params}, *inputs, rates, mutable=list(mutable))
    return outputs


def frozen_forward(model: JointModel, frozen: Frozen, batch: Batch, key: Key[Array, ""] | None) -> Batch:
    """Replaces the raw audio by the output of the frozen part of each tuned model.

    Args:
      key: of its masked spans and dropout; None for none.
    """
    frames, lengths = dict(batch.frames), dict(batch.lengths)
    for name, tuning in _tuned(model).items():
        frames[name], lengths[name] = finetune.frozen_forward(
            tuning, frozen.lower[name], batch.frames[name], batch.lengths[name], key
        )
    return batch._replace(frames=frames, lengths=lengths)


def _tuned(model: JointModel) -> dict[str, finetune.Tuning]:
    return {stream.name: stream.tuning for stream in model.streams if stream.tuning is not None}


def _with_frozen(trunk: Any, frozen: Frozen) -> dict[str, Any]:
    """Returns a run's trunk, completed by the frozen layers that its adapters belong to."""
    return finetune.merge(trunk, {tuned_name(name): params for name, params in frozen.upper.items() if params})


def _columns(task: Task, *arrays: Float[Array, "batch _dim"]) -> list[Float[Array, "batch _dim"]]:
    """Returns the task's dimensions of each array."""
    return [x[:, task.columns[0] : task.columns[-1] + 1] for x in arrays]


def visible_inputs(batch: Batch, run: Run, weight: Bool[Array, " batch"]):
    """Returns frames, masks and statistics as the run sees them: normalised by its own training speakers.

    A value that is not finite becomes the mean, and an utterance outside `weight` becomes zeros. A stream without a
    scale (the hidden states of a tuned model) passes unchanged.
    """

    def scaled(x, scale: Scale | None, weight):
        x = x.astype(jnp.float32)
        if scale is not None:
            scale = jax.tree.map(lambda s: s.reshape(*[1] * (x.ndim - 1), -1), scale)
            x = jnp.clip((x - scale.mean) * scale.inverse, -8.0, 8.0)
        return jnp.where(weight & jnp.isfinite(x), x, 0.0)

    frames = {name: scaled(x, run.frame_scale.get(name), weight[:, None, None]) for name, x in batch.frames.items()}
    masks = {name: valid_frames(batch.lengths[name], x.shape[1]) for name, x in batch.frames.items()}
    statistics = {name: scaled(x, run.statistic_scale[name], weight[:, None]) for name, x in batch.statistics.items()}
    return frames, masks, statistics


def _optimizer(model: JointModel, run: Run, recipe: Recipe, leaves: Leaves) -> optax.GradientTransformation:
    assert run.steps is not None
    return adamw(
        run.hparams.learning_rate,
        jnp.where(leaves.decaying, run.hparams.weight_decay, 0.0),
        warmup_steps=run.steps.warmup,
        total_steps=run.steps.total,
        clip_norm=recipe.clip_norm,
        factors=_rate_factors(model, leaves) if _tuned(model) else None,
    )


def _rate_factors(model: JointModel, leaves: Leaves) -> Float[Array, " parameter"]:
    """Returns the factor on the learning rate of each parameter: tuned models have their own."""
    tuned = {tuned_name(name): tuning for name, tuning in _tuned(model).items()}
    trunk = {
        name: finetune.learning_rates(part, tuned[name]) if name in tuned else jax.tree.map(lambda x: 1.0, part)
        for name, part in leaves.tree["trunk"].items()
    }
    factors = {**jax.tree.map(lambda x: 1.0, leaves.tree), "trunk": trunk}
    return leaves.join(jax.tree.map(lambda x, factor: jnp.broadcast_to(factor, x.shape), leaves.tree, factors))


def _weighting(run: Run, recipe: Recipe, seed: int | Int[Array, ""] = 0) -> optax.GradientTransformationExtraArgs:
    """Returns the schemes of all runs as one, which takes the run's index: runs of different schemes share a program.

    Args:
      seed: of the schemes that draw; only `init` reads it.
    """
    hparams, steps = run.hparams, run.steps
    assert steps is not None
    class_share, rest = weighting.pair(hparams.alpha)
    n = len(recipe.tasks) - 1
    prior = jnp.append(class_share, jnp.full(n, rest / n))
    values = {**hparams._asdict(), "period": steps.epoch, "seed": seed}
    schemes = [weighting.SCHEMES[name] for name in recipe.schemes]
    transforms = [scheme.make(prior, **{name: values[name] for name in scheme.takes}) for scheme in schemes]
    return weighting.select(transforms, hparams.weighting) if len(transforms) > 1 else transforms[0]


def _moving_average(averaged, params, step, decay: float):
    """Moves the average towards params by `1 - decay`, and faster in the first steps, so that it forgets the start."""
    t = step.astype(jnp.float32)
    d = jnp.minimum(decay, (1.0 + t) / (10.0 + t))
    return d * averaged + (1.0 - d) * params
