"""The gaps of a setting: between genders and from speaker to speaker, with the number of utterances behind each."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from test_page import Element, fabricate, read

from sejax.evaluation.tables import COLUMNS
from sejax.report.gaps import view_gaps
from sejax.report.read import Scores, Setting


def setting(speakers: Sequence[Scores], genders: Sequence[Scores] = ()) -> Setting:
    nothing: dict[str, Any] = {"values": {}, "metrics": {}, "lookup": {}, "seeds_averaged": {}, "selection_score": None}
    return Setting(
        "joint",
        calibration={},
        distributions={},
        confusion=None,
        folds=[],
        speakers=speakers,
        genders=genders,
        tests=(),
        choice={},
        about_choice="",
        **nothing,
    )


def scores(name: str, utterances: int, **metrics: float) -> Scores:
    return Scores(name, utterances, metrics)


def test_the_gap_and_the_spread() -> None:
    speakers = [scores("a", 10, ua=0.5), scores("b", 20, ua=0.9), scores("c", 30, ua=0.7), scores("d", 40, ua=0.6)]
    view = view_gaps(setting(speakers, [scores("M", 60, ua=0.8), scores("F", 40, ua=0.65)]))
    assert view is not None
    table = [(row.name, row.utterances, [cell and cell.text for cell in row.cells]) for row in view.rows]
    assert table == [
        ("male", "60", ["80.0"]),
        ("female", "40", ["65.0"]),
        ("gap between genders", "", ["15.0"]),
        ("lowest UA: a", "10", ["50.0"]),
        ("median UA: d", "40", ["60.0"]),  # the lower of two
        ("highest UA: b", "20", ["90.0"]),
    ]
    assert view.sentences == [
        "UA is 15.0 points higher for male speakers (60 utterances) than for female speakers (40 utterances).",
        "UA goes from 50.0 % (speaker a, 10 utterances) to 90.0 % (speaker b, 20 utterances) over 4 speakers; the "
        "median speaker has 60.0 % (speaker d, 40 utterances).",
    ]


@pytest.mark.parametrize(
    ("speakers", "genders", "columns"),
    [
        ([scores("a", 1, ua=0.5)], [], None),  # nobody to compare with
        ([scores("a", 1), scores("b", 1)], [scores("F", 1), scores("M", 1)], None),  # nothing is predicted
        ([scores("a", 1, ua=0.5), scores("b", 1)], [], None),
        ([scores("a", 1, ua=0.5), scores("b", 1, ua=0.4)], [scores("F", 2, ua=0.5)], ["UA"]),
        ([scores("a", 1, ccc_mean=0.5), scores("b", 1, ccc_mean=0.4)], [], ["CCC mean"]),
    ],
)
def test_there_is_nothing_without_two_to_compare(
    speakers: list[Scores], genders: list[Scores], columns: list[str] | None
) -> None:
    view = view_gaps(setting(speakers, genders))
    assert (None if view is None else list(view.columns)) == columns
    assert view is None or not [row for row in view.rows if "gap" in row.name]


def test_a_report_shows_the_numbers_of_metrics_json(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, settings=[("joint", 0.5), ("class only", 1.0)])
    tree = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    genders = [{"gender": "F", "utterances": 20, "metrics": {"ua": 0.5, "ccc_mean": 0.25}}]
    genders.append({"gender": "M", "utterances": 28, "metrics": {"ua": 0.625, "ccc_mean": 0.125}})
    tree["settings"][0]["genders"] = genders
    (folder / "metrics.json").write_text(json.dumps(tree), encoding="utf-8")
    root, _, _ = read(folder)
    joint, class_only = (part.all("div", "part-gaps")[0] for part in root.all("details", "setting"))
    assert numbers(joint)[:3] == [[0.625 - 0.125, 0.25], [0.625, 0.125], [0.125, 0.125]]
    extremes(joint, tree["settings"][0]["speakers"], ("ua", "ccc_mean"))
    assert "gap" not in class_only.text()
    extremes(class_only, tree["settings"][1]["speakers"], ("ua",))


def numbers(part: Element) -> list[list[float]]:
    rows = part.all("tbody")[0].all("tr")
    return [[float(cell.attributes["value"] or "") for cell in row.all("data")] for row in rows]


def extremes(part: Element, speakers: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    """Checks that the last rows are the lowest, the median and the highest speaker by each metric."""
    found = numbers(part)[-3 * len(keys) :]
    for place, key in enumerate(keys):
        ordered = sorted(speaker["metrics"][key] for speaker in speakers)
        expected = [ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1]]
        assert [row[place] for row in found[3 * place : 3 * place + 3]] == expected
        assert COLUMNS[key].title in part.text()
