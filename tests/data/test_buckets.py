from functools import partial
from itertools import combinations, pairwise

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from sejax.corpora.schema import Corpus, Utterance
from sejax.data.buckets import ROUND_FRAMES, assemble, label_targets, length_buckets
from sejax.data.order import Pool, count_batches, epoch_order, plan_rounds, prediction_rows, take_batch
from sejax.data.prefetch import visits_of_epoch
from sejax.data.scales import fold_scales, normalise_by_group
from sejax.data.types import Stream
from sejax.features.registry import extract

N, VIEWS = 23, 2
HOP = {"a": 0.01, "b": 0.02}


def make_streams(seed=0):
    """Two streams of different hop, with two views of each utterance."""
    rng = np.random.default_rng(seed)
    seconds = rng.uniform(0.1, 1.0, N)
    streams = {}
    for name, features in (("a", 3), ("b", 2)):
        lengths = [[int(s / HOP[name] / speed) for s in seconds] for speed in (1.0, 0.9)]
        frames = [[rng.normal(5, 2, (n, features)).astype(np.float32) for n in view] for view in lengths]
        streams[name] = Stream(frames, rng.normal(1, 3, (N, VIEWS, 4)).astype(np.float32))
    return streams


def make_data(streams, *, max_seconds=0.0, n_buckets=3, batch_size=4, frames_dtype=np.float32):
    target = np.eye(2, dtype=np.float32)[np.arange(N) % 2]
    vad = np.zeros((N, 3), np.float32)
    return assemble(
        streams,
        encoded=streams,
        target=target,
        vad=vad,
        n_buckets=n_buckets,
        batch_size=batch_size,
        trained=np.ones((1, N), bool),
        max_seconds=max_seconds,
        hop_seconds=HOP,
        frames_dtype=frames_dtype,
    )


@pytest.fixture(scope="module")
def streams():
    return make_streams()


@pytest.fixture(scope="module")
def stored(streams):
    """Before the frames are read."""
    return make_data(streams)[0]


@pytest.fixture(scope="module")
def data(stored):
    return jax.tree.map(np.asarray, stored)


# --------------------------------------------------------------------------------------------------- buckets


