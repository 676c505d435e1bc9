"""The contract that every scheme keeps, `static`, `dynamic` and `joint` step by step, and `select`."""

import doctest
import functools
import inspect
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sejax import weighting
from sejax.weighting import combine, core, gradient_based, gram_based, learned, loss_based, pair, select, selection
from sejax.weighting.gradient_based import joint
from sejax.weighting.loss_based import StaticState, dynamic, static

SCHEMES = {
    **{name: scheme.make for name, scheme in weighting.SCHEMES.items()},
    "select": lambda prior: select([static(prior), dynamic(prior), joint(prior)], 2),
}
every_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)

MODULES = (weighting, core, loss_based, learned, gradient_based, gram_based, selection)


def gradients(n_tasks=3, seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return {
        "a": jnp.asarray(rng.normal(size=(n_tasks, 4, 5)), dtype),
        "b": jnp.asarray(rng.normal(size=(n_tasks, 2)), dtype),
    }


def one_task(updates):
    return jax.tree.map(lambda leaf: leaf[0], updates)


def run(transform, losses, updates=None, present=None):
    """Returns the updates and states of a sequence of steps: losses [step, task], present [step, task]."""
    losses = jnp.asarray(losses)
    updates = gradients(losses.shape[1]) if updates is None else updates
    state = transform.init(one_task(updates))
    results = []
    for step, loss in enumerate(losses):
        combined, state = transform.update(
            updates, state, losses=loss, present=None if present is None else present[step]
        )
        results.append((combined, state))
    return results


def expected_sum(updates, weights):
    return jax.tree.map(lambda leaf: np.einsum("k,k...->...", np.asarray(weights), np.asarray(leaf)), updates)


PRIOR = jnp.array([0.5, 0.3, 0.2])
LOSSES = jnp.array([[1.0, 2.0, 3.0], [0.8, 2.0, 2.0], [0.5, 2.1, 1.5], [0.3, 1.9, 1.6]])


# --------------------------------------------------------------------------------------------- the transform


def test_the_transform_shows_a_rule_the_losses_of_present_tasks_and_keeps_its_weights():
    """The rule's state is its own but for `weights` and `head_weights`, which the transform writes."""
    shown = []

    def rule(state, losses, active):
        shown.append((losses, active))
        return jnp.where(active, losses, 0), state

    transform = core.transform(lambda: StaticState(jnp.zeros(3), jnp.zeros(3)), rule)
    updates = {"kernel": jnp.array([[1.0, 2.0], [jnp.nan, 1.0], [jnp.inf, 1.0]])}
    losses, present = jnp.array([5.0, jnp.nan, 7.0]), jnp.array([True, True, False])
    combined, state = transform.update(updates, transform.init(()), losses=losses, present=present)
    np.testing.assert_array_equal(shown[0][0], [5, 0, 0])
    np.testing.assert_array_equal(shown[0][1], [True, False, False])
    np.testing.assert_array_equal(combined["kernel"], [5, 10])
    jax.tree.map(np.testing.assert_array_equal, state, StaticState(jnp.array([5.0, 0, 0]), jnp.array([5.0, 0, 0])))


def test_a_gradient_rule_sees_the_updates_and_weights_the_heads_apart():
    def rule(state, losses, active, updates):
        return updates[:, 0] * losses, active.astype(losses.dtype), state

    transform = core.gradient_transform(lambda: StaticState(jnp.zeros(2), jnp.zeros(2)), rule)
    combined, state = transform.update(jnp.array([[1.0], [2.0]]), transform.init(()), losses=jnp.array([3.0, 0.5]))
    np.testing.assert_array_equal(combined, [5])
    jax.tree.map(np.testing.assert_array_equal, state, StaticState(jnp.array([3.0, 1.0]), jnp.ones(2)))


def test_what_a_scheme_takes_from_a_run_is_an_argument_of_it():
    for name, scheme in weighting.SCHEMES.items():
        assert {"prior", *scheme.takes} <= set(inspect.signature(scheme.make).parameters)
        assert scheme.make.__name__ == name


# ---------------------------------------------------------------------------------------------- every scheme


@every_scheme
def test_weights_sum_to_the_number_of_tasks_and_weight_the_gradients(scheme):
    updates = gradients()
    for combined, state in run(scheme(PRIOR), LOSSES, updates):
        np.testing.assert_allclose(state.weights.sum(), 3.0, rtol=1e-6)
        assert (state.weights > 0).all()
        jax.tree.map(
            lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6),
            combined,
            expected_sum(updates, state.weights),
        )


