"""Schemes that need only the losses: their rules against independent implementations, and learning tests."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sejax import weighting
from sejax.weighting import pair, select
from sejax.weighting.learned import famo, imtl_l, uncertainty
from sejax.weighting.loss_based import dwa, geometric, rlw, stch
from tools import golden_weighting_losses

GOLDEN = Path(__file__).parents[1] / "golden" / "weighting_losses.json"
SETTINGS = golden_weighting_losses.SETTINGS
EQUAL = jnp.full(3, 1 / 3)
PRIOR = np.array([0.5, 0.3, 0.2])
LOSS_BASED = {name: scheme.make for name, scheme in weighting.SCHEMES.items() if scheme.needs == "losses"}

every_scheme = pytest.mark.parametrize("scheme", LOSS_BASED.values(), ids=LOSS_BASED)


def trace(transform, losses, present=None):
    """Returns the states of a sequence of steps, stacked: losses [step, task], present [step, task]."""
    losses = jnp.asarray(losses, dtype=float)
    present = jnp.ones(losses.shape, bool) if present is None else jnp.asarray(present)

    def step(state, inputs):
        _, state = transform.update(jnp.ones(losses.shape[1:]), state, losses=inputs[0], present=inputs[1])
        return state, state

    return jax.jit(lambda: jax.lax.scan(step, transform.init(()), (losses, present))[1])()


@pytest.fixture
def float64():
    """Enables float64, for step-by-step comparisons with numpy to nine digits."""
    with jax.enable_x64(True):
        yield


def noisy_losses(steps=40, seed=1):
    """Returns losses of three scales and a mask of those present: each is absent from about a third of the steps."""
    rng = np.random.default_rng(seed)
    losses = np.array([1.0, 5.0, 0.1]) * np.exp(0.3 * rng.standard_normal((steps, 3)))
    return losses, rng.random((steps, 3)) > 0.3


def to_number_present(raw, present):
    raw = np.where(present, raw, 0)
    return present.sum() * raw / raw.sum() if raw.any() else raw


class Adam:
    """Adam for one number: Kingma and Ba (2015), algorithm 1."""

    def __init__(self):
        self.first = self.second = self.steps = 0

    def step(self, gradient):
        self.steps += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        first, second = self.first / (1 - 0.9**self.steps), self.second / (1 - 0.999**self.steps)
        return first / (np.sqrt(second) + 1e-8)


# -------------------------------------------------------------------------------------- LibMTL and the papers


@functools.cache
def golden():
    return json.loads(GOLDEN.read_text())


@pytest.mark.parametrize(
    ("scheme", "learned"),
    [
        (uncertainty(EQUAL, learning_rate=SETTINGS["learning_rate"]), "log_variance"),
        (imtl_l(EQUAL, learning_rate=SETTINGS["learning_rate"]), "log_scale"),
        (famo(EQUAL, learning_rate=SETTINGS["learning_rate"], gamma=SETTINGS["gamma"]), "logits"),
        (dwa(EQUAL, period=SETTINGS["period"], tau=SETTINGS["tau"]), None),
        (geometric(EQUAL), None),
        (stch(jnp.array(SETTINGS["prior"]), mu=SETTINGS["mu"], ideal=jnp.array(SETTINGS["ideal"])), None),
    ],
    ids=["uncertainty", "imtl_l", "famo", "dwa", "geometric", "stch"],
)
def test_weights_are_those_of_libmtl_and_the_papers(request, scheme, learned):
    expected = golden()[request.node.callspec.id]
    states = trace(scheme, np.float32(golden()["losses"]))
    gradient = np.array(expected["gradient"])
    np.testing.assert_allclose(states.weights, 3 * gradient / gradient.sum(axis=1, keepdims=True), rtol=1e-5)
    if learned:
        np.testing.assert_allclose(getattr(states, learned), expected[learned], rtol=1e-5, atol=1e-6)


def test_rlw_has_the_distribution_of_libmtl():
    """Compares moments and quantiles of the weight of one task of three, to three standard errors of 20,000 draws."""
    expected = golden()["rlw"]
    weights = np.asarray(trace(rlw(EQUAL), jnp.ones((20_000, 3))).weights[:, 0]) / 3
    np.testing.assert_allclose(weights.mean(), expected["mean"], atol=0.007)
    np.testing.assert_allclose(weights.std(), expected["sd"], atol=0.005)
    np.testing.assert_allclose(np.quantile(weights, SETTINGS["quantiles"]), expected["quantiles"], atol=0.01)


def test_the_golden_file_is_what_its_tool_writes():
    """Recomputes the losses and compares the settings. The rest of the file needs the other library."""
    assert golden()["settings"] == SETTINGS
    assert any(version.startswith("LibMTL ") for version in golden()["versions"])
    np.testing.assert_allclose(golden()["losses"], golden_weighting_losses.losses(), atol=2e-6)
    assert GOLDEN.stat().st_size < 100_000


def test_the_tool_names_the_library_that_is_missing(capsys, tmp_path):
    with pytest.raises(SystemExit, match="1"):
        golden_weighting_losses.main(["--out", str(tmp_path / "golden.json")])
    assert "LibMTL is not installed here" in capsys.readouterr().err


# ------------------------------------------------------------------------- closed forms, with prior and absence


@pytest.mark.parametrize(("scheme", "learned", "sign"), [(uncertainty, "log_variance", 1), (imtl_l, "log_scale", -1)])
@pytest.mark.usefixtures("float64")
def test_learned_scales_step_by_step(scheme, learned, sign):
    losses, present = noisy_losses()
    states = trace(scheme(jnp.asarray(PRIOR), learning_rate=0.05), losses, present)
    log_variance = np.zeros(3)
    for step, row in enumerate(losses):
        expected = to_number_present(PRIOR * np.exp(-log_variance), present[step])
        np.testing.assert_allclose(states.weights[step], expected, rtol=1e-9)
        for task in np.flatnonzero(present[step]):
            gradient = 1 - np.exp(-log_variance[task]) * row[task]
            log_variance[task] -= 0.05 * max(gradient, -10)
        np.testing.assert_allclose(sign * getattr(states, learned)[step], log_variance, rtol=1e-9)


def test_learned_scales_settle_at_the_logarithm_of_the_loss():
    """Each task's weighted loss `w_k L_k` is then its share, whatever the scale of its loss."""
    losses = jnp.array([1.0, 100.0, 0.02])
    last = jax.tree.map(
        lambda leaf: leaf[-1], trace(uncertainty(jnp.asarray(PRIOR), learning_rate=0.05), jnp.tile(losses, (2000, 1)))
    )
    np.testing.assert_allclose(last.log_variance, np.log(losses), atol=1e-3)
    weighted = last.weights * losses
    np.testing.assert_allclose(weighted / weighted.sum(), PRIOR, rtol=1e-3)


