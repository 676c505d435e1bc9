"""Pretrained models inside the joint one: cut, shared, adapted; on a toy corpus of raw audio, 4 speakers."""

from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny_study import GOLDEN_SSL, hyperparameters, recipe, steps

from sejax.data.buckets import assemble
from sejax.data.order import epoch_order
from sejax.data.scales import fold_scales
from sejax.data.types import Stream
from sejax.engine import epoch
from sejax.engine.augment import Augment
from sejax.engine.epoch import Chunk, Shared
from sejax.engine.leaves import Leaves
from sejax.engine.runs import enumerate_runs, hparams_of, lay_out, run_sharding
from sejax.engine.search import expand_grid
from sejax.engine.step import Frozen, Network, Recipe, Run, StepMetrics
from sejax.errors import InputError
from sejax.models.heads import Heads
from sejax.models.joint import JointModel, StreamSpec, Trunk
from sejax.pretrained.base import Lora
from sejax.pretrained.convert import load_checkpoint
from sejax.pretrained.finetune import Tuning, divide, frozen_forward, learning_rates, merge, side_by_side

N, BATCH = 16, 8
SPEAKER = np.arange(N) // 4
TRAINED = np.stack([np.isin(SPEAKER, (0, 1)), np.isin(SPEAKER, (2, 3))])  # of fold 0 and of fold 1
ONE_DEVICE = run_sharding(jax.local_devices()[:1])
RECIPE = recipe(averaging=0.0, augment=Augment(1, 4, 1, 0.3))
HPARAMS = hyperparameters(learning_rate=0.01, dropout=0.0, statistics_dropout=0.0, label_smoothing=0.0)
LOADED = load_checkpoint(str(GOLDEN_SSL / "wavlm-large"))
CHECKPOINT = replace(LOADED, params=jax.tree.map(jnp.asarray, LOADED.params))
LAYERS = CHECKPOINT.backbone.layers
LORA = Lora(2, 4.0, ("q_proj", "v_proj", "output"))
TUNINGS = {
    "frozen": Tuning(CHECKPOINT.backbone, "frozen"),
    "lora": Tuning(CHECKPOINT.backbone, "lora", lora=LORA),
    "lora above 1": Tuning(CHECKPOINT.backbone, "lora", frozen_layers=1, lora=LORA),
    "full": Tuning(CHECKPOINT.backbone, "full"),
    "full above 2": Tuning(CHECKPOINT.backbone, "full", frozen_layers=2),
    "lora of the last": Tuning(CHECKPOINT.backbone, "lora", layer=LAYERS, lora=LORA),
    "full to layer 2": Tuning(CHECKPOINT.backbone, "full", layer=2),
}


def joint_model(tuning: Tuning) -> JointModel:
    return JointModel(
        Trunk(
            streams=(StreamSpec("wavlm", "linear", 1, 2, tuning.states, tuning),),
            width=8,
            fused=8,
            heads=2,
            self_attention=False,
            co_attention=False,
            statistics=False,
        ),
        Heads(classes=2, dimensions=3),
    )


def make_audio(garble: int | None = None) -> list[np.ndarray]:
    """A tone per class in noise; the utterances of speaker `garble` are noise alone."""
    rng = np.random.default_rng(0)
    audio = []
    for row in range(N):
        time = np.arange(rng.integers(2000, 3000)) / 16_000
        tone = np.sin(2 * np.pi * (200, 1500)[row % 2] * time)
        noise = rng.standard_normal(len(time))
        x = 0.3 * tone + 0.05 * noise if SPEAKER[row] != garble else noise[::-1]
        audio.append((3000 * x).astype(np.int16)[:, None])
    return audio


class Study(NamedTuple):
    chunk: Chunk
    shared: Shared
    start: Any


