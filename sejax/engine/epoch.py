"""Steps of single runs as programs over all runs: `jit(loop over chunks(loop over steps(vmap over slots(step))))`.

Runs are stacked as `[chunk, slot, ...]` (see `runs`). The data and the frozen pretrained models are arguments that
all runs share; a fold is only the mask `Run.trained`. A program trains a part of an epoch (`train_part`): the whole;
the steps of a round on one bucket, where one program for all buckets would take too long to compile; or one step, if
frames are streamed.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key

from sejax.data.order import take_batch
from sejax.data.types import AnyArray, Batch, Bucket, Data, Order
from sejax.engine.leaves import Leaves
from sejax.engine.step import (
    Frozen,
    Network,
    Run,
    State,
    StepMetrics,
    init_params,
    init_state,
    predict_step,
    train_step,
)
from sejax.models.joint import JointModel
from sejax.nn.generator import HASH


class Shared(NamedTuple):
    """The arrays that all runs read."""

    data: Data
    frozen: Frozen


def without_frames(shared: Shared) -> Shared:
    """Returns what the programs of all buckets read."""
    return shared._replace(data=shared.data._replace(buckets=()))


class Chunk(NamedTuple):
    """The runs of a program and what tells them apart, stacked as `[chunk, slot, ...]`.

    `order_row` is each run's row of an `Order`; or each chunk's, whose runs then share their batches, and the frozen
    forward pass of a batch is computed once for all of them. Dropout and masking depend on seed, epoch and step alone.
    """

    runs: Run
    order_row: Int[AnyArray, "chunk slot"] | Int[AnyArray, " chunk"]
    seed: Int[AnyArray, " chunk"]


class Part(NamedTuple):
    """Steps of an epoch that follow each other: some of its rounds, with steps on some of the buckets."""

    epoch: Int[AnyArray, ""]
    rows: tuple[Int[AnyArray, "order round _step batch"], ...]  # per bucket, rows of that bucket
    view: tuple[Int[AnyArray, "order round _step batch"], ...]
    first: tuple[Int[AnyArray, "*order_or_none round"], ...]  # number in the epoch of the first step of each round
    taken: tuple[Int[AnyArray, "*order_or_none round"], ...]  # steps of each round that are taken, see `Order`


def one_step(
    epoch: int,
    number: Int[np.ndarray, "*order_or_none"],
    rows: Int[np.ndarray, "order batch"],
    view: Int[np.ndarray, "order batch"],
) -> Part:
    """Returns a step of an epoch as a part of its own.

    Args:
      number: of the step in the epoch, -1 for orders without it.
      rows: in the block that the frames are in.
      view: of each row.
    """
    first = np.asarray(number, np.int32)[..., None]
    taken = (first >= 0).astype(np.int32)
    return Part(np.int32(epoch), (rows[:, None, None],), (view[:, None, None],), (first,), (taken,))


def parts(epoch: int, order: Order, *, together: bool) -> list[tuple[tuple[int, ...], Part]]:
    """Returns the parts of an epoch in turn, each with the numbers of its buckets.

    Args:
      together: whether the epoch is one part. If not, each round has a part for each bucket, unless there is only one.
    """
    filled = tuple(bucket for bucket, rows in enumerate(order.rows) if rows.shape[2])

    def part(buckets: tuple[int, ...], of: slice) -> Part:
        batches = (tuple(x[bucket][:, of] for bucket in buckets) for x in (order.rows, order.view))
        steps = (tuple(x[bucket][..., of] for bucket in buckets) for x in (order.first, order.taken))
        return Part(np.int32(epoch), *batches, *steps)

    if together or len(filled) == 1:
        return [(filled, part(filled, slice(None)))]
    rounds = range(order.rows[0].shape[1])
    return [
        ((bucket,), part((bucket,), slice(i, i + 1)))
        for i in rounds
        for bucket in filled
        if order.taken[bucket][..., i].any()
    ]


class EpochMetrics(NamedTuple):
    """Means over the steps of an epoch in which the task was present; weights also by their extremes."""

    loss: Float[Array, "chunk slot task"]
    weight: Float[Array, "chunk slot task"]
    weight_min: Float[Array, "chunk slot task"]
    weight_max: Float[Array, "chunk slot task"]


class Best(NamedTuple):
    """The best epoch of each run so far, by its score on validation."""

    params: Float[Array, "chunk slot parameter"]
    score: Float[Array, "chunk slot"]
    epoch: Int[Array, "chunk slot"]


def leaves_of(chunk: Chunk, shared: Shared, start: Any, *, network: Network) -> Leaves:
    """Returns the places of a run's parameters in their vector; arguments as for `init_runs`, or their shapes."""

    def params(chunk: Chunk, shared: Shared, start: Any) -> Any:
        run = jax.tree.map(lambda x: x[0, 0], chunk.runs)
        return init_params(network, shared.frozen, start, run, first_batch(shared.data), jax.random.key(0))

    return Leaves.of(jax.eval_shape(params, chunk, shared, start))


