"""One run's steps as programs over all runs: `jit(map over chunks(scan over steps(vmap over slots(step))))`.

Runs are stacked as `[chunk, slot, ...]` (see `runs`). The data is an argument that all runs share; a fold is
only the mask `Run.trained`, and frozen pretrained models are arguments that all runs share too. Where the data
does not lie on the devices whole, the same step is a program of its own (`train_batch`, `predict_batch`).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sejax.data.order import take_batch
from sejax.data.types import Batch, Bucket, Data, Order
from sejax.engine.step import Frozen, Recipe, Run, State, StepMetrics, init_state, predict_step, train_step
from sejax.models.joint import JointModel


class EpochMetrics(NamedTuple):
    """Means over the steps of an epoch in which the task was present; weights also by their extremes."""

    loss: Float[Array, "chunk slot task"]
    weight: Float[Array, "chunk slot task"]
    weight_min: Float[Array, "chunk slot task"]
    weight_max: Float[Array, "chunk slot task"]


class Best(NamedTuple):
    """The best epoch of each run so far, by its score on validation."""

    params: Any  # [chunk, slot, ...]
    score: Float[Array, "chunk slot"]
    epoch: Int[Array, "chunk slot"]


@partial(jax.jit, static_argnames=("model", "recipe"))
def init_runs(
    runs: Run,
    data: Data,
    frozen: Frozen,
    start: Any,
    seed: Int[Array, " chunk"],
    *,
    model: JointModel,
    recipe: Recipe,
) -> State:
    """States of all runs before the first step, `[chunk, slot, ...]`; runs of one seed start alike.

    Args:
      start: by stream, pretrained values of what is trained; each run gets a copy.
    """
    batch = first_batch(data)

    def init_chunk(args):
        run, seed = args
        return jax.vmap(lambda run: init_state(model, recipe, frozen, start, run, batch, jax.random.key(seed)))(run)

    return jax.lax.map(init_chunk, (runs, seed))


def first_batch(data: Data) -> Batch:
    """One utterance of the shortest bucket: enough to learn the shapes."""
    zero = jnp.zeros(1, jnp.int32)
    return take_batch(data, data.buckets[0], zero, zero)


@partial(jax.jit, static_argnames=("model", "recipe"), donate_argnames="states")
def train_epoch(
    states: State,
    runs: Run,
    data: Data,
    frozen: Frozen,
    order: Order,
    order_row: Int[Array, "chunk slot"] | Int[Array, " chunk"],
    seed: Int[Array, " chunk"],
    epoch: Int[Array, ""],
    *,
    model: JointModel,
    recipe: Recipe,
) -> tuple[State, EpochMetrics]:
    """One epoch of all runs.

    Args:
      order_row: each run's row of `order`, its own batches; or each chunk's, whose runs then share batches, and
        what is frozen hears each batch once.
      seed: each chunk's seed; dropout and masking depend on seed, epoch and step alone.
    """
    shared = order_row.ndim == 1

    def train_chunk(args):
        state, run, order_row, seed = args
        key = jax.random.fold_in(jax.random.key(seed), epoch)

        own = jax.tree.map(lambda x: x[order_row], order)
        if not shared:
            own = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2), own)  # scanned over round and step
        steps = [rows.shape[1] for rows in own.rows]

        def on_bucket(bucket, state, inputs):
            i, rows, view = inputs
            return _train_slots(model, recipe, data, bucket, frozen, state, run, rows, view, jax.random.fold_in(key, i))

        def on_round(state, inputs):
            i, rows, view = inputs
            metrics = []
            for b, bucket in enumerate(data.buckets):
                at = i * sum(steps) + sum(steps[:b]) + jnp.arange(steps[b], dtype=jnp.int32)
                state, own = jax.lax.scan(partial(on_bucket, bucket), state, (at, rows[b], view[b]))
                metrics.append(own)
            return state, jax.tree.map(lambda *x: jnp.concatenate(x), *metrics)

        rounds = jnp.arange(own.rows[0].shape[0], dtype=jnp.int32)
        state, metrics = jax.lax.scan(on_round, state, (rounds, own.rows, own.view))
        return state, _over_steps(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), metrics))

    return jax.lax.map(train_chunk, (states, runs, order_row, seed))


@partial(jax.jit, static_argnames=("model", "recipe"), donate_argnames="states")
def train_batch(
    states: State,
    metrics: StepMetrics,
    runs: Run,
    data: Data,
    bucket: Bucket,
    frozen: Frozen,
    rows: Int[Array, "order batch"],
    view: Int[Array, "order batch"],
    order_row: Int[Array, "chunk slot"] | Int[Array, " chunk"],
    seed: Int[Array, " chunk"],
    epoch: Int[Array, ""],
    step: Int[Array, ""],
    *,
    model: JointModel,
    recipe: Recipe,
) -> tuple[State, StepMetrics]:
    """One step of an epoch of all runs, on frames that are there for it alone; see `train_epoch`.

    Args:
      metrics: of the epoch so far, `[chunk, slot, step, task]`.
      data: its buckets are not read.
      bucket: all utterances of this step's batches.
      rows: of that bucket.
    """

    def train_chunk(args):
        state, run, order_row, seed = args
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), epoch), step)
        own = rows[order_row], view[order_row]
        return _train_slots(model, recipe, data, bucket, frozen, state, run, *own, key)

    states, own = jax.lax.map(train_chunk, (states, runs, order_row, seed))
    return states, jax.tree.map(lambda x, new: x.at[:, :, step].set(new), metrics, own)


def _train_slots(model, recipe, data, bucket, frozen, state, run, rows, view, key) -> tuple[State, StepMetrics]:
    """One step of a chunk's runs: `rows` and `view` are `[slot, batch]`, or `[batch]` where they share a batch."""

    def step(state, run, rows, view):
        # Not fused with what is around it a step rounds alike in an epoch and alone, as far as XLA allows.
        state, run, batch = jax.lax.optimization_barrier((state, run, take_batch(data, bucket, rows, view)))
        return jax.lax.optimization_barrier(train_step(model, recipe, frozen, state, run, batch, key))

    own_batch = None if rows.ndim == 1 else 0
    return jax.vmap(step, in_axes=(0, 0, own_batch, own_batch))(state, run, rows, view)