def make_study(tuning: Tuning, *, garble: int | None = None, folds=(0, 1)) -> Study:
    rng = np.random.default_rng(1)
    target = np.eye(2, dtype=np.float32)[np.arange(N) % 2]
    vad = (target[:, :1] * np.ones((1, 3)) - 0.5 + rng.normal(0, 0.1, (N, 3))).astype(np.float32)
    if garble is not None:
        garbled = garble == SPEAKER
        target[garbled], vad[garbled] = target[garbled][::-1], np.nan
    data, _ = assemble(
        {"wavlm": Stream([make_audio(garble)], np.zeros((N, 1, 0), np.float32))},
        encoded=["wavlm"],
        target=target,
        vad=vad,
        n_buckets=1,
        batch_size=BATCH,
        trained=TRAINED,
        max_seconds=0.0,
        hop_seconds={"wavlm": 1 / 16_000},
        frames_dtype=np.float16,
    )
    frame_scale, statistic_scale = fold_scales(data, list(TRAINED))
    assert frame_scale == {}
    runs = enumerate_runs(len(folds), expand_grid(HPARAMS, {}), [3])
    layout = lay_out(runs, slots=len(runs))
    fold = np.array(folds)[layout.scatter(np.array([run.fold for run in runs]))]
    stacked = Run(
        jax.tree.map(layout.scatter, hparams_of(runs, RECIPE.schemes)),
        TRAINED[fold],
        np.ones((*fold.shape, 2), np.float32),
        {},
        jax.tree.map(lambda x: x[fold], statistic_scale),
        steps(2, 0, 100, *fold.shape),
    )
    part = divide(CHECKPOINT.params, tuning)
    put = partial(jax.tree.map, jnp.asarray)
    frozen = put(Frozen({"wavlm": part.lower}, {"wavlm": part.upper}))
    chunks = layout.run.shape[0]
    shared_order = jnp.zeros(chunks, jnp.int32)
    data = put(jax.tree.map(np.asarray, data))
    chunk = Chunk(put(stacked), shared_order, jnp.full(chunks, 3, jnp.int32))
    return Study(chunk, Shared(data, frozen), {"wavlm": part.start})


def arguments(study: Study, chunk: Chunk, states: Any, number: int, recipe: Recipe):
    """Returns the arguments of `train_part` for a whole epoch."""
    order = epoch_order(
        [bucket.utterance for bucket in study.shared.data.buckets],
        orders=[(3, TRAINED.any(axis=0))],
        epoch=number,
        batch_size=BATCH,
        views=1,
    )
    ((_, part),) = epoch.parts(number, order, together=True)
    shape = (*chunk.runs.trained.shape[:2], int(np.sum(part.taken)), len(recipe.tasks))
    on_host = StepMetrics.none(*shape), part, np.int32(len(chunk.seed))
    metrics, part, n_chunks = jax.tree.map(jnp.asarray, on_host)
    return states, metrics, chunk, epoch.without_frames(study.shared), study.shared.data.buckets, part, n_chunks


def leaves_of(study: Study, model: JointModel) -> Leaves:
    return epoch.leaves_of(study.chunk, study.shared, study.start, network=Network(model, RECIPE))


def params_of(study: Study, model: JointModel, states: Any) -> Any:
    return leaves_of(study, model).split(states.params)


def train(study: Study, model: JointModel, epochs: int):
    network = Network(model, RECIPE)
    states = epoch.init_runs(study.chunk, study.shared, study.start, network=network)
    metrics = None
    for number in range(1, epochs + 1):
        own = arguments(study, study.chunk, states, number, RECIPE)
        states, metrics = epoch.train_part(
            *own, network=replace(network, leaves=leaves_of(study, model)), by_run=ONE_DEVICE
        )
    return states, metrics if metrics is None else epoch.over_epoch(metrics)


def predict(study: Study, model: JointModel, params):
    rows = (jnp.broadcast_to(jnp.arange(N, dtype=jnp.int32), (*study.chunk.runs.trained.shape[:2], 1, N)),)
    leaves = leaves_of(study, model)
    return epoch.predict(leaves.join(params), study.chunk.runs, study.shared, rows, model=model, leaves=leaves)


# ------------------------------------------------------------------------------------------------ the cut


