"""What one run does with one batch: pure functions of arrays, written for a single run and vmapped by `train`.

Everything that a fold must not see is taken out here, at the gate: an utterance with weight 0 in a run enters
that run as zeros, so that nothing of a held-out speaker, not even a NaN, reaches the run's parameters.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from sejax import weighting
from sejax.data.types import AnyArray, Batch, Scale
from sejax.engine.augment import Augment, spec_augment
from sejax.engine.losses import cross_entropy, dimension_losses, dimensions_present, vad_loss
from sejax.engine.optimizer import adamw
from sejax.models.joint import JointModel, Rates
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


class Run(NamedTuple):
    """All that makes a run itself, beside its state. `train` stacks runs as `[chunk, slot, ...]`."""

    hparams: HParams
    trained: Bool[AnyArray, " utterance"]  # the training speakers' utterances
    class_weight: Float[AnyArray, " class"]
    frame_scale: dict[str, Scale]
    statistic_scale: dict[str, Scale]


class Frozen(NamedTuple):
    """The arrays of pretrained models that no run changes, by stream: they lie on the device once."""

    lower: dict[str, Any]  # below the cut (`finetune.Tuning`)
    upper: dict[str, Any]  # above it


class State(NamedTuple):
    """What training changes in a run."""

    params: Any
    averaged: Any  # exponential moving average of params: what is evaluated
    optimizer: Any
    weighting: Any
    step: Int[Array, ""]


class StepMetrics(NamedTuple):
    losses: Float[Array, " task"]
    weights: Float[Array, " task"]
    present: Bool[Array, " task"]


@dataclass(frozen=True)
class Recipe:
    """The choices that shape the program, equal for all runs stacked in it."""

    total_steps: int
    warmup_steps: int
    clip_norm: float
    vad_loss: str  # "ccc", "mse" or "mae"
    averaging: float  # decay of the moving average of the parameters; 0: none
    augment: Augment
    tasks: tuple[str, ...]  # the axis of losses, weights and priors: class and vad, or class and every dimension
    schemes: tuple[str, ...]  # names of `weighting.SCHEMES`, those of the runs
    gradients_at: str  # where schemes measure gradients: "representation" or "parameters"
    epoch_steps: int  # steps of an epoch


def init_state(
    model: JointModel, recipe: Recipe, frozen: Frozen, start: Any, run: Run, batch: Batch, key: Key[Array, ""]
) -> State:
    """The state of a run before its first step. Runs of one seed start from equal parameters.

    Args:
      start: by stream, pretrained values of parameters that are trained.
    """
    batch = listen(model, frozen, batch, None)
    frames, masks, statistics = _gated_inputs(batch, run, jnp.ones_like(batch.utterance, bool))
    rates = Rates(run.hparams.dropout, run.hparams.statistics_dropout)
    params = dict(model.init(key, frames, masks, statistics, rates)["params"])
    params["trunk"] = dict(params["trunk"])
    for name, tuning in _tuned(model).items():
        if own := params["trunk"].pop(f"{name}_ssl", None):
            own = finetune.merge(finetune.trained(own, tuning), start.get(name, {}))
            params["trunk"] |= {f"{name}_ssl": own} if own else {}
    return State(
        params=params,
        averaged=params,
        optimizer=_optimizer(model, run.hparams, recipe).init(params),
        weighting=_weighting(run.hparams, recipe, jax.random.randint(key, (), 0, 2**31 - 1)).init(params),
        step=jnp.zeros((), jnp.int32),
    )


def train_step(
    model: JointModel,
    recipe: Recipe,
    frozen: Frozen,
    state: State,
    run: Run,
    batch: Batch,
    key: Key[Array, ""],
) -> tuple[State, StepMetrics]:
    """One update of one run.

    What is frozen hears the batch first: nothing of a run enters there, so that under a vmap over runs it is
    computed once. The gate stands behind it. The trunk is walked forward and back once. Each task's gradient is
    taken at the fused representation, where the weighting combines them; the heads, which are small, get theirs
    from the same pass. With gradients at the parameters the trunk is walked back once per task instead.
    """
    mask_key, dropout_key = jax.random.split(key)
    batch = batch._replace(frames=spec_augment(model, batch, recipe.augment, mask_key))
    batch = listen(model, frozen, batch, mask_key)
    weight = run.trained[batch.utterance]
    frames, masks, statistics = _gated_inputs(batch, run, weight)
    rates = Rates(run.hparams.dropout, run.hparams.statistics_dropout)
    rngs = {"dropout": dropout_key, "masking": mask_key}

    def represent(trunk):
        params = {"trunk": _with_frozen(trunk, frozen)}
        return model.apply({"params": params}, frames, masks, statistics, rates, rngs=rngs, method="represent")

    labelled = weight & (batch.target.sum(axis=-1) > 0)
    rated = weight[:, None] & jnp.isfinite(batch.vad)

    def task_losses(head, fused):
        # Flax types an apply by what it might also return.
        outputs: Any = model.apply({"params": {"head": head}}, fused, rates, rngs=rngs, method="predict")
        logits, vad = outputs
        loss_class = cross_entropy(
            logits,
            batch.target,
            labelled.astype(logits.dtype),
            label_smoothing=run.hparams.label_smoothing,
            class_weight=run.class_weight,
        )
        regression = vad_loss if "vad" in recipe.tasks else dimension_losses
        loss_vad = regression(recipe.vad_loss, vad, batch.vad, rated.astype(vad.dtype))
        return jnp.append(loss_class, loss_vad)

    fused, walk_trunk_back = jax.vjp(represent, state.params["trunk"])
    losses, walk_heads_back = jax.vjp(task_losses, state.params["head"], fused)
    head_grads, fused_grads = jax.vmap(walk_heads_back)(jnp.eye(len(losses), dtype=losses.dtype))
    rated_dimensions = dimensions_present(recipe.vad_loss, rated.astype(losses.dtype))
    present = jnp.append(labelled.any(), rated_dimensions.any() if "vad" in recipe.tasks else rated_dimensions)

    weigh = partial(_weighting(run.hparams, recipe).update, state=state.weighting, losses=losses, present=present)
    if recipe.gradients_at == "parameters":
        (trunk_grads,) = jax.vmap(walk_trunk_back)(fused_grads)
        trunk_grad, weighting_state = weigh(trunk_grads)
    else:
        fused_grad, weighting_state = weigh(fused_grads)
        (trunk_grad,) = walk_trunk_back(fused_grad)
    head_grad = weighting.combine(head_grads, weighting_state.head_weights)

    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to its integer counters
        updates, optimizer_state = _optimizer(model, run.hparams, recipe).update(
            {"trunk": trunk_grad, "head": head_grad}, state.optimizer, state.params
        )
    params = optax.apply_updates(state.params, updates)
    averaged = _moving_average(state.averaged, params, state.step, recipe.averaging)
    state = State(params, averaged, optimizer_state, weighting_state, state.step + 1)
    return state, StepMetrics(losses, weighting_state.weights, present)


def predict_step(
    model: JointModel, frozen: Frozen, params: Any, run: Run, batch: Batch
) -> tuple[Float[Array, "batch class"], Float[Array, "batch dim"]]:
    """Logits, and dimensions in half scales, of every utterance of the batch, whoever speaks."""
    batch = listen(model, frozen, batch, None)
    frames, masks, statistics = _gated_inputs(batch, run, jnp.ones_like(batch.utterance, bool))
    rates = Rates(run.hparams.dropout, run.hparams.statistics_dropout)
    params = {**params, "trunk": _with_frozen(params["trunk"], frozen)}
    outputs: Any = model.apply({"params": params}, frames, masks, statistics, rates)
    return outputs


def listen(model: JointModel, frozen: Frozen, batch: Batch, key: Key[Array, ""] | None) -> Batch:
    """Puts what the frozen part of each tuned model hears in the place of the raw audio."""
    frames, lengths = dict(batch.frames), dict(batch.lengths)
    for name, tuning in _tuned(model).items():
        frames[name], lengths[name] = finetune.listen(
            tuning, frozen.lower[name], batch.frames[name], batch.lengths[name], key
        )
    return batch._replace(frames=frames, lengths=lengths)


def _tuned(model: JointModel) -> dict[str, finetune.Tuning]:
    return {stream.name: stream.tuning for stream in model.streams if stream.tuning is not None}


def _with_frozen(trunk: Any, frozen: Frozen) -> dict[str, Any]:
    """A run's trunk, completed by what its adapters adapt."""
    return finetune.merge(trunk, {f"{name}_ssl": params for name, params in frozen.upper.items() if params})


