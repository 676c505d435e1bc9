"""The report of fabricated workdirs: its numbers, its marks, its escaping, and that it stands alone."""

import csv
import json
import os
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from sejax.corpora.schema import DIMENSIONS, Dropped, Loss, Utterance
from sejax.errors import InputError
from sejax.evaluation.baselines import class_mean_lookup, majority_class
from sejax.evaluation.calibration import calibrate
from sejax.evaluation.intervals import summarise
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.results import with_parts
from sejax.evaluation.selection import selection_scores
from sejax.protocols.audit import audit
from sejax.protocols.registry import make_folds
from sejax.report.page import write_report
from sejax.report.read import FILES
from sejax.workdir.job import HISTORY

VOID = {"meta", "br", "hr", "link", "img", "col"}
EPOCHS = 4
NASTY = ("Jörg<b>", "A&B", '"q"', "<script>alert(1)</script>")


def weights(task: str, mean: float, spread: float) -> dict[str, float]:
    least, greatest = mean * (1 - spread), mean * (1 + spread)
    return {f"weight_{task}": mean, f"weight_min_{task}": least, f"weight_max_{task}": greatest}


def fabricate(
    folder: Path,
    *,
    settings: Sequence[tuple[str, float]] = (("joint", 0.5),),
    classes: Sequence[str] = ("angry", "happy", "sad"),
    speakers: Sequence[str] = ("s1", "s2", "s3", "s4"),
    vad: bool = True,
    seeds: int = 1,
    protocol: str = "loso",
    transductive: bool = False,
    optimistic: bool = False,
    dropped: Sequence[Dropped] = (),
    best_on_validation: str = "",
    constant_weights: bool = False,
    older_version: bool = False,
) -> Path:
    """Writes the five files that the report reads, of a study whose predictions are better than chance.

    Args:
      settings: names and alphas; a task whose share is 0 is not trained and has no predictions.
      constant_weights: task weights do not vary within an epoch.
      older_version: metrics.json has no scores of folds and speakers, confusion matrix, selection score and
        calibration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    number = 12 * len(speakers)
    label = rng.integers(0, max(len(classes), 1), number) if classes else np.full(number, -1)
    truth = np.clip(label[:, None] + rng.normal(2.5, 0.5, (number, 3)), 1, 5) if vad else np.full((number, 3), np.nan)
    utterances = [
        Utterance(
            id=f"u{row:03d}",
            path=f"/data/{row}.wav",
            speaker=speakers[row % len(speakers)],
            session=f"session {row % len(speakers) % 3}",
            text=f"text {row % 5}",
            label=classes[label[row]] if classes else None,
            vad=tuple(truth[row].tolist()),
        )
        for row in range(number)
    ]
    folds = make_folds(utterances, protocol)
    audited = audit(
        utterances,
        folds,
        classes,
        digests={"u000": "same", f"u{len(speakers):03d}": "same"},  # of one speaker
        dropped=dropped,
        notes={"u000": "48000 Hz resampled to 16000 Hz"},
        corpus_notes=["the reader <says> this"],
    )

    parts: list[dict[str, Any]] = []
    runs, history = [], []
    spread = 0.0 if constant_weights else 0.1
    keys = [(seed, name, alpha, fold) for seed in range(seeds) for name, alpha in settings for fold in folds]
    for run, (seed, name, alpha, fold) in enumerate(keys):
        for split in ("val", "test"):
            rows = np.flatnonzero(getattr(fold, split))
            logits = rng.normal(0, 1, (len(rows), len(classes))) + 2 * (label[rows, None] == np.arange(len(classes)))
            prob = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            predicted = truth[rows] + rng.normal(0, 0.7, (len(rows), 3))
            parts.append(
                {
                    "run": np.full(len(rows), run),
                    "fold": np.full(len(rows), fold.name),
                    "seed": np.full(len(rows), seed),
                    "setting": np.full(len(rows), name),
                    "split": np.full(len(rows), split),
                    "id": np.array([utterances[row].id for row in rows]),
                    "speaker": np.array([utterances[row].speaker for row in rows]),
                    "label": label[rows],
                    "prob": prob if alpha > 0 else np.full_like(prob, np.nan),
                    "vad": truth[rows],
                    "pred_vad": predicted if alpha < 1 else np.full_like(predicted, np.nan),
                }
            )
        who = {
            f"{split}_speakers": " ".join(
                sorted({utterances[row].speaker for row in np.flatnonzero(getattr(fold, split))})
            )
            for split in ("train", "val", "test")
        }
        best = 2 + run % (EPOCHS - 1)
        own = {"run": run, "fold": fold.name, "seed": seed, "setting": name}
        runs.append({**own, "alpha": alpha, "weighting": "static", **who, "best_epoch": best})
        for epoch in range(1, EPOCHS + 1):
            row = {"epoch": epoch, **own}
            if classes:
                row |= {"loss_class": 1 / epoch, **weights("class", 2 * alpha, spread), "val_loss_class": 1.2 / epoch}
                row |= {"val_wa": 0.5, "val_ua": 0.1 * epoch}
            if vad:
                row |= {"loss_vad": 0.5 / epoch, **weights("vad", 2 - 2 * alpha, spread), "val_loss_vad": 0.6 / epoch}
                row |= {"val_ccc_mean": 0.05 * epoch}
            history.append(row | {"score": 0.9 if name == best_on_validation else 0.1 * epoch})

    predictions = Predictions(
        classes=tuple(classes), **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    )
    predictions.write(str(folder / "predictions.csv"))
    calibrations = {} if older_version else {n: calibrate(rows, {}) for n, rows in predictions.by("setting").items()}
    predictions = predictions.of("test")
    lookup = class_mean_lookup(predictions, label, truth, folds, n_bootstrap=40) if classes else {}
    alphas = dict(settings)
    tree: dict[str, Any] = {
        "protocol": {
            "name": protocol,
            "description": "as the test says",
            "normalisation": "speaker" if transductive else "train",
            "transductive": transductive,
            "select_on_test": optimistic,
            "optimistic": optimistic,
            "seeds": seeds,
            "folds": len(folds),
        },
        "corpus": {
            "name": "corpus <ä>",
            "labels": "default",
            "classes": list(classes),
            "utterances": number,
            "speakers": len(speakers),
            "seconds": 123.4,
        },
        "settings": [
            {
                "name": entry["name"],
                "values": {"alpha": alphas[entry["name"]], "weighting": "static"},
                "metrics": entry["metrics"],
                "baselines": {"class_mean_lookup": lookup[entry["name"]]} if lookup.get(entry["name"]) else {},
                **({"calibration": calibrations[entry["name"]]} if calibrations else {}),
            }
            for entry in summarise(predictions, n_bootstrap=40)
        ],
        "baselines": {"majority": majority_class(predictions, label, folds, n_bootstrap=40)},
        "audit": audited,
    }
    if not older_version:
        scores = selection_scores(history, {run["run"]: run["best_epoch"] for run in runs})
        tree["settings"] = with_parts(tree["settings"], predictions, scores)
    config = {
        "config": {"corpus": "<table>", "alpha": 0.5, "epochs": EPOCHS},
        "command": "python -m sejax.main --config 'configs/ä&b.py'",
        "versions": {"jax": "0.9.2"},
        "git": None,
        "device": "cpu <2 cores>",
        "started": "2026-01-02T03:04:05Z",
    }
    (folder / "metrics.json").write_text(json.dumps(tree), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history), encoding="utf-8")
    with open(folder / "runs.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(runs[0]))
        writer.writeheader()
        writer.writerows(runs)
    return folder


class Element:
    def __init__(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.tag, self.attributes = tag, attributes
        self.children: list[Element | str] = []

    def all(self, tag: str = "", class_: str = "") -> list["Element"]:
        """The elements below this one, in order."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                classes = (child.attributes.get("class") or "").split()
                if tag in ("", child.tag) and (not class_ or class_ in classes):
                    found.append(child)
                found += child.all(tag, class_)
        return found

    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text() for child in self.children)