@partial(jax.jit, static_argnames=("network", "by_run"))
def init_runs(
    chunk: Chunk, shared: Shared, start: Any, *, network: Network, by_run: NamedSharding | None = None
) -> State:
    """Returns the states of all runs before the first step, `[chunk, slot, ...]`; runs of one seed start alike.

    Args:
      start: pretrained values of trained parameters, by stream; each run gets a copy.
      by_run: how the states lie on the devices. Without it, each may get the states of all runs.
    """
    batch = first_batch(shared.data)

    def init_chunk(chunk: Chunk):
        key = jax.random.key(chunk.seed)
        return jax.vmap(lambda run: init_state(network, shared.frozen, start, run, batch, key))(chunk.runs)

    states = jax.lax.map(init_chunk, chunk)
    return states if by_run is None else jax.lax.with_sharding_constraint(states, by_run)


def first_batch(data: Data) -> Batch:
    """Returns one utterance of the shortest bucket: enough to learn the shapes."""
    zero = jnp.zeros(1, jnp.int32)
    return take_batch(data, data.buckets[0], zero, zero)


@partial(jax.jit, static_argnames=("network", "by_run"), donate_argnames="states")
def train_part(
    states: State,
    metrics: StepMetrics,
    chunk: Chunk,
    shared: Shared,
    buckets: tuple[Bucket, ...],
    part: Part,
    n_chunks: Int[Array, ""],
    *,
    network: Network,
    by_run: NamedSharding,
) -> tuple[State, StepMetrics]:
    """Trains the runs of the first `n_chunks` chunks for a part of an epoch; the states given are used up.

    The runs of the other chunks stay as they are, and cost no time. Each device trains its own runs, and takes no part
    in what the others do.

    Args:
      metrics: of the epoch so far, `[chunk, slot, step, task]`.
      shared: the buckets of its data are not read.
      buckets: those of the part.
      network: with its leaves.
      by_run: how what a run has lies on the devices.
    """
    own, everywhere = by_run.spec, PartitionSpec()
    order_row = everywhere if chunk.order_row.ndim == 1 else own
    of_chunks = own, own, Chunk._make((own, order_row, everywhere))
    train = jax.shard_map(
        partial(_train_chunks, network),
        mesh=by_run.mesh,
        in_specs=(*of_chunks, everywhere, everywhere, everywhere, everywhere),
        out_specs=(own, own),
        check_vma=False,  # a loop of as many turns as a device's runs need would not pass
    )
    return train(states, metrics, chunk, shared, buckets, part, n_chunks)


def _train_chunks(
    network: Network,
    states: State,
    metrics: StepMetrics,
    chunk: Chunk,
    shared: Shared,
    buckets: tuple[Bucket, ...],
    part: Part,
    n_chunks: Int[Array, ""],
) -> tuple[State, StepMetrics]:
    """Trains the first chunks of one device in turn and in place: a loop of as many turns, in one program."""

    def on_chunk(i, carry):
        at_i = partial(jax.lax.dynamic_index_in_dim, index=i, keepdims=False)
        (state, of_steps), of_chunk = jax.tree.map(at_i, (carry, chunk))
        own = _train_chunk(network, state, of_steps, of_chunk, shared, buckets, part)
        return jax.tree.map(lambda x, new: jax.lax.dynamic_update_index_in_dim(x, new, i, 0), carry, own)

    return jax.lax.fori_loop(0, n_chunks, on_chunk, (states, metrics))


