import audmetric
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from sklearn.metrics import log_loss

from sejax.engine.losses import (
    ccc_loss,
    cross_entropy,
    dimension_losses,
    dimensions_present,
    mae_loss,
    mse_loss,
    vad_loss,
)
from sejax.errors import InputError

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
LABEL = np.array([0, 2, 1, 3, 3, 2])
ONE_HOT = jax.nn.one_hot(LABEL, 4)
MASK = jnp.array([1.0, 1.0, 0.0, 1.0, 0.0, 1.0])
COUNTS = np.asarray(MASK) > 0
PRED = jnp.asarray(RNG.normal(3.0, 0.7, size=(6, 3)), jnp.float32)
TARGET = jnp.asarray(RNG.normal(3.2, 0.9, size=(6, 3)), jnp.float32)
WEIGHT = jnp.array([[1, 1, 0], [1, 0, 1], [0, 1, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]], jnp.float32)
PER_DIMENSION = {"ccc": ccc_loss, "mse": mse_loss, "mae": mae_loss}
every_kind = pytest.mark.parametrize("kind", PER_DIMENSION)


# ------------------------------------------------------------------------------------------- cross-entropy


def test_cross_entropy_equals_scikit_learn():
    ours = cross_entropy(LOGITS, ONE_HOT, MASK)
    probability = np.asarray(jax.nn.softmax(LOGITS), np.float64)
    probability /= probability.sum(axis=1, keepdims=True)
    theirs = log_loss(LABEL[COUNTS], probability[COUNTS], labels=range(4))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_cross_entropy_closed_forms():
    flat = jnp.zeros((6, 4))
    np.testing.assert_allclose(cross_entropy(flat, ONE_HOT, MASK), np.log(4), rtol=1e-6)
    soft = jnp.full((6, 4), 0.25)
    log_probability = np.asarray(jax.nn.log_softmax(LOGITS))
    np.testing.assert_allclose(cross_entropy(LOGITS, soft, MASK), -log_probability[COUNTS].mean(), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_label_smoothing(smoothing):
    log_probability = np.asarray(jax.nn.log_softmax(LOGITS), np.float64)
    target = (1 - smoothing) * np.eye(4)[LABEL] + smoothing / 4
    expected = -(target * log_probability).sum(axis=1)[COUNTS].mean()
    traced = jax.jit(lambda value: cross_entropy(LOGITS, ONE_HOT, MASK, label_smoothing=value))
    np.testing.assert_allclose(traced(jnp.float32(smoothing)), expected, rtol=1e-5)
    np.testing.assert_allclose(cross_entropy(LOGITS, ONE_HOT, MASK, label_smoothing=smoothing), expected, rtol=1e-5)


def test_class_weights_equal_sample_weights_of_scikit_learn():
    class_weight = np.array([0.5, 3.0, 1.0, 2.0])
    ours = cross_entropy(LOGITS, ONE_HOT, MASK, class_weight=jnp.asarray(class_weight, jnp.float32))
    probability = np.asarray(jax.nn.softmax(LOGITS), np.float64)
    probability /= probability.sum(axis=1, keepdims=True)
    theirs = log_loss(LABEL[COUNTS], probability[COUNTS], labels=range(4), sample_weight=class_weight[LABEL[COUNTS]])
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_class_weights_with_label_smoothing_follow_torch():
    """As its cross_entropy: smoothed terms weighted by class, over the weights of the targets."""
    class_weight = np.array([0.5, 3.0, 1.0, 2.0])
    log_probability = np.asarray(jax.nn.log_softmax(LOGITS), np.float64)[COUNTS]
    label = LABEL[COUNTS]
    hard = -(class_weight[label] * log_probability[np.arange(len(label)), label]).sum()
    even = -(class_weight * log_probability).sum() / 4
    expected = (0.8 * hard + 0.2 * even) / class_weight[label].sum()
    ours = cross_entropy(
        LOGITS, ONE_HOT, MASK, label_smoothing=0.2, class_weight=jnp.asarray(class_weight, jnp.float32)
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_a_focal_loss_of_gamma_0_is_the_cross_entropy_to_the_bit():
    weights = jnp.asarray([0.5, 3.0, 1.0, 2.0])
    for smoothing, class_weight in ((0.0, None), (0.1, weights)):
        options = {"label_smoothing": smoothing, "class_weight": class_weight}

        def loss(logits, gamma, options=options):
            return cross_entropy(logits, ONE_HOT, MASK, focal_gamma=gamma, **options)

        for value in (LOGITS, 100 * LOGITS):
            plain, focal = jax.value_and_grad(loss)(value, None), jax.value_and_grad(loss)(value, jnp.float32(0.0))
            np.testing.assert_array_equal(plain[0], focal[0])
            np.testing.assert_allclose(plain[1], focal[1], rtol=0, atol=1e-7)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_the_focal_loss_is_that_of_the_formula(gamma):
    ours = cross_entropy(LOGITS, ONE_HOT, MASK, focal_gamma=jnp.float32(gamma))
    p = np.exp(np.asarray(LOGITS, np.float64))
    p = (p / p.sum(axis=1, keepdims=True))[COUNTS, LABEL[COUNTS]]
    np.testing.assert_allclose(ours, (-((1 - p) ** gamma) * np.log(p)).mean(), rtol=1e-5)
    certain = jnp.asarray([[200.0, 0.0, 0.0, 0.0]])  # 1 - p is 0, whose root has no slope
    value, slope = jax.value_and_grad(cross_entropy)(certain, ONE_HOT[:1] * 0 + 0.25, jnp.ones(1), focal_gamma=gamma)
    assert np.isfinite(value) and np.isfinite(slope).all()


def test_large_logits_do_not_overflow():
    logits = jnp.array([[1e4, -1e4], [-1e4, 1e4]])
    target = jax.nn.one_hot(jnp.array([0, 0]), 2)
    value, gradient = jax.value_and_grad(cross_entropy)(logits, target, jnp.ones(2))
    np.testing.assert_allclose(value, 1e4)
    assert jnp.isfinite(gradient).all()


def test_masked_rows_do_not_leak():
    dirty = jnp.where(MASK[:, None] > 0, LOGITS, jnp.nan)
    dirty_target = jnp.where(MASK[:, None] > 0, ONE_HOT, jnp.nan)
    clean, clean_gradient = jax.value_and_grad(cross_entropy)(LOGITS, ONE_HOT, MASK)
    value, gradient = jax.value_and_grad(cross_entropy)(dirty, dirty_target, MASK)
    np.testing.assert_array_equal(value, clean)
    np.testing.assert_array_equal(gradient, clean_gradient)
    np.testing.assert_array_equal(gradient[~COUNTS], 0)


def test_nothing_counts():
    for weights in (None, jnp.ones(4)):
        value, gradient = jax.value_and_grad(
            lambda logits, weights=weights: cross_entropy(
                logits, jnp.full_like(ONE_HOT, jnp.nan), jnp.zeros(6), class_weight=weights
            )
        )(jnp.full_like(LOGITS, jnp.nan))
        assert value == 0 and not gradient.any()


@every_kind
def test_nothing_is_divided_by_zero_on_the_way(kind):
    """Not even where the result would not be used: `jax.debug_nans` stays quiet."""
    no_row, no_dimension = jnp.zeros(6), jnp.zeros((6, 3))
    with jax.debug_nans(True):
        assert jax.grad(cross_entropy)(LOGITS, ONE_HOT, no_row).sum() == 0
        assert jax.grad(lambda pred: vad_loss(kind, pred, TARGET, no_dimension))(PRED).sum() == 0


def test_a_broken_row_that_counts_is_not_hidden():
    assert jnp.isnan(cross_entropy(LOGITS.at[0, 0].set(jnp.nan), ONE_HOT, MASK))
    for kind in PER_DIMENSION:
        assert jnp.isnan(dimension_losses(kind, PRED, TARGET.at[0, 0].set(jnp.nan), WEIGHT)[0])


# ---------------------------------------------------------------------------------------------- dimensions


def numpy_ccc(pred, target):
    covariance = ((pred - pred.mean()) * (target - target.mean())).mean()
    return 2 * covariance / (pred.var() + target.var() + (pred.mean() - target.mean()) ** 2)


REFERENCE = {
    "ccc": lambda pred, target: 1 - numpy_ccc(pred, target),
    "mse": lambda pred, target: np.square(pred - target).mean(),
    "mae": lambda pred, target: np.abs(pred - target).mean(),
}


@every_kind
def test_each_dimension_is_computed_from_its_own_rows(kind):
    losses = dimension_losses(kind, PRED, TARGET, WEIGHT)
    for dim in range(3):
        rows = np.asarray(WEIGHT[:, dim]) > 0
        expected = REFERENCE[kind](np.asarray(PRED, np.float64)[rows, dim], np.asarray(TARGET, np.float64)[rows, dim])
        np.testing.assert_allclose(losses[dim], expected, rtol=2e-6)
    np.testing.assert_allclose(vad_loss(kind, PRED, TARGET, WEIGHT), losses.mean(), rtol=1e-6)


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), offset=st.floats(-20, 20), scale=st.floats(0.01, 10))
def test_ccc_equals_audmetric(seed, offset, scale):
    rng = np.random.default_rng(seed)
    pred = rng.normal(size=(8, 2)).astype(np.float32)
    target = (offset + scale * rng.normal(size=(8, 2))).astype(np.float32)
    ours = ccc_loss(jnp.asarray(pred), jnp.asarray(target), jnp.ones((8, 2)))
    for dim in range(2):
        theirs = audmetric.concordance_cc(target[:, dim].astype(np.float64), pred[:, dim].astype(np.float64))
        np.testing.assert_allclose(1 - ours[dim], theirs, rtol=1e-4, atol=1e-6)


