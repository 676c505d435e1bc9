"""Steps of single runs as programs over all runs: `jit(map over chunks(scan over steps(vmap over slots(step))))`.

Runs are stacked as `[chunk, slot, ...]` (see `runs`). The data and the frozen pretrained models are arguments that
all runs share; a fold is only the mask `Run.trained`. If the frames are streamed, each step is a program of its own
(`train_batch`, `predict_batch`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sejax.data.order import take_batch
from sejax.data.types import AnyArray, Batch, Bucket, Data, Order
from sejax.engine.step import Frozen, Network, Run, State, StepMetrics, init_state, predict_step, train_step
from sejax.models.joint import JointModel


class Shared(NamedTuple):
    """The arrays that all runs read."""

    data: Data
    frozen: Frozen


class Chunk(NamedTuple):
    """The runs of a program and what tells them apart, stacked as `[chunk, slot, ...]`.

    `order_row` is each run's row of an `Order`; or each chunk's, whose runs then share their batches, and the frozen
    forward pass of a batch is computed once for all of them. Dropout and masking depend on seed, epoch and step alone.
    """

    runs: Run
    order_row: Int[AnyArray, "chunk slot"] | Int[AnyArray, " chunk"]
    seed: Int[AnyArray, " chunk"]
    rounds: Int[AnyArray, " chunk"] | None = None  # that a run of the chunk has steps in; None: all have all


class StreamedStep(NamedTuple):
    """One step of an epoch with the frames that it needs: the batches of all orders, all from one bucket."""

    bucket: Bucket  # the utterances of these batches, each once
    rows: Int[AnyArray, "order batch"]  # of `bucket`
    view: Int[AnyArray, "order batch"]
    number: Int[AnyArray, ""]  # of the step in its epoch
    own_number: Int[AnyArray, " order"] | None = None  # among those of each order, -1 for none; None: `number`
    round: Int[AnyArray, ""] | None = None  # of the step, where runs have different numbers of rounds


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


@partial(jax.jit, static_argnames="network")
def init_runs(chunk: Chunk, shared: Shared, start: Any, *, network: Network) -> State:
    """Returns the states of all runs before the first step, `[chunk, slot, ...]`; runs of one seed start alike.

    Args:
      start: pretrained values of trained parameters, by stream; each run gets a copy.
    """
    batch = first_batch(shared.data)

    def init_chunk(chunk: Chunk):
        key = jax.random.key(chunk.seed)
        return jax.vmap(lambda run: init_state(network, shared.frozen, start, run, batch, key))(chunk.runs)

    return jax.lax.map(init_chunk, chunk)


def first_batch(data: Data) -> Batch:
    """Returns one utterance of the shortest bucket: enough to learn the shapes."""
    zero = jnp.zeros(1, jnp.int32)
    return take_batch(data, data.buckets[0], zero, zero)


@partial(jax.jit, static_argnames="network", donate_argnames="states")
def train_epoch(
    states: State,
    chunk: Chunk,
    shared: Shared,
    order: Order,
    epoch: Int[Array, ""],
    n_chunks: Int[Array, ""],
    *,
    network: Network,
) -> tuple[State, EpochMetrics]:
    """Trains the runs of the first `n_chunks` chunks for one epoch; the states given are used up.

    The runs of the other chunks stay as they are, and cost no time; their metrics are 0.
    """
    shares_batches = chunk.order_row.ndim == 1
    buckets = shared.data.buckets

    def train_chunk(state, _, of_chunk):
        run, order_row, seed, n_rounds = of_chunk
        key = jax.random.fold_in(jax.random.key(seed), epoch)

        batches = jax.tree.map(lambda x: x[order_row], order)
        if not shares_batches:
            batches = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2), batches)  # scanned over round and step
        steps = [rows.shape[1] for rows in batches.rows]

        def on_bucket(bucket, state, inputs):
            i, rows, view, own = inputs
            return _train_slots(network, shared, bucket, state, run, rows, view, key, i if own is None else own)

        def on_round(state, inputs):
            i, rows, view, own = inputs
            metrics = []
            for b, bucket in enumerate(buckets):
                at = i * sum(steps) + sum(steps[:b]) + jnp.arange(steps[b], dtype=jnp.int32)
                own_steps = None if own is None else own[b]
                state, of_bucket = jax.lax.scan(partial(on_bucket, bucket), state, (at, rows[b], view[b], own_steps))
                metrics.append(of_bucket)
            return state, jax.tree.map(lambda *x: jnp.concatenate(x), *metrics)

        def on_own_round(state, inputs):
            if n_rounds is None:
                return on_round(state, inputs)
            return jax.lax.cond(inputs[0] < n_rounds, on_round, lambda state, _: (state, no_steps), state, inputs)

        no_metrics = (jnp.zeros((sum(steps), *shape[1:]), dtype) for dtype in (jnp.float32, jnp.float32, bool))
        no_steps = StepMetrics(*no_metrics)
        rounds = jnp.arange(batches.rows[0].shape[0], dtype=jnp.int32)
        state, metrics = jax.lax.scan(on_own_round, state, (rounds, *batches))
        return state, _over_steps(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), metrics))

    shape = (*states.step.shape, len(network.recipe.tasks))
    nothing = EpochMetrics(*(jnp.zeros(shape, jnp.float32) for _ in EpochMetrics._fields))
    return _train_chunks(train_chunk, states, nothing, chunk, n_chunks)


@partial(jax.jit, static_argnames="network", donate_argnames="states")
def train_batch(
    states: State,
    metrics: StepMetrics,
    chunk: Chunk,
    shared: Shared,
    step: StreamedStep,
    epoch: Int[Array, ""],
    n_chunks: Int[Array, ""],
    *,
    network: Network,
) -> tuple[State, StepMetrics]:
    """Trains the runs of the first chunks for one step of an epoch; see `train_epoch`.

    Args:
      metrics: of the epoch so far, `[chunk, slot, step, task]`.
      shared: the buckets of its data are not read.
    """

    def train_chunk(state, metrics, of_chunk):
        run, order_row, seed, n_rounds = of_chunk
        key = jax.random.fold_in(jax.random.key(seed), epoch)
        rows, view = step.rows[order_row], step.view[order_row]
        own = step.number if step.own_number is None else step.own_number[order_row]

        def on_step(state, metrics):
            state, of_step = _train_slots(network, shared, step.bucket, state, run, rows, view, key, own)
            return state, jax.tree.map(lambda x, new: x.at[:, step.number].set(new), metrics, of_step)

        if n_rounds is None:
            return on_step(state, metrics)
        return jax.lax.cond(step.round < n_rounds, on_step, lambda *own: own, state, metrics)

    return _train_chunks(train_chunk, states, metrics, chunk, n_chunks)


def _train_chunks(train_chunk: Callable[..., Any], states: State, metrics: Any, chunk: Chunk, n_chunks) -> Any:
    """Trains the first chunks in turn and in place: a loop of as many rounds as are asked for, in one program.

    Args:
      train_chunk: Returns state and metrics of a chunk, given both and its part of `chunk`.
      metrics: `[chunk, ...]`.
    """

    def on_chunk(i, carry):
        own, of_chunk = jax.tree.map(partial(jax.lax.dynamic_index_in_dim, index=i, keepdims=False), (carry, chunk))
        own = train_chunk(*own, of_chunk)
        return jax.tree.map(lambda x, new: jax.lax.dynamic_update_index_in_dim(x, new, i, 0), carry, own)

    return jax.lax.fori_loop(0, n_chunks, on_chunk, (states, metrics))


def _train_slots(network: Network, shared: Shared, bucket: Bucket, state: State, run: Run, rows, view, key, number):
    """Trains a chunk's runs for one step.

    Args:
      rows, view: `[slot, batch]`, or `[batch]` if the runs share a batch.
      key: of the epoch.
      number: of the step in its epoch; `[slot]` where it differs, -1 for a run that stays as it is, without metrics.
    """

    def step(state, run, rows, view, number):
        own_key = jax.random.fold_in(key, number)
        # The barriers keep XLA from fusing a step with its surroundings, so that a step rounds alike in an epoch
        # and alone, as far as XLA allows.
        before, run, batch = jax.lax.optimization_barrier((state, run, take_batch(shared.data, bucket, rows, view)))
        after, metrics = jax.lax.optimization_barrier(train_step(network, shared.frozen, before, run, batch, own_key))
        if number.ndim == numbered.ndim:
            return after, metrics
        after = jax.tree.map(lambda new, old: jnp.where(number >= 0, new, old), after, before)
        return after, metrics._replace(present=metrics.present & (number >= 0))

    numbered = jnp.asarray(number)
    per_slot = None if rows.ndim == 1 else 0
    axes = (0, 0, per_slot, per_slot, None if numbered.ndim == 0 else 0)
    return jax.vmap(step, in_axes=axes)(state, run, rows, view, numbered)


@jax.jit
def over_epoch(metrics: StepMetrics) -> EpochMetrics:
    """Reduces the metrics of all steps, `[chunk, slot, step, task]`, to those that `train_epoch` returns."""
    return jax.lax.map(lambda chunk: _over_steps(jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), chunk)), metrics)


def _over_steps(metrics: StepMetrics) -> EpochMetrics:
    """Reduces `[step, slot, task]`, leaving out steps in which a task was absent."""
    present = metrics.present
    taken = present.any(axis=-1, keepdims=True) | ~present.any()  # a step without any task is one that a run leaves out
    count = jnp.maximum(present.sum(axis=0), 1).astype(metrics.losses.dtype)
    zero = jnp.zeros((), metrics.losses.dtype)

    def mean(x):
        return jnp.where(present, x, zero).sum(axis=0) / count

    lowest = jnp.where(taken, metrics.weights, jnp.inf).min(axis=0)
    highest = jnp.where(taken, metrics.weights, -jnp.inf).max(axis=0)
    return EpochMetrics(mean(metrics.losses), mean(metrics.weights), lowest, highest)


@partial(jax.jit, static_argnames="model")
def predict(
    params: Any,
    runs: Run,
    shared: Shared,
    rows: tuple[Int[Array, "chunk slot _n_batch _batch"], ...],
    *,
    model: JointModel,
) -> tuple[Float[Array, "chunk slot column class"], Float[Array, "chunk slot column dim"]]:
    """Returns class probabilities and dimensions (half scales) of each run's rows, bucket after bucket."""

    def predict_chunk(args):
        params, run, rows = args

        def on_run(params, run, rows):
            outputs = []
            for bucket, of_bucket in zip(shared.data.buckets, rows, strict=True):
                if of_bucket.size:
                    on_batch = partial(_predict_run, model, shared, bucket, params, run)
                    outputs.append(jax.lax.map(on_batch, of_bucket))
            flat = [jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), out) for out in outputs]
            return tuple(jnp.concatenate(parts) for parts in zip(*flat, strict=True))

        return jax.vmap(on_run)(params, run, rows)

    return jax.lax.map(predict_chunk, (params, runs, rows))


