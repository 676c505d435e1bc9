"""What runs look at: gradient times input in closed form, padding, company, and the weights of attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny_models import shake
from tiny_study import hparams

from sejax.data.types import Batch, Scale
from sejax.engine.explain import Looked, look
from sejax.engine.step import Frozen, Run, predict_above, visible_inputs
from sejax.models.heads import Heads
from sejax.models.joint import JointModel, Rates, StreamSpec, Trunk
from sejax.nn.attention import attention_of_jax

RUNS, FEATURES, STATISTICS, CLASSES = 2, 5, 6, 4
LENGTHS = {"a": np.array([24, 9, 14]), "b": np.array([7, 16, 12])}
BATCH = 3
NO_DROPOUT = Rates(jnp.float32(0.0), jnp.float32(0.0))
FROZEN = Frozen({}, {})


def model_of(*encoders: str, activation: bool = True, guided: str = "") -> JointModel:
    streams = tuple(StreamSpec(name, encoder, 1, 4) for name, encoder in zip("ab", encoders, strict=True))
    trunk = Trunk(streams, 8, 8, 2, True, True, True, guided=guided, activation=activation)
    return JointModel(trunk, Heads(CLASSES, 3))


def make_batch(extra: int = 0, beyond: float = 0.0, rows: slice = slice(None)) -> Batch:
    """Returns three utterances of two streams, with so many more frames of padding, `beyond` in all of it."""
    random = np.random.default_rng(0)
    frames, statistics = {}, {}
    for name, lengths in LENGTHS.items():
        x = np.full((BATCH, lengths.max() + extra, FEATURES), beyond, np.float32)
        for row, length in enumerate(lengths):
            x[row, :length] = random.normal(size=(length, FEATURES))
        frames[name] = x[rows]
        statistics[name] = random.normal(2, 3, (BATCH, STATISTICS)).astype(np.float32)[rows]
    lengths = {name: x[rows].astype(np.int32) for name, x in LENGTHS.items()}
    n = len(lengths["a"])
    targets = np.zeros((n, 1), np.float32), np.zeros((n, 3), np.float32)
    return jax.tree.map(jnp.asarray, Batch(np.zeros(n, np.int32), frames, lengths, statistics, *targets))


def with_runs(model: JointModel, encoded: str) -> tuple[dict, Run, Batch]:
    """Returns parameters and normalisation of two different runs, and a batch that has the frames of some streams."""
    batch = make_batch()
    batch = batch._replace(frames={name: batch.frames[name] for name in encoded})
    random = np.random.default_rng(1)

    def scale(size: int) -> Scale:
        return Scale(*(random.uniform(0.5, 1.5, (RUNS, size)).astype(np.float32) for _ in range(2)))

    runs = Run(
        jax.tree.map(lambda x: np.full(RUNS, x), hparams()),
        np.zeros((RUNS, 1), bool),
        np.ones((RUNS, CLASSES), np.float32),
        {name: scale(FEATURES) for name in encoded},
        {name: scale(STATISTICS) for name in LENGTHS},
    )
    first = jax.tree.map(lambda x: x[0], runs)
    inputs = visible_inputs(batch, first, jnp.ones(BATCH, bool))
    init = jax.jit(model.init)
    params = [shake(init(jax.random.key(seed), *inputs, NO_DROPOUT)["params"]) for seed in range(RUNS)]
    return jax.tree.map(lambda *x: jnp.stack(x), *params), jax.tree.map(jnp.asarray, runs), batch


def of_class(batch: Batch, place: int = 1) -> jax.Array:
    return jax.nn.one_hot(jnp.full(len(batch.utterance), place), CLASSES + 3)


def on_host(looked: Looked) -> Looked:
    return jax.tree.map(np.asarray, looked)


def total(looked: Looked) -> np.ndarray:
    return sum(part.signed.sum(axis=2) for part in (*looked.frames.values(), *looked.statistics.values()))


def test_of_a_linear_model_the_parts_add_up_to_the_logit_without_its_bias():
    model = model_of("none", "none", activation=False)
    params, runs, batch = with_runs(model, "")
    found = on_host(look(params, runs, FROZEN, batch, of_class(batch), model=model))
    trunk, head = params["trunk"]["fusion"], params["head"]["label"]
    weights = np.einsum("rif,rfc->ric", trunk["kernel"], head["kernel"])[:, :, 1]
    bias = np.einsum("rf,rf->r", trunk["bias"], head["kernel"][:, :, 1]) + head["bias"][:, 1]
    assert_allclose(found.at_mean, np.broadcast_to(bias[:, None], (RUNS, BATCH)), rtol=1e-4, atol=1e-5)
    assert_allclose(total(found), found.output - bias[:, None], rtol=1e-4, atol=1e-4)
    for place, name in enumerate(LENGTHS):
        scale = runs.statistic_scale[name]
        inputs = (batch.statistics[name][None] - scale.mean[:, None]) * scale.inverse[:, None]
        own = np.clip(inputs, -8, 8) * weights[:, None, place * STATISTICS : (place + 1) * STATISTICS]
        assert_allclose(found.statistics[name].signed, own, rtol=1e-4, atol=1e-5)
        assert_allclose(found.statistics[name].magnitude, np.abs(own).sum(axis=2), rtol=1e-4)
    assert found.frames == {} and found.attention == {}


@pytest.fixture(scope="module")
def looked() -> tuple[JointModel, tuple, Batch, Looked]:
    """A model of two encoded streams with every kind of attention, its runs, a batch, and what is looked at in it."""
    model = model_of("linear", "transformer", guided="b")
    params, runs, batch = with_runs(model, "ab")
    return model, (params, runs), batch, on_host(look(params, runs, FROZEN, batch, of_class(batch), model=model))


def test_neither_padding_nor_company_changes_what_is_looked_at(looked):
    model, own, _, found = looked
    row = 1
    alone = make_batch(13, 50.0, slice(row, row + 1))
    single = on_host(look(*own, FROZEN, alone, of_class(alone), model=model))
    for name, lengths in LENGTHS.items():
        time = found.frames[name].signed.shape[2]
        inside = np.arange(time) < lengths[:, None]
        assert np.abs(found.frames[name].signed[:, inside]).min() > 0
        assert_array_equal(found.frames[name].signed[:, ~inside], 0)
        assert_array_equal(single.frames[name].signed[:, :, lengths[row] :], 0)
        for kind in ("frames", "statistics"):
            part, other = (getattr(x, kind)[name] for x in (found, single))
            places = part.signed.shape[2]
            assert_allclose(other.signed[:, 0, :places], part.signed[:, row], rtol=1e-3, atol=1e-5)
            assert_allclose(other.magnitude[:, 0], part.magnitude[:, row], rtol=1e-3)
    for ours, theirs in zip(*map(jax.tree.leaves, (single.attention, found.attention)), strict=True):
        assert_allclose(ours[:, 0, : theirs.shape[2]], theirs[:, row], atol=1e-5)


def test_the_slope_is_that_of_the_output(looked):
    """Against the difference of two outputs, of values that are moved by a share of their distance from the mean."""
    model, own, batch, found = looked
    params, run = jax.tree.map(lambda x: x[0], own)
    predict = jax.jit(lambda batch: predict_above(model, FROZEN, params, run, batch)[0][:, 1])
    step, distance = 1e-2, batch.statistics["a"] - run.statistic_scale["a"].mean[None]
    moved = {**batch.statistics, "a": batch.statistics["a"] + step * distance}
    output = predict(batch)
    assert_allclose(found.output[0], output, rtol=1e-5, atol=1e-6)
    change = (predict(batch._replace(statistics=moved)) - output) / step
    assert_allclose(found.statistics["a"].signed[0].sum(axis=1), change, rtol=0.05, atol=2e-3)


def test_the_weights_of_attention_are_shares_and_the_same_on_every_device(looked):
    model, own, batch, found = looked
    of_a = {"self-attention", "co-attention from b", "pooling"}
    of_b = {"self-attention", "co-attention from a", "pooling", "encoder, block 0"}
    assert {name: set(layers) for name, layers in found.attention.items()} == {"a": of_a, "b": of_b}
    for name, layers in found.attention.items():
        for weights in layers.values():
            valid = np.arange(weights.shape[2]) < np.ceil(LENGTHS[name] / 4)[:, None]
            assert_allclose(weights.sum(axis=2), 1, rtol=1e-5)
            assert weights[:, valid].min() > 0
            assert np.abs(weights[:, ~valid]).max(initial=0) < 1e-12
    look.clear_cache()
    with attention_of_jax():
        dense = on_host(look(*own, FROZEN, batch, of_class(batch), model=model))
    look.clear_cache()
    for ours, theirs in zip(*map(jax.tree.leaves, (found.attention, dense.attention)), strict=True):
        assert_allclose(ours, theirs, atol=1e-6)
    assert_allclose(total(found), total(dense), rtol=1e-4, atol=1e-5)
