import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from sejax.engine.again import final_runs, median_epochs
from sejax.engine.runs import (
    batch_orders,
    enumerate_runs,
    even_slots,
    group_by_structure,
    hparams_of,
    lay_out,
    learnable,
    run_sharding,
    schemes_of,
    selection_rows,
)
from sejax.engine.search import expand_grid
from sejax.engine.tasks import TASKS
from sejax.protocols.folds import Fold

BASE = {
    "learning_rate": 1e-3,
    "weight_decay": 1e-2,
    "dropout": 0.3,
    "statistics_dropout": 0.2,
    "label_smoothing": 0.1,
    "alpha": 0.5,
    "tau": 1.0,
    "augment.corrupted": 0.0,
    "augment.noise": 0.0,
    "augment.gain": 0.0,
    "augment.mixup": 0.0,
    "loss.focal_gamma": 0.0,
    "class_temperature": 1.0,
    "weighting": "static",
}


# -------------------------------------------------------------------------------------------------- the grid


def test_grid_is_the_product_with_the_last_name_fastest():
    settings = expand_grid(BASE, {"alpha": (0.2, 0.8), "tau": (), "weighting": ("static", "joint")})
    assert [s.name for s in settings] == [
        "alpha=0.2 weighting=static",
        "alpha=0.2 weighting=joint",
        "alpha=0.8 weighting=static",
        "alpha=0.8 weighting=joint",
    ]
    assert settings[1].values == {**BASE, "alpha": 0.2, "weighting": "joint"}


def test_grid_without_values_is_the_base_named_by_its_weighting():
    (setting,) = expand_grid({**BASE, "weighting": "dynamic"}, {"alpha": (), "weighting": ()})
    assert setting.name == "dynamic"
    assert setting.values["alpha"] == BASE["alpha"]


# ------------------------------------------------------------------------------------------- runs and layout


def make_runs(n_folds=3, n_seeds=2, alphas=(0.2, 0.8)):
    return enumerate_runs(n_folds, expand_grid(BASE, {"alpha": alphas}), range(5, 5 + n_seeds))


def test_runs_are_numbered_seed_by_seed_setting_by_setting_fold_by_fold():
    runs = make_runs()
    assert [run.number for run in runs] == list(range(12))
    assert [(r.seed, r.setting.values["alpha"], r.fold) for r in runs[:7]] == [
        (5, 0.2, 0),
        (5, 0.2, 1),
        (5, 0.2, 2),
        (5, 0.8, 0),
        (5, 0.8, 1),
        (5, 0.8, 2),
        (6, 0.2, 0),
    ]


@settings(max_examples=60)
@given(
    n_folds=st.integers(1, 12),
    n_seeds=st.integers(1, 3),
    n_alphas=st.integers(1, 3),
    runs_per_chunk=st.integers(0, 20),
    devices=st.integers(1, 4),
)
def test_layout_holds_every_run_once_and_gives_it_back(n_folds, n_seeds, n_alphas, runs_per_chunk, devices):
    runs = make_runs(n_folds, n_seeds, tuple(np.linspace(0, 1, n_alphas)))
    layout = lay_out(runs, slots=even_slots(runs, most=runs_per_chunk, devices=devices))
    chunks, slots = layout.run.shape

    assert slots % devices == 0
    assert set(layout.run.ravel()) == set(range(len(runs)))
    # No more than asked for, but for the rounding up to the devices.
    assert not runs_per_chunk or slots < runs_per_chunk + devices
    if not runs_per_chunk:
        assert chunks == n_seeds
    for row, seed in zip(layout.run, layout.seed, strict=True):
        assert {runs[number].seed for number in row} == {seed}  # a chunk is of one seed
        own = len(set(row))
        assert_array_equal(row[own:], np.full(slots - own, row[own - 1]))  # padding repeats the last run

    own = np.arange(len(runs) * 2.0).reshape(-1, 2)
    scattered = layout.scatter(own)
    assert scattered.shape == (chunks, slots, 2)
    collected = layout.collect({"x": scattered, "y": scattered[..., 0]})
    assert_array_equal(collected["x"], own)
    assert_array_equal(collected["y"], own[:, 0])


def test_layout_reads_no_padding():
    layout = lay_out(make_runs(3, 1, (0.5,)), slots=4)
    assert layout.run.tolist() == [[0, 1, 2, 2]]
    assert layout.collect(np.array([[1.0, 2.0, 3.0, np.nan]])).tolist() == [1.0, 2.0, 3.0]


def test_final_runs_fill_the_first_chunks_of_a_layout():
    points = expand_grid(BASE, {"alpha": (0.2, 0.8)})
    runs, final = enumerate_runs(5, points, [0, 3]), final_runs(5, points, [0, 3])
    assert [run.number for run in final] == [20, 21, 22, 23]
    assert {run.fold for run in final} == {5}
    chunks, slots = lay_out(runs, slots=4).run.shape
    layout = lay_out(final, slots=slots, chunks=chunks)
    assert layout.run.tolist() == [[0, 1, 1, 1], *[[2, 3, 3, 3]] * (chunks - 1)]
    assert layout.seed.tolist() == [0, *[3] * (chunks - 1)]
    assert layout.filled == 2
    assert lay_out(runs, slots=4).filled == chunks
    assert layout.collect(layout.scatter(np.arange(4))).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("chosen", "median"), [((3, 7, 4), 4), ((3, 4), 4), ((3, 6), 5), ((5, 0, 1, 0, 2), 2), ((0, 0), 0), ((9,), 9)]
)
def test_a_final_run_trains_the_median_of_the_epochs_that_its_folds_chose(chosen: tuple[int, ...], median: int):
    points = expand_grid(BASE, {"alpha": (0.2, 0.8)})
    runs, final = enumerate_runs(len(chosen), points, [0, 3]), final_runs(len(chosen), points, [0, 3])
    own = (3, points[1].name)
    best = np.array([chosen[run.fold] if (run.seed, run.setting.name) == own else 11 for run in runs])
    assert median_epochs(final, runs, best).tolist() == [11, 11, 11, median]