@every_scheme
def test_a_prior_that_does_not_sum_to_one_is_scaled(scheme):
    for (_, ours), (_, theirs) in zip(run(scheme(PRIOR * 7), LOSSES), run(scheme(PRIOR), LOSSES), strict=True):
        np.testing.assert_allclose(ours.weights, theirs.weights, rtol=1e-6)


@every_scheme
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_leaves_keep_their_dtype_and_the_state_that_of_the_prior(scheme, dtype):
    updates = gradients(dtype=dtype)
    combined, state = run(scheme(PRIOR), LOSSES, updates)[-1]
    assert {leaf.dtype for leaf in jax.tree.leaves(combined)} == {jnp.dtype(dtype)}
    assert jax.tree.map(jnp.shape, combined) == jax.tree.map(jnp.shape, one_task(updates))
    assert state.weights.dtype == state.head_weights.dtype == PRIOR.dtype


@every_scheme
def test_float64_throughout(scheme):
    with jax.enable_x64(True):
        combined, state = run(
            scheme(jnp.array([0.5, 0.5], jnp.float64)),
            jnp.ones((2, 2), jnp.float64),
            gradients(2, dtype=jnp.float64),
        )[-1]
        assert {leaf.dtype for leaf in jax.tree.leaves(combined)} == {jnp.dtype("float64")}
        assert state.weights.dtype == jnp.float64


@every_scheme
def test_the_state_is_a_stable_carry_and_compiles_once(scheme):
    traces = []

    @jax.jit
    def update(prior, state, losses, updates):
        traces.append(None)
        return scheme(prior).update(updates, state, losses=losses)

    updates = gradients()
    state = scheme(PRIOR).init(one_task(updates))
    shapes = jax.eval_shape(lambda: state)
    for losses in LOSSES:
        _, state = update(PRIOR, state, losses, updates)
    assert len(traces) == 1
    assert jax.eval_shape(lambda: state) == shapes


@every_scheme
def test_scan_equals_a_loop(scheme):
    updates = gradients()
    transform = scheme(PRIOR)

    @jax.jit
    def scanned(state):
        def step(state, losses):
            combined, state = transform.update(updates, state, losses=losses)
            return state, (combined, state)

        return jax.lax.scan(step, state, LOSSES)[1]

    stacked = scanned(transform.init(one_task(updates)))
    for step, result in enumerate(run(transform, LOSSES, updates)):
        jax.tree.map(
            lambda ours, theirs, step=step: np.testing.assert_allclose(ours[step], theirs, rtol=1e-5, atol=1e-6),
            stacked,
            result,
        )


HYPERPARAMETERS = {
    "static": {},
    "dynamic": {"tau": [0.5, 1.0], "fast": [0.8, 0.9], "slow": [0.95, 0.99]},
    "uncertainty": {"learning_rate": [0.01, 0.1]},
    "dwa": {"period": [1, 2], "tau": [0.5, 2.0]},
    "rlw": {"seed": [0, 7]},
    "geometric": {"epsilon": [1e-8, 0.1]},
    "imtl_l": {"learning_rate": [0.01, 0.1]},
    "famo": {"learning_rate": [0.01, 0.1], "gamma": [0.0, 0.1], "minimum": [0.0, 0.2], "epsilon": [1e-8, 0.1]},
    "stch": {"mu": [0.1, 1.0], "ideal": [0.0, 0.2]},
    "joint": {"fast": [0.8, 0.9], "slow": [0.95, 0.99], "norm_decay": [0.5, 0.9]},
    "gradnorm": {"learning_rate": [0.02, 0.2], "asymmetry": [0.5, 1.5]},
    "pcgrad": {"seed": [0, 1]},
    "cagrad": {"c": [0.2, 0.5]},
    "imtl_g": {},
    "mgda": {},
    "aligned_mtl": {},
    "nash_mtl": {},
    "upgrad": {},
}


