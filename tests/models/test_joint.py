from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from numpy.testing import assert_allclose, assert_array_equal

from sejax.engine.losses import cross_entropy, vad_loss
from sejax.models.encoders import ENCODERS
from sejax.models.heads import Heads
from sejax.models.joint import JointModel, Rates, StreamSpec, Trunk
from sejax.nn import cpu_attention
from sejax.nn.attention import AttentivePooling, GuidedPooling, attend
from sejax.nn.layers import LSTM, Conv, Dense, Dropout, LayerMix, LayerNorm, mask_frames, random_24_bits, stack_frames
from tools import golden_joint

WIDTH, HEADS, FUSED, STRIDE = 8, 2, 8, 4
BATCH, FEATURES = 3, 5
LENGTHS = {"a": np.array([24, 9, 14]), "b": np.array([7, 16, 12])}
KEY = jax.random.key(0)
NO_DROPOUT = Rates(jnp.float32(0.0), jnp.float32(0.0))
DTYPES = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])


def make_inputs(extra=0, beyond=0.0):
    """Frames, masks, statistics; `extra` frames of padding, `beyond` in all padding."""
    rng = np.random.default_rng(0)
    frames, masks, statistics = {}, {}, {}
    for name, lengths in LENGTHS.items():
        time = lengths.max() + extra
        x = np.full((BATCH, time, FEATURES), beyond, np.float32)
        for i, n in enumerate(lengths):
            x[i, :n] = rng.normal(size=(n, FEATURES))
        frames[name] = jnp.asarray(x)
        masks[name] = jnp.asarray(np.arange(time) < lengths[:, None])
        statistics[name] = jnp.asarray(rng.normal(size=(BATCH, 6)), jnp.float32)
    return frames, masks, statistics


