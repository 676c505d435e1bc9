"""One step, and one epoch of many runs, on a toy corpus: 4 speakers, 24 utterances, 2 classes, 2 streams."""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from numpy.testing import assert_allclose, assert_array_equal
from tiny_study import assert_equal_trees, hyperparameters, recipe, steps

from sejax.corpora.schema import DIMENSIONS
from sejax.data.buckets import assemble
from sejax.data.order import epoch_order, prediction_rows
from sejax.data.scales import fold_scales
from sejax.data.types import Batch, Order, Scale, Stream
from sejax.engine import epoch, losses, step
from sejax.engine.augment import Augment, spec_augment
from sejax.engine.epoch import Chunk, Shared
from sejax.engine.imbalance import class_weight
from sejax.engine.leaves import Leaves
from sejax.engine.optimizer import adamw, is_kernel
from sejax.engine.runs import (
    batch_orders,
    enumerate_runs,
    even_slots,
    hparams_of,
    lay_out,
    run_sharding,
)
from sejax.engine.search import expand_grid
from sejax.engine.step import Frozen, HParams, Network, Run, StepMetrics
from sejax.engine.tasks import TASKS
from sejax.evaluation.metrics import ccc
from sejax.models.heads import Heads
from sejax.models.joint import JointModel, Rates, StreamSpec, Trunk
from sejax.protocols.folds import Fold

NOTHING_FROZEN = Frozen({}, {})

N, BATCH, EPOCHS = 24, 8, 40
SPEAKER = np.arange(N) // 6
TRAINED = np.stack([np.isin(SPEAKER, (0, 1)), np.isin(SPEAKER, (2, 3))])  # of fold 0 and of fold 1
STEPS = 2  # of the 12 utterances that a fold trains on
MODEL = JointModel(
    Trunk(
        streams=(StreamSpec("a", "conv", 1, 4), StreamSpec("b", "none", 1, 4)),
        width=8,
        fused=8,
        heads=2,
        self_attention=False,
        co_attention=False,
        statistics=True,
    ),
    Heads(classes=2, dimensions=3),
)
IN_BFLOAT16 = MODEL.clone(trunk=MODEL.trunk.clone(dtype=jnp.bfloat16))
TWO_TASKS, EVERY_DIMENSION = TASKS["class", "vad"], TASKS["class", *DIMENSIONS]
RECIPE = recipe(
    averaging=0.9,
    augment=Augment(1, 4, 1, 0.4),
    schemes=("static", "dynamic", "joint"),
)
NETWORK = Network(MODEL, RECIPE)
NO_MASKS = Augment(0, 0, 0, 0.0)
plain_recipe = partial(recipe, clip_norm=0.0, averaging=0.9, augment=NO_MASKS)
BASE = hyperparameters(learning_rate=0.02, dropout=0.1, statistics_dropout=0.1, label_smoothing=0.0)
GRID = {"weighting": ("static", "joint")}


class Raw(NamedTuple):
    """What `assemble` starts from."""

    streams: dict[str, Stream]
    target: np.ndarray
    vad: np.ndarray


def make_raw() -> Raw:
    """Class and dimensions can be told from the mean of the features."""
    rng = np.random.default_rng(0)
    label, level = np.arange(N) % 2, rng.uniform(-0.8, 0.8, N)
    streams = {}
    for name in "ab":
        frames = []
        for row in range(N):
            x = rng.normal(0, 0.5, (rng.integers(17, 25), 3))
            shift = np.array([4 * label[row], 3 * level[row], 0])
            frames.append((x + shift).astype(np.float32))
        statistics = np.stack([np.concatenate([x.mean(axis=0), x.std(axis=0)]) for x in frames])[:, None]
        streams[name] = Stream([frames], statistics.astype(np.float32))
    vad = np.stack([level, -0.5 * level, 0.3 * level + 0.2], axis=1).astype(np.float32)
    return Raw(streams, np.eye(2, dtype=np.float32)[label], vad)


class Study(NamedTuple):
    """The arguments of `train_part`, placed as a feed places them."""

    layout: Any
    chunk: Chunk
    shared: Shared
    parts: Any  # by epoch
    n_chunks: Any
    by_run: NamedSharding