@pytest.mark.usefixtures("float64")
def test_dwa_step_by_step():
    losses, present = noisy_losses()
    present[8:12] = [True, False, True]  # a whole window without the second task
    present[~present.any(axis=1), 0] = True  # a step without any task would not count
    period, tau = 4, 0.5
    means = [[], [], []]
    for step, weights in enumerate(trace(dwa(jnp.asarray(PRIOR), period=period, tau=tau), losses, present).weights):
        if step and step % period == 0:
            window = slice(step - period, step)
            for task in range(3):
                if present[window, task].any():
                    means[task].append(losses[window, task][present[window, task]].mean())
        rates = np.array([mean[-1] / mean[-2] if len(mean) > 1 else 1 for mean in means])
        np.testing.assert_allclose(weights, to_number_present(PRIOR * np.exp(rates / tau), present[step]), rtol=1e-9)
    assert [len(mean) for mean in means] == [9, 8, 9]


def test_dwa_is_static_in_the_first_two_windows():
    losses, _ = noisy_losses(10)
    weights = trace(dwa(jnp.asarray(PRIOR), period=3, tau=0.1), losses).weights
    np.testing.assert_allclose(weights[:6], np.tile(3 * PRIOR, (6, 1)), rtol=1e-6)
    assert np.abs(weights[6] - 3 * PRIOR).max() > 0.1