@pytest.mark.parametrize("name", TUNINGS)
def test_the_parts_are_the_whole(name: str):
    """Lower and upper section, before any training, give the hidden states of the undivided model."""
    tuning = TUNINGS[name]
    rng = np.random.default_rng(0)
    samples = jnp.asarray(rng.integers(-3000, 3000, (2, 2400, 1)), jnp.int16)
    lengths = jnp.array([2400, 1500], jnp.int32)
    waveform = tuning.backbone.prepare(samples[..., 0].astype(jnp.float32) / 32768, lengths)
    whole: Any = tuning.backbone.module().apply({"params": CHECKPOINT.params}, waveform, lengths)
    part = divide(CHECKPOINT.params, tuning)
    below, frames = frozen_forward(tuning, part.lower, samples, lengths, None)
    assert_array_equal(frames, whole.mask.sum(axis=1))
    found = below
    if (upper := tuning.upper()) is not None:
        size = tuning.backbone.hidden if tuning.cut > 1 else tuning.backbone.frame_size
        assert tuning.cut_size == size and tuning.joins_states == (tuning.layer is None and tuning.cut > 1)
        params = merge(
            upper.init(jax.random.key(0), below[..., -size:], frames)["params"], {**part.upper, **part.start}
        )
        output: Any = upper.apply({"params": params}, below[..., -size:], frames)
        found = side_by_side(output, tuning)
        if tuning.joins_states:
            found = jnp.concatenate([below, found], axis=-1)
    expected = whole.hidden if tuning.layer is None else whole.hidden[tuning.layer][None]
    expected = jnp.moveaxis(expected, 0, 2).reshape(*found.shape)
    assert_allclose(jnp.where(whole.mask[..., None], found - expected, 0), 0, atol=2e-5)


def test_a_run_trains_what_its_mode_says():
    trees = {}
    for name in ("frozen", "lora", "lora above 1", "full", "full above 2"):
        model, study = joint_model(TUNINGS[name]), make_study(TUNINGS[name])
        states, _ = train(study, model, 0)
        trees[name] = params_of(study, model, states)["trunk"].get("wavlm_ssl")
    assert trees["frozen"] is None
    leaves = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(trees["lora"])}
    assert leaves == {
        f"['layers']{part}['lora_{end}']"
        for part in ("['attention']['q_proj']", "['attention']['v_proj']", "['feed_forward']['output']")
        for end in "ab"
    }
    one = trees["lora above 1"]["layers"]["attention"]["q_proj"]["lora_a"]
    assert one.shape == (1, 2, LAYERS - 1, CHECKPOINT.backbone.hidden, LORA.rank)
    assert set(trees["full"]) == {
        "feature_projection",
        "mask_embedding",
        "position",
        "relative_position",
        "layers",
        "encoder_norm",
    }
    start = np.asarray(trees["full above 2"]["layers"]["attention"]["q_proj"]["kernel"])
    assert_array_equal(start[0, 0], CHECKPOINT.params["layers"]["attention"]["q_proj"]["kernel"][2:])
    assert_array_equal(start[0, 1], start[0, 0])


def test_layers_that_do_not_exist_cannot_be_frozen():
    with pytest.raises(InputError, match=f"frozen_layers is {LAYERS}, expected fewer than the {LAYERS} layers"):
        replace(TUNINGS["lora"], frozen_layers=LAYERS)


# ----------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("name", ["lora", "lora above 1", "full", "full above 2"])
def test_training_learns_and_moves_what_is_trained(name: str):
    model, study = joint_model(TUNINGS[name]), make_study(TUNINGS[name])
    before, first = train(study, model, 1)
    before = jax.tree.map(np.asarray, params_of(study, model, before)["trunk"]["wavlm_ssl"])
    after, last = train(study, model, 12)
    assert np.all(np.asarray(last.loss) < 0.8 * np.asarray(first.loss))
    for path, x in jax.tree_util.tree_leaves_with_path(params_of(study, model, after)["trunk"]["wavlm_ssl"]):
        if path[0].key != "mask_embedding" and path[-2].key != "k_proj":  # a key's bias has no gradient
            old = before
            for key in path:
                old = old[key.key]
            assert np.abs(np.asarray(x) - old).max() > 0, path