def make_study(
    raw,
    *,
    base=BASE,
    grid=GRID,
    keep=None,
    runs_per_chunk=0,
    devices=1,
    n_buckets=1,
    frames_dtype=np.float16,
    together=True,
) -> Study:
    """Everything after features and folds, the way `train` does it; `keep` picks runs."""
    data, _ = assemble(
        raw.streams,
        encoded=raw.streams,
        target=raw.target,
        vad=raw.vad,
        n_buckets=n_buckets,
        batch_size=BATCH,
        trained=TRAINED,
        max_seconds=0.0,
        hop_seconds={"a": 0.01, "b": 0.01},
        frames_dtype=frames_dtype,
    )
    frame_scale, statistic_scale = fold_scales(data, list(TRAINED))
    class_weights = np.stack([class_weight("balanced", raw.target[rows]) for rows in TRAINED])
    runs = enumerate_runs(2, expand_grid(base, grid), [3])
    layout = lay_out(runs, slots=even_slots(runs, most=runs_per_chunk, devices=devices))
    fold = layout.scatter(np.array([run.fold for run in runs]))
    stacked = Run(
        jax.tree.map(layout.scatter, hparams_of(runs, RECIPE.schemes)),
        TRAINED[fold],
        class_weights[fold],
        jax.tree.map(lambda x: x[fold], frame_scale),
        jax.tree.map(lambda x: x[fold], statistic_scale),
        steps(STEPS, 3, STEPS * EPOCHS, *fold.shape),
    )
    folds = [Fold(str(i), own, ~own, ~own) for i, own in enumerate(TRAINED)]
    orders, _, _, order_of_run, _ = batch_orders(folds, runs, shared=False)
    order_row = layout.scatter(order_of_run)
    if keep is not None:
        stacked, order_row = jax.tree.map(lambda x: x[:, keep : keep + 1], (stacked, order_row))
    by_run = run_sharding(jax.local_devices()[:devices])
    shared = NamedSharding(by_run.mesh, PartitionSpec())

    def parts(number):
        own = epoch_order(
            [bucket.utterance for bucket in data.buckets],
            orders=orders,
            epoch=number,
            batch_size=BATCH,
            views=1,
        )
        return [
            (numbers, jax.device_put(part, shared)) for numbers, part in epoch.parts(number, own, together=together)
        ]

    chunks = layout.run.shape[0]
    seed = jnp.full(chunks, 3, jnp.int32)
    chunk = Chunk(jax.device_put(stacked, by_run), jax.device_put(order_row, by_run), seed)
    data = jax.device_put(jax.tree.map(np.asarray, data), shared)
    return Study(layout, chunk, Shared(data, NOTHING_FROZEN), parts, jnp.asarray(chunks, jnp.int32), by_run)


def no_metrics(study, recipe):
    shape = (*study.chunk.runs.trained.shape[:2], STEPS, len(recipe.tasks))
    return jax.device_put(StepMetrics.none(*shape), study.by_run)


def train_epoch(states, study, number, *, network):
    """Returns the states after an epoch, and its metrics."""
    shared = epoch.without_frames(study.shared)
    metrics = no_metrics(study, network.recipe)
    for numbers, part in study.parts(number):
        buckets = tuple(study.shared.data.buckets[n] for n in numbers)
        arguments = study.chunk, shared, buckets, part, study.n_chunks
        known = replace(network, leaves=leaves_of(study, network.model))
        states, metrics = epoch.train_part(states, metrics, *arguments, network=known, by_run=study.by_run)
        states, metrics = jax.device_put((states, metrics), study.by_run)
    return states, epoch.over_epoch(metrics)


def leaves_of(study, model=MODEL):
    return epoch.leaves_of(study.chunk, study.shared, {}, network=Network(model, RECIPE))


def train(study, epochs, *, model=MODEL):
    """Returns the states after some epochs, and the metrics of each."""
    network = Network(model, RECIPE)
    states = epoch.init_runs(study.chunk, study.shared, {}, network=network)
    states = jax.device_put(states, study.by_run)
    history = []
    for number in range(1, epochs + 1):
        states, metrics = train_epoch(states, study, number, network=network)
        history.append(jax.tree.map(np.asarray, metrics))
    return states, history


def of_run(study, tree, number):
    return jax.tree.map(lambda x: x[number], study.layout.collect(tree))


@pytest.fixture(scope="module")
def raw():
    return make_raw()


@pytest.fixture(scope="module")
def trained(raw):
    """Study and states of all four runs (2 settings x 2 folds) after three epochs."""
    study = make_study(raw)
    return study, *train(study, 3)


