"""Compares PyTorch's joint model and training with those of sejax: same parameters, same numbers. Needs PyTorch."""

import dataclasses
import importlib
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny_study import hparams, recipe, steps

from sejax.config import default_config
from sejax.data.buckets import assemble
from sejax.data.order import take_batch
from sejax.data.scales import fold_scales
from sejax.data.types import Data, Scale, Stream
from sejax.engine.augment import Augment
from sejax.engine.leaves import Leaves
from sejax.engine.losses import cross_entropy, vad_loss
from sejax.engine.step import Frozen, Network, Run, init_state, train_step
from sejax.models.heads import Heads
from sejax.models.joint import JointModel, Rates, StreamSpec, Trunk
from tools import golden_joint

torch = pytest.importorskip("torch")
torch_data, torch_layers, torch_losses, torch_model, torch_training, torch_weights = (
    importlib.import_module(f"tools.benchmarks.torch_joint.{name}")
    for name in ("data", "layers", "losses", "model", "training", "weights")
)

ENCODERS = {"a": "lstm", "b": "transformer", "c": "conv", "d": "linear"}
FEATURES = {"a": 5, "b": 6, "c": 7, "d": 9}
STRIDE = {"a": 4, "b": 4, "c": 4, "d": 2}
TIME = {"a": 23, "b": 31, "c": 28, "d": 17}  # not all multiples of the stride
STATISTICS = {"a": 3, "b": 4, "c": 5, "d": 6}
N, BATCH, WIDTH, FUSED, HEADS, LAYERS, SMOOTHING = 40, 8, 16, 24, 2, 2, 0.1
MODEL = JointModel(
    Trunk(
        tuple(StreamSpec(name, kind, LAYERS, STRIDE[name]) for name, kind in ENCODERS.items()),
        *(WIDTH, FUSED, HEADS, True, True, True),
    ),
    Heads(4, 3),
)
STREAMS = tuple(torch_model.Stream(name, kind, LAYERS, STRIDE[name]) for name, kind in ENCODERS.items())
NETWORK = torch_model.Network(STREAMS, WIDTH, FUSED, HEADS)
RATES = Rates(jnp.float32(0.0), jnp.float32(0.0))
DEFAULT = torch_training.Recipe.of(default_config())
PLAIN = dataclasses.replace(
    DEFAULT, epochs=4, weight_decay=0.1, dropout=0.0, statistics_dropout=0.0, time_masks=0, feature_masks=0
)
STEPS = 5
TOTAL_STEPS = 40


class Inputs(NamedTuple):
    """A batch of uneven lengths, 0 beyond the ends."""

    frames: dict[str, np.ndarray]
    lengths: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]
    target: np.ndarray
    vad: np.ndarray


def make_inputs(seed: int) -> Inputs:
    random = np.random.default_rng(seed)
    lengths = {name: random.integers(1, TIME[name] + 1, BATCH).astype(np.int32) for name in ENCODERS}
    frames = {}
    for name, length in lengths.items():
        x = random.standard_normal((BATCH, TIME[name], FEATURES[name]), np.float32)
        frames[name] = np.where(np.arange(TIME[name])[None, :, None] < length[:, None, None], x, np.float32(0))
    statistics = {name: random.standard_normal((BATCH, size), np.float32) for name, size in STATISTICS.items()}
    target = random.dirichlet(np.ones(4), BATCH).astype(np.float32)
    return Inputs(frames, lengths, statistics, target, random.uniform(-1, 1, (BATCH, 3)).astype(np.float32))


def in_jax(inputs: Inputs, beyond: float = np.nan) -> tuple[Any, Any, Any]:
    masks = {name: np.arange(x.shape[1]) < inputs.lengths[name][:, None] for name, x in inputs.frames.items()}
    frames = {name: np.where(masks[name][..., None], x, np.float32(beyond)) for name, x in inputs.frames.items()}
    return jax.tree.map(jnp.asarray, (frames, masks, inputs.statistics))


def in_torch(inputs: Inputs) -> Any:
    return jax.tree.map(torch.from_numpy, inputs)


@jax.jit
def loss_in_jax(params: Any, inputs: Any, target: Any, vad: Any) -> Any:
    outputs: Any = MODEL.apply({"params": params}, *inputs, RATES)
    logits, predicted = outputs
    ones = jnp.ones(len(target))
    loss_class = cross_entropy(logits, target, ones, label_smoothing=SMOOTHING)
    loss_vad = vad_loss("ccc", predicted, vad, jnp.ones_like(vad))
    return loss_class + loss_vad, (logits, predicted, jnp.stack([loss_class, loss_vad]))