def shake(params):
    """Moves every parameter: fresh biases are 0, and a layer then makes 0 of padding by luck."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: p + jnp.asarray(rng.normal(0, 0.2, p.shape), p.dtype), params)


def wide(x):
    return np.asarray(x.astype(jnp.float32))


def shapes(params):
    return {jax.tree_util.keystr(k, simple=True, separator="/"): v.shape for k, v in jax.tree.leaves_with_path(params)}


# --------------------------------------------------------------------------------------------------- padding


@DTYPES
@pytest.mark.parametrize("kind", ENCODERS)
def test_no_encoder_sees_what_lies_beyond_the_end(kind, dtype):
    encoder = ENCODERS[kind](WIDTH, 1, STRIDE, dtype=dtype)
    apply = jax.jit(encoder.apply)
    frames, masks, _ = make_inputs()
    rate = jnp.float32(0.0)
    params = shake(jax.jit(encoder.init)(KEY, frames["a"], masks["a"], rate))
    expected, mask = apply(params, frames["a"], masks["a"], rate)
    assert expected.shape == (BATCH, 6, WIDTH)
    assert expected.dtype == dtype
    assert_array_equal(mask.sum(axis=1), np.ceil(LENGTHS["a"] / STRIDE))
    for extra, beyond in ((11, 1e3), (0, np.nan)):
        frames, masks, _ = make_inputs(extra, beyond)
        y, longer_mask = apply(params, frames["a"], masks["a"], rate)
        assert_array_equal(longer_mask[:, : mask.shape[1]], mask)
        assert not longer_mask[:, mask.shape[1] :].any()
        valid = np.asarray(mask)
        ours, theirs = (wide(x)[:, : mask.shape[1]][valid] for x in (y, expected))
        assert_allclose(ours, theirs, atol=1e-5 if dtype == jnp.float32 else 0.02)


@pytest.fixture(scope="module", params=[jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def whole(request):
    """The whole model of two streams: predictions jitted, their gradient jitted, parameters, what may differ."""
    streams = (StreamSpec("a", "lstm", 1, STRIDE), StreamSpec("b", "conv", 1, STRIDE))
    model = JointModel(Trunk(streams, WIDTH, FUSED, HEADS, True, True, True, dtype=request.param), Heads(4, 3))

    def loss(params, inputs):
        logits, vad = model.apply(params, *inputs, NO_DROPOUT)
        return jnp.square(logits).sum() + jnp.square(vad).sum(), (logits, vad)

    params = shake(jax.jit(model.init)(KEY, *make_inputs(), NO_DROPOUT))
    atol = 1e-5 if request.param == jnp.float32 else 0.02
    return jax.jit(model.apply), jax.jit(jax.grad(loss, has_aux=True)), params, atol


def test_padding_changes_neither_predictions_nor_gradient(whole):
    predict, gradient, params, atol = whole
    expected_gradient, expected = gradient(params, make_inputs())
    assert [x.shape for x in expected] == [(BATCH, 4), (BATCH, 3)]
    assert np.ptp(np.asarray(expected[1]), axis=0).min() > 1e-3
    for ours, theirs in zip(predict(params, *make_inputs(13, 1e3), NO_DROPOUT), expected, strict=True):
        assert_allclose(ours, theirs, atol=atol)
    found_gradient, found = gradient(params, make_inputs(0, np.nan))
    for ours, theirs in zip(found, expected, strict=True):
        assert_allclose(ours, theirs, atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(found_gradient), jax.tree.leaves(expected_gradient), strict=True):
        assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_an_utterance_is_predicted_alike_in_any_company(whole):
    _, gradient, params, _ = whole
    frames, masks, statistics = make_inputs()
    others = np.array([0, 2])
    changed = jax.tree.map(lambda x: x.at[others].set(3.0 * x[others] + 1.0), (frames, statistics))
    _, expected = gradient(params, (frames, masks, statistics))
    _, found = gradient(params, (changed[0], masks, changed[1]))
    for ours, theirs in zip(found, expected, strict=True):
        assert_allclose(ours[1], theirs[1], atol=1e-6)
        assert np.abs(ours[0] - theirs[0]).max() > 1e-3


# ----------------------------------------------------------------------------------------- the same in PyTorch


def test_outputs_losses_and_gradients_are_those_of_pytorch():
    golden = np.load(golden_joint.GOLDEN)

    def stored(kind):
        """Arrays by their names behind `kind/`."""
        return {
            name.split("/", 1)[1]: jnp.asarray(golden[name]) for name in golden.files if name.startswith(f"{kind}/")
        }

    frames, lengths, statistics = stored("frames"), stored("lengths"), stored("statistics")
    masks = {name: jnp.arange(x.shape[1])[None] < lengths[name][:, None] for name, x in frames.items()}
    target, rated = jnp.asarray(golden["target"]), jnp.asarray(golden["rated"])
    streams = tuple(StreamSpec(name, kind, 1, golden_joint.STRIDE) for name, kind in golden_joint.ENCODERS.items())
    width, fused, heads = golden_joint.WIDTH, golden_joint.FUSED, golden_joint.HEADS
    model = JointModel(Trunk(streams, width, fused, heads, True, True, True), Heads(4, 3))

    def loss(params):
        logits, vad = model.apply({"params": params}, frames, masks, statistics, NO_DROPOUT)
        ones = jnp.ones_like(rated)
        loss_class = cross_entropy(logits, target, ones[:, 0], label_smoothing=golden_joint.LABEL_SMOOTHING)
        found = jnp.stack([loss_class, vad_loss("ccc", vad, rated, ones)])
        return found.sum(), {"logits": logits, "vad": vad, "losses": found}

    params = traverse_util.unflatten_dict(stored("params"), sep="/")
    gradient, outputs = jax.jit(jax.grad(loss, has_aux=True))(params)
    for name, found in outputs.items():
        assert_allclose(found, golden[name], atol=1e-5, err_msg=name)
    expected = stored("gradients")
    found = traverse_util.flatten_dict(gradient, sep="/")
    assert found.keys() == expected.keys()
    for path, x in expected.items():
        assert_allclose(found[path], x, atol=1e-4 * float(jnp.abs(x).max()), err_msg=path)


# -------------------------------------------------------------------------------------------------- bfloat16


@pytest.fixture(scope="module")
def of_all_kinds():
    """A model of all parts in both dtypes: the gradient of its loss and its outputs, as functions of parameters."""
    streams = tuple(StreamSpec(name, kind, 1, STRIDE) for name, kind in zip("abc", ENCODERS, strict=False))
    inputs = tuple({**x, "c": x["a"]} for x in make_inputs())
    models = [
        JointModel(Trunk(streams, WIDTH, FUSED, HEADS, False, True, True, guided="c", dtype=dtype), Heads(4, 3))
        for dtype in (jnp.float32, jnp.bfloat16)
    ]

    def gradient(model):
        def loss(params):
            logits, vad = model.apply(params, *inputs, NO_DROPOUT)
            return jnp.square(logits).sum() + jnp.square(vad).sum(), (logits, vad)

        return jax.grad(loss, has_aux=True)

    params = shake(jax.jit(models[0].init)(KEY, *inputs, NO_DROPOUT))
    same = shapes(jax.eval_shape(models[1].init, KEY, *inputs, NO_DROPOUT))
    assert same == shapes(params)
    return *map(gradient, models), params


def error(ours, theirs):
    """Of all numbers of a tree together, relative to their size."""
    ours, theirs = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (ours, theirs))
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def test_in_bfloat16_a_model_does_about_the_same(of_all_kinds):
    exact, narrow, params = of_all_kinds
    (exact_gradient, exact_outputs), (gradient, outputs) = jax.jit(exact)(params), jax.jit(narrow)(params)
    assert {x.dtype for x in jax.tree.leaves((gradient, outputs))} == {np.dtype("float32")}
    assert 1e-4 < error(outputs, exact_outputs) < 0.02
    assert error(gradient, exact_gradient) < 0.05
    # Some gradients are small differences of large numbers.
    assert max(jax.tree.leaves(jax.tree.map(error, gradient, exact_gradient))) < 0.4


def equations(jaxpr) -> Iterator:
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns"):
                yield from equations(inner)
            elif hasattr(inner, "jaxpr"):
                yield from equations(inner.jaxpr)


def test_in_bfloat16_products_are_narrow_and_sums_are_not(of_all_kinds):
    _, narrow, params = of_all_kinds
    products, exact_products, sums = [], [], []
    for equation in equations(jax.make_jaxpr(narrow)(params).jaxpr):
        if equation.primitive.name == "dot_general":
            narrow_ones = {str(x.aval.dtype) for x in equation.invars} == {"bfloat16"}
            (products if narrow_ones else exact_products).append(str(equation.source_info.name_stack))
        if equation.primitive.name in ("reduce_sum", "exp", "logistic", "rsqrt", "sqrt"):
            x, out = equation.invars[0].aval, equation.outvars[0].aval
            if x.size > out.size or equation.primitive.name != "reduce_sum":  # else an axis of 1 is taken away
                sums.append(str(x.dtype))
    assert len(sums) > 100
    assert set(sums) == {"float32"}
    assert len(products) > 100
    assert all("/head/" in name or "_pooling" in name for name in exact_products), exact_products
    assert len(exact_products) == 3 * (2 + 3)  # heads and scores of pooling: forward, and back to both factors


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


# -------------------------------------------------------------------------------------------------- switches


SWITCHES = {"self_attention": True, "co_attention": True, "statistics": True}


def trunk_shapes(streams=("lstm", "conv"), **switches):
    specs = tuple(StreamSpec(name, kind, 1, STRIDE) for name, kind in zip("ab", streams, strict=False))
    trunk = Trunk(specs, WIDTH, FUSED, HEADS, **{**SWITCHES, **switches})
    return shapes(jax.eval_shape(trunk.init, KEY, *make_inputs(), NO_DROPOUT)["params"])


def test_every_part_is_there_once():
    found = trunk_shapes()
    parts = {name.split("/")[0] for name in found}
    of_stream = {f"{name}_{part}" for name in "ab" for part in ("encoder", "self", "pooling", "pooled_norm")}
    assert parts == of_stream | {"a_over_b", "b_over_a", "fusion"}
    assert found["fusion/kernel"] == (2 * (2 * WIDTH) + 2 * 6, FUSED)


@pytest.mark.parametrize(
    ("switch", "gone", "inputs"),
    [
        ({"self_attention": False}, {"a_self", "b_self"}, 44),
        ({"co_attention": False}, {"a_over_b", "b_over_a"}, 44),
        ({"statistics": False}, set(), 32),
        (
            {"streams": ("lstm",)},
            {"b_encoder", "b_self", "b_pooling", "b_pooled_norm", "a_over_b", "b_over_a"},
            22,
        ),
        (
            {"streams": ("lstm", "none")},
            {"b_encoder", "b_self", "b_pooling", "b_pooled_norm", "a_over_b", "b_over_a"},
            28,
        ),
    ],
)
def test_a_switch_takes_out_its_part_alone(switch, gone, inputs):
    parts = {name.split("/")[0] for name in trunk_shapes()}
    found = trunk_shapes(**switch)
    assert {name.split("/")[0] for name in found} == parts - gone
    assert found["fusion/kernel"] == (inputs, FUSED)


def test_statistics_alone_are_a_model():
    assert trunk_shapes(streams=("none", "none")) == {"fusion/kernel": (12, FUSED), "fusion/bias": (FUSED,)}


def test_attention_keys_have_no_bias():
    names = [name for name in trunk_shapes(streams=("transformer", "conv")) if "attention" in name]
    assert sum(name.endswith("key/kernel") for name in names) == 5
    assert not [name for name in names if name.endswith("key/bias")]
    assert sum(name.endswith("query/bias") for name in names) == 5


# ---------------------------------------------------------------------------------------------------- layers


@DTYPES
@pytest.mark.parametrize("cache_bytes", [cpu_attention.CACHE_BYTES, 1])
def test_attention_by_hand_is_that_of_jax(dtype, cache_bytes, monkeypatch):
    """Over a leading axis of runs, all utterances at a time or one; of the last one frame is all there is."""
    monkeypatch.setattr(cpu_attention, "CACHE_BYTES", cache_bytes)
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
        assert_array_equal(y[run, 2], np.broadcast_to(wide(arrays[2])[run, 2, :1], y[run, 2].shape))
    assert_allclose(dq[:, 2], 0.0, atol=1e-5 if dtype == jnp.float32 else 0.2)
    hidden = ~np.asarray(mask)
    assert not dk[:, hidden].any()
    assert not dv[:, hidden].any()


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
            own = slice(direction * 4 * h, (direction + 1) * 4 * h)
            for t in order:
                i, f, g, o = np.split(x[row, t] @ w_in[:, own] + out @ w_rec[direction] + bias[direction], 4)
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

    Keys come from threefry: each word is random.
    """
    n, rows, columns = 400, 64, 48
    bits = jax.jit(jax.vmap(lambda key: random_24_bits(key, (rows, columns))))
    words = jax.random.bits(KEY, (n, 2))
    steps = jax.vmap(partial(jax.random.fold_in, KEY))(jnp.arange(n))
    for keys in (steps, *(jax.random.wrap_key_data(words.at[:, word].set(7)) for word in range(2))):
        found = ((np.asarray(bits(keys)) >= rate * 2**24) - (1 - rate)) / np.sqrt(rate * (1 - rate))
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
    own = jax.jit(jax.vmap(drop))(x, rates, jax.random.split(KEY, 3)) != 0
    assert 0.4 < (own[0] != own[1]).mean() < 0.6


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