# ------------------------------------------------------------------------------------------------------ leaks


@pytest.mark.parametrize("frames_dtype", ["float16", "float32"])
@pytest.mark.parametrize("garbage", [np.nan, 1e30])
def test_nothing_of_a_held_out_speaker_reaches_a_run(raw, garbage, frames_dtype):
    """The whole path after the features: rounding, padding, scales, class weights, batches, losses, weighting."""
    study = make_study(raw, frames_dtype=frames_dtype)
    states, history = train(study, 3)
    assert study.shared.data.buckets[0].frames["a"].dtype == frames_dtype
    held_out, garbage = ~TRAINED[0], np.float32(garbage)

    def spoil(x):
        return np.where(held_out.reshape(-1, *[1] * (x.ndim - 1)), garbage, x)

    streams = {
        name: Stream(
            [[np.full_like(x, garbage) if held_out[row] else x for row, x in enumerate(s.frames[0])]],
            spoil(s.statistics),
        )
        for name, s in raw.streams.items()
    }
    spoilt = make_study(Raw(streams, spoil(raw.target), spoil(raw.vad)), frames_dtype=frames_dtype)
    spoilt_states, spoilt_history = train(spoilt, 3)
    for number in (0, 2):  # fold 0, under both settings
        ours = of_run(study, states, number)
        assert_equal_trees(ours, of_run(spoilt, spoilt_states, number))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(ours))
        for mine, theirs in zip(history, spoilt_history, strict=True):
            assert_equal_trees(of_run(study, mine, number), of_run(spoilt, theirs, number))
    with pytest.raises(AssertionError):  # fold 1 trains on them
        assert_equal_trees(of_run(study, states, 1), of_run(spoilt, spoilt_states, 1))


# ---------------------------------------------------------------------------------------- stacking, sharding


def assert_same_course(ours, theirs, *, atol=1e-5):
    """Rounding grows over the steps through Adam: losses are compared, which it cannot hide in."""
    for a, b in zip(ours, theirs, strict=True):
        assert_allclose(a.loss, b.loss, atol=atol)
        assert_allclose(a.weight, b.weight, atol=10 * atol)


def test_a_stacked_run_is_the_run_alone(raw, trained):
    study, states, history = trained
    for number in range(4):
        alone = make_study(raw, keep=number)
        own_states, own_history = train(alone, 3)
        expected = [of_run(study, metrics, number) for metrics in history]
        assert_same_course([jax.tree.map(lambda x: x[0, 0], m) for m in own_history], expected)
        for a, b in zip(
            jax.tree.leaves(own_states.averaged), jax.tree.leaves(of_run(study, states.averaged, number)), strict=True
        ):
            assert_allclose(a[0, 0], b, atol=1e-3)
    everyone = study.layout.collect(history[-1].loss)
    assert np.ptp(everyone, axis=0).min() > 1e-3  # they are four different runs


def test_a_stacked_run_is_the_run_alone_in_bfloat16(raw):
    study, alone = make_study(raw), make_study(raw, keep=3)
    _, history = train(study, 3, model=IN_BFLOAT16)
    _, own_history = train(alone, 3, model=IN_BFLOAT16)
    expected = [of_run(study, metrics, 3) for metrics in history]
    assert_same_course([jax.tree.map(lambda x: x[0, 0], m) for m in own_history], expected, atol=5e-3)


def test_chunks_and_devices_do_not_change_a_run(raw, trained):
    """One run at a time on each of two devices, against all four at once on one."""
    study, _, history = trained
    other = make_study(raw, runs_per_chunk=1, devices=2)
    assert other.layout.run.shape == (2, 2)
    states, other_history = train(other, 3)
    assert len(jax.tree.leaves(states.params)[0].sharding.device_set) == 2
    assert_same_course(
        [other.layout.collect(metrics) for metrics in other_history],
        [study.layout.collect(metrics) for metrics in history],
    )