gradient_in_jax = jax.jit(jax.grad(loss_in_jax, has_aux=True))


@pytest.fixture(scope="module")
def params() -> Any:
    """Parameters of the Flax model, all of them moved: fresh biases are 0."""
    random = np.random.default_rng(1)
    fresh = jax.jit(MODEL.init)(jax.random.key(0), *in_jax(make_inputs(0), 0.0), RATES)["params"]
    return jax.tree.map(lambda x: np.asarray(x + random.normal(0, 0.1, x.shape), np.float32), fresh)


def model_of(params: Any, rate: float = 0.0) -> Any:
    options = {"classes": 4, "dimensions": 3, "rate": rate, "statistics_rate": rate}
    model = torch_model.JointModel(NETWORK, FEATURES, STATISTICS, **options)
    torch_weights.load_flax_params(model, params)
    return model


def flat(params: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree.leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(x) for path, x in leaves}


# -------------------------------------------------------------------------------------------------- the network


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_outputs_losses_and_gradients_are_those_of_the_flax_model(params: Any, seed: int):
    inputs = make_inputs(seed)
    expected, (logits, vad, losses) = gradient_in_jax(params, in_jax(inputs), inputs.target, inputs.vad)
    model, batch = model_of(params), in_torch(inputs)
    found_logits, found_vad = model(batch.frames, batch.lengths, batch.statistics)
    found_losses = torch_losses.losses(found_logits, found_vad, batch.target, batch.vad, SMOOTHING)
    for found, wanted in ((found_logits, logits), (found_vad, vad), (found_losses, losses)):
        assert_allclose(found.detach(), wanted, atol=1e-4, rtol=0)
    found_losses.sum().backward()
    gradients, wanted_gradients = torch_weights.to_flax(model, lambda p: p.grad), flat(expected)
    assert gradients.keys() == wanted_gradients.keys()
    for path, wanted in wanted_gradients.items():
        assert np.abs(wanted).max() > 1e-6, path
        assert_allclose(gradients[path], wanted, atol=1e-4 * np.abs(wanted).max(), rtol=0, err_msg=path)


def test_parameters_go_there_and_back(params: Any):
    found, expected = torch_weights.to_flax(model_of(params)), flat(params)
    assert found.keys() == expected.keys()
    for path, x in expected.items():
        assert_array_equal(found[path], x, err_msg=path)


def test_other_parameters_are_refused(params: Any):
    other = {**params, "head": {**params["head"], "third": {"kernel": np.zeros((2, 2))}}}
    with pytest.raises(ValueError, match="head/third/kernel"):
        model_of(other)
    wider = {**params, "head": {**params["head"], "vad": {"kernel": np.zeros((FUSED, 4)), "bias": np.zeros(3)}}}
    with pytest.raises(ValueError, match="head/vad/kernel"):
        model_of(wider)


def test_padding_changes_nothing(params: Any):
    inputs, model = in_torch(make_inputs(0)), model_of(params)
    longer = {name: torch.nn.functional.pad(x, (0, 0, 0, 11)) for name, x in inputs.frames.items()}
    expected = model(inputs.frames, inputs.lengths, inputs.statistics)
    for found, wanted in zip(model(longer, inputs.lengths, inputs.statistics), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_recurrence_is_that_of_a_packed_sequence():
    torch.manual_seed(0)
    layer, x, lengths = torch_layers.Recurrence(8), torch.randn(3, 9, 8), torch.tensor([4, 9, 1])
    valid = torch.arange(9) < lengths[:, None]
    column = torch.zeros(3, 9, 1)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.cat([x, column], dim=-1), lengths, batch_first=True, enforce_sorted=False
    )
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(torch.nn.LSTM.forward(layer, packed)[0], batch_first=True)
    found = layer(x, ~valid)
    torch.testing.assert_close(found[valid], expected[valid], atol=1e-6, rtol=0)
    found[valid].square().sum().backward()
    for name in ("weight_ih_l0", "weight_ih_l0_reverse"):
        assert (getattr(layer, name).grad[:, -1] == 0).all()
        assert (getattr(layer, name).grad[:, :-1] != 0).any()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's, of itself
