"""What one run does with one batch: pure functions of arrays, written for a single run and vmapped by `train`.

Everything that a fold must not see is taken out here, at the gate: an utterance with weight 0 in a run enters
that run as zeros, so that nothing of a held-out speaker, not even a NaN, reaches the run's parameters.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from sejax import weighting
from sejax.losses import cross_entropy, dimensions_present, vad_loss
from sejax.models.joint import JointModel, Rates
from sejax.optimizer import adamw

TASKS = ("class", "vad")
"""The axis called `task` everywhere: losses, weights, priors."""

WEIGHTINGS = ("static", "dynamic", "joint")
"""What `HParams.weighting` counts."""


AnyArray = Any
"""A numpy array while it is built on the host, a jax array on the device."""


class HParams(NamedTuple):
    """The numbers in which stacked runs may differ; each is traced, none is branched on."""

    learning_rate: Float[AnyArray, ""]
    weight_decay: Float[AnyArray, ""]
    dropout: Float[AnyArray, ""]
    statistics_dropout: Float[AnyArray, ""]
    label_smoothing: Float[AnyArray, ""]
    alpha: Float[AnyArray, ""]  # prior share of the class task; the VAD task has 1 - alpha
    tau: Float[AnyArray, ""]  # temperature of dynamic weighting
    weighting: Int[AnyArray, ""]  # index into WEIGHTINGS


class Scale(NamedTuple):
    """A run's normalisation of one stream, from its training speakers: (x - mean) * inverse."""

    mean: Float[AnyArray, " feature"]
    inverse: Float[AnyArray, " feature"]


class Run(NamedTuple):
    """All that makes a run itself, beside its state. `train` stacks runs as `[chunk, slot, ...]`."""

    hparams: HParams
    trained: Bool[AnyArray, " utterance"]  # the training speakers' utterances
    class_weight: Float[AnyArray, " class"]
    frame_scale: dict[str, Scale]
    statistic_scale: dict[str, Scale]


class Batch(NamedTuple):
    """Utterances of one length bucket, as they are stored: not yet normalised, the same for all runs."""

    utterance: Int[AnyArray, " batch"]  # row in the corpus
    frames: dict[str, Float[AnyArray, "batch _time _feature"]]
    lengths: dict[str, Int[AnyArray, " batch"]]  # valid frames
    statistics: dict[str, Float[AnyArray, "batch _statistic"]]
    target: Float[AnyArray, "batch class"]  # one-hot, or the raters' distribution; all 0 where there is no label
    vad: Float[AnyArray, "batch dim"]  # in half scales around the middle, NaN where missing


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
    time_masks: int
    time_mask_frames: int
    feature_masks: int
    feature_mask_share: float  # widest feature mask, as a share of a stream's features


def init_state(model: JointModel, recipe: Recipe, run: Run, batch: Batch, key: Key[Array, ""]) -> State:
    """The state of a run before its first step. Runs of one seed start from equal parameters."""
    frames, masks, statistics = _gated_inputs(batch, run, jnp.ones_like(batch.utterance, bool))
    rates = Rates(run.hparams.dropout, run.hparams.statistics_dropout)
    params = model.init(key, frames, masks, statistics, rates)["params"]
    return State(
        params=params,
        averaged=params,
        optimizer=_optimizer(run.hparams, recipe).init(params),
        weighting=_weighting(run.hparams).init(params),
        step=jnp.zeros((), jnp.int32),
    )


def train_step(
    model: JointModel, recipe: Recipe, state: State, run: Run, batch: Batch, key: Key[Array, ""]
) -> tuple[State, StepMetrics]:
    """One update of one run.

    The trunk is walked forward and back once. Each task's gradient is taken at the fused representation,
    where the weighting combines them; the heads, which are small, get theirs from the same pass.
    """
    mask_key, dropout_key = jax.random.split(key)
    batch = batch._replace(frames=spec_augment(batch, recipe, mask_key))
    weight = run.trained[batch.utterance]
    frames, masks, statistics = _gated_inputs(batch, run, weight)
    rates = Rates(run.hparams.dropout, run.hparams.statistics_dropout)
    rngs = {"dropout": dropout_key}

    def represent(trunk):
        return model.apply(
            {"params": {"trunk": trunk}}, frames, masks, statistics, rates, rngs=rngs, method="represent"
        )

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
        loss_vad = vad_loss(recipe.vad_loss, vad, batch.vad, rated.astype(vad.dtype))
        return jnp.stack([loss_class, loss_vad])

    fused, walk_trunk_back = jax.vjp(represent, state.params["trunk"])
    losses, walk_heads_back = jax.vjp(task_losses, state.params["head"], fused)
    head_grads, fused_grads = jax.vmap(walk_heads_back)(jnp.eye(len(TASKS), dtype=losses.dtype))
    rated_dimensions = dimensions_present(recipe.vad_loss, rated.astype(losses.dtype))
    present = jnp.stack([labelled.any(), rated_dimensions.any()])

    fused_grad, weighting_state = _weighting(run.hparams).update(
        fused_grads, state.weighting, losses=losses, present=present
    )
    (trunk_grad,) = walk_trunk_back(fused_grad)
    head_grad = weighting.combine(head_grads, weighting_state.head_weights)

    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to its integer counters
        updates, optimizer_state = _optimizer(run.hparams, recipe).update(
            {"trunk": trunk_grad, "head": head_grad}, state.optimizer, state.params
        )
    params = optax.apply_updates(state.params, updates)
    averaged = _moving_average(state.averaged, params, state.step, recipe.averaging)
    state = State(params, averaged, optimizer_state, weighting_state, state.step + 1)
    return state, StepMetrics(losses, weighting_state.weights, present)