@pytest.mark.parametrize("together", [True, False])
def test_the_step_is_traced_once_per_bucket_and_each_part_compiled_once(raw, monkeypatch, together):
    traced, compiled = [], []
    original = epoch.train_step

    def counted(*args):
        traced.append(args)
        return original(*args)

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    study = make_study(raw, grid={}, n_buckets=2, together=together)
    assert len(study.shared.data.buckets) == 2
    states = epoch.init_runs(study.chunk, study.shared, {}, network=NETWORK)
    states = jax.device_put(states, study.by_run)
    epoch.over_epoch(no_metrics(study, NETWORK.recipe))
    monkeypatch.setattr(epoch, "train_step", counted)
    entries = epoch.train_part._cache_size()
    jax.monitoring.register_event_duration_secs_listener(listen)
    for number in range(1, 4):
        states, _ = train_epoch(states, study, number, network=NETWORK)
    jax.monitoring.unregister_event_duration_listener(listen)
    assert len(traced) == 2
    assert len(compiled) == epoch.train_part._cache_size() - entries == (1 if together else 2)


def test_the_first_states_are_computed_where_they_lie(raw):
    """No device gets the states of the others' runs, not even for a moment."""
    study = make_study(raw, devices=2)
    arguments = study.chunk, study.shared, {}
    lowered = epoch.init_runs.lower(*arguments, network=NETWORK, by_run=study.by_run)
    states = epoch.init_runs(*arguments, network=NETWORK, by_run=study.by_run)
    memory = lowered.compile().memory_analysis()
    assert memory.output_size_in_bytes < 0.6 * sum(x.nbytes for x in jax.tree.leaves(states))
    assert all(x.sharding.is_equivalent_to(study.by_run, x.ndim) for x in jax.tree.leaves(states))
    assert_equal_trees(states, epoch.init_runs(*arguments, network=NETWORK))


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("room", [(3,), (2, 1), (1, 0, 2)], ids=str)
def test_parts_take_the_steps_of_an_epoch_in_turn(room, together):
    """Round by round, in each round bucket by bucket; a part without room is left out."""
    rng, rounds, orders = np.random.default_rng(0), 4, 3
    rows, view = (tuple(rng.integers(0, 9, (orders, rounds, n, 5)) for n in room) for _ in range(2))
    count = tuple(rng.integers(0, n + 1, (orders, rounds)) for n in room)
    order = Order(rows, view, count)
    filled = [bucket for bucket, n in enumerate(room) if n]
    numbers, parts = zip(*epoch.parts(2, order, together=together), strict=True)
    if together or len(filled) == 1:
        assert numbers == (tuple(filled),)
        rounds_of = [range(rounds)]
    else:
        turns = [(i, bucket) for i in range(rounds) for bucket in filled if count[bucket][:, i].any()]
        assert numbers == tuple((bucket,) for _, bucket in turns)
        rounds_of = [[i] for i, _ in turns]
    for buckets, part, own in zip(numbers, parts, rounds_of, strict=True):
        assert part.epoch == 2
        for place, bucket in enumerate(buckets):
            assert_array_equal(part.rows[place], rows[bucket][:, own])
            assert_array_equal(part.view[place], view[bucket][:, own])
            assert_array_equal(part.taken[place], count[bucket][:, own])
            assert_array_equal(part.first[place], order.first[bucket][:, own])


def test_an_epoch_in_parts_equals_the_whole(raw):
    """A program for each bucket gives what one for all gives, but for rounding."""
    whole, divided = (make_study(raw, n_buckets=2, together=together) for together in (True, False))
    assert len(whole.parts(1)) == 1 < len(divided.parts(1))
    (states, history), (divided_states, divided_history) = train(whole, 2), train(divided, 2)
    for ours, theirs in zip(
        jax.tree.leaves((states, history)), jax.tree.leaves((divided_states, divided_history)), strict=True
    ):
        assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------------- missing tasks


def test_a_corpus_without_dimensions_trains_on_classes_alone(raw):
    study = make_study(raw._replace(vad=np.full_like(raw.vad, np.nan)))
    states, history = train(study, 3)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((states.params, history)))
    for metrics in history:
        assert_array_equal(metrics.weight[..., 1], 0.0)
        assert_array_equal(metrics.loss[..., 1], 0.0)
        assert (metrics.weight[..., 0] > 0).all()
    assert (history[-1].loss[..., 0] < history[0].loss[..., 0]).all()


def test_a_corpus_without_labels_trains_on_dimensions_alone(raw):
    study = make_study(raw._replace(target=np.zeros_like(raw.target)))
    states, history = train(study, 3)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((states.params, history)))
    for metrics in history:
        assert_array_equal(metrics.weight[..., 0], 0.0)
        assert (metrics.weight[..., 1] > 0).all()
    assert (history[-1].loss[..., 1] < history[0].loss[..., 1]).all()