def _train_chunk(
    network: Network,
    state: State,
    metrics: StepMetrics,
    chunk: Chunk,
    shared: Shared,
    buckets: tuple[Bucket, ...],
    part: Part,
) -> tuple[State, StepMetrics]:
    """Trains a chunk's runs on one device; states, metrics and chunk are `[slot, ...]`."""
    run, order_row, seed = chunk
    key = jax.random.fold_in(jax.random.key(seed, impl=HASH), part.epoch)
    n_slots, n_steps, _ = metrics.losses.shape

    def of_runs(x):  # [round, step, slot, ...], or [round, step, ...] if the runs share their batches
        return x[order_row] if order_row.ndim == 0 else jnp.moveaxis(x[order_row], 0, 2)

    batches = [jax.tree.map(of_runs, of_bucket) for of_bucket in zip(part.rows, part.view, strict=True)]

    def on_bucket(place, i, carry):
        """Takes the steps of round `i` on a bucket: as many as the run with the most of them."""
        (rows, view), first, taken = batches[place], part.first[place][..., i], part.taken[place][..., i]
        if taken.ndim:
            first, taken = first[order_row], taken[order_row]

        def on_step(step, carry):
            state, metrics = carry
            number = first + step if taken.ndim == 0 else jnp.where(step < taken, first + step, -1)
            state, found = train_slots(
                network, shared, buckets[place], state, run, rows[i, step], view[i, step], key, number
            )
            here = jnp.broadcast_to(number, n_slots)[:, None, None] == jnp.arange(n_steps)[None, :, None]
            return state, jax.tree.map(lambda x, new: jnp.where(here, new[:, None], x), metrics, found)

        return jax.lax.fori_loop(0, taken.max(), on_step, carry)

    def on_round(i, carry):
        for place in range(len(buckets)):
            carry = on_bucket(place, i, carry)
        return carry

    return jax.lax.fori_loop(0, part.rows[0].shape[1], on_round, (state, metrics))


def train_slots(
    network: Network,
    shared: Shared,
    bucket: Bucket,
    state: State,
    run: Run,
    rows: Int[Array, "*slot batch"],
    view: Int[Array, "*slot batch"],
    key: Key[Array, ""],
    number: Int[Array, "*slot_or_none"],
) -> tuple[State, StepMetrics]:
    """Trains a chunk's runs for one step.

    Args:
      state: as a step takes it, `[slot, ...]`.
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
    """Reduces the metrics of all steps of an epoch, `[chunk, slot, step, task]`."""
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


@partial(jax.jit, static_argnames=("model", "leaves"))
def predict(
    params: Float[Array, "chunk slot parameter"],
    runs: Run,
    shared: Shared,
    rows: tuple[Int[Array, "chunk slot _n_batch _batch"], ...],
    *,
    model: JointModel,
    leaves: Leaves,
) -> tuple[Float[Array, "chunk slot column class"], Float[Array, "chunk slot column dim"]]:
    """Returns class probabilities and dimensions (half scales) of each run's rows, bucket after bucket."""

    def predict_chunk(args):
        params, run, rows = args

        def on_run(params, run, rows):
            outputs = []
            for bucket, of_bucket in zip(shared.data.buckets, rows, strict=True):
                if of_bucket.size:
                    on_batch = partial(_predict_run, model, leaves, shared, bucket, params, run)
                    outputs.append(jax.lax.map(on_batch, of_bucket))
            flat = [jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), out) for out in outputs]
            return tuple(jnp.concatenate(parts) for parts in zip(*flat, strict=True))

        return jax.vmap(on_run)(params, run, rows)

    return jax.lax.map(predict_chunk, (params, runs, rows))


@partial(jax.jit, static_argnames=("model", "leaves"))
def predict_batch(
    params: Float[Array, "chunk slot parameter"],
    runs: Run,
    shared: Shared,
    bucket: Bucket,
    rows: Int[Array, "chunk slot batch"],
    *,
    model: JointModel,
    leaves: Leaves,
) -> tuple[Float[Array, "chunk slot batch class"], Float[Array, "chunk slot batch dim"]]:
    """Returns one batch of `predict`, whose frames are in `bucket`; the buckets of the shared data are not read."""
    predict_slots = jax.vmap(partial(_predict_run, model, leaves, shared, bucket))
    return jax.lax.map(lambda args: predict_slots(*args), (params, runs, rows))


def _predict_run(model: JointModel, leaves: Leaves, shared: Shared, bucket: Bucket, params: Any, run: Run, rows):
    batch = jax.lax.optimization_barrier(take_batch(shared.data, bucket, rows, jnp.zeros_like(rows)))
    logits, vad = predict_step(model, shared.frozen, leaves.split(params), run, batch)
    return jax.nn.softmax(logits), vad


@partial(jax.jit, donate_argnames="tree")
def rearrange(tree: Any, place: Int[Array, " place"]) -> Any:
    """Returns arrays `[chunk, slot, ...]` with what was at these places; those given are used up."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[place].reshape(x.shape), tree)


@partial(jax.jit, donate_argnames="best")
def keep_best(
    best: Best,
    params: Float[Array, "chunk slot parameter"],
    score: Float[Array, "chunk slot"],
    improved: Bool[Array, "chunk slot"],
    epoch,
) -> Best:
    """Takes over the parameters of the runs that improved."""

    params = jnp.where(improved[..., None], params, best.params)
    return Best(params, jnp.where(improved, score, best.score), jnp.where(improved, epoch, best.epoch))
