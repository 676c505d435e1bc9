"""Layers against plain loops, and the statistics of dropout."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from numpy.testing import assert_allclose, assert_array_equal
from tiny_models import shake, shapes, wide

from sejax.nn.generator import HASH
from sejax.nn.layers import LSTM, Conv, Dense, Dropout, LayerMix, LayerNorm, mask_frames, stack_frames

KEY = jax.random.key(0, impl=HASH)
DTYPES = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])


@pytest.mark.parametrize(
    "layer",
    [
        Dense(4, dtype=jnp.bfloat16),
        Conv(4, width=3, unfold=True, dtype=jnp.bfloat16),
        Conv(4, width=3, unfold=False, dtype=jnp.bfloat16),
        LayerNorm(dtype=jnp.bfloat16),
        LSTM(2, dtype=jnp.bfloat16),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_in_bfloat16_gradients_are_summed_over_many_frames(layer):
    """Each of 12,000 frames adds its part: a sum in bfloat16 would stand still at 256 of them."""
    batch, time = 32, 375
    x = 1 + 0.1 * jax.random.normal(KEY, (batch, time, 4))
    inputs = (x, jnp.ones((batch, time), bool)) if isinstance(layer, LSTM) else (x,)
    params = shake(layer.init(KEY, *inputs))

    @partial(jax.jit, static_argnums=0)
    def gradient(layer, params):
        return jax.grad(lambda params: layer.apply(params, *inputs).astype(jnp.float32).sum())(params)

    for (path, ours), theirs in zip(
        jax.tree.leaves_with_path(gradient(layer, params)),
        jax.tree.leaves(gradient(layer.clone(dtype=jnp.float32), params)),
        strict=True,
    ):
        assert ours.dtype == jnp.float32
        assert_allclose(ours, theirs, atol=0.02 * np.abs(theirs).max(), err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(("features", "axis"), [(6, -1), ((2, 3), -1), (6, (-2, -1)), ((2, 3), (-2, -1))])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 5, 4)])
def test_dense_is_that_of_flax(features, axis, shape):
    x = jax.random.normal(KEY, shape)
    theirs = nn.DenseGeneral(features, axis)
    params = theirs.init(KEY, x)
    jax.tree.map(assert_array_equal, Dense(features, axis).init(KEY, x), params)
    params = shake(params)
    assert_array_equal(Dense(features, axis).apply(params, x), theirs.apply(params, x))


@pytest.mark.parametrize("width", [4, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("time", [11, 12])
def test_unfolded_convolution_is_the_convolution(width, stride, time):
    x = jax.random.normal(KEY, (2, time, 3))
    unfolded, native = (Conv(6, width, stride, unfold) for unfold in (True, False))
    params = unfolded.init(KEY, x)
    params["params"]["bias"] = jnp.arange(6.0)
    assert shapes(params) == shapes(native.init(KEY, x))
    y = unfolded.apply(params, x)
    assert y.shape == (2, -(-time // stride), 6)
    assert_allclose(y, native.apply(params, x), atol=1e-5)
    # Output frame t is centred on input frame stride * t.
    kernel, left = np.asarray(params["params"]["kernel"], np.float64), (width - 1) // 2
    t, padded = 2, np.pad(np.asarray(x, np.float64), ((0, 0), (left, width), (0, 0)))
    window = padded[:, stride * t : stride * t + width]
    assert_allclose(y[:, t], np.einsum("bwf,wfo->bo", window, kernel) + np.arange(6), atol=1e-5)


def test_lstm_equals_a_plain_loop():
    h, features, time = 3, 4, 7
    lengths = np.array([7, 4])
    x = np.random.default_rng(0).normal(size=(2, time, features)).astype(np.float32)
    mask = np.arange(time) < lengths[:, None]
    layer = LSTM(h)
    params = layer.init(KEY, jnp.asarray(x), jnp.asarray(mask))
    found = np.asarray(layer.apply(params, jnp.asarray(x), jnp.asarray(mask)))
    w_in, w_rec, bias = (
        np.asarray(params["params"][name], np.float64) for name in ("input_kernel", "recurrent_kernel", "bias")
    )
    assert_array_equal(bias, np.tile(np.repeat([0.0, 1.0, 0.0, 0.0], h), (2, 1)))

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    for row, n in enumerate(lengths):
        for direction, order in ((0, range(n)), (1, reversed(range(n)))):
            cell, out = np.zeros(h), np.zeros(h)
            gates = slice(direction * 4 * h, (direction + 1) * 4 * h)
            for t in order:
                i, f, g, o = np.split(x[row, t] @ w_in[:, gates] + out @ w_rec[direction] + bias[direction], 4)
                cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
                out = sigmoid(o) * np.tanh(cell)
                assert_allclose(found[row, t, direction * h : (direction + 1) * h], out, atol=1e-6)


def test_stack_frames_lays_frames_side_by_side():
    x = jnp.arange(2 * 5 * 2, dtype=jnp.float32).reshape(2, 5, 2)
    mask = jnp.arange(5)[None] < jnp.array([[5], [2]])
    y, stacked_mask = stack_frames(x.at[1, 2:].set(jnp.nan), mask, 2)
    assert_array_equal(y[0], [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 0]])
    assert_array_equal(y[1], [[10, 11, 12, 13], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert_array_equal(stacked_mask, [[1, 1, 1], [1, 0, 0]])


def test_mask_frames_puts_zeros_over_nan():
    x = jnp.full((1, 3, 2), jnp.nan).at[0, 0].set(1.0)
    assert_array_equal(mask_frames(x, jnp.array([[True, False, False]]))[0], [[1, 1], [0, 0], [0, 0]])


def test_dropout_takes_a_traced_rate():
    x = jnp.full((400, 100), 2.0)
    apply = jax.jit(lambda rate: Dropout().apply({}, x, rate, rngs={"dropout": KEY}))
    for rate in (0.1, 0.5, 0.8):
        y = np.asarray(apply(jnp.float32(rate)))
        assert_allclose((y == 0).mean(), rate, atol=0.01)
        assert_allclose(y[y != 0], 2 / (1 - rate), rtol=1e-5)
        assert_allclose(y.mean(), 2.0, rtol=0.02)
    assert apply._cache_size() == 1
    assert_array_equal(apply(jnp.float32(0.0)), x)
    assert_array_equal(apply(jnp.float32(1.0)), np.zeros_like(x))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.99, 1.0])
def test_dropout_keeps_every_element_equally_often(rate):
    """Over 4,000 keys. The sum of the squared deviations in units of chance has mean 1 per element."""
    n, x = 4000, jnp.ones((32, 24))
    drop = jax.jit(jax.vmap(lambda key: Dropout().apply({}, x, jnp.float32(rate), rngs={"dropout": key})))
    found = np.asarray(drop(jax.random.split(KEY, n)) != 0)
    if rate in (0.0, 1.0):
        assert found.all() if rate == 0 else not found.any()
        return
    chance = rate * (1 - rate)
    assert abs(found.mean() - (1 - rate)) < 5 * np.sqrt(chance / found.size)
    by_key = found.reshape(n, -1).sum(axis=1)
    by_element = found.sum(axis=0)
    for count, of, size in ((by_key, by_element.size, n), (by_element.ravel(), n, by_element.size)):
        chi_square = (np.square(count - of * (1 - rate)) / (of * chance)).mean()
        assert abs(chi_square - 1) < 5 * np.sqrt(2 / size)
    assert np.abs(by_element - n * (1 - rate)).max() < 5 * np.sqrt(n * chance)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_what_dropout_keeps_is_uncorrelated(rate):
    """Between neighbours along and across rows, and between keys, those that differ in one word among them.

    Keys are derived from one, are those of seeds, or have a random word.
    """
    n, rows, columns = 400, 64, 48
    bits = jax.jit(jax.vmap(lambda key: jax.random.bits(key, (rows, columns))))
    words = jax.random.bits(KEY, (n, 2))
    steps = jax.vmap(partial(jax.random.fold_in, KEY))(jnp.arange(n))
    split = jax.random.split(jax.random.key(1, impl=HASH), n)
    seeds = jax.vmap(partial(jax.random.key, impl=HASH))(jnp.arange(n))
    wrapped = (jax.random.wrap_key_data(words.at[:, word].set(7), impl=HASH) for word in range(2))
    for keys in (steps, split, seeds, *wrapped):
        found = ((np.asarray(bits(keys)) >= rate * 2**32) - (1 - rate)) / np.sqrt(rate * (1 - rate))
        flat = found.reshape(n, -1)
        pairs = {
            "along": flat[:, 1:] * flat[:, :-1],
            "across": flat[:, columns:] * flat[:, :-columns],
            "key to key": flat[1:] * flat[:-1],
            "key to the next but one": flat[2:] * flat[:-2],
        }
        for name, product in pairs.items():
            assert abs(product.mean()) < 5 / np.sqrt(product.size), name
        between = flat @ flat.T / np.sqrt(flat.shape[1])
        assert abs(between[~np.eye(n, dtype=bool)].std() - 1) < 0.03


def test_dropout_of_runs_with_one_key_is_one_mask():
    x = jax.random.uniform(KEY, (3, 40, 50), minval=1.0, maxval=2.0)

    def drop(x, rate, key):
        return Dropout().apply({}, x, rate, rngs={"dropout": key})

    rates = jnp.array([0.5, 0.5, 0.2])
    y = jax.jit(jax.vmap(drop, in_axes=(0, 0, None)))(x, rates, KEY) != 0
    assert_array_equal(y[0], drop(x[0], rates[0], KEY) != 0)  # the mask of the run alone
    assert_array_equal(y[0], y[1])
    assert (y[2] | ~y[0]).all()  # the same numbers against a lower rate
    apart = jax.jit(jax.vmap(drop))(x, rates, jax.random.split(KEY, 3)) != 0
    assert 0.4 < (apart[0] != apart[1]).mean() < 0.6


@DTYPES
def test_dropout_keeps_dtype_and_expectation(dtype):
    x = jnp.asarray([0.5, -2.0, 3.0, 100.0], dtype)
    apply = jax.jit(jax.vmap(lambda key: Dropout().apply({}, x, jnp.float32(0.3), rngs={"dropout": key})))
    y = apply(jax.random.split(KEY, 100_000))
    assert y.dtype == dtype
    # Five times chance, and what bfloat16 rounds.
    assert_allclose(
        wide(y).mean(axis=0) / wide(x), 1.0, atol=5 * np.sqrt(0.3 / 0.7 / 100_000) + (dtype != np.float32) / 256
    )


def test_dropout_is_the_identity_without_a_key():
    x = jnp.ones((4, 4))
    assert_array_equal(Dropout().apply({}, x, jnp.float32(0.9)), x)


def test_hidden_states_are_mixed_by_a_softmax():
    states = np.random.default_rng(0).normal(size=(2, 4, 3, 5)).astype(np.float32)  # [batch, time, layer, feature]
    mix = LayerMix(3)
    side_by_side = jnp.asarray(states.reshape(2, 4, 15))
    params = mix.init(KEY, side_by_side)
    assert_allclose(mix.apply(params, side_by_side), states.mean(axis=2), atol=1e-6)
    score = np.array([0.5, -1.0, 2.0], np.float32)
    weight = np.exp(score) / np.exp(score).sum()
    found = mix.apply({"params": {"layer_weights": score}}, side_by_side)
    assert_allclose(found, np.einsum("btlf,l->btf", states, weight), atol=1e-5)