def test_a_prior_of_zero_leaves_that_tasks_head_where_it_began(raw):
    base = {**BASE, "weight_decay": 0.0}
    study = make_study(raw, base=base, grid={"alpha": (0.0, 1.0)})
    before = epoch.init_runs(study.chunk, study.shared, {}, network=NETWORK)
    states, _ = train(study, 1)
    for number, (still, moved) in {0: ("label", "vad"), 2: ("vad", "label")}.items():
        own, first = (leaves_of(study).split(of_run(study, s.params, number))["head"] for s in (states, before))
        assert_equal_trees(own[still], first[still])
        assert np.abs(own[moved]["kernel"] - first[moved]["kernel"]).max() > 1e-3


# --------------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("model", [MODEL, IN_BFLOAT16], ids=["float32", "bfloat16"])
def test_it_learns_what_can_be_learned(raw, model):
    study = make_study(raw)
    states, history = train(study, EPOCHS, model=model)
    floats = {x.dtype for x in jax.tree.leaves(states) if jnp.issubdtype(x.dtype, jnp.floating)}
    assert floats == {np.dtype("float32")}  # parameters, their average, and what the optimizer keeps
    assert (history[-1].loss < 0.7 * history[0].loss).all()
    rows, columns = prediction_rows(study.shared.data, [np.flatnonzero(rows) for rows in TRAINED], 64)
    fold = study.layout.scatter(np.array([0, 1, 0, 1]))
    rows = jax.device_put(tuple(r[fold] for r in rows), study.by_run)
    outputs = epoch.predict(states.averaged, study.chunk.runs, study.shared, rows, model=model, leaves=leaves_of(study))
    prob, vad = study.layout.collect(outputs)
    assert_allclose(prob.sum(axis=-1), 1.0, rtol=1e-5)
    for number in range(4):
        own = columns[number % 2]
        accuracy = (prob[number].argmax(axis=1) == raw.target[own].argmax(axis=1)).mean()
        assert accuracy > 0.9
        for d in range(3):
            assert ccc(vad[number][:, d].astype(float), raw.vad[own][:, d].astype(float)) > 0.8


def test_the_best_parameters_are_those_of_the_best_epoch():
    def params(value):
        return jnp.full((1, 2, 3), value)

    best = epoch.Best(params(0.0), jnp.full((1, 2), -jnp.inf), jnp.zeros((1, 2), jnp.int32))
    for number, (score, improved) in enumerate([((0.5, 0.9), (1, 1)), ((0.7, 0.8), (1, 0))], 1):
        best = epoch.keep_best(
            best, params(float(number)), jnp.array([score]), jnp.array([improved], bool), jnp.asarray(number, jnp.int32)
        )
    assert_array_equal(best.epoch, [[2, 1]])
    assert_allclose(best.score, [[0.7, 0.9]])
    assert_array_equal(best.params[0, :, 0], [2, 1])


# -------------------------------------------------------------------------------------------------- one step


@pytest.fixture(scope="module")
def single():
    """One run and one batch of its own and of held-out speakers, and a step without dropout or masks."""
    plain = plain_recipe()
    rng = np.random.default_rng(1)
    batch = Batch(
        utterance=jnp.arange(6),
        frames={"a": jnp.asarray(rng.normal(size=(6, 16, 3)), jnp.float32), "b": jnp.zeros((6, 16, 3))},
        lengths={"a": jnp.array([16, 9, 12, 5, 16, 3]), "b": jnp.full(6, 16)},
        statistics={name: jnp.asarray(rng.normal(size=(6, 6)), jnp.float32) for name in "ab"},
        target=jnp.eye(2)[jnp.array([0, 1, 1, 0, 1, 0])].at[3].set(0.0),
        vad=jnp.asarray(rng.normal(size=(6, 3)), jnp.float32).at[2, 1].set(jnp.nan),
    )
    run = Run(
        HParams(*(jnp.float32(x) for x in (0.01, 0.1, 0.0, 0.0, 0.1, 0.3, 1.0)), jnp.int32(0), *[jnp.float32(0.0)] * 4),
        jnp.array([True, True, True, True, True, False]),
        jnp.array([0.8, 1.2]),
        {name: Scale(jnp.full(3, 0.5), jnp.full(3, 2.0)) for name in "ab"},
        {name: Scale(jnp.zeros(6), jnp.ones(6)) for name in "ab"},
        jax.tree.map(jnp.asarray, steps(STEPS, 0, 100)),
    )
    state = jax.jit(partial(step.init_state, Network(MODEL, plain), NOTHING_FROZEN, {}))(run, batch, jax.random.key(0))
    leaves = leaves_of_run(run, batch)
    advance = jax.jit(partial(step.train_step, Network(MODEL, plain, leaves), NOTHING_FROZEN))
    return state, run, batch, advance