def test_pooling_is_the_weighted_mean_and_deviation_of_valid_frames():
    frames, masks, _ = make_inputs()
    x, mask = frames["a"], masks["a"]
    layer = AttentivePooling()
    params = layer.init(KEY, x, mask)
    y = layer.apply(params, x, mask)
    score, dense = (params["params"][name] for name in ("Dense_0", "Dense_1"))
    for i, n in enumerate(LENGTHS["a"]):
        own = np.asarray(x[i, :n], np.float64)
        s = np.tanh(own @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])) @ np.asarray(score["kernel"])[:, 0]
        weight = np.exp(s) / np.exp(s).sum()
        mean = weight @ own
        deviation = np.sqrt(weight @ np.square(own - mean) + 1e-5)
        assert_allclose(y[i], np.concatenate([mean, deviation]), atol=1e-5)


def test_pooling_of_equal_frames_has_a_finite_gradient():
    x, mask = jnp.ones((1, 4, 3)), jnp.array([[True, True, False, False]])
    layer = AttentivePooling()
    params = layer.init(KEY, x, mask)
    gradient = jax.grad(partial(lambda x: layer.apply(params, x, mask).sum()))(x)
    assert np.isfinite(gradient).all()
    assert_array_equal(gradient[0, 2:], np.zeros((2, 3)))