@every_kind
def test_weights_count_as_repetitions(kind):
    weight = jnp.array([[1.0], [3.0], [0.0], [2.0], [1.0], [1.0]])
    repeats = np.asarray(weight[:, 0], int)
    pred, target = PRED[:, :1], TARGET[:, :1]
    ours = dimension_losses(kind, pred, target, weight)
    theirs = dimension_losses(
        kind,
        jnp.asarray(np.repeat(pred, repeats, axis=0)),
        jnp.asarray(np.repeat(target, repeats, axis=0)),
        jnp.ones((int(repeats.sum()), 1)),
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_ccc_closed_forms():
    target = jnp.array([[1.0], [2.0], [3.0], [4.0]])
    ones = jnp.ones((4, 1))
    np.testing.assert_allclose(ccc_loss(target, target, ones), 0, atol=1e-7)
    np.testing.assert_allclose(ccc_loss(5 - target, target, ones), 2, rtol=1e-6)
    np.testing.assert_allclose(ccc_loss(target + 1, target, ones), 1 - 2.5 / 3.5, rtol=1e-6)
    np.testing.assert_allclose(ccc_loss(jnp.full((4, 1), 2.5), target, ones), 1, rtol=1e-6)


def test_ccc_keeps_its_digits_far_from_zero():
    """A variance of 0.01 beside a mean of 1,000: mean of squares minus square of mean has none."""
    rng = np.random.default_rng(3)
    target = (1000 + 0.1 * rng.normal(size=(256, 1))).astype(np.float32)
    pred = (target + 0.1 * rng.normal(size=(256, 1))).astype(np.float32)
    expected = numpy_ccc(pred[:, 0].astype(np.float64), target[:, 0].astype(np.float64))
    ours = 1 - ccc_loss(jnp.asarray(pred), jnp.asarray(target), jnp.ones((256, 1)))
    np.testing.assert_allclose(ours[0], expected, rtol=2e-3)


@every_kind
def test_masked_values_do_not_leak(kind):
    def loss(pred, target):
        return dimension_losses(kind, pred, target, WEIGHT).sum()

    clean, clean_gradient = jax.value_and_grad(loss)(PRED, TARGET)
    for garbage in (jnp.nan, jnp.inf, 1e30):
        dirty_pred = jnp.where(WEIGHT > 0, PRED, garbage)
        dirty_target = jnp.where(WEIGHT > 0, TARGET, garbage)
        value, gradient = jax.value_and_grad(loss)(dirty_pred, dirty_target)
        np.testing.assert_array_equal(value, clean)
        np.testing.assert_array_equal(gradient, clean_gradient)
    np.testing.assert_array_equal(clean_gradient[WEIGHT == 0], 0)


@every_kind
def test_a_dimension_that_is_absent_does_not_count(kind):
    """KEMDy has no dominance: the third target is missing, not zero."""
    weight = WEIGHT.at[:, 2].set(0)
    target = TARGET.at[:, 2].set(jnp.nan)
    np.testing.assert_array_equal(dimensions_present(kind, weight), [True, True, False])
    assert dimension_losses(kind, PRED, target, weight)[2] == 0
    value, gradient = jax.value_and_grad(lambda pred: vad_loss(kind, pred, target, weight))(PRED)
    np.testing.assert_allclose(value, vad_loss(kind, PRED[:, :2], TARGET[:, :2], WEIGHT[:, :2]), rtol=1e-6)
    assert jnp.isfinite(gradient).all() and not gradient[:, 2].any()


@every_kind
def test_one_row_has_an_error_but_no_correlation(kind):
    weight = jnp.zeros((6, 3)).at[0].set(1)
    present = dimensions_present(kind, weight)
    assert present.all() == (kind != "ccc")
    value, gradient = jax.value_and_grad(lambda pred: vad_loss(kind, pred, TARGET, weight))(PRED)
    assert jnp.isfinite(gradient).all()
    assert (value == 0) == (kind == "ccc")
    assert gradient.any() == (kind != "ccc")


@every_kind
def test_no_vad_at_all(kind):
    nothing = jnp.full_like(TARGET, jnp.nan)
    value, gradient = jax.value_and_grad(lambda pred: vad_loss(kind, pred, nothing, jnp.zeros((6, 3))))(PRED)
    assert value == 0 and not gradient.any()


def test_ccc_of_constants():
    """Constant predictions have a useful gradient; constants that are equal have none, and nothing is NaN."""
    constant = jnp.full((6, 3), 2.0)
    ones = jnp.ones((6, 3))
    value, gradient = jax.value_and_grad(lambda pred: vad_loss("ccc", pred, TARGET, ones))(constant)
    np.testing.assert_allclose(value, 1, rtol=1e-6)
    assert jnp.isfinite(gradient).all() and gradient.any()
    np.testing.assert_allclose(
        np.sign(-gradient), np.sign(TARGET - TARGET.mean(axis=0)[None])
    )  # towards the target's deviations
    for target in (constant, constant + 1):
        value, gradient = jax.value_and_grad(lambda pred, target=target: vad_loss("ccc", pred, target, ones))(constant)
        np.testing.assert_allclose(value, 1)
        assert jnp.isfinite(gradient).all()


@every_kind
def test_gradients(kind):
    loss = jax.jit(lambda pred: vad_loss(kind, pred, TARGET, WEIGHT))
    check_grads(loss, (PRED,), order=1, modes="rev", rtol=2e-2)


def test_gradient_of_cross_entropy():
    loss = jax.jit(lambda logits: cross_entropy(logits, ONE_HOT, MASK, label_smoothing=0.1))
    check_grads(loss, (LOGITS,), order=1, modes="rev", rtol=2e-2)


@every_kind
def test_runs_stack(kind):
    weights = jnp.stack([WEIGHT, WEIGHT[::-1], jnp.zeros_like(WEIGHT)])
    stacked = jax.jit(jax.vmap(lambda weight: vad_loss(kind, PRED, TARGET, weight)))(weights)
    alone = jnp.stack([vad_loss(kind, PRED, TARGET, weight) for weight in weights])
    np.testing.assert_allclose(stacked, alone, rtol=1e-6)


def test_an_unknown_kind_is_a_sentence():
    with pytest.raises(InputError, match=r"'rmse'.*ccc, mse, mae"):
        vad_loss("rmse", PRED, TARGET, WEIGHT)