def leaves_of_run(run, batch):
    network = Network(MODEL, plain_recipe())
    return Leaves.of(
        jax.eval_shape(partial(step.init_params, network, NOTHING_FROZEN, {}), run, batch, jax.random.key(0))
    )


def test_a_step_follows_the_gradient_of_the_weighted_losses(single):
    """Static weights: two walks through heads and one through the trunk are the gradient of one loss."""
    state, run, batch, advance = single
    after, metrics = advance(state, run, batch, jax.random.key(1))
    used = np.arange(5)
    frames = {name: (x[used] - 0.5) * 2.0 for name, x in batch.frames.items()}
    masks = {name: jnp.arange(16)[None] < n[used][:, None] for name, n in batch.lengths.items()}
    statistics = {name: x[used] for name, x in batch.statistics.items()}
    labelled = jnp.array([1.0, 1.0, 1.0, 0.0, 1.0])

    @partial(jax.grad, has_aux=True)
    def gradient(params):
        rates = Rates(jnp.float32(0.0), jnp.float32(0.0))
        logits, vad = MODEL.apply({"params": params}, frames, masks, statistics, rates)
        loss_class = losses.cross_entropy(
            logits, batch.target[used], labelled, label_smoothing=0.1, class_weight=run.class_weight
        )
        rated = jnp.isfinite(batch.vad[used]).astype(jnp.float32)
        loss_vad = losses.vad_loss("ccc", vad, batch.vad[used], rated)
        return 2 * 0.3 * loss_class + 2 * 0.7 * loss_vad, jnp.stack([loss_class, loss_vad])

    leaves = leaves_of_run(run, batch)
    grads, both = jax.jit(gradient)(leaves.split(state.params))
    assert_allclose(metrics.losses, both, rtol=1e-5)
    assert_allclose(metrics.weights, [0.6, 1.4], rtol=1e-6)
    assert metrics.present.all()
    adam = next(s for s in after.optimizer if isinstance(s, optax.ScaleByAdamState))
    for ours, theirs in zip(jax.tree.leaves(leaves.split(adam.mu)), jax.tree.leaves(grads), strict=True):
        assert_allclose(ours, 0.1 * theirs, rtol=1e-3, atol=1e-7)


def first_moments(single, **changes):
    """Adam's first moments after a step of another recipe from the same parameters: a tenth of the gradient."""
    state, run, batch, _ = single
    changed = plain_recipe(**changes)
    own = step.init_state(Network(MODEL, changed), NOTHING_FROZEN, {}, run, batch, jax.random.key(0))
    assert_equal_trees(own.params, state.params)
    after, metrics = jax.jit(
        partial(step.train_step, Network(MODEL, changed, leaves_of_run(run, batch)), NOTHING_FROZEN)
    )(own, run, batch, jax.random.key(1))
    adam = next(s for s in after.optimizer if isinstance(s, optax.ScaleByAdamState))
    return adam.mu, metrics