@pytest.mark.parametrize("name", weighting.SCHEMES)
def test_runs_of_different_priors_and_hyperparameters_stack(name):
    scheme = weighting.SCHEMES[name].make
    assert set(HYPERPARAMETERS[name]) == set(inspect.signature(scheme).parameters) - {"prior"}
    values = {key: jnp.array(value) for key, value in HYPERPARAMETERS[name].items()}
    priors = jnp.array([[0.5, 0.3, 0.2], [0.1, 0.0, 0.9]])
    updates = gradients()

    def weights(prior, values):
        return run(scheme(prior, **values), LOSSES, updates)[-1]

    stacked = jax.jit(jax.vmap(weights))(priors, values)
    for index in range(2):
        alone = weights(priors[index], {name: value[index] for name, value in values.items()})
        jax.tree.map(
            lambda ours, theirs, index=index: np.testing.assert_allclose(ours[index], theirs, rtol=1e-5, atol=1e-6),
            stacked,
            alone,
        )


@every_scheme
def test_state_can_be_donated(scheme):
    updates = gradients()
    transform = scheme(PRIOR)
    update = jax.jit(lambda state, losses: transform.update(updates, state, losses=losses)[1], donate_argnums=0)
    state = transform.init(one_task(updates))
    for losses in LOSSES:
        state = update(state, losses)
    np.testing.assert_allclose(state.weights, run(transform, LOSSES, updates)[-1][1].weights, rtol=1e-5)


@every_scheme
def test_init_knows_only_the_shape_of_the_prior(scheme):
    transform = scheme(PRIOR)
    states = [transform.init(params) for params in (jnp.full(3, jnp.nan), {"x": jnp.ones((2, 2))}, ())]
    for state in states[1:]:
        jax.tree.map(np.testing.assert_array_equal, states[0], state)
    assert states[0].weights.shape == states[0].head_weights.shape == (3,)


@every_scheme
@pytest.mark.parametrize("how", ["mask", "nan loss", "infinite loss"])
def test_an_absent_task_changes_nothing(scheme, how):
    """A task absent from every step leaves the others as if they were the only tasks, even with NaN gradients."""
    updates = gradients()
    poisoned = jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), updates)
    losses = LOSSES
    present = None
    if how == "mask":
        present = jnp.array([[True, False, True]] * len(LOSSES))
    else:
        losses = LOSSES.at[:, 1].set(jnp.nan if how == "nan loss" else jnp.inf)
    others = jnp.array([0, 2])
    alone = run(scheme(PRIOR[others]), LOSSES[:, others], jax.tree.map(lambda leaf: leaf[others], updates))
    for (ours, state), (theirs, without) in zip(run(scheme(PRIOR), losses, poisoned, present), alone, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)
        assert state.weights[1] == state.head_weights[1] == 0
        np.testing.assert_allclose(state.weights[others], without.weights, rtol=1e-5)
        np.testing.assert_allclose(state.weights.sum(), 2.0, rtol=1e-6)


@every_scheme
def test_averages_do_not_change_while_a_task_is_absent(scheme):
    """Losses of absent tasks have no influence, neither before a task is first present nor later."""
    present = jnp.array([[True, False, True], [True, True, True], [True, False, True], [True, True, True]])
    wild = jnp.where(present, LOSSES, jnp.array([1e6, 1e6, 1e6])[None])
    quiet = jnp.where(present, LOSSES, jnp.nan)
    results = zip(run(scheme(PRIOR), wild, None, present), run(scheme(PRIOR), quiet, None, present), strict=True)
    for ours, theirs in results:
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ours[1]))