def test_hparams_are_those_of_each_runs_setting():
    runs = enumerate_runs(2, expand_grid(BASE, {"weighting": ("joint", "static"), "alpha": (0.2, 0.8)}), [0])
    schemes = schemes_of(runs)
    assert schemes == ("joint", "static")
    hparams = hparams_of(runs, schemes)
    for place, run in enumerate(runs):
        assert hparams.alpha[place] == np.float32(run.setting.values["alpha"])
        assert schemes[hparams.weighting[place]] == run.setting.values["weighting"]
    assert hparams.weighting.dtype == np.int32
    assert {x.dtype for name, x in hparams._asdict().items() if name != "weighting"} == {np.dtype(np.float32)}


def test_runs_of_one_structure_are_one_program():
    base = {**BASE, "streams": ("mfcc",), "model.width": 8}
    grid = {"streams": (("mfcc",), ("mfcc", "mel")), "alpha": (0.2, 0.8), "model.width": (8, 16)}
    runs = enumerate_runs(2, expand_grid(base, grid), [0, 1])
    assert runs[-1].setting.name == "streams=mfcc+mel alpha=0.8 model.width=16"
    groups = group_by_structure(runs, ("batch_size", "streams", "model.width"))
    assert [list(structure.values()) for structure, _ in groups] == [
        [streams, width] for streams in (("mfcc",), ("mfcc", "mel")) for width in (8, 16)
    ]
    assert sorted(run.number for _, own in groups for run in own) == list(range(len(runs)))
    for structure, own in groups:
        assert len(own) == 2 * 2 * 2  # folds, alphas, seeds
        assert all(run.setting.values[name] == value for run in own for name, value in structure.items())


def test_batches_are_each_folds_own_or_shared_by_a_seed():
    train = np.array([True, True, False, False])
    folds = (Fold("a", train, ~train, ~train), Fold("b", ~train, train, train))
    runs = enumerate_runs(2, expand_grid(BASE, {"alpha": (0.2, 0.8)}), [0, 3])
    orders, shares, temperatures, order_of_run, of_folds = batch_orders(folds, runs, shared=False)
    for run, row in zip(runs, order_of_run, strict=True):
        seed, visited = orders[row]
        assert seed == run.seed
        assert_array_equal(visited, folds[run.fold].train)
    assert len(orders) == 4  # settings share theirs
    assert shares == [0.0] * 4 and temperatures == [1.0] * 4
    assert of_folds == [0, 1, 0, 1]
    orders, _, temperatures, order_of_run, _ = batch_orders(folds, runs, shared=True)
    assert order_of_run is None
    assert [seed for seed, _ in orders] == [0, 3]
    assert all(visited.all() for _, visited in orders) and temperatures == [1.0] * 2
    runs = enumerate_runs(2, expand_grid(BASE, {"class_temperature": (1.0, 4.0)}), [0])
    orders, _, temperatures, order_of_run, of_folds = batch_orders(folds, runs, shared=False)
    assert temperatures == [1.0, 4.0, 1.0, 4.0] and of_folds == [0, 0, 1, 1]
    assert [temperatures[row] for row in order_of_run] == [run.setting.class_temperature for run in runs]


def test_sharding_lays_the_slots_over_both_devices():
    sharding = run_sharding(jax.local_devices()[:2])
    x = jax.device_put(np.arange(12.0).reshape(1, 4, 3), sharding)
    assert [shard.data.shape for shard in x.addressable_shards] == [(1, 2, 3)] * 2


def test_selection_rows_are_those_of_the_split():
    train = np.array([True, True, False, False])
    val, test = np.array([False, False, True, False]), np.array([False, False, False, True])
    folds = (Fold("a", train, val, test), Fold("b", train[::-1], test[::-1], val[::-1]))
    assert [rows.tolist() for rows in selection_rows(folds, "val")] == [[2], [0]]
    assert [rows.tolist() for rows in selection_rows(folds, "train")] == [[0, 1], [2, 3]]


# ------------------------------------------------------------------------------------------------------ labels


@pytest.mark.parametrize(
    ("vad_loss", "dimensions"),
    [("ccc", (True, False, False)), ("mse", (True, True, False)), ("mae", (True, True, False))],
)
def test_what_can_be_learned_from_the_labels_of_training(vad_loss, dimensions):
    nan = np.nan
    target = np.array([[0, 0], [0, 0], [0, 0], [1, 0]], np.float32)
    vad = np.array([[0, 0.5, nan], [1, 0.5, nan], [nan, nan, nan], [0, 0, 0.5]], np.float32)
    trained = np.array([True, True, True, False])
    found = learnable(target, vad, trained, vad_loss=vad_loss)
    assert found == (False, dimensions)
    class_task, *rest = TASKS["class", "valence", "arousal", "dominance"]
    assert not found.has(class_task) and tuple(map(found.has, rest)) == dimensions
    assert found.has(TASKS["class", "vad"][1])
    assert learnable(target, vad, ~trained, vad_loss=vad_loss).label