@pytest.mark.parametrize("compiled", [False, True])
def test_dropout_keeps_the_mean(compiled: bool):
    if compiled and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    dropout = torch.compile(torch_layers.dropout, fullgraph=True) if compiled else torch_layers.dropout
    torch.manual_seed(0)
    x = torch.full((333, 1001), 2.0, requires_grad=True)
    y = dropout(x, 0.3, True)
    assert (y == 0).float().mean().item() == pytest.approx(77 / 256, abs=2e-3)
    assert y.detach().mean().item() == pytest.approx(2.0, rel=5e-3)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach() / 2)
    assert dropout(x, 0.3, False) is x


# ------------------------------------------------------------------------------------------------- the training


class Study(NamedTuple):
    """A corpus of two buckets and two folds."""

    data: Data
    trained: np.ndarray  # [fold, utterance]


@pytest.fixture(scope="module")
def study() -> Study:
    """Frames far from 0 and of other scales than 1, one feature that does not vary."""
    random = np.random.default_rng(0)
    streams = {}
    for name, size in FEATURES.items():
        offset, scale = random.normal(0, 3, size), random.uniform(0.5, 5, size)
        scale[0] = 0.0
        frames = [
            (offset + scale * random.normal(size=(n, size))).astype(np.float32) for n in random.integers(12, 60, N)
        ]
        statistics = random.normal(2, 3, (N, 1, STATISTICS[name])).astype(np.float32)
        streams[name] = Stream([frames], statistics)
    target = np.eye(4, dtype=np.float32)[random.integers(0, 4, N)]
    trained = np.arange(N) % 4 != np.array([[0], [1]])
    options = {
        "n_buckets": 2,
        "batch_size": BATCH,
        "trained": trained,
        "max_seconds": 0.0,
        "hop_seconds": dict.fromkeys(FEATURES, 0.01),
        "frames_dtype": np.dtype(np.float32),
    }
    vad = random.uniform(-1, 1, (N, 3)).astype(np.float32)
    data, _ = assemble(streams, encoded=list(FEATURES), target=target, vad=vad, **options)
    assert len(data.buckets) == 2
    return Study(data, trained)


def scales_of(study: Study, in_fold: int) -> tuple[Any, Any]:
    return tuple(
        {name: Scale(x.mean[in_fold], x.inverse[in_fold]) for name, x in scales.items()}
        for scales in fold_scales(study.data, list(study.trained))
    )


def corpus_of(study: Study) -> Any:
    return torch_data.load_corpus(study.data, list(FEATURES), torch.device("cpu"))


def test_scales_are_those_of_the_folds_training_utterances(study: Study):
    found = torch_data.fold_scales(corpus_of(study), torch.from_numpy(study.trained))
    expected = fold_scales(study.data, list(study.trained))
    for ours, theirs in zip(found, expected, strict=True):
        for name in FEATURES:
            assert_allclose(ours[name].mean, theirs[name].mean, rtol=1e-5, atol=1e-6)
            assert_allclose(ours[name].inverse, theirs[name].inverse, rtol=1e-5)
    assert (found[0]["a"].inverse[:, 0] == 0).all()