def test_rlw_draws_by_seed():
    ones = jnp.ones((50, 3))
    weights = np.asarray(trace(rlw(jnp.asarray(PRIOR), seed=3), ones).weights)
    np.testing.assert_array_equal(weights, trace(rlw(jnp.asarray(PRIOR), seed=jnp.array(3)), ones).weights)
    assert len(np.unique(weights[:, 0])) == 50  # new weights at every step
    assert np.abs(weights - trace(rlw(jnp.asarray(PRIOR), seed=4), ones).weights).max(axis=1).min() > 1e-3
    equal = np.asarray(trace(rlw(EQUAL, seed=3), ones).weights)  # the prior multiplies the same draws
    np.testing.assert_allclose(weights, 3 * PRIOR * equal / (PRIOR * equal).sum(axis=1, keepdims=True), rtol=1e-5)


@pytest.mark.usefixtures("float64")
def test_geometric_is_the_gradient_of_the_geometric_mean():
    losses, present = noisy_losses()
    gradient = jax.vmap(jax.grad(lambda row, active: jnp.prod(jnp.where(active, row**PRIOR, 1))))(losses, present)
    for weights, raw, active in zip(
        trace(geometric(jnp.asarray(PRIOR), epsilon=1e-30), losses, present).weights, gradient, present, strict=True
    ):
        np.testing.assert_allclose(weights, to_number_present(raw, active), rtol=1e-9)


@pytest.mark.usefixtures("float64")
def test_stch_is_the_gradient_of_the_smooth_maximum():
    losses, present = noisy_losses()
    mu, ideal = 0.3, np.array([0.2, 1.0, 0.0])

    for step, weights in enumerate(
        trace(stch(jnp.asarray(PRIOR), mu=mu, ideal=jnp.asarray(ideal)), losses, present).weights
    ):
        active = np.flatnonzero(present[step])
        share = np.asarray(PRIOR, np.float64)[active]
        share /= share.sum()
        exponent = np.exp(share * (losses[step, active] - ideal[active]) / mu)
        expected = np.zeros(3)
        expected[active] = share * exponent / exponent.sum()
        np.testing.assert_allclose(weights, to_number_present(expected, present[step]), rtol=1e-9)


def test_stch_with_extreme_smoothing():
    losses = jnp.array([[1.0, 2.0, 4.0]])  # the largest share times loss is that of the last task
    np.testing.assert_allclose(trace(stch(jnp.asarray(PRIOR), mu=1e-4), losses).weights[0], [0, 0, 3], atol=1e-6)
    np.testing.assert_allclose(trace(stch(jnp.asarray(PRIOR), mu=1e6), losses).weights[0], 3 * PRIOR, rtol=1e-5)


@pytest.mark.usefixtures("float64")
def test_famo_step_by_step():
    losses, present = noisy_losses()
    learning_rate, gamma, minimum = 0.05, 0.02, np.array([0.1, -1.0, 0.0])
    states = trace(
        famo(jnp.asarray(PRIOR), learning_rate=learning_rate, gamma=gamma, minimum=jnp.asarray(minimum)),
        losses,
        present,
    )
    logits, last, adams = np.zeros(3), np.full(3, np.nan), [Adam() for _ in range(3)]
    for step, row in enumerate(np.log(losses - minimum + 1e-8)):
        learns = present[step] & np.isfinite(last)
        if learns.any():
            share = np.where(learns, PRIOR * np.exp(logits), 0)
            share /= share.sum()
            fall = np.where(learns, last - row, 0)
            jacobian = np.diag(share) - np.outer(share, share)
            gradient = jacobian.T @ fall + gamma * logits
            for task in np.flatnonzero(learns):
                logits[task] -= learning_rate * adams[task].step(gradient[task])
        last = np.where(present[step], row, last)
        np.testing.assert_allclose(states.logits[step], logits, rtol=1e-9)
        expected = to_number_present(PRIOR * np.exp(logits - row), present[step])
        np.testing.assert_allclose(states.weights[step], expected, rtol=1e-9)