def test_adapters_start_as_nothing():
    frozen, lora = (joint_model(TUNINGS[name]) for name in ("frozen", "lora"))
    outputs = []
    for name, model in (("frozen", frozen), ("lora", lora)):
        study = make_study(TUNINGS[name])
        states, _ = train(study, model, 0)
        params = params_of(study, model, states)
        outputs.append((study, model, params))
    (study, model, params), (lora_study, lora_model, lora_params) = outputs
    shared = {
        **lora_params,
        "trunk": {**params["trunk"], "wavlm_ssl": lora_params["trunk"]["wavlm_ssl"]},
        "head": params["head"],
    }
    for ours, theirs in zip(predict(lora_study, lora_model, shared), predict(study, model, params), strict=True):
        assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("name", ["frozen", "lora above 1", "full"])
def test_a_fold_never_depends_on_its_held_out_speakers(name: str):
    """Other audio and labels of a held-out speaker: not a bit of that fold's parameters changes."""
    noise = CHECKPOINT.backbone.noise._replace(
        time_mask_prob=0.3, time_mask_length=2, feature_mask_prob=0.2, feature_mask_length=3
    )
    backbone = replace(CHECKPOINT.backbone, noise=noise)
    model = joint_model(replace(TUNINGS[name], backbone=backbone, layer_drop=0.2))
    honest, _ = train(make_study(model.streams[0].tuning), model, 2)
    garbled, _ = train(make_study(model.streams[0].tuning, garble=3), model, 2)
    changed = False
    for ours, theirs in zip(jax.tree.leaves(honest.params), jax.tree.leaves(garbled.params), strict=True):
        assert_array_equal(ours[:, 0], theirs[:, 0])  # fold 0 does not train on speaker 3
        changed |= bool(np.any(np.asarray(ours[:, 1]) != np.asarray(theirs[:, 1])))
    assert changed


@pytest.mark.parametrize("name", ["lora", "full above 2"])
def test_stacked_folds_learn_what_each_learns_alone(name: str):
    model = joint_model(TUNINGS[name])
    _, together = train(make_study(TUNINGS[name]), model, 3)
    for fold in (0, 1):
        _, alone = train(make_study(TUNINGS[name], folds=(fold,)), model, 3)
        assert_allclose(np.asarray(together.loss)[:, fold], np.asarray(alone.loss)[:, 0], atol=2e-4)


def test_checkpointing_changes_nothing():
    plain, checkpointed = (replace(TUNINGS["lora"], checkpointing=on) for on in (False, True))
    _, one = train(make_study(plain), joint_model(plain), 3)
    _, other = train(make_study(checkpointed), joint_model(checkpointed), 3)
    assert_allclose(one.loss, other.loss, atol=1e-5)


def test_bfloat16_learns_too():
    tuning = replace(TUNINGS["lora"], dtype="bfloat16")
    model, study = joint_model(tuning), make_study(tuning)
    with jax.numpy_dtype_promotion("standard"):  # on the way back jax's attention mixes types
        _, first = train(study, model, 1)
        states, last = train(study, model, 12)
    assert np.all(np.asarray(last.loss) < 0.8 * np.asarray(first.loss))
    assert {x.dtype for x in jax.tree.leaves(states.params)} == {np.dtype(np.float32)}


# ------------------------------------------------------------------------------------------ shared arrays


@cache
def compiled_epoch(name: str, folds: tuple[int, ...]) -> tuple[Any, int, int]:
    """Returns the program, the bytes of the arrays that each run has, and of those that are frozen."""
    model = joint_model(TUNINGS[name])
    study = make_study(model.streams[0].tuning, folds=folds)
    network = Network(model, RECIPE)
    states = epoch.init_runs(study.chunk, study.shared, study.start, network=network)
    own = arguments(study, study.chunk, states, 1, RECIPE)
    known = replace(network, leaves=leaves_of(study, model))
    compiled = epoch.train_part.lower(*own, network=known, by_run=ONE_DEVICE).compile()
    of_runs = sum(x.nbytes for x in jax.tree.leaves((states, study.chunk.runs)))
    frozen = sum(x.nbytes for x in jax.tree.leaves(study.shared.frozen))
    return compiled, of_runs, frozen