@every_scheme
def test_all_tasks_absent(scheme):
    updates = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), gradients())
    present = jnp.zeros((1, 3), bool)
    transform = scheme(PRIOR)
    ((combined, state),) = run(transform, LOSSES[:1], updates, present)
    assert not state.weights.any() and not state.head_weights.any()
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0), combined)
    _, after = transform.update(gradients(), state, losses=LOSSES[0])  # the next step is as a first one
    jax.tree.map(np.testing.assert_array_equal, after, run(transform, LOSSES[:1])[0][1])


@every_scheme
@pytest.mark.parametrize("kept", [0, 1])
def test_a_task_without_prior_has_no_weight_at_all(scheme, kept):
    """With alpha = 1 or 0 the other task's gradient does not enter, even if it is NaN, and its head does not train."""
    updates = gradients(2)
    poisoned = jax.tree.map(lambda leaf: leaf.at[1 - kept].set(jnp.nan), updates)
    alpha = 1.0 - kept
    for combined, state in run(scheme(pair(alpha)), LOSSES[:, :2], poisoned):
        assert state.weights[kept] == 2 and state.weights[1 - kept] == 0
        assert state.head_weights[kept] > 0 and state.head_weights[1 - kept] == 0
        jax.tree.map(lambda ours, leaf: np.testing.assert_allclose(ours, 2 * leaf[kept], rtol=1e-6), combined, updates)


@every_scheme
def test_a_task_that_alone_has_a_prior_weighs_exactly_the_number_of_tasks(scheme):
    """Whatever its loss and its gradient. A quotient such as x / (x + 0) need not be 1 in a compiled program."""

    @jax.jit
    @jax.vmap
    def weights(alpha, losses, updates):
        transform = scheme(pair(alpha))
        _, state = transform.update(updates, transform.init(()), losses=losses)
        return transform.update(updates, state, losses=0.7 * losses)[1].weights

    rng = np.random.default_rng(0)
    losses, updates = (jnp.asarray(rng.uniform(0.1, 2, shape), jnp.float32) for shape in ((100, 2), (100, 2, 3)))
    alphas = jnp.tile(jnp.array([0.0, 1.0]), 50)
    np.testing.assert_array_equal(weights(alphas, losses, updates), 2 * jax.vmap(pair)(alphas))


@every_scheme
def test_only_tasks_without_prior_present(scheme):
    present = jnp.array([[False, True]])
    ((combined, state),) = run(scheme(pair(1.0)), LOSSES[:1, :2], None, present)
    assert not state.weights.any() and not state.head_weights.any()
    assert not any(leaf.any() for leaf in jax.tree.leaves(combined))


@every_scheme
def test_a_loss_of_zero(scheme):
    losses = jnp.array([[0.0, 1.0, 1.0], [0.0, 1.0, 1.0], [0.5, 1.0, 1.0], [0.0, 1.0, 1.0]])
    for combined, state in run(scheme(PRIOR), losses):
        np.testing.assert_allclose(state.weights.sum(), 3.0, rtol=1e-6)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((combined, state)))


@every_scheme
def test_works_inside_an_optax_chain(scheme):
    """A scheme is a `GradientTransformationExtraArgs` that can precede other transforms."""
    updates = gradients()
    chained = optax.chain(scheme(PRIOR), optax.scale(-0.5))
    combined, _ = chained.update(updates, chained.init(one_task(updates)), losses=LOSSES[0])
    expected, _ = scheme(PRIOR).update(updates, scheme(PRIOR).init(one_task(updates)), losses=LOSSES[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, -0.5 * b, rtol=1e-6), combined, expected)


# ------------------------------------------------------------------------------------------- closed forms


class Averages:
    """A moving average in plain Python, which starts at its first value."""

    def __init__(self, decay):
        self.decay = decay
        self.value = None

    def add(self, value):
        self.value = value if self.value is None else self.decay * self.value + (1 - self.decay) * value
        return self.value