class Page(HTMLParser):
    """A parser that accepts only well-formed pages, and keeps the tree."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Element("", {})
        self.stack = [self.root]
        self.feed(text)
        self.close()
        assert self.stack == [self.root], f"not closed: {[element.tag for element in self.stack[1:]]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in {tag}"
        element = Element(tag, dict(attrs))
        self.stack[-1].children.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in [element.tag for element in self.stack], f"<{tag}/> outside of SVG is not closed"
        self.stack[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.stack[-1].children.append(data)


def read(folder: Path) -> tuple[Element, str, dict[str, Any]]:
    """The tree of the report, its text, and metrics.json."""
    path = write_report(str(folder))
    assert path == os.path.join(str(folder), "report.html")
    text = Path(path).read_text(encoding="utf-8")
    return Page(text).root, text, json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def results_rows(root: Element) -> tuple[list[Element], list[Element]]:
    """The rows of the settings and those of the baselines."""
    (table,) = root.all("table", "results")
    models, *baselines = table.all("tbody")
    return models.all("tr"), [row for body in baselines for row in body.all("tr")[1:]]


def shown(key: str, value: float) -> str:
    return f"{100 * value:.1f}" if key in ("wa", "ua", "macro_f1") else f"{value:.3f}"


KEYS = ("wa", "ua", "macro_f1", *(f"ccc_{name}" for name in (*DIMENSIONS, "mean")))


@pytest.mark.parametrize(("vad", "classes"), [(True, ("angry", "sad")), (False, ("angry", "sad")), (True, ())])
def test_results_are_those_of_metrics_json(tmp_path: Path, vad: bool, classes: Sequence[str]) -> None:
    settings = [("alpha=0.3", 0.3), ("alpha=0.7", 0.7)]
    root, _, metrics = read(fabricate(tmp_path, settings=settings, vad=vad, classes=classes, seeds=2))
    models, baselines = results_rows(root)
    keys = [key for key in KEYS if key in metrics["settings"][0]["metrics"]]
    assert len(keys) == 3 * bool(classes) + 4 * vad
    for row, setting in zip(models, metrics["settings"], strict=True):
        assert setting["name"] in row.all("th")[0].text()
        cells = [cell for cell in row.all("td") if cell.all("data")]
        for cell, key in zip(cells, keys, strict=True):
            entry = setting["metrics"][key]
            (number,) = cell.all("data")
            assert float(number.attributes["value"] or "") == entry["pooled"]
            assert number.text() == shown(key, entry["pooled"])
            assert cell.all("span", "ci")[0].text() == f"[{', '.join(shown(key, n) for n in entry['ci95'])}]"
            over_folds = f"{shown(key, entry['fold_mean'])} ± {shown(key, entry['fold_sd'])}"
            assert cell.all("span", "fold")[0].text() == over_folds
    expected = [metrics["baselines"]["majority"]] if classes else []
    expected += [s["baselines"]["class_mean_lookup"] for s in metrics["settings"] if s["baselines"]]
    assert len(baselines) == len(expected) == bool(classes) + (2 if vad and classes else 0)
    for row, entry in zip(baselines, expected, strict=True):
        found = [float(number.attributes["value"] or "") for number in row.all("data")]
        assert found == [entry[key]["pooled"] for key in keys if key in entry]


def test_the_page_stands_alone(tmp_path: Path) -> None:
    root, text, _ = read(fabricate(tmp_path, settings=[(f"setting {n}", 0.5) for n in range(3)]))
    assert "http" not in text
    assert not root.all("script") and not root.all("link") and not root.all("img")
    identifiers = [element.attributes["id"] for element in root.all() if "id" in element.attributes]
    assert len(set(identifiers)) == len(identifiers)
    for element in root.all():
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href"):
                inside = value is not None and value.startswith("#") and value[1:] in identifiers
                assert inside or (element.tag == "image" and (value or "").startswith("data:image/png;base64,"))
    assert all(target in identifiers for target in re.findall(r"url\(#([^)]*)\)", text))
    assert not re.search(r"url\((?!#)|@import", text)


def test_a_corpus_without_vad_has_no_empty_sections(tmp_path: Path) -> None:
    root, text, _ = read(fabricate(tmp_path, vad=False, settings=[("class only", 0.5)]))
    page = root.all("body")[0].text()
    for word in ("CCC", "VAD", "valence", "arousal", "dominance", "RMSE", "look-up"):
        assert word not in page
    assert [figure.all("b")[0].text() for figure in root.all("figure")] == [
        "Reliability",
        "Risk and coverage",
        "Class loss",
        "Validation scores",
    ]
    assert not re.search(r"\bnan\b", text.lower())
    for element in root.all():
        if element.tag in (
            "section",
            "div",
            "table",
            "tbody",
            "ul",
            "dl",
            "p",
            "details",
            "figure",
            "h2",
            "h3",
        ):
            assert element.text().strip(), f"an empty {element.tag} {element.attributes}"


def test_twelve_settings(tmp_path: Path) -> None:
    settings = [(f"alpha={n / 20}", n / 20) for n in range(1, 12)] + [("class only", 1.0)]
    folder = fabricate(tmp_path, settings=settings, speakers=("s1", "s2", "s3"), best_on_validation="alpha=0.1")
    root, text, metrics = read(folder)
    assert len(text) < 2_000_000
    sections = root.all("details", "setting")
    assert [section.all("span", "name")[0].text() for section in sections] == [name for name, _ in settings]
    # Folded but for one: that which is best on validation, whatever the test says.
    assert [name for (name, _), s in zip(settings, sections, strict=True) if "open" in s.attributes] == ["alpha=0.1"]
    assert root.all("p", "lead")[0].text().startswith("Of 12 settings, alpha=0.1 scores best on validation")
    best = metrics["settings"][1]["metrics"]
    tiles = {tile.all("div", "tile-name")[0].text(): tile.all("div", "big")[0].text() for tile in root.all("", "tile")}
    assert tiles == {
        "Weighted accuracy": shown("wa", best["wa"]["pooled"]) + " %",
        "Unweighted accuracy": shown("ua", best["ua"]["pooled"]) + " %",
        "Macro F1": shown("macro_f1", best["macro_f1"]["pooled"]) + " %",
        "Mean CCC": shown("ccc_mean", best["ccc_mean"]["pooled"]),
    }
    # The table comes first, and leads into the sections.
    assert text.index('class="results"') < text.index('class="setting"')
    models, _ = results_rows(root)
    for row, section in zip(models, sections, strict=True):
        target = (row.all("a")[0].attributes["href"] or "")[1:]
        assert target in [element.attributes.get("id") for element in section.all("div")]


def test_a_setting_of_one_task(tmp_path: Path) -> None:
    settings = [("joint", 0.5), ("class only", 1.0), ("vad only", 0.0)]
    root, _, metrics = read(fabricate(tmp_path, settings=settings, best_on_validation="class only"))
    joint, class_only, vad_only = root.all("details", "setting")
    titles = [[f.all("b")[0].text() for f in s.all("figure")] for s in (joint, class_only, vad_only)]
    ccc = [f"{n.capitalize()}, CCC {metrics['settings'][0]['metrics'][f'ccc_{n}']['pooled']:.3f}" for n in DIMENSIONS]
    sure = ["Reliability", "Risk and coverage"]
    assert titles[0] == [*sure, "Class loss", "VAD loss", "Validation scores", "Task weights", *ccc]
    assert titles[1] == [*sure, "Class loss", "Validation scores"]
    assert titles[2][:2] == ["VAD loss", "Validation scores"] and len(titles[2]) == 5
    assert not vad_only.all("table", "confusion") and class_only.all("table", "confusion")
    # Scores of one task do not compare with scores of two.
    assert root.all("p", "lead")[0].text().startswith("Of 3 settings, joint scores best")
    models, _ = results_rows(root)
    assert [row.all("td")[0].text() for row in models] == ["0.275", "–", "–"]
    gains = [row.all("td")[-1] for row in models]
    assert [gain.attributes["class"] for gain in gains] == ["gain", "none", "none"]


@pytest.mark.parametrize(("transductive", "optimistic"), [(True, False), (False, True), (True, True), (False, False)])
def test_marks_stand_wherever_numbers_stand(tmp_path: Path, transductive: bool, optimistic: bool) -> None:
    folder = fabricate(
        tmp_path,
        transductive=transductive,
        optimistic=optimistic,
        vad=False,
        settings=[("a", 0.5), ("b", 0.4)],
    )
    root, _, _ = read(folder)
    expected = ["transductive"] * transductive + ["optimistic"] * optimistic
    places = [root.all("h1")[0], root.all("section")[0].all("h2")[0], *results_rows(root)[0]]
    places += [section.all("summary")[0] for section in root.all("details", "setting")]
    for place in places:
        marks = [badge.text() for badge in place.all("span", "badge")]
        assert [mark for mark in marks if mark != "best score"] == expected
    notes = [note.text() for note in root.all("p", "note")]
    assert len(notes) == len(expected)
    assert any("normalised per speaker" in note for note in notes) == transductive
    assert any("chosen on its test speakers" in note for note in notes) == optimistic
    assert ("on the test speakers" in root.all("p", "lead")[0].text()) == optimistic


def test_everything_is_escaped(tmp_path: Path) -> None:
    dropped = [Dropped(id="ü<1>", path='/päth/"&".wav', reason="the file holds <no> samples & is empty")]
    folder = fabricate(
        tmp_path,
        speakers=NASTY,
        classes=("Ärger & Wut", "<i>x</i>", "'q'"),
        settings=[("<a href=x>", 0.5)],
        dropped=dropped,
    )
    root, text, _ = read(folder)
    page = root.text()
    for raw in (
        *NASTY,
        "Ärger & Wut",
        "<i>x</i>",
        "'q'",
        "<a href=x>",
        "corpus <ä>",
        "<table>",
        "configs/ä&b.py",
    ):
        assert raw in page
    for raw in (dropped[0].id, dropped[0].path, dropped[0].reason, "cpu <2 cores>", "the reader <says> this"):
        assert raw in page
    assert "<script>alert" not in text and "<a href=x>" not in text and "<i>x</i>" not in text


def test_confusion_and_folds(tmp_path: Path) -> None:
    root, _, metrics = read(fabricate(tmp_path, seeds=2, speakers=("s1", "s2", "s3")))
    (confusion,) = root.all("table", "confusion")
    rows = confusion.all("tbody")[0].all("tr")
    counts = np.array([[int(small.text()) for small in row.all("small")] for row in rows])
    totals = [int(row.all("td")[-1].text()) for row in rows]
    assert counts.sum(axis=1).tolist() == totals and sum(totals) == 2 * metrics["corpus"]["utterances"]
    assert np.trace(counts) / counts.sum() == pytest.approx(metrics["settings"][0]["metrics"]["wa"]["pooled"])
    share = [[int(str(cell.children[0])) for cell in row.all("td")[:-1]] for row in rows]
    assert share == [[round(100 * count / total) for count in row] for row, total in zip(counts, totals, strict=True)]

    assert counts.tolist() == metrics["settings"][0]["confusion"]["counts"]

    (scores,) = root.all("table", "scores")
    rows = scores.all("tbody")[0].all("tr")
    assert [row.all("th")[0].text() for row in rows] == ["s1", "s2", "s3"]
    assert [row.all("td")[1].text() for row in rows] == ["2, 2", "3, 3", "4, 4"]  # the epoch of either seed
    keys = ("ua", *(f"ccc_{name}" for name in (*DIMENSIONS, "mean")))
    values = np.array([[float(number.attributes["value"] or "") for number in row.all("data")] for row in rows])
    expected = [metrics["settings"][0]["metrics"][key]["fold_mean"] for key in keys]
    np.testing.assert_allclose(values.mean(axis=0), expected, rtol=1e-6)


@pytest.mark.parametrize("protocol", ["loso", "loso_session"])
def test_every_number_of_a_score_table_stands_in_metrics_json(tmp_path: Path, protocol: str) -> None:
    settings = [("joint", 0.5), ("class only", 1.0)]
    speakers = [f"s{n}" for n in range(6)]
    folder = fabricate(tmp_path, settings=settings, speakers=speakers, protocol=protocol, seeds=2)
    root, _, metrics = read(folder)
    for section, setting in zip(root.all("details", "setting"), metrics["settings"], strict=True):
        tables = section.all("table", "scores")
        parts = ["folds"] if protocol == "loso" else ["folds", "speakers"]
        keys = [key for key in KEYS if key not in ("wa", "macro_f1") and key in setting["metrics"]]
        for table, part in zip(tables, parts, strict=True):
            rows = table.all("tbody")[0].all("tr")
            assert len(rows) == len(setting[part])
            for row, entry in zip(rows, setting[part], strict=True):
                assert row.all("th")[0].text() == entry[part[:-1]]
                assert row.all("td")[0].text() == str(entry["utterances"])
                numbers = row.all("data")
                assert [float(n.attributes["value"] or "") for n in numbers] == [entry["metrics"][k] for k in keys]
                assert [n.text() for n in numbers] == [shown(k, entry["metrics"][k]) for k in keys]
    scores = {setting["name"]: f"{setting['selection_score']:.3f}" for setting in metrics["settings"]}
    assert scores["joint"] == results_rows(root)[0][0].all("td")[0].text()
    assert f"({scores['joint']}, mean over runs" in root.all("p", "lead")[0].text()


def test_the_page_shows_metrics_json_and_does_not_count_again(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, settings=[("a", 0.5), ("b", 0.4)])
    tree = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    for setting in tree["settings"]:
        setting["selection_score"] = 0.125
        setting["confusion"]["counts"][0][1] = 7777
        setting["folds"][0]["metrics"]["ua"] = 0.98765
    (folder / "metrics.json").write_text(json.dumps(tree), encoding="utf-8")
    root, _, _ = read(folder)
    assert "7,777" in root.all("table", "confusion")[0].text()
    assert root.all("table", "scores")[0].all("data")[0].text() == "98.8"
    assert results_rows(root)[0][0].all("td")[0].text() == "0.125"


def test_a_workdir_of_an_older_version_gives_the_same_page_but_for_calibration(tmp_path: Path) -> None:
    settings = [("joint", 0.5), ("vad only", 0.0)]
    new, older = (
        fabricate(tmp_path / str(old), settings=settings, seeds=2, older_version=old) for old in (False, True)
    )
    tree = json.loads((new / "metrics.json").read_text(encoding="utf-8"))
    for setting in tree["settings"]:
        del setting["calibration"]
    (new / "metrics.json").write_text(json.dumps(tree), encoding="utf-8")
    root, text, _ = read(new)
    assert not root.all("div", "part-calibration")
    assert text == Path(write_report(str(older))).read_text(encoding="utf-8")


@pytest.mark.parametrize(("vad", "classes"), [(True, ("angry", "sad")), (False, ("angry", "sad")), (True, ())])
def test_how_sure_it_is(tmp_path: Path, vad: bool, classes: Sequence[str]) -> None:
    root, _, metrics = read(fabricate(tmp_path, vad=vad, classes=classes, seeds=2))
    (setting,) = metrics["settings"]
    calibration = setting["calibration"]
    (part,) = root.all("div", "part-calibration")
    shown = [float(number.attributes["value"] or "") for number in part.all("data")]
    scores = ("ece", "brier", "nll") if classes else ()
    expected = [calibration[name][when] for name in scores for when in ("before", "after")]
    if vad:
        intervals = calibration["intervals"]
        expected += [intervals[what][name] for name in DIMENSIONS for what in ("mean_width", "coverage")]
    assert shown == expected and shown
    if classes:
        folds = calibration["temperature"]["folds"].values()
        assert f"{min(folds):.2f} to {max(folds):.2f}" in part.text()
        assert f"{calibration['aurc']:.3f}" in part.text()
    titles = [figure.all("b")[0].text() for figure in root.all("figure")]
    assert titles[:2] == ["Reliability", "Risk and coverage"] if classes else "Reliability" not in titles
    # Every sentence says whose numbers these are.
    aids = [part.all("p", "aid")[0].text()]
    aids += [p.text() for p in root.all("p", "aid") if "Errors on" in p.text() or "about equally sure" in p.text()]
    assert len(aids) == (3 if classes else 1)
    assert all("validation speakers" in aid and "test speakers" in aid for aid in aids)


def test_dotted_weights_are_explained_where_they_are_drawn(tmp_path: Path) -> None:
    settings = [("joint", 0.5), ("class only", 1.0)]
    varying, _, _ = read(fabricate(tmp_path / "varying", settings=settings))
    constant, text, _ = read(fabricate(tmp_path / "constant", settings=settings, constant_weights=True))
    told = [["Dotted" in section.text() for section in root.all("details", "setting")] for root in (varying, constant)]
    assert told == [[True, False], [False, False]]
    assert "stroke-dasharray" not in text
    dotted = ["stroke-dasharray" in svg_text(section) for section in varying.all("details", "setting")]
    assert dotted == [True, False]


def svg_text(section: Element) -> str:
    return " ".join(element.attributes.get("style") or "" for svg in section.all("svg") for element in svg.all())


def test_a_study_that_diverged_has_a_page(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, settings=[("good", 0.5), ("diverged", 0.5)])
    predictions = Predictions.read(str(folder / "predictions.csv"))
    diverged = predictions.setting == "diverged"
    predictions.prob[diverged] = predictions.pred_vad[diverged] = np.nan
    predictions.write(str(folder / "predictions.csv"))
    tree = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    entries = {entry["name"]: entry["metrics"] for entry in summarise(predictions, n_bootstrap=40)}
    settings = [
        {"name": s["name"], "values": s["values"], "metrics": entries[s["name"]], "baselines": {}}
        for s in tree["settings"]
    ]
    tree["settings"] = with_parts(settings, predictions, {"good": 0.3, "diverged": 0.2})
    (folder / "metrics.json").write_text(json.dumps(tree), encoding="utf-8")
    root, text, _ = read(folder)
    good, bad = root.all("details", "setting")
    assert good.all("table", "scores") and good.all("table", "confusion")
    assert not bad.all("table", "scores") and not bad.all("table", "confusion")
    assert [cell.text() for cell in results_rows(root)[0][1].all("td")] == ["–"] * 8
    assert not re.search(r"\bnan\b", text.lower())


def test_folds_of_several_speakers_list_the_speakers_too(tmp_path: Path) -> None:
    speakers = [f"s{n}" for n in range(6)]
    root, _, _ = read(fabricate(tmp_path, speakers=speakers, protocol="loso_session"))
    by_fold, by_speaker = root.all("table", "scores")
    assert [row.all("th")[0].text() for row in by_fold.all("tbody")[0].all("tr")] == [f"session {n}" for n in range(3)]
    assert sorted(row.all("th")[0].text() for row in by_speaker.all("tbody")[0].all("tr")) == speakers


def test_the_audit_is_told(tmp_path: Path) -> None:
    dropped = [Dropped(id=f"lost {n}", path="/x", reason="silent") for n in range(500)]
    dropped += [Dropped(f"lost {n}", "/y", f"there is no audio file /y/{n}", Loss.ABSENT) for n in (500, 501)]
    root, _, metrics = read(fabricate(tmp_path, dropped=dropped))
    (section,) = [s for s in root.all("section") if s.attributes.get("id") == "audit"]
    text = section.text()
    assert "No speaker is both trained and tested on" in text
    assert "Test utterances say texts that were trained on: up to 100 %" in text
    assert "The same audio twice on one side of every fold: 1 group" in text and "u000, u004" in text
    assert "502 utterances dropped" in text and "lost 499" in text and "lost 501" not in text
    assert "and 2 more in metrics.json" in text
    (by_kind,) = (part for part in section.all("details") if "by kind of reason" in part.text())
    rows = [[cell.text() for cell in (*row.all("th"), *row.all("td"))] for row in by_kind.all("tbody")[0].all("tr")]
    assert rows == [
        ["unusable audio", "500", "lost 0", "silent"],
        ["no such file", "2", "lost 500", "there is no audio file /y/500"],
    ]
    assert "No speaker, label, session, fold or id stands there in two spellings" in text
    assert "48000 Hz resampled to 16000 Hz: 1 utterance" in text
    (duplicates,) = (part for part in section.all("details") if "Duplicate audio" in part.text())
    assert [cell.text() for cell in duplicates.all("td")][-2:] == ["equal samples", "none"]
    assert "may be the same person" not in text and "does not say who speaks" not in text
    fold = metrics["audit"]["class_counts"][0]
    assert " / ".join(str(fold[split]["angry"]) for split in ("train", "val", "test")) in text


def test_the_audit_tells_of_unknown_speakers(tmp_path: Path) -> None:
    folder = fabricate(tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    metrics["audit"]["unknown_speakers"][1] |= {"test": 1200}
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    root, _, _ = read(folder)
    assert "does not say who speaks in up to 1,200 test utterances of a fold" in root.text()


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    first = write_report(str(fabricate(tmp_path / "a")))
    second = fabricate(tmp_path / "b")
    with matplotlib.rc_context({"lines.linewidth": 9, "svg.fonttype": "path", "font.size": 20}):
        again = write_report(str(second))
    assert Path(first).read_bytes() == Path(again).read_bytes()
    assert Path(write_report(str(second))).read_bytes() == Path(again).read_bytes()
    assert not [name for name in os.listdir(second) if name not in (*FILES, HISTORY, "report.html")]


def test_figures_are_text_in_the_colours_of_the_page(tmp_path: Path) -> None:
    root, text, _ = read(fabricate(tmp_path))
    figures = root.all("svg")
    assert len(figures) == 9
    for figure in figures:
        assert figure.all("text") and figure.attributes["aria-label"]
    css = text[text.index("<style>") : text.index("</style>")]
    assert set(re.findall(r"var\((--\w+)\)", text)) - {"--share", "--a"} <= set(re.findall(r"(--[\w-]+):", css))
    assert not re.search(r"(?:fill|stroke): #(?!4c8bd6)", text)


@pytest.mark.parametrize("name", FILES)
def test_an_unfinished_workdir_is_an_input_error(tmp_path: Path, name: str) -> None:
    folder = fabricate(tmp_path, vad=False)
    (folder / name).unlink()
    with pytest.raises(InputError, match=re.escape(name)):
        write_report(str(folder))
    assert not (folder / "report.html").exists()


def test_a_history_may_be_short_but_not_of_another_study(tmp_path: Path) -> None:
    folder = fabricate(tmp_path)
    history = folder / "history.jsonl"
    lines = history.read_text(encoding="utf-8").splitlines(keepends=True)
    history.write_text("".join(lines[:-2]), encoding="utf-8")
    write_report(str(folder))
    history.write_text("".join(lines).replace('"run": 0', '"run": 99'), encoding="utf-8")
    with pytest.raises(InputError, match=r"history.jsonl, line 1: is of run 99, expected one of the study's"):
        write_report(str(folder))
    history.unlink()
    write_report(str(folder))
    assert "Validation scores" not in (folder / "report.html").read_text(encoding="utf-8")
