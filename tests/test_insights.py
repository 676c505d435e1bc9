"""What a study says its models look at: explanations of test utterances, and permutation importance."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict
from numpy.testing import assert_allclose
from tiny_study import read_csv, table_config, write_table, write_voice

import sejax.build
from sejax.inference.export import export_bundle
from sejax.inference.model import Model
from sejax.study import train_and_evaluate

CLASSES, SPEAKERS, EACH = ("angry", "sad"), ("s0", "s1", "s2", "s3"), 8


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four speakers with eight utterances each; a dimension beside the classes."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for i in range(EACH * len(SPEAKERS)):
        write_voice(folder / f"{i}.wav", seed=i)
        row = {"path": f"{i}.wav", "speaker": SPEAKERS[i // EACH], "label": CLASSES[i % 2]}
        rows.append(row | {"valence": 1 + 3 * (i % 2) + 0.1 * (i % 5), "arousal": "", "dominance": ""})
    return write_table(folder / "table.csv", rows)


def two_streams(cache_dir: str, table: Path) -> ConfigDict:
    config = table_config(cache_dir, table)
    config.labels = "1..7"
    config.streams = ("mfcc", "mel")
    config.importance = 3
    return config


# ------------------------------------------------------------------------------------------------- a planted label


def planted(garbage: str = "") -> Callable[..., Any]:
    """Returns `prepare_corpus` with noise in all statistics, but for the label in the deviations of mel.

    Args:
      garbage: a speaker whose statistics are other ones.
    """
    prepare = sejax.build.prepare_corpus

    def prepared(*arguments: Any) -> Any:
        found = prepare(*arguments)
        random, utterances = np.random.default_rng(0), found.corpus.utterances
        sign = np.array([1.0 if u.label == CLASSES[0] else -1.0 for u in utterances])
        streams = {}
        for name, stream in found.streams.items():
            statistics = random.normal(size=stream.statistics.shape).astype(np.float32)
            if name == "mel":
                statistics[:, :, 128:256] += 3 * sign[:, None, None]
            for row, utterance in enumerate(utterances):
                if utterance.speaker == garbage:
                    statistics[row] = 1e3 * np.random.default_rng(row).normal(size=statistics[row].shape)
            streams[name] = stream._replace(statistics=statistics)
        return replace(found, streams=streams)

    return prepared


def measured(config: ConfigDict, workdir: Path, prepare: Callable[..., Any]) -> list[dict[str, str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sejax.build, "prepare_corpus", prepare)
        train_and_evaluate(config, str(workdir))
    return read_csv(workdir / "importance.csv")


@pytest.fixture(scope="module")
def planted_study(cache_dir: str, table: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    return measured(planted_config(cache_dir, table), tmp_path_factory.mktemp("planted") / "workdir", planted())


def planted_config(cache_dir: str, table: Path) -> ConfigDict:
    config = two_streams(cache_dir, table)
    config.epochs, config.learning_rate = 8, 0.02
    return config


def test_the_stream_and_the_group_that_carry_the_label_are_important_and_no_other(planted_study):
    falls: dict[tuple[str, str], list[float]] = {}
    for row in planted_study:
        assert float(row["ua"]) > 0.8
        for metric, least in (("ua", 0.2), ("ccc_mean", 0.2)):
            fall = float(row[metric]) - float(row[f"{metric}_permuted"])
            falls.setdefault((row["stream"], row["part"]), []).append(fall / least)
    carrying = {("mel", "all"), ("mel", "deviation")}
    assert carrying < set(falls) and ("mfcc", "deviation") in falls and len(falls) == 2 * 7
    for key, of_runs in falls.items():
        assert len(of_runs) == 2 * len(SPEAKERS)
        assert (np.mean(of_runs) > 1) == (key in carrying), (key, of_runs)
        assert key in carrying or abs(np.mean(of_runs)) < 0.5, (key, of_runs)


def test_held_out_speakers_have_no_say(planted_study, cache_dir: str, table: Path, tmp_path: Path):
    """The importance of the fold that tests a speaker is the same whatever that speaker says."""
    other = measured(planted_config(cache_dir, table), tmp_path / "workdir", planted(garbage="s0"))
    same = [(one == two) for one, two in zip(planted_study, other, strict=True) if one["fold"] == "s0"]
    assert len(same) == 2 * 7 and all(same)
    assert any(one != two for one, two in zip(planted_study, other, strict=True))


# ------------------------------------------------------------------------------------------- a study and its model


@pytest.fixture(scope="module")
def encoded(cache_dir: str, table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ConfigDict, Path, str]:
    """A study of encoded streams and of statistics alone, as class and as dimensions; with what it printed."""
    config = two_streams(cache_dir, table)
    config.model.encoder.mfcc, config.model.self_attention = "linear", False
    config.grid.alpha = (0.5, 0.0)
    config.grid.streams = (("mfcc", "mel"), ("mel",))
    config.explain, config.importance = 3, 1
    workdir = tmp_path_factory.mktemp("encoded") / "workdir"
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: lines.extend(map(str, words)))
        train_and_evaluate(config, str(workdir))
    return config, workdir, "\n".join(lines)


def test_explanations_are_of_held_out_speakers_and_those_of_the_model_that_predicts(encoded, table: Path, tmp_path):
    _, workdir, _ = encoded
    trees = json.loads((workdir / "explanations.json").read_text())
    settings = [setting["name"] for setting in json.loads((workdir / "metrics.json").read_text())["settings"]]
    assert [tree["setting"] for tree in trees] == [name for name in settings for _ in range(3)]
    predicted = {
        (row["run"], row["id"]): row for row in read_csv(workdir / "predictions.csv") if row["split"] == "test"
    }
    for tree in trees:
        row = predicted[str(tree["run"]), tree["id"]]
        assert tree["speaker"] == tree["fold"] == row["speaker"]
        if tree["task"] == "class":
            assert_allclose(tree["confidence"], float(row[f"prob_{tree['output']}"]), rtol=1e-4)
            assert tree["kind"] == ("right" if tree["output"] == row["label"] else "wrong")
        else:
            assert tree["kind"] in ("nearest", "farthest") and tree["output"] == "valence"
            assert_allclose(tree["value"], float(row["pred_valence"]), rtol=1e-3)
    tree = trees[0]
    export_bundle(str(workdir), str(tmp_path / "bundle"), runs=(str(tree["run"]),), setting=tree["setting"])
    (record,) = Model.load(tmp_path / "bundle").explain([table.parent / f"{tree['id']}.wav"])
    for key in ("output", "level", "seconds", "task", "runs"):
        assert record.explanation[key] == tree[key]
    assert_allclose(record.explanation["sum"], tree["sum"], rtol=2e-3, atol=1e-3)
    for name, stream in tree["streams"].items():
        own = record.explanation["streams"][name]
        assert_allclose(own["share"], stream["share"], rtol=5e-3)
        for group, value in stream["statistics"]["groups"].items():
            assert_allclose(own["statistics"]["groups"][group], value, rtol=1e-2, atol=1e-4)
    frames, own = (t["streams"]["mfcc"]["frames"] for t in (tree, record.explanation))
    assert own["hop"] == frames["hop"] == 0.01
    assert_allclose(own["values"], frames["values"], rtol=1e-2, atol=1e-5)


def test_the_report_and_the_terminal_show_them(encoded):
    _, workdir, printed = encoded
    page = (workdir / "report.html").read_text()
    assert page.count("What the model looks at (3 test utterances)") == 4
    assert page.count("Which input matters") == 4
    assert page.count("<b>Over time</b>") == 2 * 3  # of the settings with frames
    assert page.count("blue speaks for the output") == page.count("a sum above 0 speaks for the output") == 2
    assert "validation speakers lose when a stream, its frames or a group of its statistics is shuffled" in page
    when = "validation speakers lose when a stream is shuffled among their utterances (the more, the more it is used; "
    for lost in ("points of UA", "CCC mean"):
        assert f"alpha=0.5 streams=mel: {lost} that {when}mean +- deviation over runs): mel " in printed
        assert f"<b>{lost.removeprefix('points of ')} lost when a part of the input is shuffled</b>" in page


def test_a_later_start_measures_the_same_with_streamed_frames_and_leaves_other_numbers_alone(encoded):
    config, workdir, _ = encoded
    files = ("importance.csv", "explanations.json", "metrics.json", "predictions.csv")
    before = {name: (workdir / name).read_bytes() for name in files}
    config = config.copy_and_resolve_references()
    config.frames_on = "host"
    train_and_evaluate(config, str(workdir), train=False)
    assert {name: (workdir / name).read_bytes() for name in files[:2]} == {name: before[name] for name in files[:2]}
    config.frames_on, config.explain, config.importance = "device", 0, 0
    train_and_evaluate(config, str(workdir), train=False)
    assert not (workdir / "importance.csv").exists() and not (workdir / "explanations.json").exists()
    assert {name: (workdir / name).read_bytes() for name in files[2:]} == {name: before[name] for name in files[2:]}
    assert "Which input matters" not in (workdir / "report.html").read_text()
