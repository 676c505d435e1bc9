"""`predict --explain`: what a model looked at, as JSON lines and as a page."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from tiny_study import GOLDEN_SSL, write_voice

from sejax.errors import InputError
from sejax.inference.commands.predict import main
from sejax.inference.model import Model


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("voices")
    for seed in (3, 4):
        write_voice(folder / f"voice <{seed}>.wav", seed=seed)
    return [str(folder / f"voice <{seed}>.wav") for seed in (3, 4)]


def test_of_an_ensemble_the_parts_are_means_over_its_runs(bundle: Path, voices: list[str]):
    model = Model.load(bundle)
    (record, _), (predicted, _) = model.explain(voices), model.predict(voices)
    own = record.explanation
    assert own["runs"] > 1 and record.label == predicted.label
    assert_allclose([*record.probabilities.values()], [*predicted.probabilities.values()], rtol=1e-5)
    assert own["task"] == "class" and own["output"] == record.label
    assert_allclose(own["seconds"], 0.5)
    assert_allclose(sum(stream["share"] for stream in own["streams"].values()), 1, atol=1e-3)
    assert_allclose(sum(stream["sum"] for stream in own["streams"].values()), own["sum"], rtol=2e-3)
    (groups,) = (stream["statistics"]["groups"] for stream in own["streams"].values())
    assert set(groups) == {
        f"{delta}{kind}" for delta in ("", "delta ") for kind in ("mean", "deviation", "percentiles")
    }
    single = [next(iter(Model.load(bundle, runs=[str(n)]).explain(voices[:1], task="valence"))) for n in (0, 1)]
    both = next(iter(Model.load(bundle, runs=["0", "1"]).explain(voices[:1], task="valence")))
    for key in ("value", "at_mean", "sum"):
        mean = np.mean([each.explanation[key] for each in single])
        assert_allclose(both.explanation[key], mean, rtol=2e-3, atol=1e-3)
    assert_allclose(both.explanation["value"], both.dimensions["valence"], rtol=1e-3)


def test_the_command_writes_json_and_a_page(
    encoded_bundle: Path, voices: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    page, out = tmp_path / "page.html", tmp_path / "out.jsonl"
    begin = ["--model", str(encoded_bundle), "--out", str(out), "--page", str(page)]
    assert main([*begin, *voices, str(tmp_path / "none.wav"), "--explain"]) == 1
    assert "none.wav" in capsys.readouterr().err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["file"] for row in rows if "error" not in row] == voices
    own = rows[0]["explanation"]
    assert own["output"] == rows[0]["label"]
    assert set(own["streams"]) == {"mfcc", "mel"}
    for name, stream in own["streams"].items():
        frames = stream["frames"]
        assert_allclose(frames["hop"] * len(frames["values"]), 0.5, atol=0.02)
        assert_allclose(sum(frames["values"]), frames["sum"], rtol=0.01, atol=1e-3)
        layers = {layer["layer"] for layer in own["attention"] if layer["stream"] == name}
        (other,) = {"mfcc", "mel"} - {name}
        assert layers == {"self-attention", f"co-attention from {other}", "pooling"}
    for layer in own["attention"]:
        assert_allclose(sum(layer["weights"]), 1, rtol=1e-2)
    text = page.read_text()
    assert text.count("<figure>") == 2 and "voice &lt;3&gt;.wav" in text
    assert "blue speaks for the output" in text and "Attention says" in text
    assert "<script" not in text and not re.findall(r'(?:src|href)="(?!#)', text)


def test_a_page_of_statistics_alone_has_no_figure_and_no_word_about_one(
    bundle: Path, voices: list[str], tmp_path: Path
):
    page, out = tmp_path / "page.html", tmp_path / "out.jsonl"
    assert main(["--model", str(bundle), "--out", str(out), "--page", str(page), *voices, "--explain"]) == 0
    (body,) = re.findall("(?s)<main.*</main>", page.read_text())
    assert body.count('<table class="shares">') == 2 and "percentiles" in body
    assert "a sum above 0 speaks for the output" in body and "Statistics are of the whole utterance" in body
    for absent in ("<figure", "<svg", "legend", "Over time", "blue", "orange", "Attention"):
        assert absent not in body, absent


def test_what_cannot_be_explained_is_one_sentence(
    bundle: Path, voices: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(InputError, match="is a published model, expected a bundle"):
        Model.load(GOLDEN_SSL / "wavlm-classifier").explain(voices)
    folder = shutil.copytree(bundle, tmp_path / "class-alone")
    config = json.loads((folder / "config.json").read_text())
    for run in config["runs"]:
        run["dimensions"] = [False] * 3
    (folder / "config.json").write_text(json.dumps(config))
    assert main(["--model", str(folder), voices[0], "--explain", "valence"]) == 1
    assert capsys.readouterr().err.endswith("does not predict valence, expected one of class\n")
    for wrong in (["--explain", voices[0]], ["--page", "p.html", voices[0]], [voices[0], "--explain", "--every", "1"]):
        with pytest.raises(SystemExit):
            main(["--model", str(bundle), *wrong])
        assert "expected class, valence" in (error := capsys.readouterr().err) or "--explain" in error