def test_steps_are_those_of_the_jax_side(params: Any, study: Study):
    """The same batches: normalised, back, clipped, AdamW under its schedule, averaged."""
    fold = 1
    frame_scale, statistic_scale = scales_of(study, fold)
    changed = {
        name: getattr(PLAIN, name) for name in ("learning_rate", "weight_decay", "dropout", "statistics_dropout")
    }
    run = Run(
        hparams(**changed, label_smoothing=SMOOTHING),
        study.trained[fold],
        np.ones(4, np.float32),
        frame_scale,
        statistic_scale,
        steps(STEPS, TOTAL_STEPS // 10, TOTAL_STEPS),
    )
    step_recipe = recipe(augment=Augment(0, 0, 0, 0.0))
    run, data = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), (run, study.data))
    frozen, key = Frozen({}, {}), jax.random.key(0)

    def batch_of(bucket: int, rows: np.ndarray) -> Any:
        return take_batch(data, data.buckets[bucket], jnp.asarray(rows), jnp.zeros(len(rows), jnp.int32))

    random = np.random.default_rng(2)
    rows_of_buckets = [np.flatnonzero(study.trained[fold][bucket.utterance]) for bucket in study.data.buckets]
    batches = [(1, random.permutation(rows_of_buckets[1])[:BATCH]) for _ in range(STEPS)]
    state = init_state(Network(MODEL, step_recipe), frozen, {}, run, batch_of(*batches[0]), key)
    leaves = Leaves.of(params)
    state = state._replace(params=leaves.join(params), averaged=leaves.join(params))
    # Without dropout's key the layers are the identity; the rates are 0 in any case.
    step = jax.jit(lambda state, batch: train_step(Network(MODEL, step_recipe, leaves), frozen, state, run, batch, key))

    corpus = corpus_of(study)
    scales = jax.tree.map(lambda x: torch.from_numpy(np.array(x)), (frame_scale, statistic_scale))
    other = torch_training.Fold(model_of(params), *scales, PLAIN, TOTAL_STEPS)
    for bucket, rows in batches:
        state, metrics = step(state, batch_of(bucket, rows))
        place = corpus.buckets[bucket], torch.from_numpy(rows)
        assert_allclose(other.losses(corpus, *place).detach(), metrics.losses, atol=1e-4, rtol=0)
        other.train_step(corpus, *place)
    averages = dict(zip(other.params, other.averaged, strict=True))
    for found, expected in (
        (torch_weights.to_flax(other.model), leaves.split(state.params)),
        (torch_weights.to_flax(other.model, lambda p: averages[p]), leaves.split(state.averaged)),
    ):
        moved = []
        for path, wanted in flat(expected).items():
            # Adam turns the rounding noise of a gradient near 0 into steps: a few entries may differ by one.
            differs = np.abs(found[path] - wanted)
            assert np.mean(differs) < 2e-6, path
            assert np.max(differs) < 2 * PLAIN.learning_rate, path
            moved.append(np.abs(wanted - flat(params)[path]).mean())
        assert np.median(moved) > 1e-4


def epoch_params(study: Study, data: Data) -> list[dict[str, np.ndarray]]:
    """The parameters of both folds after an epoch."""
    network = NETWORK._replace(width=64, fused=256, heads=4)
    folds = torch_training.Folds(data, study.trained, network, DEFAULT, batch_size=BATCH, seed=0)
    assert folds.facts["steps"] == sum(
        -(-int(trained[bucket.utterance].sum()) // BATCH) for trained in study.trained for bucket in data.buckets
    )
    folds.train_epoch()
    assert sum(fold.step for fold in folds.folds) == folds.facts["steps"]
    return [torch_weights.to_flax(fold.model) for fold in folds.folds]


def test_a_fold_learns_nothing_of_who_is_held_out(study: Study):
    expected = epoch_params(study, study.data)
    held_out = ~study.trained[0]
    buckets = tuple(
        bucket._replace(
            frames={
                name: np.where(held_out[bucket.utterance][:, None, None, None], np.float32(1e6), x)
                for name, x in bucket.frames.items()
            }
        )
        for bucket in study.data.buckets
    )
    target = np.where(held_out[:, None], np.roll(study.data.target, 1, axis=1), study.data.target)
    found = epoch_params(study, study.data._replace(buckets=buckets, target=target))
    assert all((found[0][path] == x).all() for path, x in expected[0].items())
    assert any((found[1][path] != x).any() for path, x in expected[1].items())


def test_missing_labels_are_refused(study: Study):
    with pytest.raises(ValueError, match="every utterance"):
        epoch_params(study, study.data._replace(vad=np.full_like(study.data.vad, np.nan)))


def test_the_recipe_has_the_defaults_of_the_config():
    assert DEFAULT.epochs == 30
    assert DEFAULT.learning_rate == 1e-3
    assert (DEFAULT.time_masks, DEFAULT.time_mask_frames) == (2, 20)


def test_bands_hide_what_they_should():
    torch.manual_seed(0)
    kept = torch_data.bands(4000, 2, 100, 20.0, torch.device("cpu"))
    hidden = (~kept).sum(dim=1).float()
    assert hidden.max() <= 41
    # Two bands of 10 on average, cut at the end (5 % of the starts lose half of theirs) and sometimes one on the other.
    assert 16.5 < hidden.mean().item() < 19.5


# ------------------------------------------------------------------------------------------------ golden file


def test_golden_file_is_what_the_tool_makes(tmp_path):
    out = tmp_path / "joint.npz"
    golden_joint.main(["--out", str(out)])
    found, expected = np.load(out), np.load(golden_joint.GOLDEN)
    assert set(found.files) == set(expected.files)
    for name in set(found.files) - {"versions"}:
        assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)