@jax.jit
def over_epoch(metrics: StepMetrics) -> EpochMetrics:
    """What `train_epoch` says of an epoch, from all its steps `[chunk, slot, step, task]`."""
    return jax.lax.map(lambda own: _over_steps(jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), own)), metrics)


def _over_steps(metrics: StepMetrics) -> EpochMetrics:
    """Reduces `[step, slot, task]`, leaving out steps in which a task was absent."""
    present = metrics.present
    count = jnp.maximum(present.sum(axis=0), 1).astype(metrics.losses.dtype)
    zero = jnp.zeros((), metrics.losses.dtype)

    def mean(x):
        return jnp.where(present, x, zero).sum(axis=0) / count

    return EpochMetrics(
        mean(metrics.losses), mean(metrics.weights), metrics.weights.min(axis=0), metrics.weights.max(axis=0)
    )


@partial(jax.jit, static_argnames=("model",))
def predict(
    params: Any,
    runs: Run,
    data: Data,
    frozen: Frozen,
    rows: tuple[Int[Array, "chunk slot _n_batch _batch"], ...],
    *,
    model: JointModel,
) -> tuple[Float[Array, "chunk slot column class"], Float[Array, "chunk slot column dim"]]:
    """Class probabilities and dimensions (half scales) of each run's rows, the buckets laid end to end."""

    def predict_chunk(args):
        params, run, rows = args

        def on_run(params, run, rows):
            outputs = []
            for bucket, own in zip(data.buckets, rows, strict=True):
                if own.size:
                    outputs.append(jax.lax.map(partial(_predict_run, model, data, bucket, frozen, params, run), own))
            flat = [jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), out) for out in outputs]
            return tuple(jnp.concatenate(parts) for parts in zip(*flat, strict=True))

        return jax.vmap(on_run)(params, run, rows)

    return jax.lax.map(predict_chunk, (params, runs, rows))


@partial(jax.jit, static_argnames=("model",))
def predict_batch(
    params: Any,
    runs: Run,
    data: Data,
    bucket: Bucket,
    frozen: Frozen,
    rows: Int[Array, "chunk slot batch"],
    *,
    model: JointModel,
) -> tuple[Float[Array, "chunk slot batch class"], Float[Array, "chunk slot batch dim"]]:
    """One batch of `predict`, on frames that are there for it alone."""
    predict_slots = jax.vmap(partial(_predict_run, model, data, bucket, frozen))
    return jax.lax.map(lambda args: predict_slots(*args), (params, runs, rows))


def _predict_run(model, data, bucket, frozen, params, run, rows):
    batch = jax.lax.optimization_barrier(take_batch(data, bucket, rows, jnp.zeros_like(rows)))
    logits, vad = predict_step(model, frozen, params, run, batch)
    return jax.nn.softmax(logits), vad


@partial(jax.jit, donate_argnames="best")
def keep_best(
    best: Best, params: Any, score: Float[Array, "chunk slot"], improved: Bool[Array, "chunk slot"], epoch
) -> Best:
    """Takes over the parameters of the runs that improved."""

    def choose(new, old):
        return jnp.where(improved.reshape(improved.shape + (1,) * (new.ndim - 2)), new, old)

    return Best(jax.tree.map(choose, params, best.params), choose(score, best.score), choose(epoch, best.epoch))