# ------------------------------------------------------------------------------- what pretrained streams need


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


def test_frames_and_statistics_share_their_mix():
    streams = (StreamSpec("a", "linear", 1, STRIDE, mixed=5), StreamSpec("b", "none", 1, STRIDE))
    trunk = Trunk(streams, WIDTH, FUSED, HEADS, **SWITCHES)
    frames, masks, statistics = make_inputs()
    statistics["a"] = jnp.zeros((BATCH, 5 * 4))  # five states, two features: their means and deviations
    found = shapes(jax.eval_shape(trunk.init, KEY, frames, masks, statistics, NO_DROPOUT)["params"])
    assert found["a_mix/layer_weights"] == (5,)
    assert [name for name in found if "mix" in name] == ["a_mix/layer_weights"]
    assert found["fusion/kernel"] == (2 * WIDTH + 4 + 6, FUSED)
    means = Trunk(streams, WIDTH, FUSED, HEADS, **SWITCHES, deviations=False)
    found = shapes(jax.eval_shape(means.init, KEY, frames, masks, statistics, NO_DROPOUT)["params"])
    assert found["fusion/kernel"] == (2 * WIDTH + 2 + 6, FUSED)


def test_a_probe_is_linear_in_its_statistics():
    probe = Trunk((StreamSpec("a", "none", 1, STRIDE),), WIDTH, FUSED, HEADS, **SWITCHES, activation=False)
    _, _, statistics = make_inputs()
    params = shake(probe.init(KEY, {}, {}, statistics, NO_DROPOUT))

    def predict(x):
        return np.asarray(probe.apply(params, {}, {}, {"a": x}, NO_DROPOUT))

    x = statistics["a"]
    assert_allclose(predict(3.0 * x) - predict(0.0 * x), 3.0 * (predict(x) - predict(0.0 * x)), atol=1e-4)