@partial(jax.jit, static_argnames="model")
def predict_batch(
    params: Any, runs: Run, shared: Shared, bucket: Bucket, rows: Int[Array, "chunk slot batch"], *, model: JointModel
) -> tuple[Float[Array, "chunk slot batch class"], Float[Array, "chunk slot batch dim"]]:
    """Returns one batch of `predict`, whose frames are in `bucket`; the buckets of the shared data are not read."""
    predict_slots = jax.vmap(partial(_predict_run, model, shared, bucket))
    return jax.lax.map(lambda args: predict_slots(*args), (params, runs, rows))


def _predict_run(model: JointModel, shared: Shared, bucket: Bucket, params: Any, run: Run, rows):
    batch = jax.lax.optimization_barrier(take_batch(shared.data, bucket, rows, jnp.zeros_like(rows)))
    logits, vad = predict_step(model, shared.frozen, params, run, batch)
    return jax.nn.softmax(logits), vad


@partial(jax.jit, donate_argnames="tree")
def rearrange(tree: Any, place: Int[Array, " place"]) -> Any:
    """Returns arrays `[chunk, slot, ...]` with what was at these places; those given are used up."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[place].reshape(x.shape), tree)


@partial(jax.jit, donate_argnames="best")
def keep_best(
    best: Best, params: Any, score: Float[Array, "chunk slot"], improved: Bool[Array, "chunk slot"], epoch
) -> Best:
    """Takes over the parameters of the runs that improved."""

    def choose(new, old):
        return jnp.where(improved.reshape(improved.shape + (1,) * (new.ndim - 2)), new, old)

    return Best(jax.tree.map(choose, params, best.params), choose(score, best.score), choose(epoch, best.epoch))
