"""The tree of metrics.json: its parts and the tasks that a setting does not train."""

import collections
import dataclasses
import json

import numpy as np
import pytest
from fabricated import DIMENSIONS, study
from sklearn.metrics import confusion_matrix, recall_score

from sejax.corpora.schema import Corpus, Utterance
from sejax.engine.feed import Outcome
from sejax.engine.runs import Learnable, RunKey, Setting
from sejax.evaluation.intervals import score_groups, summarise
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.results import compute_metrics, with_parts
from sejax.protocols.folds import Fold


def parts_of(predictions, scores=None):
    names = dict.fromkeys(predictions.setting.tolist())
    return with_parts([{"name": name} for name in names], predictions, scores or {})


def several_speakers_per_fold(predictions):
    return dataclasses.replace(predictions, fold=np.where(predictions.speaker < "s2", "one", "other"))


def test_folds_and_speakers_equal_a_count_by_hand():
    predictions = several_speakers_per_fold(study(n_speakers=5, settings=("a", "b")))
    setting = parts_of(predictions)[1]
    assert setting["name"] == "b"
    rows = predictions.select(predictions.setting == "b")
    assert [entry["fold"] for entry in setting["folds"]] == ["one", "other"]
    assert [entry["speaker"] for entry in setting["speakers"]] == [f"s{number}" for number in range(5)]
    for column, entries in (("fold", setting["folds"]), ("speaker", setting["speakers"])):
        for entry in entries:
            assert list(entry) == [column, "utterances", "metrics"]
            group = rows.select(getattr(rows, column) == entry[column])
            assert entry["utterances"] == len(set(group.id.tolist()))
            recall = [
                recall_score(one.label, one.prob.argmax(axis=1), labels=np.unique(one.label), average="macro")
                for one in group.by("seed").values()
            ]
            assert entry["metrics"]["ua"] == pytest.approx(np.mean(recall))
            alone = summarise(group, n_bootstrap=2)[0]["metrics"]
            assert set(entry["metrics"]) == set(alone)
            for name, value in entry["metrics"].items():
                assert value == pytest.approx(alone[name]["pooled"], abs=1e-9), name


