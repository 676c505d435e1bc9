"""`python -m sejax.compare` on trained workdirs: its numbers, its files, what it says, and what it refuses."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_study import tiny_config

from sejax.comparison.command import main
from sejax.evaluation.paired import Pair, compare
from sejax.evaluation.predictions import Predictions
from sejax.study import train_and_evaluate

JOINT, CLASS, VAD = "alpha=0.5", "alpha=1.0", "alpha=0.0"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, cache_dir: str) -> Path:
    """The workdir of a study of the same utterances with one seed, each speaker normalised by its own audio."""
    workdir = tmp_path_factory.mktemp("studies") / "by-speaker"
    config = tiny_config(cache_dir)
    config.normalisation = "speaker"
    train_and_evaluate(config, str(workdir))
    return workdir


def changed(study: Path, folder: Path, change: Callable[[Predictions], Predictions]) -> Path:
    """Returns a copy of a workdir with other predictions."""
    folder.mkdir(parents=True)
    for path in study.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    change(Predictions.read(str(study / "predictions.csv"), split=None)).write(str(folder / "predictions.csv"))
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Runs the command and returns what it printed."""
    status = main([str(word) for word in words])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    return printed.out


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    return printed.err


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_two_studies_side_by_side(study: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    files = {name: tmp_path / f"out.{name}" for name in ("json", "markdown", "latex", "page")}
    options = [word for name, path in files.items() for word in (f"--{name}", path)]
    words = (study, other, "--metrics", "wa,ua,ccc_mean", *options)
    printed = run(capsys, *words)
    written = {name: path.read_bytes() for name, path in files.items()}
    assert run(capsys, *words) == printed
    assert {name: path.read_bytes() for name, path in files.items()} == written

    tree = json.loads(written["json"])
    names = [f"workdir: {JOINT}", f"workdir: {CLASS}", f"workdir: {VAD}", "by-speaker: static"]
    assert [setting["name"] for setting in tree["settings"]] == names
    assert [setting["marks"] for setting in tree["settings"]] == [[], [], [], ["transductive"]]
    assert tree["against"] == names[0]
    assert [(of["setting"], of["metric"]) for of in tree["differences"]] == [
        *[(name, metric) for metric in ("wa", "ua") for name in (names[1], names[3])],
        *[(name, "ccc_mean") for name in (names[2], names[3])],
    ]
    # The numbers are those of the studies' own files, and the differences those of the library.
    of_files = {}
    for workdir, label in ((study, "workdir"), (other, "by-speaker")):
        for setting in json.loads((workdir / "metrics.json").read_text())["settings"]:
            of_files[f"{label}: {setting['name']}"] = setting["metrics"]
    for setting in tree["settings"]:
        for key, metric in setting["metrics"].items():
            assert metric == of_files[setting["name"]][key]
    rows = {
        f"workdir: {name}": of for name, of in Predictions.read(str(study / "predictions.csv")).by("setting").items()
    }
    rows[names[3]] = Predictions.read(str(other / "predictions.csv"))
    expected = compare(rows, [Pair(of["setting"], of["against"], of["metric"]) for of in tree["differences"]])
    for of, wanted in zip(tree["differences"], expected, strict=True):
        assert (of["difference"], of["p"], of["p_holm"]) == (wanted.value, wanted.p, wanted.p_holm)
        assert of["ci95"] == list(wanted.ci95)
        ours, theirs = (of_files[of[which]][of["metric"]]["pooled"] for which in ("setting", "against"))
        assert of["difference"] == pytest.approx(ours - theirs, abs=1e-12)

    lines = squeezed(printed)
    (row,) = (line for line in lines if line.startswith("by-speaker: static (transductive) "))
    ua = next(of for of in tree["differences"] if (of["setting"], of["metric"]) == (names[3], "ua"))
    low, high = (100 * bound + 0.0 for bound in ua["ci95"])
    assert f" {100 * ua['difference']:+.1f} [{low:+.1f}, {high:+.1f}] {ua['p']:.3f} {ua['p_holm']:.3f} " in row
    assert any(line.startswith("majority class ") for line in lines)
    everywhere = (
        "The studies differ in protocol or normalisation (said of each below)",
        "leave one speaker out; epoch chosen on validation; features normalised per speaker, that of the",
        "The studies have different numbers of seeds (workdir: 2, by-speaker: 1)",
        "leave one speaker out; epoch chosen on validation; 10 folds, 2 seeds",
        "The features are normalised per speaker or corpus",
        f"Differences are to workdir: {JOINT}, the first setting",
        "all 1,024 ways of exchanging 10 speakers; the smallest p is 0.002",
        "Holm: p corrected for 6 comparisons",
        f"No UA of workdir: {VAD}",
        "best in hindsight",
    )
    for shown in (printed, *(written[name].decode() for name in ("markdown", "latex", "page"))):
        words_of = " ".join(re.sub(r"<[^>]*>", "", shown).split())
        assert [said for said in everywhere if said not in words_of] == []
    assert printed.count("warning: ") == 2
    page = written["page"].decode()
    assert page.count("<svg") == 3
    assert 'class="badge" title="The features are normalised' in page
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", page)


def test_what_the_order_of_workdirs_and_rows_changes_nothing_of(
    study: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "a.json"
    shuffle = np.random.default_rng(0).permutation
    mixed = changed(study, tmp_path / "workdir", lambda rows: rows.select(shuffle(len(rows.run))))
    found = []
    for places in ((study, other), (other, study), (mixed, other)):
        run(capsys, *places, "--against", f"workdir: {JOINT}", "--json", out)
        tree = json.loads(out.read_text())
        found.append({(of["setting"], of["metric"]): of for of in tree["differences"]})
    assert found[0] == found[1] == found[2]


def test_settings_and_the_reference_are_named(study: Path, other: Path, capsys: pytest.CaptureFixture[str]):
    def names(*words: object) -> list[str]:
        """Returns the names of the rows, the reference first."""
        lines = run(capsys, *words, "--metrics", "ua").splitlines()
        lines = lines[1 : lines.index("")]
        rows = [line.split("  ")[0] for line in lines if "majority" not in line and "look-up" not in line]
        return sorted(rows, key=lambda name: "reference" not in next(x for x in lines if x.startswith(f"{name}  ")))

    both = [f"workdir: {JOINT}", "by-speaker: static (transductive)"]
    assert names(f"{study}:{JOINT}", f"{other}:static") == both
    assert names(f"{study}:{JOINT}", other, "--against", "static") == both[::-1]
    assert names(f"{study}:{JOINT}", other, "--against", "by-speaker: static") == both[::-1]
    assert names(f"{study}:{JOINT}", other, "--against", other) == both[::-1]
    assert names(f"{study}:{CLASS}", f"{study}:{JOINT}", "--against", f"{study}:{JOINT}") == [JOINT, CLASS]
    assert names(f"{study}:{CLASS}", f"{study}:{JOINT}", f"{study}:{JOINT}") == [CLASS, JOINT]


def test_folders_of_one_name_are_named_by_their_paths(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copy = changed(study, tmp_path / study.name, lambda rows: rows)
    printed = run(capsys, f"{study}:{JOINT}", copy, "--against", f"{copy}:{JOINT}", "--metrics", "ua")
    for workdir in (study, copy):
        assert re.search(rf"^{re.escape(str(workdir))}: {JOINT} ", printed, re.MULTILINE)
    assert f"Differences are to {copy}: {JOINT}\n" in printed


def test_all_pairs(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "a.json"
    lines = squeezed(run(capsys, study, "--pairs", "all", "--json", out, "--page", tmp_path / "a.html"))
    tree = json.loads(out.read_text())
    assert tree["against"] is None
    assert [(of["setting"], of["against"]) for of in tree["differences"]] == [(CLASS, JOINT), (VAD, JOINT)]
    assert "pair UA % difference p Holm CCC mean difference p Holm" in lines
    assert any(line.startswith(f"{CLASS} − {JOINT} ") for line in lines)
    assert f"{VAD} − {JOINT}" in (tmp_path / "a.html").read_text()


def of_speakers(number: int) -> Callable[[Predictions], Predictions]:
    return lambda rows: rows.select(np.isin(rows.speaker, sorted(set(rows.speaker.tolist()))[:number]))


def test_it_says_what_few_speakers_cannot_show(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    five = changed(study, tmp_path / "five", of_speakers(5))
    assert "With 5 speakers no p can be below 0.062, however large the difference" in run(capsys, five)
    eight = changed(study, tmp_path / "eight", of_speakers(8))
    said = "With 8 speakers the smallest p is 0.0078, and corrected for 7 comparisons at least 0.055"
    every = "wa,ua,macro_f1,ccc_valence,ccc_arousal,ccc_dominance,ccc_mean"
    assert said in run(capsys, eight, "--metrics", every)
    assert "(at most 6 comparisons)" in run(capsys, eight, "--metrics", every)
    assert "warning" not in run(capsys, eight)
    assert "200 random ways, the observed one counted with" in run(capsys, eight, "--draws", "200")


def test_what_the_studies_lack_is_said(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    workdir = changed(study, tmp_path / "workdir", lambda rows: rows)
    tree = json.loads((workdir / "metrics.json").read_text())
    tree["settings"][0]["ccc_mean_over"] = ["valence"]
    tree["settings"][2]["unselected"] = ["f1"]
    tree["audit"]["unknown_speakers"] = [{"fold": "f1", "train": 3, "val": 0, "test": 2}]
    (workdir / "metrics.json").write_text(json.dumps(tree))
    printed = run(capsys, f"{workdir}:{JOINT}", f"{workdir}:{CLASS}")
    assert f"warning: {JOINT}: the mean CCC is that of valence" in printed
    assert "warning: The corpus does not say who speaks in some test utterances" in printed
    assert f"{VAD}:" not in printed  # nothing is shown of it
    assert f"warning: {VAD}: no labels to choose the epoch by in 1 fold (f1)" in run(capsys, workdir)
    for setting in tree["settings"][1:]:
        setting["unfinished"] = {"trained": 9, "epochs": 10}
    (workdir / "metrics.json").write_text(json.dumps(tree))
    printed = run(capsys, f"{workdir}:{JOINT}", f"{workdir}:{VAD}")
    assert f"warning: {CLASS}, {VAD}: only 9 of 10 epochs are trained" in printed  # though the first is not shown


def test_the_settings_that_the_folds_chose_are_a_row(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    workdir, out = changed(study, tmp_path / "workdir", lambda rows: rows), tmp_path / "a.json"
    tree = json.loads((workdir / "metrics.json").read_text())
    folds = {fold["fold"]: JOINT for fold in tree["settings"][0]["folds"]}
    chosen = {**tree["settings"][0], "name": "chosen", "choice": {"folds": folds, "hindsight": {}}}
    tree["settings"].insert(0, chosen)
    (workdir / "metrics.json").write_text(json.dumps(tree))
    printed = run(capsys, workdir, "--against", "chosen", "--json", out)
    found = json.loads(out.read_text())
    assert [of["marks"] for of in found["settings"] if of["name"] == "chosen"] == [["chosen"]]
    assert {of["difference"] for of in found["differences"] if of["setting"] == JOINT} == {0.0}
    assert (
        f"chosen: each fold takes the setting that is best on its own validation speakers: {JOINT} in 10 folds"
        in printed
    )


def test_names_are_the_users(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    odd = r"lr=0.000312 50% & <b>|a_b^c~\{$x$}#"

    def renamed(rows: Predictions) -> Predictions:
        return replace(
            rows, setting=np.where(rows.setting == CLASS, odd, np.where(rows.setting == VAD, "chosen", rows.setting))
        )

    workdir = changed(study, tmp_path / "workdir", renamed)
    files = {name: tmp_path / f"out.{name}" for name in ("markdown", "latex", "page")}
    printed = run(capsys, workdir, *[word for name, path in files.items() for word in (f"--{name}", path)])
    assert odd in printed and "chosen (chosen)" in printed
    assert f"warning: predictions.csv has no predictions of {CLASS}, {VAD}, which cannot be compared" in printed
    assert "the setting that scores best on the fold's own validation speakers" in printed
    text = {name: path.read_text() for name, path in files.items()}
    assert r"lr=0.000312 50% & \<b>\|a\_b^c~\{$x$}#" in text["markdown"]
    assert (
        r"lr=0.000312 50\% \& $<$b$>$\textbar{}a\_b\textasciicircum{}c\textasciitilde{}\textbackslash{}\{\$x\$\}\#"
        in text["latex"]
    )
    escaped = "lr=0.000312 50% &amp; &lt;b&gt;|a_b^c~\\{$x$}#"
    assert text["page"].count(escaped) >= 2  # in the figure and in the table
    assert "<b>|" not in text["page"]
    rows = [line for line in text["markdown"].splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def first_ids(rows: Predictions, number: int) -> list[str]:
    return sorted(set(rows.of("test").id.tolist()))[:number]


def without_two(rows: Predictions) -> Predictions:
    return rows.select(~np.isin(rows.id, first_ids(rows, 2)))


def with_other_ids(rows: Predictions) -> Predictions:
    return replace(rows, id=np.where(rows.id == first_ids(rows, 1)[0], "new", rows.id))


def with_another_speaker(rows: Predictions) -> Predictions:
    return replace(rows, speaker=np.where(np.isin(rows.id, first_ids(rows, 5)), "somebody", rows.speaker))


def with_other_labels(rows: Predictions) -> Predictions:
    other = np.where(np.isin(rows.id, first_ids(rows, 3)), (rows.label + 1) % len(rows.classes), rows.label)
    return replace(rows, label=other)


def with_other_ratings(rows: Predictions) -> Predictions:
    return replace(rows, vad=np.where(np.isin(rows.id, first_ids(rows, 1))[:, None], np.nan, rows.vad))


def twice(rows: Predictions) -> Predictions:
    return Predictions.concatenate([rows, rows.select(rows.id == first_ids(rows, 1)[0])])


def of_one_seed_less(rows: Predictions) -> Predictions:
    return rows.select((rows.seed == 0) | ~np.isin(rows.id, first_ids(rows, 1)))


def with_other_classes(rows: Predictions) -> Predictions:
    return replace(rows, classes=("bored", *rows.classes[1:]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_two, r"changed: alpha=0.5 \(seed 0\) tests 54 utterances, and workdir: alpha=0.5 56: it lacks 2 utt"),
        (
            with_other_ids,
            r"it lacks 1 utterance \(\S+\) and has 1 utterance \(new\) more; expected the same test utter",
        ),
        (
            with_another_speaker,
            r"has another speaker for 5 utterances \(\S+, \S+, \S+, \.\.\.\) than workdir: alpha=0.5",
        ),
        (with_other_labels, r"has another label for 3 utterances \(\S+, \S+, \S+\) than"),
        (with_other_ratings, r"has other ratings for 1 utterance \(\S+\) than"),
        (twice, r"\(seed 0\) tests 1 utterance \(\S+\) another number of times than workdir: alpha=0.5"),
        (of_one_seed_less, r"changed: alpha=0.5 \(seed 1\) tests"),
        (
            with_other_classes,
            r"changed: alpha=0.5 has the classes bored, .*, and workdir: alpha=0.5 has .*: train both",
        ),
    ],
)
def test_other_test_utterances_are_refused(
    study: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Predictions], Predictions],
    said: str,
):
    sentence = refused(capsys, study, changed(study, tmp_path / "changed", change))
    assert re.search(said, sentence)
    assert "compare other settings" in sentence


def test_classes_may_stand_in_another_order(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def reordered(rows: Predictions) -> Predictions:
        number = np.array([*range(len(rows.classes))[::-1], -1])
        return replace(rows, classes=rows.classes[::-1], prob=rows.prob[:, ::-1], label=number[rows.label])

    out = tmp_path / "a.json"
    workdir = changed(study, tmp_path / "reordered", reordered)
    run(capsys, f"{study}:{JOINT}", f"{workdir}:{JOINT}", "--json", out)
    for of in json.loads(out.read_text())["differences"]:
        assert (of["difference"], of["p"], of["speakers_that_differ"]) == (0.0, 1.0, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["{study}:alpha=0.7"],
            "workdir: has no predictions of a setting 'alpha=0.7', expected one of alpha=0.5, alpha=",
        ),
        (["{study}:alpha=0.5"], "alpha=0.5 is the only setting, expected two or more"),
        (
            ["{study}", "--against", "beta"],
            "--against is 'beta', which is none of the settings, expected one of alpha=0.5",
        ),
        (
            ["{study}", "{other}", "--against", "{study}"],
            "which is 3 of the settings, expected one of workdir: alpha=0.5",
        ),
        (["{study}", "--metrics", "uar,ua"], "--metrics has uar, expected names of wa, ua, macro_f1, ccc_valence"),
        (
            ["{study}:alpha=1.0", "{study}:alpha=0.0"],
            "the metrics ua, ccc_mean are defined of alpha=1.0 and another set",
        ),
        (["{study}", "--draws", "3"], "--draws is 3, expected 100 or more"),
        (["{study}", "--seed", "-1"], "--seed is -1, expected 0 or more"),
        (["{study}", "--page", "{study}/none/a.html"], "none/a.html', expected a file in a folder that exists"),
        (
            ["{study}-none"],
            "workdir-none: has no config.json, runs.csv, predictions.csv, metrics.json, expected the fil",
        ),
    ],
)
def test_other_refusals(study: Path, other: Path, capsys: pytest.CaptureFixture[str], words: Sequence[str], said: str):
    assert said in refused(capsys, *(word.format(study=study, other=other) for word in words))