def test_with_every_dimension_a_task_the_losses_are_those_of_the_dimensions(single):
    together, two = first_moments(single)
    apart, four = first_moments(single, tasks=EVERY_DIMENSION)
    assert four.present.all()
    assert_allclose(four.losses[0], two.losses[0], rtol=1e-6)
    assert_allclose(four.losses[1:].mean(), two.losses[1], rtol=1e-6)
    assert_allclose(four.weights, 4 * np.array([0.3, *[0.7 / 3] * 3]), rtol=1e-6)
    # The same sum of losses, twice as large: constant weights sum to the number of tasks.
    for ours, theirs in zip(jax.tree.leaves(apart), jax.tree.leaves(together), strict=True):
        assert_allclose(ours, 2 * np.asarray(theirs), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("tasks", [TWO_TASKS, EVERY_DIMENSION])
def test_gradients_at_the_parameters_are_each_tasks_own(single, tasks):
    """Constant weights are blind to where gradients are taken; joint ones go by the norms over the whole trunk."""
    here, _ = first_moments(single, tasks=tasks, gradients_at="parameters")
    there, _ = first_moments(single, tasks=tasks)
    for ours, theirs in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        assert_allclose(ours, theirs, rtol=1e-3, atol=1e-7)

    _, found = first_moments(single, tasks=tasks, gradients_at="parameters", schemes=("joint",))
    _, other = first_moments(single, tasks=tasks, schemes=("joint",))
    state, run, batch, _ = single
    params = leaves_of_run(run, batch).split(state.params)
    norms = [trunk_gradient_norm(tasks, params, run, batch, k) for k in range(len(tasks))]
    prior = np.array([0.3, *[0.7 / (len(tasks) - 1)] * (len(tasks) - 1)])
    expected = prior / np.array(norms)
    assert_allclose(found.weights, len(tasks) * expected / expected.sum(), rtol=1e-3)
    assert np.abs(np.asarray(found.weights - other.weights)).max() > 1e-2


def trunk_gradient_norm(tasks, params, run, batch, task):
    """Of one task's loss at all parameters of the trunk, by plain differentiation of the whole model."""

    def loss(trunk):
        frames, masks, statistics = step.visible_inputs(batch, run, run.trained)
        rates = Rates(jnp.float32(0.0), jnp.float32(0.0))
        logits, vad = MODEL.apply({"params": {**params, "trunk": trunk}}, frames, masks, statistics, rates)
        if task == 0:
            labelled = (run.trained & (batch.target.sum(axis=1) > 0)).astype(jnp.float32)
            return losses.cross_entropy(
                logits, batch.target, labelled, label_smoothing=0.1, class_weight=run.class_weight
            )
        rated = (run.trained[:, None] & jnp.isfinite(batch.vad)).astype(jnp.float32)
        each = losses.dimension_losses("ccc", vad, batch.vad, rated)
        return each.mean() if tasks == TWO_TASKS else each[task - 1]

    return float(optax.tree.norm(jax.jit(jax.grad(loss))(params["trunk"])))


def test_the_average_follows_the_parameters_faster_at_first(single):
    state, run, batch, advance = single
    average = state.averaged
    for t in range(3):
        state, _ = advance(state, run, batch, jax.random.key(t))
        decay = min(0.9, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * state.params
        assert_allclose(state.averaged, average, atol=1e-6)
    late = step._moving_average(jnp.zeros(1), jnp.ones(1), jnp.int32(10_000), 0.9)
    assert_allclose(late, 0.1, rtol=1e-5)
    none = step._moving_average(jnp.zeros(1), jnp.ones(1), jnp.int32(10_000), 0.0)
    assert_array_equal(none, 1.0)


def test_features_far_out_are_clipped_and_what_is_not_finite_is_the_mean(single):
    _, run, batch, _ = single
    frames = batch.frames["a"].at[0, 0].set(jnp.array([1e30, -1e30, jnp.nan])).at[5, 0].set(jnp.nan)
    batch = batch._replace(frames={**batch.frames, "a": frames})
    seen, masks, _ = step.visible_inputs(batch, run, run.trained)
    assert_array_equal(seen["a"][0, 0], [8.0, -8.0, 0.0])
    assert not seen["a"][5].any()
    assert_allclose(seen["a"][1], (frames[1] - 0.5) * 2.0, rtol=1e-6)
    assert_array_equal(masks["a"].sum(axis=1), [16, 9, 12, 5, 16, 3])


# ------------------------------------------------------------------------------------------------- optimizer


@pytest.fixture
def optax_promotion():
    """As in `train_step`: optax raises floats to its integer counters."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.usefixtures("optax_promotion")
def test_only_kernels_decay():
    params = {"dense": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}, "norm": {"scale": jnp.ones(2)}}
    params["lstm"] = {"recurrent_kernel": jnp.ones(2)}
    decayed = {"dense": {"kernel": True, "bias": False}, "norm": {"scale": False}, "lstm": {"recurrent_kernel": True}}
    assert is_kernel(params) == decayed
    leaves = Leaves.of(params)
    vector = leaves.join(params)
    optimizer = adamw(0.1, jnp.where(leaves.decaying, 0.5, 0.0), warmup_steps=0, total_steps=10, clip_norm=1.0)
    updates, _ = optimizer.update(jnp.zeros_like(vector), optimizer.init(vector), vector)
    expected = jax.tree.map(lambda kernel: np.full(2, -0.05 if kernel else 0.0), decayed)
    for ours, theirs in zip(jax.tree.leaves(leaves.split(updates)), jax.tree.leaves(expected), strict=True):
        assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.usefixtures("optax_promotion")
def test_the_rate_warms_up_and_falls_to_zero():
    optimizer = adamw(jnp.float32(0.1), jnp.float32(0.0), warmup_steps=4, total_steps=20, clip_norm=0.0)
    params = {"bias": jnp.ones(())}
    state, sizes = optimizer.init(params), []
    update = jax.jit(optimizer.update)
    for _ in range(23):
        updates, state = update({"bias": jnp.ones(())}, state, params)
        sizes.append(-float(updates["bias"]))
    cosine = 0.05 * (1 + np.cos(np.pi * np.arange(17) / 16))
    assert_allclose(sizes, [0.0, 0.025, 0.05, 0.075, *cosine, 0.0, 0.0], atol=1e-6)


@pytest.mark.usefixtures("optax_promotion")
def test_the_gradient_is_clipped_by_its_global_norm():
    params = {"a": jnp.zeros(()), "b": jnp.zeros(())}
    for clip_norm, factor in ((1.0, 0.1), (0.0, 0.1 * 5.0)):
        optimizer = adamw(0.1, 0.0, warmup_steps=0, total_steps=10, clip_norm=clip_norm)
        _, state = optimizer.update({"a": jnp.float32(3.0), "b": jnp.float32(4.0)}, optimizer.init(params), params)
        adam = next(s for s in state if isinstance(s, optax.ScaleByAdamState))
        assert_allclose([adam.mu["a"], adam.mu["b"]], [factor * 0.6, factor * 0.8], rtol=1e-5)


# ----------------------------------------------------------------------------------------------- augmentation


def hidden_by(augment, seed=0):
    """Which values of two streams are hidden."""
    frames = {"a": jnp.ones((200, 40, 10)), "b": jnp.ones((200, 20, 6))}
    batch = Batch(jnp.arange(200), frames, {}, {}, jnp.zeros((200, 2)), jnp.zeros((200, 3)))
    return {name: np.isnan(y) for name, y in spec_augment(MODEL, batch, augment, jax.random.key(seed)).items()}


def test_time_masks_are_bands_of_whole_frames_no_wider_than_said():
    hidden = hidden_by(Augment(2, 5, 0, 0.0))["a"]
    assert_array_equal(hidden.all(axis=2), hidden.any(axis=2))
    per_row = hidden[:, :, 0]
    assert per_row.sum(axis=1).max() <= 2 * 5
    starts = (np.diff(np.pad(per_row, ((0, 0), (1, 0))).astype(int), axis=1) == 1).sum(axis=1)
    assert starts.max() == 2
    assert per_row.any(axis=0).all()  # every frame is hidden somewhere
    assert 0.05 < per_row.mean() < 0.25


def test_feature_masks_are_bands_of_whole_features_no_wider_than_said():
    hidden = hidden_by(Augment(0, 0, 1, 0.3))["a"]
    assert_array_equal(hidden.all(axis=1), hidden.any(axis=1))
    per_row = hidden[:, 0]
    assert 1 <= per_row.sum(axis=1).max() <= 3
    assert per_row.any(axis=0).all()


def test_masks_depend_on_the_key_alone_and_differ_by_stream_and_row():
    augment = Augment(1, 5, 1, 0.3)
    hidden, again, other = hidden_by(augment), hidden_by(augment), hidden_by(augment, seed=1)
    assert_equal_trees(hidden, again)
    assert (hidden["a"] != other["a"]).any()
    assert (hidden["a"][0] != hidden["a"][1]).any()
    assert (hidden["a"][:, :20, :6] != hidden["b"]).any()


def test_no_masks_leave_the_frames_as_they_are():
    frames = {"a": jnp.full((200, 4, 2), 7.0)}
    batch = Batch(jnp.arange(200), frames, {}, {}, jnp.zeros((200, 2)), jnp.zeros((200, 3)))
    seen = spec_augment(MODEL, batch, Augment(0, 5, 0, 0.3), jax.random.key(0))
    assert seen["a"] is frames["a"]
