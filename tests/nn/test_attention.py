"""Attention by hand against jax's, and pooling over time against plain sums."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny_models import shake, wide

from sejax.nn import attention, cpu_attention
from sejax.nn.attention import AttentivePooling, GuidedPooling, attend

KEY = jax.random.key(0)
DTYPES = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])


@DTYPES
@pytest.mark.parametrize(
    ("cache_bytes", "long_bytes", "small_score"),
    [
        (cpu_attention.CACHE_BYTES, 1, 40),
        (4 * 2 * 7 * 11, 1, 40),
        (1, cpu_attention.LONG_BYTES, 40),
        (1, 4 * 3 * 11, 40),
        (1, 4 * 3 * 11, 0),
    ],
    ids=["all", "an utterance", "a head", "three queries", "no small scores"],
)
def test_attention_by_hand_is_that_of_jax(dtype, cache_bytes, long_bytes, small_score, monkeypatch):
    """Over a leading axis of runs, in blocks of every size; of the last utterance one frame is all there is."""
    monkeypatch.setattr(cpu_attention, "CACHE_BYTES", cache_bytes)
    monkeypatch.setattr(cpu_attention, "LONG_BYTES", long_bytes)
    monkeypatch.setattr(cpu_attention, "SMALL_SCORE", small_score)
    runs, batch, time_q, time_m, heads, features = 2, 3, 7, 11, 2, 8
    rng = np.random.default_rng(0)
    q, dy = (rng.normal(0, 2, (runs, batch, time_q, heads, features)) for _ in range(2))
    k, v = (rng.normal(0, 2, (runs, batch, time_m, heads, features)) for _ in range(2))
    mask = jnp.arange(time_m)[None] < jnp.array([[11], [4], [1]])
    beyond = 1e3 * ~np.asarray(mask)[None, :, :, None, None]
    arrays = [jnp.asarray(x, dtype) for x in (q, k + beyond, v + beyond, dy)]

    def course(q, k, v, dy, by_hand):
        y, back = jax.vjp(lambda *qkv: attend(*qkv, mask, by_hand=by_hand), q, k, v)
        return y, *back(dy)

    found = jax.jit(jax.vmap(partial(course, by_hand=True)))(*arrays)
    with jax.numpy_dtype_promotion("standard"):  # jax's own derivative mixes dtypes
        expected = jax.jit(jax.vmap(partial(course, by_hand=False)))(*arrays)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype == dtype
        assert np.isfinite(wide(ours)).all()
        tolerance = 1e-6 if dtype == jnp.float32 else 2e-2
        assert_allclose(wide(ours), wide(theirs), atol=tolerance * np.abs(wide(theirs)).max())
    y, dq, dk, dv = map(wide, found)
    for run in range(runs):
        only = np.broadcast_to(wide(arrays[2])[run, 2, :1], y[run, 2].shape)
        assert_allclose(y[run, 2], only, rtol=2 * float(jnp.finfo(dtype).eps))  # a weight over itself
    assert_allclose(dq[:, 2], 0.0, atol=1e-5 if dtype == jnp.float32 else 0.2)
    hidden = ~np.asarray(mask)
    assert not dk[:, hidden].any()
    assert not dv[:, hidden].any()


def test_pooling_is_the_weighted_mean_and_deviation_of_valid_frames():
    lengths = np.array([24, 9, 14])
    x = jax.random.normal(KEY, (3, 24, 5))
    mask = jnp.arange(24)[None] < lengths[:, None]
    layer = AttentivePooling()
    params = layer.init(KEY, x, mask)
    y = layer.apply(params, x, mask)
    score, dense = (params["params"][name] for name in ("Dense_0", "Dense_1"))
    for i, n in enumerate(lengths):
        valid = np.asarray(x[i, :n], np.float64)
        s = np.tanh(valid @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])) @ np.asarray(score["kernel"])[:, 0]
        weight = np.exp(s) / np.exp(s).sum()
        mean = weight @ valid
        deviation = np.sqrt(weight @ np.square(valid - mean) + 1e-5)
        assert_allclose(y[i], np.concatenate([mean, deviation]), atol=1e-5)


def test_pooling_of_equal_frames_has_a_finite_gradient():
    x, mask = jnp.ones((1, 4, 3)), jnp.array([[True, True, False, False]])
    layer = AttentivePooling()
    params = layer.init(KEY, x, mask)
    gradient = jax.grad(partial(lambda x: layer.apply(params, x, mask).sum()))(x)
    assert np.isfinite(gradient).all()
    assert_array_equal(gradient[0, 2:], np.zeros((2, 3)))


def test_guided_pooling_follows_the_other_streams():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 6, 8)), jnp.float32)
    mask = jnp.asarray(np.arange(6) < np.array([[6], [4]]))
    others = jnp.asarray(rng.normal(size=(2, 10)), jnp.float32)
    pooling = GuidedPooling()
    params = shake(pooling.init(KEY, x, mask, others))
    found = np.asarray(pooling.apply(params, x, mask, others))
    p = params["params"]
    for i, n in enumerate((6, 4)):
        query = others[i] @ p["query"]["kernel"] + p["query"]["bias"]
        score = np.asarray(x[i, :n] @ p["key"]["kernel"]) @ query / np.sqrt(8)
        weight = np.exp(score) / np.exp(score).sum()
        assert_allclose(found[i], weight @ np.asarray(x[i, :n]), atol=1e-5)
    assert np.abs(np.asarray(pooling.apply(params, x, mask, -others)) - found).max() > 1e-2


def test_a_row_without_frames_is_finite(monkeypatch):
    """As the rows beyond a batch's utterances are."""
    monkeypatch.setattr(cpu_attention, "CACHE_BYTES", 1)
    q = jax.random.normal(KEY, (2, 5, 2, 4))
    mask = jnp.array([[True] * 3 + [False] * 2, [False] * 5])
    y, back = jax.vjp(lambda q: attend(q, q, q, mask, by_hand=True), q)
    assert np.isfinite(y).all()
    assert np.isfinite(back(jnp.ones_like(y))[0]).all()


