"""Augmentation on the device: mixup of what a run may see, noise and gain of raw audio."""

from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny_study import hparams, recipe, steps

from sejax.data.types import Batch, Scale
from sejax.engine import step
from sejax.engine.augment import Augment, Seen, corrupt_audio, mixing_partners, mixup
from sejax.engine.leaves import Leaves
from sejax.engine.step import Frozen, Network, Run
from sejax.models.heads import Heads
from sejax.models.joint import JointModel, StreamSpec, Trunk

ROWS, TIME, FEATURES = 9, 16, 3
NOTHING_FROZEN = Frozen({}, {})
MODEL = JointModel(
    Trunk(
        (StreamSpec("a", "linear", 1, 1),),
        width=8,
        fused=8,
        heads=2,
        self_attention=True,
        co_attention=True,
        statistics=True,
    ),
    Heads(classes=2, dimensions=3),
)


partners = jax.jit(mixing_partners)


def make_batch(seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(
        utterance=jnp.arange(ROWS),
        frames={"a": jnp.asarray(rng.normal(size=(ROWS, TIME, FEATURES)), jnp.float32)},
        lengths={"a": jnp.asarray(rng.integers(5, TIME + 1, ROWS), jnp.int32)},
        statistics={"a": jnp.asarray(rng.normal(size=(ROWS, 4)), jnp.float32)},
        target=jnp.eye(2)[jnp.arange(ROWS) % 2].at[3].set(0.0),
        vad=jnp.asarray(rng.normal(size=(ROWS, 3)), jnp.float32).at[2, 1].set(jnp.nan),
    )


def make_run(trained: np.ndarray, **changes: Any) -> Run:
    return Run(
        jax.tree.map(jnp.asarray, hparams(**changes)),
        jnp.asarray(trained),
        jnp.ones(2),
        {"a": Scale(jnp.zeros(FEATURES), jnp.ones(FEATURES))},
        {"a": Scale(jnp.zeros(4), jnp.ones(4))},
        jax.tree.map(jnp.asarray, steps(1, 0, 10)),
    )


def seen_of(batch: Batch, run: Run) -> Seen:
    inputs = step.visible_inputs(batch, run, run.trained[batch.utterance])
    return Seen(*inputs, batch.target, batch.vad)


# ---------------------------------------------------------------------------------------------------------- mixup


@pytest.mark.parametrize("n_visible", [0, 1, 2, 5, ROWS])
def test_partners_are_other_visible_rows(n_visible: int):
    rng = np.random.default_rng(n_visible)
    drawn = set()
    for seed in range(20):
        visible = rng.permutation(ROWS) < n_visible
        partner = np.asarray(partners(jnp.asarray(visible), jax.random.key(seed)))
        assert_array_equal(partner[~visible], np.flatnonzero(~visible))
        assert visible[partner[visible]].all()
        assert sorted(partner) == list(range(ROWS))
        assert n_visible < 2 or (partner != np.arange(ROWS))[visible].all()
        drawn.add(tuple(partner))
    assert n_visible < 3 or len(drawn) > 10


def test_a_mixture_is_of_an_utterance_and_its_partner():
    batch, trained = make_batch(), np.arange(ROWS) != 4
    before = seen_of(batch, make_run(trained))
    key = jax.random.key(1)
    after = jax.jit(mixup)(before, jnp.asarray(trained), jnp.float32(0.4), key)
    partner = np.asarray(partners(jnp.asarray(trained), jax.random.split(key)[0]))
    for row in np.flatnonzero(trained):
        own, other = (np.asarray(before.statistics["a"][i]) for i in (row, partner[row]))
        share = (np.asarray(after.statistics["a"][row]) - other) / (own - other)
        assert_allclose(share, share[0], rtol=1e-4)
        assert 0.5 <= share[0] <= 1.0
        both = min(batch.lengths["a"][row], batch.lengths["a"][partner[row]])
        x, y = (np.asarray(before.frames["a"][i]) for i in (row, partner[row]))
        expected = np.where(np.arange(TIME)[:, None] < both, share[0] * x + (1 - share[0]) * y, x)
        assert_allclose(after.frames["a"][row], expected, rtol=1e-4, atol=1e-5)
        expected = share[0] * batch.vad[row] + (1 - share[0]) * batch.vad[partner[row]]
        assert_allclose(after.vad[row], expected, rtol=1e-4, atol=1e-5)  # NaN if either is
        target = share[0] * batch.target[row] + (1 - share[0]) * batch.target[partner[row]]
        assert_allclose(after.target[row], 0 * target if 3 in (row, partner[row]) else target, rtol=1e-4, atol=1e-5)
    assert_array_equal(after.masks["a"], before.masks["a"])
    assert np.isnan(after.vad).sum() == 2  # of the row that lacks the dimension, and of the one that it is mixed into


def test_the_shares_are_those_of_the_beta_distribution():
    """Beta(1, 1) is even, and the larger part is from 1/2 to 1; a small alpha hardly mixes."""
    n = 4000
    one_each = Seen({}, {}, {"a": jnp.arange(n, dtype=jnp.float32)[:, None]}, jnp.ones((n, 1)), jnp.zeros((n, 3)))
    key, visible = jax.random.key(0), jnp.ones(n, bool)
    partner = np.asarray(partners(visible, jax.random.split(key)[0]))
    shares = {}
    for alpha in (1.0, 0.1):
        mixed = np.asarray(jax.jit(mixup)(one_each, visible, jnp.float32(alpha), key).statistics["a"][:, 0])
        shares[alpha] = (mixed - partner) / (np.arange(n) - partner)
    assert_allclose(np.quantile(shares[1.0], [0.1, 0.5, 0.9]), [0.55, 0.75, 0.95], atol=0.02)
    assert np.median(shares[0.1]) > 0.99


def test_without_mixup_a_run_beside_mixed_ones_sees_what_it_is_given():
    before = seen_of(make_batch(), make_run(np.ones(ROWS, bool)))
    after = jax.jit(mixup)(before, jnp.ones(ROWS, bool), jnp.float32(0.0), jax.random.key(0))
    jax.tree.map(assert_array_equal, after, before)


@cache
def compiled(*used: str):
    """Returns init and step of a run, of a program that holds these augmentations."""
    network = Network(MODEL, recipe(augment=Augment(1, 4, 1, 0.4, used=used)))

    def advance(state: step.State, run: Run, batch: Batch, key: Any) -> Any:
        params = jax.eval_shape(partial(step.init_params, network, NOTHING_FROZEN, {}), run, batch, key)
        known = replace(network, leaves=Leaves.of(params))
        return step.train_step(known, NOTHING_FROZEN, state, run, batch, key)

    return jax.jit(partial(step.init_state, network, NOTHING_FROZEN, {})), jax.jit(advance)


def learned(batch: Batch, run: Run, *used: str):
    """Returns the parameters after three steps."""
    begin, _ = compiled()
    _, advance = compiled(*used)
    state = begin(run, make_batch(), jax.random.key(0))
    for i in range(3):
        state, _ = advance(state, run, batch, jax.random.key(i))
    return state.params


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_mixup_knows_nothing_of_the_held_out(alpha: float):
    """Features and labels of held-out utterances become garbage, in the same batch: the parameters keep their bits."""
    trained = np.arange(ROWS) % 3 != 1
    run, batch = make_run(trained, **{"augment.mixup": alpha}), make_batch()

    def spoil(x, value):
        rows = jnp.asarray(trained).reshape(-1, *[1] * (x.ndim - 1))
        return jnp.where(rows, x, jnp.asarray(value, x.dtype))

    spoilt = batch._replace(
        frames=jax.tree.map(lambda x: spoil(x, jnp.nan), batch.frames),
        lengths=jax.tree.map(lambda x: spoil(x, TIME), batch.lengths),
        statistics=jax.tree.map(lambda x: spoil(x, 1e30), batch.statistics),
        target=spoil(batch.target, 7.0),
        vad=spoil(batch.vad, jnp.inf),
    )
    params = [learned(given, run, "mixup") for given in (batch, spoilt)]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
    jax.tree.map(assert_array_equal, *params)


def test_an_unused_augmentation_is_no_part_of_the_program():
    """And a run with a rate of 0 in a program that has it learns the same as without."""
    run, batch = make_run(np.ones(ROWS, bool)), make_batch()
    state = compiled()[0](run, batch, jax.random.key(0))
    sizes = [
        compiled(*used)[1].lower(state, run, batch, jax.random.key(0)).as_text().count("\n")
        for used in ((), ("mixup",))
    ]
    assert sizes[0] < sizes[1]
    jax.tree.map(partial(assert_allclose, rtol=1e-5, atol=1e-6), learned(batch, run), learned(batch, run, "mixup"))


# ------------------------------------------------------------------------------------------------------ raw audio


def make_audio() -> Batch:
    """Two raw streams of one audio, int16, beside acoustic frames; with an offset, and full scale in the padding."""
    rng = np.random.default_rng(0)
    lengths = jnp.asarray(rng.integers(2000, 4000, ROWS), jnp.int32)
    audio = rng.normal(500, 1000, (ROWS, 4000, 1))
    audio = np.where(np.arange(4000)[None, :, None] < np.asarray(lengths)[:, None, None], audio, 32767).astype(np.int16)
    batch = make_batch()
    raw = {"x": jnp.asarray(audio), "y": jnp.asarray(audio)}
    return batch._replace(frames=batch.frames | raw, lengths=batch.lengths | {"x": lengths, "y": lengths})


def corrupted(noise: float, gain: float, seed: int = 0) -> dict[str, np.ndarray]:
    augment = Augment(0, 0, 0, 0.0, noise_snr=(5.0, 10.0), used=("noise", "gain"))
    heard = jax.jit(corrupt_audio, static_argnames="augment")(
        make_audio(), augment, jnp.float32(noise), jnp.float32(gain), jax.random.key(seed)
    )
    return {name: np.asarray(x) for name, x in heard.items()}


def test_noise_of_raw_audio_is_as_far_below_the_speech_as_drawn():
    batch, heard = make_audio(), corrupted(1.0, 0.0)
    assert_array_equal(heard["a"], batch.frames["a"])
    assert heard["x"].dtype == np.int16
    assert_array_equal(heard["x"], heard["y"])
    levels = []
    for row, length in enumerate(np.asarray(batch.lengths["x"])):
        clean = np.asarray(batch.frames["x"][row, :, 0], float)
        noise = heard["x"][row, :, 0] - clean
        assert not noise[length:].any()
        levels.append(10 * np.log10(clean[:length].var() / noise[:length].var()))
    assert 4.7 < min(levels) < max(levels) < 10.3  # of so many samples
    assert len({round(level, 2) for level in levels}) == ROWS


def test_a_share_of_the_utterances_gets_noise_and_none_changes_without():
    clean = np.asarray(make_audio().frames["x"])
    assert_array_equal(corrupted(0.0, 0.0)["x"], clean)
    share = np.mean([(corrupted(0.3, 0.0, seed)["x"] != clean).any(axis=(1, 2)) for seed in range(60)])
    assert abs(share - 0.3) < 0.06


def test_gain_changes_the_level_up_or_down_and_clips():
    clean, found = np.asarray(make_audio().frames["x"][..., 0], float), corrupted(0.0, 20.0)["x"][..., 0]
    factors = []
    for x, y in zip(clean, found, strict=True):
        loud = np.flatnonzero(np.abs(x[:2000]) > 200)
        factor = np.median(y[loud] / x[loud])
        assert_allclose(y, np.clip(factor * x, -32768, 32767), atol=0.01 * 32767)
        factors.append(20 * np.log10(factor))
    assert -20 <= min(factors) < 0 < max(factors) <= 20
    assert found.max() == 32767