def predict_step(
    model: JointModel, params: Any, run: Run, batch: Batch
) -> tuple[Float[Array, "batch class"], Float[Array, "batch dim"]]:
    """Logits, and dimensions in half scales, of every utterance of the batch, whoever speaks."""
    frames, masks, statistics = _gated_inputs(batch, run, jnp.ones_like(batch.utterance, bool))
    rates = Rates(run.hparams.dropout, run.hparams.statistics_dropout)
    outputs: Any = model.apply({"params": params}, frames, masks, statistics, rates)
    return outputs


def spec_augment(batch: Batch, recipe: Recipe, key: Key[Array, ""]) -> dict[str, Float[Array, "batch _time _feature"]]:
    """Marks random bands of time and of features as unseen (NaN); the gate turns them into the mean, 0.

    SpecAugment (Park et al., 2019) without warping. The masks depend on batch and key alone, so that runs of
    one seed share them.
    """

    def bands(key, n, size, widest, rows):
        """True outside `n` bands per row, each up to `widest` wide, on an axis of `size`."""
        start_key, width_key = jax.random.split(key)
        start = jax.random.uniform(start_key, (rows, n, 1)) * size
        width = jax.random.uniform(width_key, (rows, n, 1)) * widest
        position = jnp.arange(size, dtype=jnp.float32)[None, None] + 0.5  # else the first one is never hidden
        return ~((position >= start) & (position < start + width)).any(axis=1)

    seen = {}
    for i, (name, x) in enumerate(sorted(batch.frames.items())):
        time_key, feature_key = jax.random.split(jax.random.fold_in(key, i))
        rows, time, feature = x.shape
        keep = jnp.ones((rows, time, feature), bool)
        if recipe.time_masks:
            mask = bands(time_key, recipe.time_masks, time, recipe.time_mask_frames, rows)
            keep &= mask[:, :, None]
        if recipe.feature_masks:
            widest = recipe.feature_mask_share * feature
            keep &= bands(feature_key, recipe.feature_masks, feature, widest, rows)[:, None, :]
        seen[name] = jnp.where(keep, x, jnp.nan) if recipe.time_masks or recipe.feature_masks else x
    return seen


def _gated_inputs(batch: Batch, run: Run, weight: Bool[Array, " batch"]):
    """Frames, masks and statistics as the run sees them: normalised by its own training speakers.

    What is not finite becomes the mean, and an utterance outside `weight` is all zeros.
    """

    def scaled(x, scale: Scale, weight):
        x = (x - scale.mean) * scale.inverse
        return jnp.where(weight & jnp.isfinite(x), jnp.clip(x, -8.0, 8.0), 0.0)

    frames = {
        name: scaled(x, jax.tree.map(lambda s: s[None, None], run.frame_scale[name]), weight[:, None, None])
        for name, x in batch.frames.items()
    }
    masks = {
        name: jnp.arange(x.shape[1], dtype=jnp.int32)[None] < batch.lengths[name][:, None]
        for name, x in batch.frames.items()
    }
    statistics = {
        name: scaled(x, jax.tree.map(lambda s: s[None], run.statistic_scale[name]), weight[:, None])
        for name, x in batch.statistics.items()
    }
    return frames, masks, statistics


def _optimizer(hparams: HParams, recipe: Recipe) -> optax.GradientTransformation:
    return adamw(
        hparams.learning_rate,
        hparams.weight_decay,
        warmup_steps=recipe.warmup_steps,
        total_steps=recipe.total_steps,
        clip_norm=recipe.clip_norm,
    )


def _weighting(hparams: HParams) -> optax.GradientTransformationExtraArgs:
    """All schemes side by side, picked by the run's index: runs of different schemes share a program."""
    prior = weighting.pair(hparams.alpha)
    schemes = (weighting.static(prior), weighting.dynamic(prior, tau=hparams.tau), weighting.joint(prior))
    return weighting.select(schemes, hparams.weighting)


def _moving_average(averaged, params, step, decay: float):
    """Follows params with `decay`, faster at the start, so that the average soon forgets the initial parameters."""
    t = step.astype(jnp.float32)
    d = jnp.minimum(decay, (1.0 + t) / (10.0 + t))
    return jax.tree.map(lambda a, p: d * a + (1.0 - d) * p, averaged, params)