def test_large_scores_of_long_inputs_stay_finite(monkeypatch):
    """Where exponents would overflow, the largest score is subtracted: a key that is the query's own takes all."""
    monkeypatch.setattr(cpu_attention, "CACHE_BYTES", 1)
    time, features = 12, 8
    q = k = 100.0 * jax.random.normal(KEY, (1, time, 1, features))
    v = jax.random.normal(jax.random.key(1), q.shape)
    y = attend(q, k, v, jnp.ones((1, time), bool), by_hand=True)
    assert_allclose(y, attend(q, k, v, jnp.ones((1, time), bool), by_hand=False), atol=1e-6)


@pytest.mark.parametrize("by_hand", [True, False])
def test_what_queries_attend_to_is_the_mean_of_their_weights(by_hand, monkeypatch):
    """Against the softmax written out; queries of padding do not count."""
    monkeypatch.setattr(attention, "attend", partial(attend, by_hand=by_hand))
    rng = np.random.default_rng(0)
    q, k = rng.normal(0, 2, (2, 5, 2, 8)).astype(np.float32), rng.normal(0, 2, (2, 7, 2, 8)).astype(np.float32)
    memory, queries = np.arange(7) < np.array([[7], [3]]), np.arange(5) < np.array([[5], [2]])
    scores = np.where(memory[:, None, None], np.einsum("bqhf,bmhf->bhqm", q, k) / np.sqrt(8), -np.inf)
    weights = np.exp(scores) / np.exp(scores).sum(axis=3, keepdims=True)
    expected = np.stack([weights[row][:, queries[row]].mean(axis=(0, 1)) for row in range(2)])
    found = attention.attended(*map(jnp.asarray, (q, k, memory, queries)))
    assert_allclose(found, expected, atol=1e-6)
