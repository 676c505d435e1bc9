"""The joint model: padding, names of parameters, PyTorch's numbers, bfloat16, and every switch."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from numpy.testing import assert_allclose, assert_array_equal
from tiny_models import shake, shapes, wide

from sejax.engine.losses import cross_entropy, vad_loss
from sejax.models.encoders import ENCODERS
from sejax.models.heads import Heads
from sejax.models.joint import JointModel, Rates, StreamSpec, Trunk, mix_name, mixing_scores, tuned_name
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


# ----------------------------------------------------------------------------------------- as a static argument


def small_model(width: int = WIDTH, classes: int = 4) -> JointModel:
    streams = (StreamSpec("a", "linear", 1, STRIDE, mixed=5), StreamSpec("b", "none", 1, STRIDE))
    return JointModel(Trunk(streams, width, FUSED, HEADS, True, True, False), Heads(classes, 3))


def test_equal_models_are_one_static_argument():
    inputs = make_inputs()
    params = jax.jit(small_model().init)(KEY, *inputs, NO_DROPOUT)
    assert small_model() == small_model() and hash(small_model()) == hash(small_model())
    assert small_model() not in (small_model(width=2 * WIDTH), small_model(classes=2))
    traced = []

    @partial(jax.jit, static_argnames="model")
    def predict(params, model):
        traced.append(model)
        return model.apply(params, *inputs, NO_DROPOUT)

    first, second = predict(params, model=small_model()), predict(params, model=small_model())
    assert len(traced) == 1
    jax.tree.map(assert_array_equal, first, second)


def test_parameters_have_the_names_that_checkpoints_store():
    model = small_model()
    params = jax.jit(model.init)(KEY, *make_inputs(), NO_DROPOUT)["params"]
    assert set(params) == {"trunk", "head"}
    assert set(params["head"]) == {"label", "vad"}
    assert (tuned_name("a"), mix_name("a")) == ("a_ssl", "a_mix")
    assert shapes(params)["trunk/a_mix/layer_weights"] == (5,)
    assert {name: x.shape for name, x in mixing_scores(model.streams, params).items()} == {"a": (5,)}


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
            sums.append(str(equation.outvars[0].aval.dtype))  # else XLA may add the product's terms in bfloat16
        if equation.primitive.name in ("reduce_sum", "exp", "logistic", "rsqrt", "sqrt"):
            x, out = equation.invars[0].aval, equation.outvars[0].aval
            if x.size > out.size or equation.primitive.name != "reduce_sum":  # else an axis of 1 is taken away
                sums.append(str(x.dtype))
    assert len(sums) > 200
    assert set(sums) == {"float32"}
    assert len(products) > 100
    exact_layers = ("/head/", "_pooling", "abu,ux->abx")  # the last is within a product's own rule: scores of pooling
    assert all(any(layer in name for layer in exact_layers) for name in exact_products), exact_products
    assert len(exact_products) == 3 * (2 + 3)  # heads and scores of pooling: forward, and back to both factors


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


# ------------------------------------------------------------------------------ hidden states, probes, guiding


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


def test_statistics_of_states_go_on_side_by_side():
    """Every state has weights of its own; without deviations, the means of all states alone."""
    streams = (StreamSpec("a", "none", 1, STRIDE, mixed=5),)
    values = jax.random.normal(jax.random.key(1), (BATCH, 5, 2, 3))  # five states, means and deviations of three
    switches = {**SWITCHES, "joined_states": True}
    for deviations, kept in ((True, values), (False, values[:, :, 0])):
        trunk = Trunk(streams, WIDTH, FUSED, HEADS, **switches, deviations=deviations, activation=False)
        statistics = {"a": values.reshape(BATCH, -1)}
        params = shake(trunk.init(KEY, {}, {}, statistics, NO_DROPOUT))
        assert not mixing_scores(streams, {"trunk": params["params"]})
        kernel, bias = (params["params"]["fusion"][name] for name in ("kernel", "bias"))
        expected = kept.reshape(BATCH, -1) @ kernel + bias[None]
        np.testing.assert_allclose(trunk.apply(params, {}, {}, statistics, NO_DROPOUT), expected, atol=1e-5)


def test_a_probe_is_linear_in_its_statistics():
    probe = Trunk((StreamSpec("a", "none", 1, STRIDE),), WIDTH, FUSED, HEADS, **SWITCHES, activation=False)
    _, _, statistics = make_inputs()
    params = shake(probe.init(KEY, {}, {}, statistics, NO_DROPOUT))

    def predict(x):
        return np.asarray(probe.apply(params, {}, {}, {"a": x}, NO_DROPOUT))

    x = statistics["a"]
    assert_allclose(predict(3.0 * x) - predict(0.0 * x), 3.0 * (predict(x) - predict(0.0 * x)), atol=1e-4)


def test_a_guided_stream_is_pooled_by_the_others():
    found = trunk_shapes(guided="b")
    assert {name.split("/")[1] for name in found if name.startswith("b_pooling")} == {"query", "key"}
    assert found["b_pooling/query/kernel"] == (2 * WIDTH, WIDTH)
    assert found["fusion/kernel"] == (2 * WIDTH + WIDTH + 2 * 6, FUSED)