def padded(groups, lengths, trained, batch_size):
    """Returns the length of all batches of an epoch."""
    batches = [max(-(-int(own[g].sum()) // batch_size) for own in trained) for g in groups]
    return sum(n * lengths[g].max() for n, g in zip(batches, groups, strict=True))


def least_padded(lengths, trained, n_buckets, batch_size):
    """Tries every way to cut the sorted lengths."""
    order, n = np.argsort(lengths, kind="stable"), len(lengths)
    costs = [padded([order], lengths, trained, batch_size)]
    for k in range(1, n_buckets):
        for inner in combinations(range(1, n), k):
            groups = np.split(order, inner)
            if min(map(len, groups)) >= batch_size:
                costs.append(padded(groups, lengths, trained, batch_size))
    return min(costs)


@settings(max_examples=150)
@given(
    utterances=st.lists(st.tuples(st.integers(1, 40), st.booleans(), st.booleans()), min_size=1, max_size=9),
    n_buckets=st.integers(1, 4),
    batch_size=st.integers(1, 4),
)
def test_buckets_pad_least(utterances, n_buckets, batch_size):
    lengths, *trained = np.array(utterances, float).T
    trained = np.array(trained, bool)
    groups = length_buckets(lengths, trained, n_buckets=n_buckets, batch_size=batch_size)
    assert_array_equal(np.sort(np.concatenate(groups)), np.arange(len(lengths)))
    assert 1 <= len(groups) <= n_buckets
    assert len(groups) == 1 or min(map(len, groups)) >= batch_size
    for group in groups:
        assert_array_equal(group, np.sort(group))
    for shorter, longer in pairwise(groups):
        assert lengths[shorter].max() <= lengths[longer].min()
    assert padded(groups, lengths, trained, batch_size) == least_padded(lengths, trained, n_buckets, batch_size)


def test_buckets_of_many_utterances_fill_batches_and_save_padding():
    lengths, trained = np.random.default_rng(0).gamma(2.0, 2.0, 500), np.arange(500)[None] % 10 > np.array([[1], [2]])
    groups = length_buckets(lengths, trained, n_buckets=4, batch_size=40)
    assert len(groups) == 4
    assert min(map(len, groups)) >= 40
    cost = partial(padded, lengths=lengths, trained=trained, batch_size=40)
    even = np.array_split(np.argsort(lengths), 4)
    assert cost(groups) < cost(even) < cost([np.arange(500)])
    assert sum(max(-(-own[g].sum() // 40) for own in trained) for g in groups) <= 11  # 400 of 500 are trained on


# -------------------------------------------------------------------------------------------------- assemble


def test_assemble_keeps_every_frame_where_it_belongs(streams, data):
    assert len(data.buckets) == 3
    rows = np.concatenate([bucket.utterance for bucket in data.buckets])
    assert_array_equal(np.sort(rows), np.arange(N))
    for bucket in data.buckets:
        for name, stream in streams.items():
            assert bucket.frames[name].shape[2] % ROUND_FRAMES == 0
            for i, row in enumerate(bucket.utterance):
                for v in range(VIEWS):
                    n = bucket.lengths[name][i, v]
                    assert_array_equal(bucket.frames[name][i, v, :n], stream.frames[v][row])
                    assert not bucket.frames[name][i, v, n:].any()


def test_assemble_cuts_frames_but_not_statistics(streams, data):
    cut_data, n_cut = make_data(streams, max_seconds=0.5)
    too_long = np.array([len(streams["a"].frames[0][row]) > 50 for row in range(N)])
    too_long |= [len(streams["b"].frames[0][row]) > 25 for row in range(N)]
    assert n_cut == too_long.sum() > 0
    assert make_data(streams)[1] == 0
    for bucket in cut_data.buckets:
        for name, limit in (("a", 50), ("b", 25)):
            whole = [[len(view[row]) for view in streams[name].frames] for row in bucket.utterance]
            assert_array_equal(bucket.lengths[name], np.minimum(whole, limit))
    for name in streams:
        assert_array_equal(cut_data.statistics[name], data.statistics[name])


def test_take_batch_gathers_one_view_of_each_row(streams, data):
    bucket = data.buckets[1]
    rows, view = np.array([2, 0, 2]), np.array([1, 0, 0])
    batch = take_batch(data, bucket, jnp.asarray(rows), jnp.asarray(view))
    assert_array_equal(batch.utterance, bucket.utterance[rows])
    for i, (row, v) in enumerate(zip(batch.utterance, view, strict=True)):
        for name, stream in streams.items():
            own = stream.frames[v][row]
            assert batch.lengths[name][i] == len(own)
            assert_array_equal(batch.frames[name][i, : len(own)], own)
            assert_array_equal(batch.statistics[name][i], stream.statistics[row, v])
        assert_array_equal(batch.target[i], data.target[row])


# -------------------------------------------------------------------------------------------- stored frames


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_acoustic_frames_are_stored_as_asked_and_others_as_they_are(streams, dtype):
    rng = np.random.default_rng(0)
    hidden = [[rng.normal(size=(5, 3)).astype(np.float16) for _ in range(N)]]
    raw = [[rng.integers(-9, 9, (50, 1)).astype(np.int16) for _ in range(N)]]
    one_view = {"a": Stream(streams["a"].frames[:1], streams["a"].statistics[:, :1])}
    one_view["b"] = Stream(hidden, streams["b"].statistics[:, :1])
    data = jax.tree.map(np.asarray, make_data(one_view, frames_dtype=dtype)[0])
    for bucket in data.buckets:
        assert bucket.frames["a"].dtype == dtype
        assert bucket.frames["b"].dtype == np.float16
        for i, row in enumerate(bucket.utterance):
            n = bucket.lengths["a"][i, 0]
            assert_array_equal(bucket.frames["a"][i, 0, :n], streams["a"].frames[0][row].astype(dtype))
            assert_array_equal(bucket.frames["b"][i, 0, :5], hidden[0][row])
    assert data.statistics["a"].dtype == np.float32
    data, _ = make_data({"a": Stream(raw, np.zeros((N, 1, 0), np.float32))}, frames_dtype=dtype)
    assert data.buckets[0].frames["a"].dtype == np.int16


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_what_is_too_large_becomes_the_largest_number_and_nan_stays(dtype):
    largest = float(ml_dtypes.finfo(dtype).max)
    x = np.array([[1e30, -1e30, np.inf, -np.inf, np.nan, largest, 1.0]], np.float32)
    data, _ = make_data({"a": Stream([[x] * N], np.zeros((N, 1, 1), np.float32))}, frames_dtype=dtype)
    found = np.asarray(data.buckets[0].frames["a"])[0, 0, 0].astype(np.float64)
    assert_array_equal(found[2:], [largest, -largest, np.nan, largest, 1.0])
    assert_array_equal(found[:2], [largest, -largest] if dtype == np.float16 else np.array([1e30, -1e30]).astype(dtype))


def test_scales_are_those_of_what_is_stored():
    """At 2,048 float16 steps by 2: what is stored has another mean and deviation."""
    rng = np.random.default_rng(0)
    x = [[rng.uniform(2048.0, 2052.0, (20, 2)).astype(np.float32) for _ in range(N)]]
    data, _ = make_data({"a": Stream(x, np.zeros((N, 1, 1), np.float32))}, frames_dtype=np.float16)
    trained = np.arange(N) < 9
    scale = fold_scales(data, [trained])[0]["a"]
    exact = np.concatenate([own for own, wanted in zip(x[0], trained, strict=True) if wanted]).astype(np.float64)
    stored = exact.astype(np.float16).astype(np.float64)
    assert_allclose(scale.mean[0], stored.mean(axis=0), rtol=1e-7)
    assert_allclose(1 / scale.inverse[0], stored.std(axis=0), rtol=1e-5)
    assert np.abs(stored.std(axis=0) / exact.std(axis=0) - 1).min() > 0.01


@pytest.mark.parametrize("feature", ["mfcc", "mel", "stf", "prosody", "voice", "auditory"])
def test_float16_rounds_features_by_a_small_part_of_their_deviation(feature):
    """Syllables and silence. On EmoDB the largest error is 0.015 deviations, the root of the mean square 0.0013."""
    rng = np.random.default_rng(0)
    time = np.arange(32_000) / 16_000
    pitch = np.cumsum(120 + 40 * np.sin(7 * time)) / 16_000
    voice = sum(np.sin(2 * np.pi * k * pitch) / k for k in range(1, 20))
    loudness = np.maximum(np.sin(2 * np.pi * 3 * time), 0.0)
    samples = 0.2 * loudness * voice + 0.02 * rng.standard_normal(len(time)) * (np.sin(9 * time) > 0)
    x = extract(feature, samples.astype(np.float32), {}).astype(np.float64)
    assert np.isfinite(x).all()
    error = (x.astype(np.float16) - x) / np.maximum(x.std(axis=0), 1e-5)
    assert np.abs(error).max() < 0.02
    assert np.sqrt(np.square(error).mean(axis=0)).max() < 0.005


# ------------------------------------------------------------------------------------------- order of an epoch


@settings(max_examples=100)
@given(n_batches=st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(any))
def test_every_round_has_a_step_on_each_bucket(n_batches):
    rounds, steps = plan_rounds(n_batches)
    assert rounds == min(n for n in n_batches if n)
    assert all((own - 1) * rounds < n <= own * rounds for own, n in zip(steps, n_batches, strict=True))


def order_of(data, visited, **kwargs):
    arguments = {"epoch": 1, "batch_size": 3, "views": VIEWS, **kwargs}
    seeds = arguments.pop("seeds", [0, 1])
    return epoch_order([b.utterance for b in data.buckets], orders=[(seed, visited) for seed in seeds], **arguments)


def rows_in_turn(order, place):
    """Returns, per bucket, the rows of the steps that an order takes."""
    return [
        rows[place][np.arange(rows.shape[2]) < (taken if taken.ndim == 1 else taken[place])[:, None]]
        for rows, taken in zip(order.rows, order.taken, strict=True)
    ]


def test_order_visits_every_visited_utterance_and_no_other(data):
    visited = np.ones(N, bool)
    visited[[1, 5, 8]] = False
    order = order_of(data, visited)
    for seed in range(2):
        rows = rows_in_turn(order, seed)
        seen = [bucket.utterance[own].ravel() for bucket, own in zip(data.buckets, rows, strict=True)]
        seen, count = np.unique(np.concatenate(seen), return_counts=True)
        assert_array_equal(seen, np.flatnonzero(visited))
        assert count.max() <= 2
    for rows, view in zip(order.rows, order.view, strict=True):
        assert rows.dtype == view.dtype == np.int32
        assert rows.shape == view.shape
        assert set(np.unique(view)) == {0, 1}


def test_order_depends_on_seed_and_epoch_alone(data):
    visited = np.ones(N, bool)
    order, again = order_of(data, visited), order_of(data, visited)
    for ours, theirs in zip((*order.rows, *order.view), (*again.rows, *again.view), strict=True):
        assert_array_equal(ours, theirs)
    assert not np.array_equal(order.rows[0], order_of(data, visited, epoch=2).rows[0])
    assert not np.array_equal(order.rows[0][0], order.rows[0][1])
    alone = order_of(data, visited, seeds=[1])
    assert_array_equal(alone.rows[0][0], order.rows[0][1])


def test_orders_of_a_seed_are_what_each_visits_of_one_shuffle(data):
    """So that runs of a seed come to an utterance, and to one view of it, at about the same time."""
    visited = [np.ones(N, bool), np.arange(N) % 4 > 0]
    order = epoch_order(
        [b.utterance for b in data.buckets], orders=[(0, own) for own in visited], epoch=1, batch_size=1, views=VIEWS
    )
    views = [rows_in_turn(order._replace(rows=order.view), place) for place in range(2)]
    rows = [rows_in_turn(order, place) for place in range(2)]
    for bucket, *of_bucket in zip(data.buckets, *rows, *views, strict=True):
        everyone, some, view, view_of_some = (x.ravel() for x in of_bucket)
        assert_array_equal(some[: visited[1][bucket.utterance].sum()], everyone[visited[1][bucket.utterance[everyone]]])
        of_row = dict(zip(everyone, view, strict=True))
        assert view_of_some.tolist() == [of_row[row] for row in some]


def test_an_order_with_fewer_places_than_utterances_visits_others_in_each_epoch(data):
    """As many steps as orders of fewer utterances have, for arrays of equal shapes."""
    some, everyone = np.arange(N) % 3 > 0, np.ones(N, bool)
    utterances = [bucket.utterance for bucket in data.buckets]
    n_batches = count_batches(utterances, orders=[(0, some)], batch_size=1)
    seen = []
    for epoch in (1, 2):
        shapes = [rows.shape[1:] for rows in order_of(data, some, seeds=[0], epoch=epoch, batch_size=1).rows]
        order = order_of(data, everyone, seeds=[0], epoch=epoch, batch_size=1, n_batches={"": n_batches})
        assert [rows.shape[1:] for rows in order.rows] == shapes
        visits = [
            bucket.utterance[rows.ravel()] for bucket, rows in zip(data.buckets, rows_in_turn(order, 0), strict=True)
        ]
        for own, of_bucket in zip(visits, utterances, strict=True):
            assert len(set(own)) == min(len(own), len(of_bucket))
        seen.append(set(np.concatenate(visits)))
    assert seen[0] != seen[1]
    assert max(map(len, seen)) < N


def test_order_of_a_bucket_that_nobody_trains_on(data):
    visited = np.ones(N, bool)
    visited[data.buckets[0].utterance] = False
    order = order_of(data, visited)
    assert order.rows[0].shape[2] == 0
    assert all(rows.shape[2] for rows in order.rows[1:])


def test_orders_of_different_utterances_have_equal_steps_and_their_own_rows(data):
    few, none_of_first = np.zeros(N, bool), np.ones(N, bool)
    few[data.buckets[1].utterance[:2]] = True
    none_of_first[data.buckets[0].utterance] = False
    visited = [np.ones(N, bool), few, none_of_first]
    order = epoch_order(
        [b.utterance for b in data.buckets],
        orders=[(0, own) for own in visited],
        epoch=1,
        batch_size=3,
        views=VIEWS,
    )
    assert order.rows[0].shape[2] > 0
    for i, own in enumerate(visited):
        for bucket, rows in zip(data.buckets, rows_in_turn(order, i), strict=True):
            wanted = bucket.utterance[own[bucket.utterance]]
            seen = np.unique(bucket.utterance[rows])
            # Where there is nothing to visit the gate shuts out what fills the batch.
            assert_array_equal(seen, wanted if len(wanted) else bucket.utterance[:1])


@settings(max_examples=50)
@given(masks=st.lists(st.lists(st.booleans(), min_size=N, max_size=N).filter(any), min_size=1, max_size=3))
def test_prediction_rows_cover_what_is_wanted_once(data, masks):
    wanted = [np.flatnonzero(mask) for mask in masks]
    rows_by_bucket, columns = prediction_rows(data, wanted, 4)
    assert sum(rows[0].size for rows in rows_by_bucket) == columns.shape[1]
    for fold, want in enumerate(wanted):
        assert_array_equal(np.sort(columns[fold][columns[fold] >= 0]), want)
        laid = [b.utterance[rows[fold]].ravel() for b, rows in zip(data.buckets, rows_by_bucket, strict=True)]
        laid = np.concatenate(laid)
        real = columns[fold] >= 0
        assert_array_equal(laid[real], columns[fold][real])
    assert all(rows.shape[2] <= 4 for rows in rows_by_bucket)


# ---------------------------------------------------------------------------------------------- normalisation


def test_fold_scales_equal_numpy_on_the_training_frames(streams, stored):
    trained = np.array([np.arange(N) < 9, np.arange(N) % 2 == 0])
    frame_scale, statistic_scale = fold_scales(stored, list(trained))
    for name, stream in streams.items():
        for fold, mask in enumerate(trained):
            rows = np.flatnonzero(mask)
            frames = np.concatenate([view[row] for view in stream.frames for row in rows]).astype(float)
            assert_allclose(frame_scale[name].mean[fold], frames.mean(axis=0), rtol=1e-6)
            assert_allclose(1 / frame_scale[name].inverse[fold], frames.std(axis=0), rtol=1e-5)
            own = stream.statistics[rows].reshape(-1, 4).astype(float)
            assert_allclose(statistic_scale[name].mean[fold], own.mean(axis=0), rtol=1e-6)
            assert_allclose(1 / statistic_scale[name].inverse[fold], own.std(axis=0), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("garbage", [np.nan, 1e30])
def test_fold_scales_know_nothing_of_the_held_out(streams, garbage, dtype):
    trained = np.arange(N) < 9
    spoilt = {
        name: Stream(
            [[x if trained[i] else np.full_like(x, garbage) for i, x in enumerate(view)] for view in s.frames],
            np.where(trained[:, None, None], s.statistics, np.float32(garbage)),
        )
        for name, s in streams.items()
    }
    scales = [fold_scales(make_data(s, frames_dtype=dtype)[0], [trained]) for s in (streams, spoilt)]
    for ours, other in zip(*scales, strict=True):
        for name in streams:
            assert_array_equal(ours[name].mean, other[name].mean)
            assert_array_equal(ours[name].inverse, other[name].inverse)


def test_a_feature_that_does_not_vary_is_left_at_zero(streams):
    frames = [
        [np.concatenate([x, np.full((len(x), 1), 1e4, np.float32)], axis=1) for x in v] for v in streams["a"].frames
    ]
    data, _ = make_data({"a": Stream(frames, streams["a"].statistics)})
    scale = fold_scales(data, [np.ones(N, bool)])[0]["a"]
    assert scale.inverse[0, -1] == 0.0
    assert (scale.inverse[0, :-1] > 0).all()


def test_normalise_by_group_takes_out_each_speakers_mean_and_deviation(streams):
    stream = streams["a"]
    before = stream.statistics.copy()
    speakers = [f"s{row % 3}" for row in range(N)]
    ours = normalise_by_group(stream, speakers)
    for speaker in set(speakers):
        rows = [row for row in range(N) if speakers[row] == speaker]
        for view in ours.frames:
            pooled = np.concatenate([view[row] for row in rows])
            assert_allclose(pooled.mean(axis=0), 0.0, atol=1e-5)
            assert_allclose(pooled.std(axis=0), 1.0, rtol=1e-5)
        assert_allclose(ours.statistics[rows].mean(axis=0), 0.0, atol=1e-5)
        assert_allclose(ours.statistics[rows].std(axis=0), 1.0, rtol=1e-4)
    assert ours.frames[0][0].dtype == np.float32
    assert_array_equal(stream.statistics, before)  # the argument is left as it was


def test_normalise_by_group_where_statistics_are_all_there_is(streams):
    """A pooled stream: frames of no length, of which there is no mean."""
    stream = streams["a"]
    pooled = Stream([[x[:0] for x in view] for view in stream.frames], stream.statistics)
    speakers = [f"s{row % 3}" for row in range(N)]
    ours = normalise_by_group(pooled, speakers)
    assert all(x.shape == (0, stream.frames[0][0].shape[1]) for view in ours.frames for x in view)
    assert_array_equal(ours.statistics, normalise_by_group(stream, speakers).statistics)


# ----------------------------------------------------------------------------------------------------- targets


def make_corpus():
    u = [
        Utterance("1", "1.wav", "a", label="sad", distribution={"happy": 0.25, "sad": 0.75}, vad=(1.0, 3.0, 5.0)),
        Utterance("2", "2.wav", "a", label="happy"),
        Utterance("3", "3.wav", "b", distribution={"sad": 0.5, "happy": 0.5}, vad=(2.0, float("nan"), 4.0)),
        Utterance("4", "4.wav", "b"),
    ]
    return Corpus("tiny", ("happy", "sad"), (1.0, 5.0), tuple(u))


def test_hard_targets_are_the_labels():
    target, vad = label_targets(make_corpus(), soft=False)
    assert_array_equal(target, [[0, 1], [1, 0], [0, 0], [0, 0]])
    nan = np.nan
    assert_array_equal(vad, [[-1, 0, 1], [nan] * 3, [-0.5, nan, 0.5], [nan] * 3])
    assert target.dtype == vad.dtype == np.float32


def test_soft_targets_are_the_votes_where_there_are_any():
    target, _ = label_targets(make_corpus(), soft=True)
    assert_array_equal(target, [[0.25, 0.75], [1, 0], [0.5, 0.5], [0, 0]])


# ------------------------------------------------------------------------------------------- corrupted views


def test_a_share_of_the_utterances_comes_from_corrupted_views(data):
    """The share of each order; the same utterances and more where it is larger; the others as without."""
    visited, shares = np.ones(N, bool), (0.0, 0.4, 0.8, 1.0)
    without = order_of(data, visited, seeds=[0] * 4, views=2)
    order = order_of(data, visited, seeds=[0] * 4, views=2, corruptions=3, corrupted=shares)
    for ours, theirs in zip(order.rows, without.rows, strict=True):
        assert_array_equal(ours, theirs)
    none, some, more, every = np.concatenate([view.reshape(4, -1) for view in order.view], axis=1)
    clean = np.concatenate([view.reshape(4, -1) for view in without.view], axis=1)[0]
    assert_array_equal(none, clean)
    assert set(every) == {2, 3, 4}
    for drawn in (some, more):
        assert ((drawn == clean) | (drawn == every)).all()
    assert (some >= 2).sum() < (more >= 2).sum() < len(every)
    assert (more >= 2)[some >= 2].all()
    many = epoch_order(
        [np.arange(4000)],
        orders=[(0, np.ones(4000, bool))],
        epoch=1,
        batch_size=4000,
        views=1,
        corruptions=1,
        corrupted=[0.3],
    )
    assert abs(many.view[0].mean() - 0.3) < 0.03


def test_corrupted_views_count_in_the_normalisation_as_often_as_they_are_drawn(streams, stored):
    """A clean view and a corrupted one, drawn three times and once: as numpy on so many copies of each.

    Where none is drawn, the bits are those of the clean view alone.
    """
    trained = np.arange(N) < 9
    scales = fold_scales(stored, [trained] * 3, corruptions=1, corrupted=[0.0, 0.25, 1.0])
    for name, stream in streams.items():
        for fold, views in enumerate(([0], [0, 0, 0, 1], [1])):
            frames = np.concatenate([stream.frames[v][row] for v in views for row in np.flatnonzero(trained)])
            own = stream.statistics[trained][:, views].reshape(-1, 4)
            for scale, x in zip((scales[0][name], scales[1][name]), (frames, own), strict=True):
                assert_allclose(scale.mean[fold], x.astype(float).mean(axis=0), rtol=1e-6)
                assert_allclose(1 / scale.inverse[fold], x.astype(float).std(axis=0), rtol=1e-5)
    alone = {name: Stream(s.frames[:1], s.statistics[:, :1]) for name, s in streams.items()}
    for ours, other in zip(scales, fold_scales(make_data(alone)[0], [trained]), strict=True):
        for name in streams:
            assert_array_equal(ours[name].mean[0], other[name].mean[0])
            assert_array_equal(ours[name].inverse[0], other[name].inverse[0])


def pooled(data, pools, orders, **kwargs):
    arguments = {"epoch": 1, "batch_size": 2, "views": VIEWS, **kwargs}
    return epoch_order([b.utterance for b in data.buckets], orders=orders, pools=pools, **arguments)


def test_orders_of_a_pool_are_what_they_are_without_the_other_pools(data):
    """In one bucket: so that runs on one corpus of several train as they would on that corpus alone."""
    utterances = [np.arange(N)]
    small, large = np.arange(N) % 3 == 0, np.arange(N) % 3 > 0
    held_out = np.arange(N) % 4 > 0
    orders = [(0, small & held_out), (0, large & held_out), (1, large)]
    pools = [Pool("small", small), Pool("large", large), Pool("all of large", large)]
    arguments = {"epoch": 3, "batch_size": 2, "views": VIEWS}
    order = epoch_order(utterances, orders=orders, pools=pools, **arguments)
    for place, ((seed, visited), inside) in enumerate(zip(orders, (small, large, large), strict=True)):
        own = np.flatnonzero(inside)
        alone = epoch_order([own], orders=[(seed, visited)], **arguments)
        rows = np.searchsorted(own, own)  # the rows of a bucket that holds the pool alone
        steps = alone.rows[0].shape[1]
        assert_array_equal(order.taken[0][place], np.arange(order.rows[0].shape[1]) < steps)
        assert_array_equal(order.first[0][place, :steps], np.arange(steps))
        assert_array_equal(order.rows[0][place, :steps], own[rows][alone.rows[0][0]])
        assert_array_equal(order.view[0][place, :steps], alone.view[0][0])


def test_a_pool_with_less_to_visit_has_fewer_steps(data):
    first = np.arange(N) < N // 3
    pools = [Pool("first", first), Pool("rest", ~first)]
    order = pooled(data, pools, [(0, first), (0, ~first)])
    counts = np.stack(order.taken, axis=-1)  # [order, round, bucket]
    needed = [sum(-(-int(own[bucket.utterance].sum()) // 2) for bucket in data.buckets) for own in (first, ~first)]
    assert counts.sum(axis=(1, 2)).tolist() == needed
    assert all((np.diff(own.astype(int)) <= 0).all() for own in counts.any(axis=2))  # the first rounds, without a gap
    for place, own in enumerate((first, ~first)):
        seen = [
            bucket.utterance[rows.ravel()]
            for bucket, rows in zip(data.buckets, rows_in_turn(order, place), strict=True)
        ]
        assert_array_equal(np.unique(np.concatenate(seen)), np.flatnonzero(own))


@settings(max_examples=100)
@given(n_batches=st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(any), orders=st.integers(0, 2))
def test_steps_are_as_many_as_batches_and_numbered_in_turn(n_batches, orders):
    """No step repeats what an epoch has visited, but to fill a batch."""
    utterances = np.split(np.arange(2 * sum(n_batches)), np.cumsum(2 * np.array(n_batches))[:-1])
    visited = np.ones(2 * sum(n_batches), bool)
    pools = [Pool(str(n), visited) for n in range(2)]
    arguments = {"epoch": 1, "batch_size": 2, "views": 1, "pools": pools[:orders] if orders else None}
    order = epoch_order(utterances, orders=[(0, visited)] * max(1, orders), **arguments)
    assert [set(count.sum(axis=-1).ravel().tolist()) for count in order.taken] == [{n} for n in n_batches]
    assert all(np.ptp(count, axis=-1).max() <= 1 for count in order.taken)  # evenly over the rounds
    assert all(count.ndim == (2 if orders == 2 else 1) for count in order.taken)
    numbers = [visit.number for visit in visits_of_epoch(order)]
    expected = np.arange(sum(n_batches))
    assert_array_equal(numbers, np.stack([expected] * 2, axis=1) if orders == 2 else expected)


def test_small_corpora_are_visited_more_often(data):
    visits = np.where(np.arange(N) % 3 == 0, 2.5, 1.0)
    everyone = np.ones(N, bool)
    order = epoch_order([np.arange(N)], orders=[(0, everyone)], epoch=1, batch_size=1, views=VIEWS, visits=visits)
    seen, often = np.unique(order.rows[0], return_counts=True)
    assert_array_equal(seen, np.arange(N))
    rare = np.arange(N) % 3 == 0
    assert often[rare].sum() == np.ceil(2.5 * rare.sum()) and set(often[rare]) <= {2, 3}
    assert (often[~rare] == 1).all()