@pytest.mark.parametrize("scheme", [uncertainty, imtl_l, geometric, famo], ids=lambda scheme: scheme.__name__)
def test_weighted_losses_do_not_depend_on_the_scale(scheme):
    """In other units, once the learned scales have followed, the share of `w_k L_k` is the same."""
    rng = np.random.default_rng(0)
    losses = np.float32(np.exp(0.1 * rng.standard_normal((1500, 2))))
    scale = np.float32([1.0, 100.0])
    plain, scaled = (trace(scheme(pair(0.5)), values).weights[-1] * values[-1] for values in (losses, losses * scale))
    np.testing.assert_allclose(plain / plain.sum(), scaled / scaled.sum(), rtol=0.02)


# ------------------------------------------------------------------------------------- the state and bad losses


@every_scheme
@pytest.mark.parametrize("absent", [0, 1, 2])
def test_the_state_of_an_absent_task_does_not_change(scheme, absent):
    losses = jnp.array([[1.0, 2.0, 3.0], [0.5, 2.2, 1.0], [0.7, 1.0, 1.1]])
    transform = scheme(jnp.asarray(PRIOR))
    state = jax.tree.map(lambda leaf: leaf[-1], trace(transform, losses))
    _, after = transform.update(jnp.ones(3), state, losses=jnp.array([9.0, 8.0, 7.0]).at[absent].set(jnp.nan))
    assert after.weights[absent] == after.head_weights[absent] == 0
    moved = []
    for old, new in zip(*(jax.tree.leaves(x[2:]) for x in (state, after)), strict=True):
        if jnp.shape(old) == (3,):
            assert old[absent] == new[absent]
            moved.append(np.array(old != new))
    if moved:
        assert np.any(moved, axis=0).sum() == 2  # the state of the others changes


@pytest.mark.parametrize("scheme", [scheme.make for scheme in weighting.SCHEMES.values()], ids=weighting.SCHEMES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_state_has_the_type_of_the_prior(scheme, dtype):
    with jax.enable_x64(True):
        transform = scheme(jnp.array([0.5, 0.3, 0.2], dtype))
        state = transform.init(())
        for losses in (jnp.ones(3, jnp.float32), jnp.array([1.0, 2.0, 1e300], jnp.float64)):
            _, state = transform.update(jnp.ones(3), state, losses=losses)
            floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
            assert {leaf.dtype for leaf in floats} == {jnp.dtype(dtype)}
            assert all(jnp.isfinite(leaf).all() for leaf in floats)
        if dtype == jnp.float32:  # 1e300 is infinite in float32
            assert state.weights[2] == 0


@every_scheme
@pytest.mark.parametrize("extreme", [0.0, 1e-40, 1e30, 3.4e38])
def test_extreme_losses_do_not_stay_in_the_state(scheme, extreme):
    """The first hundred steps have an extreme loss, later steps, but for one, ordinary losses."""
    losses = jnp.ones((1000, 3)).at[:100, 1].set(extreme).at[200, 1].set(extreme)
    states = trace(scheme(jnp.asarray(PRIOR)), losses)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(states))
    np.testing.assert_allclose(states.weights.sum(axis=1), 3, rtol=1e-5)
    assert (states.weights[-1] > 1e-3).all()


@pytest.mark.parametrize("scheme", [geometric, famo], ids=lambda scheme: scheme.__name__)
def test_a_loss_below_its_minimum_counts_as_that(scheme):
    losses = jnp.array([[1.0, 2.0, 3.0], [1.0, -0.5, 2.0], [0.9, 1.0, 1.5]])
    ours, expected = (trace(scheme(jnp.asarray(PRIOR)), values) for values in (losses, jnp.maximum(losses, 0)))
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


@pytest.mark.parametrize("scheme", [uncertainty, imtl_l], ids=lambda scheme: scheme.__name__)
def test_one_loss_out_of_all_proportion_does_not_stay_in_the_learned_scale(scheme):
    losses = jnp.ones((300, 2)).at[100, 0].set(1e30)
    weights = trace(scheme(pair(0.5)), losses).weights
    np.testing.assert_allclose(weights[100], [1, 1], rtol=1e-5)
    assert 0.94 < weights[:, 0].min() < 0.96
    np.testing.assert_allclose(weights[-1], [1, 1], atol=0.02)


