"""Frames that do not lie on the devices: the same batches, the same studies, little memory."""

import json
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from numpy.testing import assert_allclose, assert_array_equal
from tiny_study import labelled_table, read_csv, read_history, table_config, tiny_config, write_table, write_voice

from sejax import build, resolve
from sejax.corpora.read import read_corpus
from sejax.data import order as order_of_batches
from sejax.data.buckets import Padded, assemble
from sejax.data.order import epoch_order, prediction_rows, take_batch
from sejax.data.prefetch import READ_AHEAD, Blocks, largest_blocks, read_ahead, visits_of_epoch, visits_of_prediction
from sejax.data.prepare import prepare
from sejax.data.scales import fold_scales
from sejax.data.types import Stream
from sejax.engine import plan
from sejax.engine.checkpoint import Checkpoints
from sejax.engine.feed import open_feed
from sejax.engine.plan import Planned, plan_programs
from sejax.protocols.registry import make_folds
from sejax.study import train_and_evaluate
from sejax.workdir import files
from sejax.workdir.logs import History

FILES = ("predictions.csv", "history.jsonl", "metrics.json", "runs.csv")
N, VIEWS, BATCH = 40, 2, 4
SLOW_STEPS = 1_000_000


# ---------------------------------------------------------------------------------------------- batches