def _gated_inputs(batch: Batch, run: Run, weight: Bool[Array, " batch"]):
    """Frames, masks and statistics as the run sees them: normalised by its own training speakers.

    What is not finite becomes the mean, and an utterance outside `weight` is all zeros. A stream without a scale
    (what a tuned model hears) passes as it is.
    """

    def scaled(x, scale: Scale | None, weight):
        x = x.astype(jnp.float32)
        if scale is not None:
            scale = jax.tree.map(lambda s: s.reshape(*[1] * (x.ndim - 1), -1), scale)
            x = jnp.clip((x - scale.mean) * scale.inverse, -8.0, 8.0)
        return jnp.where(weight & jnp.isfinite(x), x, 0.0)

    frames = {name: scaled(x, run.frame_scale.get(name), weight[:, None, None]) for name, x in batch.frames.items()}
    masks = {
        name: jnp.arange(x.shape[1], dtype=jnp.int32)[None] < batch.lengths[name][:, None]
        for name, x in batch.frames.items()
    }
    statistics = {name: scaled(x, run.statistic_scale[name], weight[:, None]) for name, x in batch.statistics.items()}
    return frames, masks, statistics


def _optimizer(model: JointModel, hparams: HParams, recipe: Recipe) -> optax.GradientTransformation:
    def factors(params):
        ones = jax.tree.map(lambda x: jnp.ones((), jnp.float32), params)
        own = {f"{name}_ssl": tuning for name, tuning in _tuned(model).items()}
        trunk = {
            name: finetune.learning_rates(part, own[name]) if name in own else ones["trunk"][name]
            for name, part in params["trunk"].items()
        }
        return {**ones, "trunk": trunk}

    return adamw(
        hparams.learning_rate,
        hparams.weight_decay,
        warmup_steps=recipe.warmup_steps,
        total_steps=recipe.total_steps,
        clip_norm=recipe.clip_norm,
        factors=factors if _tuned(model) else None,
    )


def _weighting(
    hparams: HParams, recipe: Recipe, seed: int | Int[Array, ""] = 0
) -> optax.GradientTransformationExtraArgs:
    """The runs' schemes side by side, picked by the run's index: runs of different schemes share a program.

    `seed` matters to `init` alone, of the schemes that draw.
    """
    class_share, rest = weighting.pair(hparams.alpha)
    n = len(recipe.tasks) - 1
    prior = jnp.append(class_share, jnp.full(n, rest / n))
    values = {**hparams._asdict(), "period": recipe.epoch_steps, "seed": seed}
    schemes = [weighting.SCHEMES[name] for name in recipe.schemes]
    transforms = [scheme.make(prior, **{name: values[name] for name in scheme.takes}) for scheme in schemes]
    return weighting.select(transforms, hparams.weighting) if len(transforms) > 1 else transforms[0]


def _moving_average(averaged, params, step, decay: float):
    """Follows params with `decay`, faster at the start, so that the average soon forgets the initial parameters."""
    t = step.astype(jnp.float32)
    d = jnp.minimum(decay, (1.0 + t) / (10.0 + t))
    return jax.tree.map(lambda a, p: d * a + (1.0 - d) * p, averaged, params)