@pytest.mark.parametrize("scheme", [uncertainty, imtl_l], ids=lambda scheme: scheme.__name__)
@pytest.mark.parametrize(("loss", "limit"), [(0.0, -10), (3e38, 10)])
def test_learned_scales_have_limits(scheme, loss, limit):
    states = trace(scheme(pair(0.5), learning_rate=0.1), jnp.tile(jnp.array([loss, 1.0]), (300, 1)))
    scale = states.log_variance if scheme is uncertainty else -states.log_scale
    np.testing.assert_allclose(scale[-1], [limit, 0], atol=1e-6)
    assert (states.weights[-1] > 0).all()


# ----------------------------------------------------------------------------------------------- learning tests


@jax.jit
def learn(scale, scheme):
    """Returns the explained variance of two regressions on one trunk that has room for both.

    `scheme` is an index into `LOSS_BASED`, and the losses are multiplied by `scale`. Batches are small and targets
    noisy, so that the gradient of a loss a hundred times as large stays large, and clipping by the global norm leaves
    the other task almost no gradient.
    """
    inputs = jax.random.normal(jax.random.key(1), (512, 2))  # task k predicts input k
    transform = select([scheme(pair(0.5)) for scheme in LOSS_BASED.values()], scheme)
    keys = jax.random.split(jax.random.key(3))
    params = {name: 0.1 * jax.random.normal(key, (2, 2)) for name, key in zip(("trunk", "heads"), keys, strict=True)}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05))

    def task_losses(heads, fused, targets):
        return scale * jnp.mean(jnp.square(heads @ fused.T - targets), axis=1)

    def step(carry, key):
        params, optimizer_state, state = carry
        batch_key, noise_key = jax.random.split(key)
        batch = jax.random.choice(batch_key, inputs, (16,))
        targets = batch.T + jax.random.normal(noise_key, (2, 16))
        fused, pull_back = jax.vjp(lambda trunk: batch @ trunk, params["trunk"])
        losses = task_losses(params["heads"], fused, targets)
        by_head, by_fused = jax.jacobian(task_losses, argnums=(0, 1))(params["heads"], fused, targets)
        combined, state = transform.update(by_fused, state, losses=losses)
        (trunk,) = pull_back(combined)
        update = {"trunk": trunk, "heads": weighting.combine(by_head, state.head_weights)}
        update, optimizer_state = optimizer.update(update, optimizer_state)
        return (optax.apply_updates(params, update), optimizer_state, state), None

    carry = (params, optimizer.init(params), transform.init(()))
    (params, _, _), _ = jax.lax.scan(step, carry, jax.random.split(jax.random.key(5), 100))
    residuals = params["heads"] @ (inputs @ params["trunk"]).T - inputs.T
    return 1 - jnp.mean(jnp.square(residuals), axis=1) / jnp.var(inputs, axis=0)


def test_schemes_that_follow_the_scale_learn_the_task_that_static_fails():
    """`static` learns both tasks, but not with the second loss a hundred times as large."""
    numbers = jnp.arange(len(LOSS_BASED))
    learned = jax.vmap(jax.vmap(learn, (None, 0)), (0, None))(jnp.array([[1.0, 1.0], [1.0, 100.0]]), numbers)
    alike, apart = (dict(zip(LOSS_BASED, explained, strict=True)) for explained in learned)
    assert (alike["static"] > 0.95).all()
    for name in ("static", "dynamic"):  # a ratio of losses does not depend on their scale
        assert apart[name][0] < 0.15 and apart[name][1] > 0.95
    for name in ("uncertainty", "imtl_l", "geometric", "famo"):
        assert (apart[name] > 0.9).all(), name


def test_dwa_moves_weight_to_the_task_that_stalls():
    steps = jnp.arange(60.0)
    losses = jnp.stack([jnp.exp(-steps / 20), jnp.ones_like(steps)], axis=1)
    weights = trace(dwa(pair(0.5), period=10, tau=0.5), losses).weights[:, 1]
    np.testing.assert_allclose(weights[:20], 1, rtol=1e-6)
    expected = 2 / (1 + np.exp((np.exp(-10 / 20) - 1) / 0.5))  # the other loss falls by that factor per window
    np.testing.assert_allclose(weights[20:], expected, rtol=1e-5)
    assert expected > 1.3