@pytest.fixture(scope="module")
def stored():
    """Two streams of two views in three buckets, none of it read."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(9, 60, (VIEWS, N))
    streams = {
        name: Stream(
            [[rng.normal(size=(n, size)).astype(dtype) for n in view] for view in lengths],
            rng.normal(size=(N, VIEWS, 3)).astype(np.float32),
        )
        for name, size, dtype in (("a", 3, np.float32), ("b", 2, np.float16))
    }
    return assemble(
        streams,
        encoded=streams,
        target=np.eye(2, dtype=np.float32)[np.arange(N) % 2],
        vad=rng.normal(size=(N, 3)).astype(np.float32),
        n_buckets=3,
        batch_size=BATCH,
        trained=np.ones((1, N), bool),
        max_seconds=0.4,
        hop_seconds={"a": 0.01, "b": 0.01},
        frames_dtype=np.float32,
    )[0]


@pytest.fixture(scope="module")
def order(stored):
    speaker = np.arange(N) % 5
    return epoch_order(
        [bucket.utterance for bucket in stored.buckets],
        orders=[(seed, speaker != held_out) for seed in (0, 1) for held_out in (1, 3)],
        epoch=2,
        batch_size=BATCH,
        views=VIEWS,
    )


def assert_same_batches(stored, visits, views):
    """Bit for bit what `take_batch` gathers on the device, in the same order, though threads read at their own pace."""
    data = jax.device_put(jax.tree.map(np.asarray, stored))
    blocks = Blocks(stored.buckets, visits, largest_blocks(visits), views)
    shapes: dict[int, set[Any]] = {}
    held = list(read_ahead(blocks))  # what one block is made of must not be used again for another
    for visit, block in zip(visits, held, strict=True):
        shapes.setdefault(visit.bucket, set()).add(str(jax.tree.map(np.shape, block.bucket)))
        by_order = jax.device_put((visit.rows, visit.view, block.rows, block.visit.view))
        for rows, view, local, local_view in zip(*by_order, strict=True):
            expected = take_batch(data, data.buckets[visit.bucket], rows, view)
            taken = take_batch(data._replace(buckets=()), jax.device_put(block.bucket), local, local_view)
            for ours, theirs in zip(jax.tree.leaves(taken), jax.tree.leaves(expected), strict=True):
                assert ours.dtype == theirs.dtype
                assert_array_equal(ours, theirs)
    assert all(len(shapes_of_bucket) == 1 for shapes_of_bucket in shapes.values())  # one program for each bucket


@pytest.fixture
def at_odd_times(monkeypatch: pytest.MonkeyPatch):
    """Reading takes now long, now short."""
    take, rng = Padded.take, np.random.default_rng(0)

    def delayed(*args):
        time.sleep(rng.choice((0.0, 0.01)))
        return take(*args)

    monkeypatch.setattr(Padded, "take", delayed)


def test_streamed_batches_of_an_epoch_are_those_on_the_device(stored, order, at_odd_times):
    visits = visits_of_epoch(order)
    assert len(stored.buckets) == 3
    assert len(visits) == np.sum(order.taken)
    assert_same_batches(stored, visits, VIEWS)


def test_streamed_batches_of_a_prediction_are_those_on_the_device(stored, at_odd_times):
    rows, _ = prediction_rows(stored, [np.arange(0, N, 3), np.arange(1, N, 3)], BATCH)
    assert_same_batches(stored, visits_of_prediction(rows), 1)


def test_a_block_reads_an_utterance_once_and_only_the_view_that_is_visited(stored, order, monkeypatch):
    read: list[tuple[int, int, int]] = []
    valid = Padded.valid

    def noted(self, row, view):
        read.append((id(self), row, view))
        return valid(self, row, view)

    monkeypatch.setattr(Padded, "valid", noted)
    visits = visits_of_epoch(order)
    for visit, _ in zip(visits, read_ahead(Blocks(stored.buckets, visits, largest_blocks(visits), VIEWS)), strict=True):
        assert visit.rows.shape == (4, BATCH)
    for visit in visits:
        read.clear()
        _ = Blocks(stored.buckets, [visit], largest_blocks([visit]), VIEWS)[0]
        wanted = {(row, view) for row, view in zip(visit.rows.ravel(), visit.view.ravel(), strict=True)}
        assert sorted(read) == sorted(
            (id(x), row, view) for x in stored.buckets[visit.bucket].frames.values() for row, view in wanted
        )


def test_no_more_is_read_ahead_than_is_said(stored, order, monkeypatch):
    begun, take = [], Blocks.__getitem__
    monkeypatch.setattr(Blocks, "__getitem__", lambda self, place: begun.append(place) or take(self, place))
    visits = visits_of_epoch(order)
    assert len(visits) > 2 * READ_AHEAD
    blocks = read_ahead(Blocks(stored.buckets, visits, largest_blocks(visits), VIEWS))
    next(blocks)
    time.sleep(0.3)
    assert READ_AHEAD <= len(begun) <= READ_AHEAD + 1


# ---------------------------------------------------------------------------------------------- studies


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four speakers, eight utterances each, two lengths; classes and dimensions."""
    folder, rows = tmp_path_factory.mktemp("corpus"), []
    for i in range(32):
        write_voice(folder / f"{i}.wav", seed=i, seconds=(0.5, 1.0)[i // 2 % 2])
        ratings = {name: 1 + i * step % 7 for name, step in (("valence", 2), ("arousal", 3), ("dominance", 5))}
        rows.append({"path": f"{i}.wav", "speaker": f"s{i // 8}", "label": ("angry", "sad")[i % 2], **ratings})
    return write_table(folder / "table.csv", rows)


def streamed_config(cache_dir: str, table: Path) -> ConfigDict:
    """Float32 and float16 frames, two lengths, two speeds, two seeds in chunks of their own."""
    config = table_config(cache_dir, table)
    config.labels = "1..7"
    config.streams = ("mfcc", "hubert")
    config.model.encoder.mfcc = config.model.encoder.hubert = "linear"
    config.speeds = (1.0, 1.1)
    config.buckets = 2
    config.model.self_attention = config.model.co_attention = False
    config.seeds = 2
    config.epochs = 2
    return config


def finetune_config(cache_dir: str, table: Path) -> ConfigDict:
    """Raw audio through adapters: a batch that all runs share."""
    config = table_config(cache_dir, table)
    config.labels = "1..7"
    config.streams = ("mfcc", "wavlm")
    config.model.encoder.wavlm = "finetune"
    config.max_seconds = 1.0
    config.model.self_attention = False
    config.finetune.lora_rank = 2
    return config


def by_speaker_config(cache_dir: str, table: Path) -> ConfigDict:
    """The programs of `streamed_config`, with other scales."""
    config = streamed_config(cache_dir, table)
    config.normalisation = "speaker"
    return config


def train_on(frames_on: str, config: ConfigDict, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    """Trains, and gives what is saved of every epoch: states and best parameters."""
    saved = {}
    save = Checkpoints.save

    def noted(self, epoch, tree):
        saved[epoch] = jax.device_get(tree)
        save(self, epoch, tree)

    config.frames_on = frames_on
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", noted)
        train_and_evaluate(config, str(workdir))
    return saved


def assert_same_study(ours: Path, theirs: Path) -> None:
    """The same batches went through two programs, which XLA rounds in its own ways."""
    assert (ours / "runs.csv").read_bytes() == (theirs / "runs.csv").read_bytes()  # the best epochs among it
    for a, b in zip(read_history(ours), read_history(theirs), strict=True):
        assert a.keys() == b.keys()
        assert_allclose(*([row[k] for k in a if k.startswith("loss_")] for row in (a, b)), atol=1e-5)
    for a, b in zip(*(read_csv(workdir / "predictions.csv") for workdir in (ours, theirs)), strict=True):
        assert [a[k] for k in ("run", "id", "label")] == [b[k] for k in ("run", "id", "label")]
        numbers = [k for k in a if k.startswith(("prob_", "pred_")) and a[k]]
        assert_allclose(*([float(row[k]) for k in numbers] for row in (a, b)), atol=1e-3)


@pytest.mark.parametrize("make_config", [streamed_config, finetune_config, by_speaker_config])
def test_a_streamed_study_is_the_same(
    make_config, tmp_path: Path, cache_dir: str, table: Path, monkeypatch: pytest.MonkeyPatch
):
    for frames_on in ("device", "host"):
        train_on(frames_on, make_config(cache_dir, table), tmp_path / frames_on, monkeypatch)
    assert_same_study(tmp_path / "host", tmp_path / "device")
    plans = [json.loads((tmp_path / on / "plan.json").read_text())[0] for on in ("device", "host")]
    assert [planned["frames_on"] for planned in plans] == ["device", "host"]

    if make_config is streamed_config:  # interrupted in an epoch while streaming, and continued: to the last bit
        write = History.write

        def interrupted(self, rows):
            if rows[0]["epoch"] == 2:
                raise KeyboardInterrupt
            write(self, rows)

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(History, "write", interrupted)
            train_on("host", make_config(cache_dir, table), tmp_path / "parts", monkeypatch)
        train_on("host", make_config(cache_dir, table), tmp_path / "parts", monkeypatch)
        for name in FILES:
            assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "host" / name).read_bytes(), name
        config = make_config(cache_dir, table)
        config.frames_on = "device"  # what was streamed is evaluated on the devices
        train_and_evaluate(config, str(tmp_path / "parts"), train=False)
        assert_same_study(tmp_path / "parts", tmp_path / "device")


def test_nothing_of_a_held_out_speaker_reaches_a_streamed_run(
    tmp_path: Path, cache_dir: str, table: Path, monkeypatch: pytest.MonkeyPatch
):
    """Garbage in the frames of the speakers that the first fold tests and validates on."""
    config = streamed_config(cache_dir, table)

    def spoilt(corpus, **options):
        prepared = prepare(corpus, **options)
        (fold, *_) = make_folds(prepared.corpus.utterances, config.protocol)

        def huge(statistics):
            """Of the same type, so that the programs are the same."""
            return statistics.dtype.type(min(1e30, float(np.finfo(statistics.dtype).max)))

        garbage = {
            name: Stream(
                [
                    [x if kept else np.full(x.shape, np.nan, x.dtype) for x, kept in zip(view, fold.train, strict=True)]
                    for view in stream.frames
                ],
                np.where(fold.train[:, None, None], stream.statistics, huge(stream.statistics)),
            )
            for name, stream in prepared.streams.items()
        }
        return replace(prepared, streams=garbage)

    clean = train_on("host", config, tmp_path / "clean", monkeypatch)
    monkeypatch.setattr(resolve.corpus, "prepare", spoilt)
    dirty = train_on("host", config, tmp_path / "dirty", monkeypatch)

    def of_run(saved, number):
        # Eight runs, of one seed and then of the other, two side by side on two devices.
        return [x.reshape(-1, *x.shape[2:])[number] for x in jax.tree.leaves(saved[config.epochs][0])]

    for ours, theirs in zip(of_run(dirty, 0), of_run(clean, 0), strict=True):
        assert np.isfinite(ours).all()
        assert_array_equal(ours, theirs)
    trained_on_them = zip(of_run(dirty, 2), of_run(clean, 2), strict=True)
    assert any(not np.array_equal(ours, theirs) for ours, theirs in trained_on_them)


# ---------------------------------------------------------------------------------- devices and memory


def plan_study(study: build.Study, frames_on: str, begun: Any = None) -> Planned:
    (planned,) = plan_programs(study.programs, jax.devices(), replace(study.placement, frames_on=frames_on), begun)
    return planned


def test_frames_are_streamed_where_they_do_not_fit(tmp_path: Path, cache_dir: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(order_of_batches, "PREDICTION_BYTES", 1)  # no block of a prediction is large
    config = tiny_config(cache_dir)
    config.model.encoder.mfcc, config.model.self_attention = "linear", False
    config.batch_size = 2  # a block is a small part of the corpus
    config.synthetic.fraction = 0.02  # whose frames need more than the states of the runs
    study = build.build(config)

    def planned_on(free: int, frames_on: str, begun: Any = None) -> str:
        monkeypatch.setattr(plan, "free_memory", lambda devices: free)
        return plan_study(study, frames_on, begun).frames_on

    monkeypatch.setattr(plan, "free_memory", lambda devices: 1 << 40)
    resident = plan_study(study, "auto")
    assert resident.frames_on == "device"
    workdir = str(tmp_path)
    files.write_plan(workdir, [plan.describe(resident)], None)
    begun = files.read_plan(workdir, study.programs)
    assert planned_on(1, "auto", begun) == "device"  # as it was begun
    assert planned_on(1 << 40, "host", begun) == "host"  # unless something else is asked for
    # A program may need 0.9 of the free memory.
    assert planned_on(plan.nbytes(study.programs[0].data), "auto") == "host"
    assert planned_on(resident.needed, "auto") == "host"
    assert planned_on(int(resident.needed / 0.9) + 1, "auto") == "device"


def test_the_devices_hold_two_blocks_while_they_compute(cache_dir: str, table: Path):
    """A step starts while the one before it computes, and never before the last but one is done."""
    study = build.build(streamed_config(cache_dir, table))
    feed = open_feed(plan_study(study, "host"))
    losses: list[Any] = []  # of each step that has started
    done: list[list[bool]] = []  # of the steps before, when a step starts

    @jax.jit
    def slowly(x):
        """Takes a while to return `x`."""
        return jax.lax.fori_loop(0, SLOW_STEPS, lambda _, y: jnp.where(jnp.sin(y) > 2, -y, y), x)

    def started(compiled):
        def step(*args):
            done.append([x.is_ready() for x in losses])
            states, metrics = compiled(*args)
            metrics = metrics._replace(losses=slowly(metrics.losses))
            losses.append(metrics.losses)
            return states, metrics

        return step

    states = feed.init_states()
    feed.plan.compiled.update({number: started(compiled) for number, compiled in feed.plan.compiled.items()})
    feed.train_epoch(states, 1)
    steps = feed.program.epoch_steps
    assert len(done) == steps > 3
    assert all(all(before[:-1]) for before in done)
    # A busy machine may stop the host for as long as a step takes.
    assert sum(not before[-1] for before in done[1:]) > steps / 2


def test_frames_are_not_kept_on_the_host(tmp_path: Path, cache_dir: str):
    """Everything before the first step, and an epoch of blocks, on a corpus that is larger than what it takes."""
    config = table_config(cache_dir, labelled_table(tmp_path))
    config.features.mel.n_mels = 128
    config.features.mel.hop_length = 4  # 2000 frames of 128: 1 MB each
    config.features.mel.win_length = 400

    def corpus():
        prepared = prepare(
            read_corpus(config.corpus, config.data_dir, labels=config.labels),
            streams=["mel"],
            features={"mel": "mel"},
            settings={"mel": config.features.mel.to_dict()},
            speeds=[1.0],
            cache_dir=cache_dir,
            workers=1,
            max_bad_fraction=0.0,
        )
        return prepared.streams["mel"]

    def read() -> int:
        stream = corpus()
        data, _ = assemble(
            {"mel": stream},
            encoded=["mel"],
            target=np.eye(2, dtype=np.float32)[np.arange(16) % 2],
            vad=np.zeros((16, 3), np.float32),
            n_buckets=1,
            batch_size=2,
            trained=np.ones((1, 16), bool),
            max_seconds=0.0,
            hop_seconds={"mel": 4 / 16_000},
            frames_dtype=np.float32,
        )
        fold_scales(data, [np.arange(16) < 12])
        order = epoch_order(
            [b.utterance for b in data.buckets], orders=[(0, np.ones(16, bool))], epoch=1, batch_size=1, views=1
        )
        visits = visits_of_epoch(order)
        for block in read_ahead(Blocks(data.buckets, visits, largest_blocks(visits), 1)):
            del block
        return plan.nbytes(data)

    read()  # computes the features, and imports what reading needs
    tracemalloc.start()
    try:
        whole = read()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert whole > 16e6
    assert peak < 0.7 * whole