def test_static_is_the_prior_times_the_number_of_tasks():
    for _, state in run(static(PRIOR), LOSSES):
        np.testing.assert_allclose(state.weights, [1.5, 0.9, 0.6], rtol=1e-6)
        np.testing.assert_array_equal(state.head_weights, state.weights)


def test_dynamic_step_by_step():
    tau, fast, slow = 0.3, 0.6, 0.95
    averages = [(Averages(fast), Averages(slow)) for _ in range(3)]
    for losses, (_, state) in zip(LOSSES, run(dynamic(PRIOR, tau=tau, fast=fast, slow=slow), LOSSES), strict=True):
        rates = [
            quick.add(float(loss)) / calm.add(float(loss)) for loss, (quick, calm) in zip(losses, averages, strict=True)
        ]
        raw = [float(a) * math.exp(rate / tau) for a, rate in zip(PRIOR, rates, strict=True)]
        np.testing.assert_allclose(state.weights, [3 * value / sum(raw) for value in raw], rtol=1e-5)
        np.testing.assert_array_equal(state.head_weights, state.weights)


def test_dynamic_starts_at_static_and_stays_there_without_progress():
    for _, state in run(dynamic(PRIOR), jnp.ones((5, 3))):
        np.testing.assert_allclose(state.weights, 3 * PRIOR, rtol=1e-6)


def test_dynamic_does_not_depend_on_scale():
    plain, scaled = (
        run(dynamic(PRIOR), LOSSES),
        run(dynamic(PRIOR), LOSSES * jnp.array([1.0, 100.0, 1e-3])[None]),
    )
    for (_, ours), (_, theirs) in zip(plain, scaled, strict=True):
        np.testing.assert_allclose(ours.weights, theirs.weights, rtol=1e-5)


def test_dynamic_with_extreme_temperatures():
    cold = run(dynamic(PRIOR, tau=1e-4), LOSSES)[-1][1].weights  # task 1 progresses least
    np.testing.assert_allclose(cold, [0, 3, 0], atol=1e-6)
    hot = run(dynamic(PRIOR, tau=1e6), LOSSES)[-1][1].weights
    np.testing.assert_allclose(hot, 3 * PRIOR, rtol=1e-5)


def test_joint_step_by_step():
    fast, slow, norm_decay = 0.6, 0.95, 0.7
    scales = jnp.array([1.0, 100.0, 0.01])
    transform = joint(PRIOR, fast=fast, slow=slow, norm_decay=norm_decay)
    averages = [(Averages(fast), Averages(slow), Averages(norm_decay)) for _ in range(3)]
    state = transform.init(one_task(gradients()))
    for step, losses in enumerate(LOSSES):
        updates = jax.tree.map(
            lambda leaf: leaf * jnp.expand_dims(scales, tuple(range(1, leaf.ndim))), gradients(seed=step)
        )
        _, state = transform.update(updates, state, losses=losses)
        raw = []
        for task, (quick, calm, size) in enumerate(averages):
            squares = sum(float((np.asarray(leaf[task], np.float64) ** 2).sum()) for leaf in updates.values())
            loss = float(losses[task])
            raw.append(float(PRIOR[task]) * quick.add(loss) / calm.add(loss) / size.add(math.sqrt(squares)))
        np.testing.assert_allclose(state.weights, [3 * value / sum(raw) for value in raw], rtol=1e-5)
        np.testing.assert_array_equal(state.head_weights, 1)


def test_joint_gives_each_task_its_share_of_the_gradient():
    updates = {"fused": gradients()["a"] * jnp.array([1.0, 1e2, 1e-3])[:, None, None]}
    ((_, state),) = run(joint(PRIOR), jnp.ones((1, 3)), updates)
    norms = np.sqrt(np.square(updates["fused"]).sum(axis=(1, 2)))
    shares = state.weights * norms
    np.testing.assert_allclose(shares / shares.sum(), PRIOR, rtol=1e-5)