def test_fold_means_are_the_means_of_the_folds():
    predictions = study(n_speakers=4)
    for setting, entry in zip(parts_of(predictions), summarise(predictions, n_bootstrap=2), strict=True):
        for name, metric in entry["metrics"].items():
            values = [fold["metrics"][name] for fold in setting["folds"]]
            assert metric["fold_mean"] == pytest.approx(np.mean(values), abs=1e-12)
            assert metric["fold_sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)


def test_confusion_counts_all_seeds():
    predictions = study(settings=("a",))
    predictions.label[:7] = -1
    predictions.prob[10, 1] = np.nan
    (setting,) = parts_of(predictions)
    used = predictions.select(np.setdiff1d(np.arange(len(predictions.label)), [*range(7), 10]))
    expected = confusion_matrix(used.label, used.prob.argmax(axis=1))
    assert setting["confusion"] == {"classes": list(predictions.classes), "counts": expected.tolist()}
    unlabelled = dataclasses.replace(predictions, label=np.full_like(predictions.label, -1))
    assert "confusion" not in parts_of(unlabelled)[0]


def test_a_score_that_a_seed_does_not_have_is_absent():
    predictions = study(n_speakers=3, settings=("a",))
    lone = (predictions.speaker == "s2") & (predictions.seed == 1)
    keep = ~lone | (predictions.id == predictions.id[lone][0])
    s0, _, s2 = score_groups(predictions.select(keep), "speaker")
    assert "ua" in s2["metrics"] and "ccc_mean" in s0["metrics"]
    assert not [name for name in s2["metrics"] if name.startswith("ccc")]  # one utterance has no CCC
    assert s2["utterances"] == 8


def test_groups_that_no_column_says():
    rows = study(n_speakers=4, settings=("a",))
    women = np.isin(rows.speaker, ["s0", "s2"])
    gender = np.where(women, "F", "M")
    assert score_groups(rows, "speaker", rows.speaker) == score_groups(rows, "speaker")
    of_women, of_men = score_groups(rows, "gender", gender)
    (alone,) = score_groups(rows.select(women), "gender", gender[women])
    assert of_women["metrics"] == pytest.approx(alone["metrics"]) and of_women["utterances"] == alone["utterances"]
    assert (of_women["gender"], of_men["gender"]) == ("F", "M")


def test_the_parts_need_predictions_csv_alone(tmp_path):
    predictions = study()
    path = str(tmp_path / "predictions.csv")
    predictions.write(path)
    parts = parts_of(predictions, {"static": 0.25})
    assert parts_of(Predictions.read(path), {"static": 0.25}) == parts == json.loads(json.dumps(parts))
    assert parts[0]["selection_score"] == 0.25 and "selection_score" not in parts[1]


def test_metrics_json_of_runs_that_train_one_task_or_diverge():
    whole = study(n_speakers=3, settings=("class", "vad", "both"))
    for name, block in (("class", whole.pred_vad), ("vad", whole.prob)):
        block[whole.setting == name] = np.nan
    diverged = np.flatnonzero(whole.setting == "both")[:4]
    whole.prob[diverged] = np.nan
    first = whole.select((whole.setting == "class") & (whole.seed == 0))
    utterances = tuple(
        Utterance(id=i, path="", speaker=s, label=whole.classes[n], vad=tuple(v))
        for i, s, n, v in zip(first.id, first.speaker.tolist(), first.label, first.vad.tolist(), strict=True)
    )
    corpus = Corpus(name="c", classes=whole.classes, vad_scale=(1.0, 5.0), utterances=utterances, dropped=(), notes=())
    folds = [Fold(s, train=first.speaker != s, val=first.speaker == s, test=first.speaker == s) for s in ("s0", "s1")]
    settings = [Setting(name, {"alpha": alpha}) for name, alpha in (("class", 1.0), ("vad", 0.0), ("both", 0.5))]
    runs = [RunKey(n, 0, seed, setting) for seed in (0, 1) for n, setting in enumerate(settings)]
    tree = compute_metrics(
        whole,
        runs,
        folds,
        corpus,
        learnable={run.number: Learnable(True, (True, True, True)) for run in runs},
        outcome=Outcome(
            best_epoch=np.array([0, 0, 1] * 2, np.int32),
            best_score=np.full(len(runs), 0.5),
            trained=np.array([3 if run.setting.name == "vad" else 4 for run in runs]),
            finished=np.array([run.setting.name != "vad" for run in runs]),
        ),
        classical={},
        epochs=4,
        history=[{"run": 2, "epoch": 1, "setting": "both", "score": 0.5}],
        protocol={"seeds": 2},
        corpus_facts={"name": "c"},
        audit={"dropped": []},
        n_bootstrap=10,
    )
    by_name = collections.OrderedDict((setting["name"], setting) for setting in tree["settings"])
    assert list(by_name) == ["class", "vad", "both"]
    keys = ["name", "values", "metrics", "baselines", "calibration", "seeds_averaged"]
    assert list(by_name["class"]) == [*keys, "confusion", "folds", "speakers"]
    assert list(by_name["vad"]) == [*keys, "unfinished", "folds", "speakers"]
    assert by_name["vad"]["unfinished"] == {"trained": 3, "epochs": 4}
    assert list(by_name["both"]) == [*keys, "unpredicted", "selection_score", "confusion", "folds", "speakers"]
    assert by_name["both"]["unpredicted"] == {"class": 4}
    assert set(by_name["class"]["folds"][0]["metrics"]) == {"wa", "ua", "macro_f1"}
    assert {f"ccc_{name}" for name in DIMENSIONS} < set(by_name["vad"]["speakers"][0]["metrics"])
    assert {"protocol", "corpus", "settings", "baselines", "audit"} == set(tree)
    assert sum(map(sum, by_name["class"]["confusion"]["counts"])) == 2 * len(utterances)


def test_validation_rows_have_a_say_in_calibration_alone():
    whole = study(n_speakers=4, settings=("both",), validated=True)
    first = whole.of("test").select(whole.of("test").seed == 0)
    utterances = tuple(
        Utterance(id=i, path="", speaker=s, label=whole.classes[n], vad=tuple(v))
        for i, s, n, v in zip(first.id, first.speaker.tolist(), first.label, first.vad.tolist(), strict=True)
    )
    corpus = Corpus(name="c", classes=whole.classes, vad_scale=(1.0, 5.0), utterances=utterances)
    folds = [Fold(s, train=first.speaker != s, val=first.speaker == s, test=first.speaker == s) for s in ("s0", "s1")]
    runs = [RunKey(seed, 0, seed, Setting("both", {"alpha": 0.5})) for seed in (0, 1)]

    def tree(predictions):
        return compute_metrics(
            predictions,
            runs,
            folds,
            corpus,
            learnable={run.number: Learnable(True, (True, True, True)) for run in runs},
            outcome=Outcome(np.ones(2, np.int32), np.full(2, 0.5), np.ones(2, np.int32), np.ones(2, bool)),
            classical={},
            epochs=1,
            history=[],
            protocol={},
            corpus_facts={},
            audit={},
            n_bootstrap=10,
        )

    found, of_test = tree(whole), tree(whole.of("test"))
    pairs = [setting.pop("calibration") for (setting,) in (found["settings"], of_test["settings"])]
    assert found == of_test
    assert pairs[0]["intervals"]["half_width"]["folds"]["s0"] and "intervals" not in pairs[1]
