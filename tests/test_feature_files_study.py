"""Feature files in a study: own vectors as a stream beside others and in a baseline, and what is refused."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float32
from ml_collections import ConfigDict
from tiny_study import labelled_table, read_csv, table_config, write_table

from sejax.build import build, preview
from sejax.config import check_config
from sejax.errors import InputError
from sejax.inference.export import export_bundle
from sejax.study import train_and_evaluate

IDS = [str(i) for i in range(16)]  # of `labelled_table`: angry and sad in turn, four of a speaker in a row
Vectors = dict[str, Float32[np.ndarray, " value"]]


def planted(ids: Sequence[str] = IDS) -> Vectors:
    """Returns vectors that tell the label of each utterance: a hundred times one-hot, with noise."""
    random = np.random.default_rng(0)
    return {
        id_: (np.tile(np.eye(2)[i % 2], 100) + 0.3 * random.standard_normal(200)).astype(np.float32)
        for i, id_ in enumerate(ids)
    }


def write_npz(path: Path, vectors: Mapping[str, Any]) -> Path:
    np.savez(path, **vectors)
    return path


def own_config(cache_dir: str, table: Path, path: Path, streams: tuple[str, ...] = ("xvector",)) -> ConfigDict:
    config = table_config(cache_dir, table)
    config.feature_files, config.streams = (f"xvector={path}",), streams
    return config


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_table(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return write_npz(tmp_path / "x.npz", planted())


@pytest.fixture(scope="module")
def joint(cache_dir: str, table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ConfigDict, Path]:
    """The config and the workdir of a study of mfcc, which says nothing of the label, and of planted vectors."""
    folder = tmp_path_factory.mktemp("joint")
    config = own_config(cache_dir, table, write_npz(folder / "x.npz", planted()), ("mfcc", "xvector"))
    config.baselines = ("xvector_svm",)
    config.epochs, config.learning_rate, config.averaging = 10, 0.01, 0.5
    config.importance = 1
    train_and_evaluate(config, str(folder / "workdir"))
    return config, folder / "workdir"


def test_planted_vectors_are_learned_beside_mfcc_and_by_a_baseline(joint: tuple[ConfigDict, Path]):
    metrics = json.loads((joint[1] / "metrics.json").read_text())
    (setting,), (machine,) = metrics["settings"], metrics["baselines"]["classical"]
    assert machine["name"] == "xvector_svm"
    assert setting["metrics"]["ua"]["pooled"] > 0.9
    assert machine["metrics"]["ua"]["pooled"] > 0.9
    parts = {(row["stream"], row["part"]) for row in read_csv(joint[1] / "importance.csv")}
    assert {("mfcc", "all"), ("xvector", "all")} <= parts


def test_another_place_of_the_same_vectors_continues_and_others_are_refused(
    joint: tuple[ConfigDict, Path], tmp_path: Path
):
    config, workdir = joint[0].copy_and_resolve_references(), tmp_path / "workdir"
    shutil.copytree(joint[1], workdir)
    before = (workdir / "predictions.csv").read_bytes()
    vectors = planted()
    # The same, in a CSV file of another order, which has a further id.
    ids = [*reversed(IDS), "another"]
    rows = [{"id": i, **{f"x{n}": x for n, x in enumerate(vectors.get(i, vectors["0"]))}} for i in ids]
    config.feature_files = (f"xvector={write_table(tmp_path / 'x.csv', rows)}",)
    metrics = train_and_evaluate(config, str(workdir), train=False)
    assert (workdir / "predictions.csv").read_bytes() == before
    (note,) = metrics["audit"]["corpus_notes"]
    assert note.endswith("x.csv: 1 vector not used, whose id no utterance of the corpus has (the first: 'another')")

    vectors["3"] = vectors["3"] + np.float32(1e-3)
    config.feature_files = (f"xvector={write_npz(tmp_path / 'x.npz', vectors)}",)
    with pytest.raises(
        InputError, match=r"was begun with other data .*: the vectors of xvector \(config\.feature_files\)"
    ):
        train_and_evaluate(config, str(workdir), train=False)
    assert (workdir / "predictions.csv").read_bytes() == before


def test_listed_settings_may_read_them(cache_dir: str, table: Path, npz: Path):
    config = own_config(cache_dir, table, npz, ("mfcc",))
    config.settings = ("streams=mfcc+xvector", "streams=mfcc")
    assert [tuple(program.data.statistics) for program in build(config).programs] == [("mfcc", "xvector"), ("mfcc",)]
    config.settings = ("streams=mfcc+yvector", "streams=mfcc")
    with pytest.raises(
        InputError, match=r"^streams of a setting of config\.settings is \('mfcc', 'yvector'\), expected"
    ):
        check_config(config)


def test_a_bundle_is_refused(joint: tuple[ConfigDict, Path], tmp_path: Path):
    with pytest.raises(InputError, match=r"reads xvector from a feature file, which has no vector of a new recording"):
        export_bundle(str(joint[1]), str(tmp_path / "bundle"), runs=("folds",))
    assert not (tmp_path / "bundle").exists()


def test_a_stream_needs_no_other_and_is_normalised_by_training_speakers_alone(
    cache_dir: str, table: Path, npz: Path, tmp_path: Path
):
    config = own_config(cache_dir, table, npz)
    config.find_copies = False
    (program,) = build(config).programs
    np.testing.assert_array_equal(program.data.statistics["xvector"][:, 0], np.stack([*planted().values()])[_order()])

    garbage = planted() | {id_: np.full(200, 1e6, np.float32) for id_ in IDS[:4]}  # of the speaker s0
    config.feature_files = (f"xvector={write_npz(tmp_path / 'garbage.npz', garbage)}",)
    (other,) = build(config).programs
    same = [
        np.array_equal(a, b)
        for a, b in zip(
            program.per_run.statistic_scale["xvector"].mean, other.per_run.statistic_scale["xvector"].mean, strict=True
        )
    ]
    # The folds that do not train on s0: it is tested in the first, and validates in the last.
    assert same == [True, False, False, True]

    config.normalisation = "speaker"
    (of_speakers,) = build(config).programs
    np.testing.assert_allclose(of_speakers.data.statistics["xvector"].mean(), 0, atol=1e-6)


def _order() -> list[int]:
    """The places of the ids in the order of the corpus."""
    return [IDS.index(id_) for id_ in sorted(IDS)]


def test_ids_of_several_corpora_begin_with_its_name(cache_dir: str, tmp_path: Path):
    tables = [labelled_table(tmp_path), labelled_table(tmp_path, first=16)]
    ids = [f"{name}:{first + i}" for name, first in (("a", 0), ("b", 16)) for i in range(16)]
    config = own_config(cache_dir, tables[0], write_npz(tmp_path / "x.npz", planted(ids)))
    config.corpora = tuple(f"{name}=table:{path}" for name, path in zip("ab", tables, strict=True))
    assert len(build(config).corpus.utterances) == 32
    config.feature_files = (f"xvector={write_npz(tmp_path / 'own.npz', planted([*ids[:16], *IDS]))}",)
    sentence = (
        "no vector for 16 of 32 utterances (the first: 'b:16', 'b:17', 'b:18'), expected one for each of the corpus"
    )
    with pytest.raises(
        InputError, match=re.escape(sentence) + r" a\+b; ids of the file that none of them has: the first"
    ):
        preview(config)


def test_utterances_without_usable_audio_need_no_vector(cache_dir: str, tmp_path: Path):
    table = labelled_table(tmp_path)
    shutil.copyfile(table, tmp_path / "5.wav")  # no audio
    (tmp_path / "9.wav").unlink()
    config = own_config(cache_dir, table, tmp_path / "x.npz")
    config.max_bad_fraction = 0.2
    write_npz(tmp_path / "x.npz", planted())
    assert build(config).audit["corpus_notes"] == []  # their vectors are not those of nobody
    write_npz(tmp_path / "x.npz", planted([id_ for id_ in IDS if id_ not in ("5", "9")]))
    assert len(build(config).corpus.utterances) == 14
    write_npz(tmp_path / "x.npz", planted([id_ for id_ in IDS if id_ != "6"]))
    with pytest.raises(InputError, match=r"has no vector for 1 of 14 utterances \(the first: '6'\), expected one for"):
        build(config)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"feature_files": ("x.npz",)}, "config.feature_files has 'x.npz', expected name=path"),
        ({"feature_files": ("mfcc=x.npz",)}, "has a stream 'mfcc', expected another name than that of a feature"),
        ({"feature_files": ("raw=x.npz",)}, "has a stream 'raw', expected another name than that of a feature"),
        ({"feature_files": ("x@0.02=x.npz",)}, "has a stream 'x@0.02', expected a name of letters, digits and under"),
        ({"feature_files": ("x=x.npz", "x=y.npz")}, "has two streams 'x', expected a name for each"),
        ({"feature_files": ("x=x.npy",)}, "config.feature_files has 'x=x.npy', expected a file that ends in .npz or"),
        ({"feature_files": ("x=x.npz",)}, "expected x among config.streams, or x_svm among config.baselines"),
        ({"streams": ("mfcc", "x")}, "config.streams is ('mfcc', 'x'), expected a tuple of names out of mfcc, "),
        ({"feature_files": ("x=x.npz",), "streams": ("y",)}, "wav2vec2, "),
        ({"feature_files": ("x=x.npz",), "streams": ("x",), "speeds": (1.0, 1.1)}, "expected (1.0,) with the stream x"),
        (
            {"feature_files": ("x=x.npz",), "streams": ("x",), "corruptions": ("noise:10",)},
            "expected () with the stream",
        ),
        (
            {"feature_files": ("x=x.npz",), "streams": ("mfcc", "x"), "model.statistics": False},
            "config.model.statistics is False, expected True with the stream x: the vectors of a feature file are",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(cache_dir: str, options: dict[str, Any], sentence: str):
    config = table_config(cache_dir, Path("table.csv"))
    config.model.encoder.mfcc = "lstm"
    config.augment.corrupted = 0.5 if "corruptions" in options else 0.0
    config.update_from_flattened_dict(options)
    with pytest.raises(InputError, match=re.escape(sentence)):
        check_config(config)


def test_a_baseline_alone_reads_a_feature_file_beside_speeds(cache_dir: str, table: Path, npz: Path):
    config = own_config(cache_dir, table, npz, ("mfcc",))
    config.baselines, config.speeds = ("xvector_svm",), (1.0, 1.1)
    study = build(config)
    np.testing.assert_array_equal(study.baselines.features["xvector_svm"], np.stack([*planted().values()])[_order()])
    assert study.vectors == {}  # no run is trained on them