def test_joint_with_a_task_that_has_no_gradient():
    """The kernel of a new head is zero: its task weighs its prior at first, and is balanced once it has a gradient."""
    updates = gradients(2)
    without = jax.tree.map(lambda leaf: leaf.at[1].set(0), updates)
    transform = joint(pair(0.5))
    ones = jnp.ones(2)
    _, state = transform.update(without, transform.init(()), losses=ones)
    np.testing.assert_allclose(state.weights, [1, 1], rtol=1e-6)
    _, state = transform.update(updates, state, losses=ones)
    _, expected = transform.update(updates, transform.init(()), losses=ones)
    np.testing.assert_allclose(state.weights, expected.weights, rtol=1e-5)
    nothing = jax.tree.map(jnp.zeros_like, updates)
    combined, state = transform.update(nothing, transform.init(()), losses=ones)
    np.testing.assert_allclose(state.weights, [1, 1], rtol=1e-6)
    assert not any(leaf.any() for leaf in jax.tree.leaves(combined))


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_joint_shows_a_gradient_that_is_not_finite_and_recovers(value):
    """With a finite loss this is the caller's error, which is not hidden. It must not stay in the averages."""
    transform = joint(pair(0.5))
    updates = gradients(2)
    broken = jax.tree.map(lambda leaf: leaf.at[0].set(value), updates)
    _, start = transform.update(updates, transform.init(()), losses=jnp.ones(2))
    combined, state = transform.update(broken, start, losses=jnp.ones(2))
    assert not any(jnp.isfinite(leaf).any() for leaf in jax.tree.leaves(combined))
    np.testing.assert_allclose(state.weights, start.weights, rtol=1e-6)
    combined, state = transform.update(updates, state, losses=jnp.ones(2))
    np.testing.assert_allclose(state.weights, start.weights, rtol=1e-6)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(combined))


def test_pair():
    np.testing.assert_array_equal(pair(0.25), [0.25, 0.75])
    np.testing.assert_array_equal(jax.vmap(pair)(jnp.array([0.0, 1.0])), [[0, 1], [1, 0]])


def test_combine_weights_the_heads_too():
    heads = {"kernel": jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf], [3.0, 4.0]])}
    combined = combine(heads, jnp.array([1.0, 0.0, 0.5]))
    np.testing.assert_array_equal(combined["kernel"], [2.5, 4.0])


def test_select_equals_the_scheme_it_selects_under_vmap():
    """Compares runs of three schemes in one program, on the same updates, with each scheme alone."""
    updates = gradients()
    schemes = [static(PRIOR), dynamic(PRIOR, tau=0.2), joint(PRIOR)]

    @jax.jit
    @jax.vmap
    def stacked(index):
        return [
            (combined, state.weights, state.head_weights)
            for combined, state in run(select(schemes, index), LOSSES, updates)
        ]

    results = stacked(jnp.arange(3))
    for index, scheme in enumerate(schemes):
        alone = [(combined, state.weights, state.head_weights) for combined, state in run(scheme, LOSSES, updates)]
        jax.tree.map(
            lambda ours, theirs, index=index: np.testing.assert_allclose(ours[index], theirs, rtol=1e-5, atol=1e-6),
            results,
            alone,
        )
    weights = np.asarray(results[-1][1])
    for one, other in itertools.combinations(weights, 2):
        assert np.abs(one - other).max() > 0.05  # three schemes, not one


def test_the_examples_of_the_docstrings():
    finder = doctest.DocTestFinder()
    runner = doctest.DocTestRunner()
    names = {"jax": jax, "jnp": jnp, "pair": pair, **SCHEMES, "select": select}
    examples = [test for module in MODULES for test in finder.find(module, extraglobs=names) if test.examples]
    assert {*weighting.SCHEMES, "select"} <= {test.name.split(".")[-1] for test in examples}
    for test in examples:
        runner.run(test)
    assert runner.failures == 0


# ------------------------------------------------------------------------------------------ learning tests


def two_tasks():
    """Returns two regression tasks whose solutions compete for a trunk of one unit."""
    inputs = jax.random.normal(jax.random.key(1), (512, 2))
    return inputs, inputs.T  # task k predicts input k