FEW, MANY = (0, 1), (0, 1) * 3


def test_the_frozen_trunk_is_on_the_device_once():
    """More runs add only their states; no array of the program has the trunk's kernels per run."""
    few, bytes_few, frozen = compiled_epoch("lora", FEW)
    many, bytes_many, _ = compiled_epoch("lora", MANY)
    grown = many.memory_analysis().argument_size_in_bytes - few.memory_analysis().argument_size_in_bytes
    assert frozen > 40_000
    assert abs(grown - (bytes_many - bytes_few)) < 0.02 * frozen
    a = CHECKPOINT.backbone
    text = many.as_text()
    assert f"f32[{LAYERS},{a.hidden},{a.intermediate}]" in text
    assert f"f32[6,{LAYERS},{a.hidden},{a.intermediate}]" not in text
    assert f"f32[6,{a.hidden},{a.intermediate}]" not in text


def test_what_is_frozen_is_computed_once_for_all_runs():
    """The work of a step grows with the runs by what is above the cut alone."""

    def grown(name: str) -> float:
        few, many = (compiled_epoch(name, folds)[0].cost_analysis()["flops"] for folds in (FEW, MANY))
        return many - few

    assert grown("frozen") < 0.2 * grown("lora")


# -------------------------------------------------------------------------------------------- learning rates


def test_learning_rates_fall_from_the_top_down():
    tuning = replace(TUNINGS["full"], learning_rate=0.5, layer_decay=0.8)
    params = divide(CHECKPOINT.params, tuning).start
    factors = learning_rates(params, tuning)
    assert jax.tree.structure(factors) == jax.tree.structure(params)
    kernel = factors["layers"]["attention"]["q_proj"]["kernel"]
    assert_allclose(np.ravel(kernel), 0.5 * 0.8 ** np.arange(LAYERS - 1, -1, -1), rtol=1e-6)
    assert_allclose(factors["encoder_norm"]["scale"], 0.5)  # behind the last layer of a pre-norm model
    assert_allclose(factors["feature_projection"]["projection"]["kernel"], 0.5 * 0.8**LAYERS, rtol=1e-6)


def test_a_learning_rate_of_nothing_moves_nothing():
    tuning = replace(TUNINGS["full above 2"], learning_rate=0.0)
    model, study = joint_model(tuning), make_study(tuning)
    states, _ = train(study, model, 2)
    for path, x in jax.tree_util.tree_leaves_with_path(params_of(study, model, states)["trunk"]["wavlm_ssl"]):
        start: Any = divide(CHECKPOINT.params, tuning).start
        for key in path:
            start = start[key.key]
        assert_array_equal(x[0, 0], start)


def test_a_run_hears_the_noise_of_its_own_rates():
    """In one program, of a model that is frozen as a whole, whose runs share the batch."""
    tuning = TUNINGS["frozen"]
    network = Network(joint_model(tuning), replace(RECIPE, augment=Augment(0, 0, 0, 0.0, used=("noise", "gain"))))
    study, params = make_study(tuning, folds=(0, 0)), {}
    start = epoch.init_runs(study.chunk, study.shared, study.start, network=network)
    leaves = leaves_of(study, network.model)
    network = replace(network, leaves=leaves)
    for noise in (1.0, 0.0):
        hparams = study.chunk.runs.hparams._replace(noise=jnp.array([[noise, 0.0]], jnp.float32))
        chunk = study.chunk._replace(runs=study.chunk.runs._replace(hparams=hparams))
        states = jax.tree.map(jnp.copy, start)  # which are used up
        own = arguments(study, chunk, states, 1, network.recipe)
        states, _ = epoch.train_part(*own, network=network, by_run=ONE_DEVICE)
        params[noise] = leaves.split(states.params)
    jax.tree.map(lambda x, y: assert_array_equal(x[0, 1], y[0, 1]), params[1.0], params[0.0])
    jax.tree.map(lambda x: assert_array_equal(x[0, 0], x[0, 1]), params[0.0])
    changed = [bool((x[0, 0] != x[0, 1]).any()) for x in jax.tree.leaves(params[1.0])]
    assert np.mean(changed) > 0.5