def test_guided_pooling_follows_the_other_streams():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 6, WIDTH)), jnp.float32)
    mask = jnp.asarray(np.arange(6) < np.array([[6], [4]]))
    others = jnp.asarray(rng.normal(size=(2, 10)), jnp.float32)
    pooling = GuidedPooling()
    params = shake(pooling.init(KEY, x, mask, others))
    found = np.asarray(pooling.apply(params, x, mask, others))
    p = params["params"]
    for i, n in enumerate((6, 4)):
        query = others[i] @ p["query"]["kernel"] + p["query"]["bias"]
        score = np.asarray(x[i, :n] @ p["key"]["kernel"]) @ query / np.sqrt(WIDTH)
        weight = np.exp(score) / np.exp(score).sum()
        assert_allclose(found[i], weight @ np.asarray(x[i, :n]), atol=1e-5)
    assert np.abs(np.asarray(pooling.apply(params, x, mask, -others)) - found).max() > 1e-2


def test_a_guided_stream_is_pooled_by_the_others():
    found = trunk_shapes(guided="b")
    assert {name.split("/")[1] for name in found if name.startswith("b_pooling")} == {"query", "key"}
    assert found["b_pooling/query/kernel"] == (2 * WIDTH, WIDTH)
    assert found["fusion/kernel"] == (2 * WIDTH + WIDTH + 2 * 6, FUSED)