@functools.partial(jax.jit, static_argnames="scheme")
def learn(scale, scheme):
    """Returns the explained variance of both tasks after training with their losses multiplied by `scale`."""
    inputs, targets = two_tasks()
    transform = weighting.SCHEMES[scheme].make(pair(0.5))
    params = {"trunk": jnp.array([0.8, 0.6]), "heads": jnp.array([1.0, 1.0])}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05))

    def task_losses(heads, fused):
        return scale * jnp.mean(jnp.square(heads[:, None] * fused[None, :] - targets), axis=1)

    def step(carry, _):
        params, optimizer_state, state = carry
        fused, pull_back = jax.vjp(lambda trunk: inputs @ trunk, params["trunk"])
        losses = task_losses(params["heads"], fused)
        by_head, by_fused = jax.jacobian(task_losses, argnums=(0, 1))(params["heads"], fused)
        combined, state = transform.update(by_fused, state, losses=losses)
        (trunk,) = pull_back(combined)
        update = {"trunk": trunk, "heads": state.head_weights * jnp.diagonal(by_head)}
        update, optimizer_state = optimizer.update(update, optimizer_state)
        return (optax.apply_updates(params, update), optimizer_state, state), losses

    carry = (params, optimizer.init(params), transform.init(()))
    (params, _, state), _ = jax.lax.scan(step, carry, length=600)
    losses = task_losses(params["heads"], inputs @ params["trunk"]) / scale
    return 1 - losses / jnp.var(targets, axis=1), state.weights


def test_joint_learns_the_task_that_static_fails():
    """With the second loss a hundred times as large, the trunk under `static` serves only the second task."""
    scale = jnp.array([1.0, 100.0])
    explained, _ = learn(scale, "static")
    assert explained[0] < 0.1 and explained[1] > 0.9
    explained, _ = learn(scale, "joint")
    assert explained[0] > 0.2 and explained[1] > 0.2
    explained, _ = learn(scale, "dynamic")  # a ratio of losses does not depend on their scale
    assert explained[0] < 0.1


@pytest.mark.parametrize("scheme", ["gradnorm", "imtl_g"])
def test_gradient_schemes_learn_the_task_that_static_fails(scheme):
    explained, _ = learn(jnp.array([1.0, 100.0]), scheme)
    assert explained[0] > 0.2 and explained[1] > 0.2


def test_dynamic_moves_weight_to_the_task_that_stalls():
    steps = jnp.arange(200.0)
    falling, stalled = jnp.exp(-steps / 20), jnp.ones_like(steps)
    transform = dynamic(pair(0.5))

    def step(state, losses):
        _, state = transform.update(jnp.ones(2), state, losses=losses)
        return state, state.weights

    _, weights = jax.lax.scan(step, transform.init(()), jnp.stack([falling, stalled], axis=1))
    assert weights[-1, 1] > 1.3
    assert (jnp.diff(weights[:50, 1]) > 0).all()


def test_dynamic_moves_weight_to_noise_while_learning():
    """Trains on one task that can be learned and one that cannot, because its target is noise."""
    keys = jax.random.split(jax.random.key(2), 2)
    inputs = jax.random.normal(keys[0], (256, 8))
    targets = jnp.stack([inputs.sum(axis=1), jax.random.normal(keys[1], (256,))])
    transform = dynamic(pair(0.5))

    def task_losses(kernel):
        return jnp.mean(jnp.square(kernel.T @ inputs.T - targets), axis=1)

    def step(carry, _):
        kernel, state = carry
        by_task = jax.jacobian(task_losses)(kernel)
        combined, state = transform.update(by_task, state, losses=task_losses(kernel))
        return (kernel - 0.01 * combined, state), state.weights

    _, weights = jax.lax.scan(step, (jnp.zeros((8, 2)), transform.init(())), length=60)
    np.testing.assert_allclose(weights[0], [1, 1], rtol=1e-6)
    assert weights[-1, 1] > 1.2
