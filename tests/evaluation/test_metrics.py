import dataclasses
import json
import math
import time

import audmetric
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    recall_score,
    root_mean_squared_error,
)

from sejax.errors import InputError
from sejax.evaluation.baselines import class_mean_lookup, majority_class
from sejax.evaluation.intervals import summarise
from sejax.evaluation.metrics import ccc, confusion_matrix, macro_f1, rmse, unweighted_accuracy, weighted_accuracy
from sejax.evaluation.predictions import Predictions, average_seeds, read_predictions, write_predictions
from sejax.protocols.folds import Fold

CLASSES = ("angry", "happy", "sad")
DIMENSIONS = ("valence", "arousal", "dominance")


def study(n_speakers=5, per_speaker=8, seeds=(0, 1), settings=("static", "joint"), rng_seed=0, classes=CLASSES):
    """Leave-one-speaker-out predictions, somewhat better than chance."""
    rng = np.random.default_rng(rng_seed)
    speakers = [f"s{number}" for number in range(n_speakers)]
    n = n_speakers * per_speaker
    speaker = np.repeat(speakers, per_speaker)
    ids = np.array([f"u{number:03d}" for number in range(n)])
    label = rng.integers(0, len(classes), n)
    vad = np.round(rng.uniform(1, 5, (n, 3)) * 2) / 2
    parts = []
    for index, (seed, setting) in enumerate((seed, setting) for seed in seeds for setting in settings):
        logits = rng.normal(size=(n, len(classes))) + 1.5 * np.eye(len(classes))[label]
        prob = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        parts.append(
            Predictions(
                classes=classes,
                run=index * n_speakers + np.repeat(np.arange(n_speakers), per_speaker),
                fold=speaker,
                seed=np.full(n, seed),
                setting=np.full(n, setting),
                id=ids,
                speaker=speaker,
                label=label,
                prob=prob,
                vad=vad,
                pred_vad=vad + rng.normal(size=(n, 3)),
            )
        )
    return joined(parts)


def joined(parts):
    names = [field.name for field in dataclasses.fields(Predictions) if field.name != "classes"]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Predictions(classes=parts[0].classes, **columns)


def rows_of(predictions, mask):
    names = [field.name for field in dataclasses.fields(Predictions) if field.name != "classes"]
    return dataclasses.replace(predictions, **{name: getattr(predictions, name)[mask] for name in names})


# ----------------------------------------------------------------------------------------------- metrics

labels = st.integers(2, 6).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), min_size=1, max_size=40),
    )
)


@settings(max_examples=150)
@given(labels)
def test_class_metrics_equal_scikit_learn_and_audmetric(case):
    n_classes, pairs = case
    truth, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    confusion = confusion_matrix(truth, predicted, n_classes)
    assert confusion.tolist() == audmetric.confusion_matrix(truth, predicted, labels=list(range(n_classes)))
    np.testing.assert_allclose(weighted_accuracy(confusion), accuracy_score(truth, predicted))
    np.testing.assert_allclose(weighted_accuracy(confusion), audmetric.accuracy(truth, predicted))
    occurring = sorted(set(truth.tolist()))
    recall = recall_score(truth, predicted, labels=occurring, average="macro")
    np.testing.assert_allclose(unweighted_accuracy(confusion), recall)
    if len(occurring) == n_classes:  # else audmetric counts a recall of 0 for the class without utterances
        theirs = audmetric.unweighted_average_recall(truth, predicted, labels=occurring)
        np.testing.assert_allclose(unweighted_accuracy(confusion), theirs)
    np.testing.assert_allclose(macro_f1(confusion), f1_score(truth, predicted, average="macro", zero_division=0.0))


def test_a_class_that_does_not_occur_does_not_count_in_ua():
    confusion = np.array([[3, 1, 0], [0, 0, 0], [0, 1, 1]])
    assert unweighted_accuracy(confusion) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert weighted_accuracy(confusion) == pytest.approx(4 / 6)
    assert macro_f1(confusion) == pytest.approx((6 / 7 + 0 + 2 / 3) / 3)


def test_matrices_stack_and_empty_ones_are_undefined():
    stack = np.stack([np.eye(2, dtype=int), np.zeros((2, 2), int), np.ones((2, 2), int)])
    for metric in (weighted_accuracy, unweighted_accuracy, macro_f1):
        np.testing.assert_array_equal(metric(stack), [1, np.nan, 0.5])


vectors = st.integers(2, 30).flatmap(
    lambda n: st.tuples(*[hnp.arrays(np.float64, n, elements=st.integers(-500, 500).map(lambda x: x / 100))] * 2)
)


@settings(max_examples=150)
@given(vectors, st.floats(-1e3, 1e3))
def test_ccc_and_rmse_equal_audmetric_and_scikit_learn(pair, offset):
    pred, target = pair[0] + offset, pair[1] + offset
    np.testing.assert_allclose(rmse(pred, target), root_mean_squared_error(target, pred), atol=1e-9)
    if np.ptp(pair[0]) == np.ptp(pair[1]) == 0:
        assert math.isnan(ccc(pred, target)) or pair[0][0] != pair[1][0]
    else:
        np.testing.assert_allclose(ccc(pred, target), audmetric.concordance_cc(target, pred), atol=1e-7)


def test_ccc_closed_forms():
    target = np.array([1.0, 2.0, 3.0, 4.0])
    assert ccc(target, target) == pytest.approx(1)
    assert ccc(5 - target, target) == pytest.approx(-1)
    assert ccc(target + 1, target) == pytest.approx(2.5 / 3.5)
    assert ccc(np.full(4, 2.0), target) == pytest.approx(0)
    assert ccc(np.full(4, 0.1), np.full(4, 0.3)) == pytest.approx(0)
    for pred, truth in (([], []), ([1.0], [1.0]), ([0.1] * 3, [0.1] * 3), ([1e9 / 3] * 7, [1e9 / 3] * 7)):
        assert math.isnan(ccc(np.array(pred), np.array(truth)))
    assert math.isnan(rmse(np.array([]), np.array([])))


def test_ccc_keeps_its_digits_far_from_zero():
    rng = np.random.default_rng(0)
    target = 1e6 + rng.normal(size=1000)
    pred = target + rng.normal(size=1000)
    np.testing.assert_allclose(ccc(pred, target), ccc(pred - 1e6, target - 1e6), rtol=1e-8)


# --------------------------------------------------------------------------------------- predictions.csv


def test_the_file_as_it_is_laid_out(tmp_path):
    path = str(tmp_path / "predictions.csv")
    write_predictions(
        path,
        Predictions(
            classes=("angry", "happy"),
            run=np.array([0, 1]),
            fold=np.array(["a", "b"]),
            seed=np.array([0, 1]),
            setting=np.array(["alpha=0.5", "alpha=0.5, joint"]),
            id=np.array(["u1", "u2"]),
            speaker=np.array(["a", "b"]),
            label=np.array([1, -1]),
            prob=np.array([[0.25, 0.75], [1e-12, 1 / 3]], np.float32),
            vad=np.array([[2.5, np.nan, 3.0], [np.nan] * 3]),
            pred_vad=np.array([[2.123456789, 3.0, -0.5], [np.nan] * 3]),
        ),
    )
    with open(path, encoding="utf-8") as file:
        assert file.read() == (
            "run,fold,seed,setting,id,speaker,label,prob_angry,prob_happy,valence,arousal,dominance,"
            "pred_valence,pred_arousal,pred_dominance\n"
            "0,a,0,alpha=0.5,u1,a,happy,0.25,0.75,2.5,,3,2.12346,3,-0.5\n"
            '1,b,1,"alpha=0.5, joint",u2,b,,1e-12,0.333333,,,,,,\n'
        )
    assert [entry.name for entry in tmp_path.iterdir()] == ["predictions.csv"]


floats = st.floats(allow_nan=True, allow_infinity=True, width=64)
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), min_size=1, max_size=8)


@settings(max_examples=80)
@given(data=st.data(), n=st.integers(0, 6), classes=st.lists(words, max_size=3, unique=True))
def test_round_trip(tmp_path_factory, data, n, classes):
    def text():
        return np.array(data.draw(st.lists(words, min_size=n, max_size=n)), dtype=str)

    def block(width):
        return data.draw(hnp.arrays(np.float64, (n, width), elements=floats))

    number = hnp.arrays(np.int64, n, elements=st.integers(0, 999))
    predictions = Predictions(
        classes=tuple(classes),
        run=data.draw(number),
        fold=text(),
        seed=data.draw(number),
        setting=text(),
        id=text(),
        speaker=text(),
        label=data.draw(hnp.arrays(np.int64, n, elements=st.integers(-1, len(classes) - 1))),
        prob=block(len(classes)),
        vad=block(3),
        pred_vad=block(3),
    )
    folder = tmp_path_factory.mktemp("round_trip")
    first, second = str(folder / "first.csv"), str(folder / "second.csv")
    write_predictions(first, predictions)
    read = read_predictions(first)
    write_predictions(second, read)
    with open(first, "rb") as one, open(second, "rb") as other:
        assert one.read() == other.read()
    assert read.classes == predictions.classes
    for name in ("run", "fold", "seed", "setting", "id", "speaker", "label"):
        assert getattr(read, name).tolist() == getattr(predictions, name).tolist()
    for name in ("prob", "vad", "pred_vad"):
        np.testing.assert_allclose(getattr(read, name), getattr(predictions, name), rtol=6e-6)


BROKEN = {
    "missing": (None, "No such file"),
    "empty": ("", "is empty"),
    "no table": ("hello\n", "columns hello, but"),
    "column missing": (
        "run,fold,seed,setting,id,speaker,label,prob_a,valence,arousal,dominance,pred_valence,pred_arousal\n",
        "pred_dominance",
    ),
    "short line": ("{header}\n0,f,0,s,u,p\n", "6 fields in line 2, but 14"),
    "word for a number": ("{header}\n0,f,0,s,u,p,a,x,1,1,1,1,1,1\n", "'x' as prob_a in line 2.*a number"),
    "no whole number": ("{header}\n0.5,f,0,s,u,p,a,1,1,1,1,1,1,1\n", "'0.5' as run in line 2"),
    "unknown label": ("{header}\n0,f,0,s,u,p,z,1,1,1,1,1,1,1\n", "'z' as label in line 2.*one of a"),
    "not text": (b"\xff\xfe", "cannot be read"),
}


@pytest.mark.parametrize(("content", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "predictions.csv"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        header = (
            "run,fold,seed,setting,id,speaker,label,prob_a,valence,arousal,dominance,"
            "pred_valence,pred_arousal,pred_dominance"
        )
        path.write_text(content.replace("{header}", header), encoding="utf-8")
    with pytest.raises(InputError, match=sentence):
        read_predictions(str(path))


# ------------------------------------------------------------------------------------------ metrics.json


def by_hand(predictions, setting):
    """Every number of one setting, from the rows, with scikit-learn and audmetric, one loop at a time."""
    part = rows_of(predictions, predictions.setting == setting)

    def metrics(rows):
        found = {}
        labelled = rows_of(rows, rows.label >= 0)
        if len(labelled.label):
            guess = labelled.prob.argmax(axis=1)
            found["wa"] = accuracy_score(labelled.label, guess)
            occurring = sorted(set(labelled.label.tolist()))
            found["ua"] = recall_score(labelled.label, guess, labels=occurring, average="macro")
            found["macro_f1"] = f1_score(labelled.label, guess, average="macro", zero_division=0.0)
        for dim, name in enumerate(DIMENSIONS):
            rated = np.isfinite(rows.vad[:, dim])
            if rated.any():
                truth, guess = rows.vad[rated, dim], rows.pred_vad[rated, dim]
                found[f"ccc_{name}"] = audmetric.concordance_cc(truth, guess)
                found[f"rmse_{name}"] = root_mean_squared_error(truth, guess)
        found["ccc_mean"] = np.mean([found[f"ccc_{name}"] for name in DIMENSIONS if f"ccc_{name}" in found])
        return found

    seeds, folds = sorted(set(part.seed.tolist())), sorted(set(part.fold.tolist()))
    pooled = [metrics(rows_of(part, part.seed == seed)) for seed in seeds]
    cells = [[metrics(rows_of(part, (part.seed == s) & (part.fold == f))) for s in seeds] for f in folds]
    result = {}
    for name in pooled[0]:
        of_folds = [np.mean([cell[name] for cell in cells_of_fold]) for cells_of_fold in cells]
        result[name] = {
            "pooled": np.mean([values[name] for values in pooled]),
            "fold_mean": np.mean(of_folds),
            "fold_sd": np.std(of_folds, ddof=1),
        }
    return result


def test_summary_equals_a_count_by_hand_and_needs_the_file_alone(tmp_path):
    predictions = study()
    predictions.label[3] = -1
    predictions.vad[5:9, 2] = np.nan
    summary = summarise(predictions)
    path = str(tmp_path / "predictions.csv")
    write_predictions(path, predictions)
    read = read_predictions(path)
    assert summarise(read) == summary  # to the last bit
    assert json.loads(json.dumps(summary)) == summary
    assert [entry["name"] for entry in summary] == ["static", "joint"]
    for entry in summary:
        assert set(entry) == {"name", "metrics"}
        expected = by_hand(read, entry["name"])
        assert set(entry["metrics"]) == set(expected)
        for name, numbers in expected.items():
            ours = entry["metrics"][name]
            assert set(ours) == {"pooled", "fold_mean", "fold_sd", "ci95"}
            for what, value in numbers.items():
                assert ours[what] == pytest.approx(value, abs=1e-9), (name, what)
            assert ours["ci95"][0] < ours["pooled"] < ours["ci95"][1]


def test_interval_equals_a_bootstrap_of_rows():
    """The sums per speaker give what resampling the rows of whole speakers gives, draw by draw."""
    predictions = study(n_speakers=4, seeds=(0, 1), settings=("joint",))
    n_bootstrap = 60
    entry = summarise(predictions, n_bootstrap=n_bootstrap, seed=3)[0]["metrics"]
    speakers = sorted(set(predictions.speaker.tolist()))
    draws = np.random.default_rng(3).multinomial(len(speakers), [1 / 4] * 4, size=n_bootstrap)
    values = {"ua": [], "wa": [], "ccc_mean": [], "rmse_arousal": []}
    for draw in draws:
        chosen = np.concatenate(
            [
                np.repeat(np.flatnonzero(predictions.speaker == name), times)
                for name, times in zip(speakers, draw, strict=True)
            ]
        )
        found = by_hand(dataclasses.replace(rows_of(predictions, chosen)), "joint")
        for name, column in values.items():
            column.append(found[name]["pooled"])
    for name, column in values.items():
        np.testing.assert_allclose(entry[name]["ci95"], np.percentile(column, [2.5, 97.5]), rtol=1e-4)


def test_a_speaker_who_differs_widens_the_interval():
    """Two hundred utterances, half of them by speakers whom the model always gets wrong."""
    n, speakers = 200, np.repeat([f"s{number}" for number in range(10)], 20)
    shared = {
        "classes": ("a", "b"),
        "run": np.zeros(n, int),
        "fold": speakers,
        "seed": np.zeros(n, int),
        "setting": np.full(n, "x"),
        "id": np.arange(n).astype(str),
        "label": np.zeros(n, int),
        "prob": np.eye(2)[np.repeat([0, 1], 100)],
        "vad": np.full((n, 3), np.nan),
        "pred_vad": np.full((n, 3), np.nan),
    }
    clustered = summarise(Predictions(speaker=speakers, **shared))[0]["metrics"]["wa"]
    spread = summarise(Predictions(speaker=np.tile(np.unique(speakers), 20), **shared))[0]["metrics"]["wa"]
    assert clustered["pooled"] == spread["pooled"] == 0.5
    assert clustered["ci95"] == [pytest.approx(0.2, abs=0.01), pytest.approx(0.8, abs=0.01)]
    assert spread["ci95"] == [pytest.approx(0.5), pytest.approx(0.5)]


def test_interval_covers_the_truth_about_as_often_as_it_says():
    """60 studies of 12 speakers whose own accuracies scatter around 0.7."""
    covered = 0
    for number in range(60):
        rng = np.random.default_rng(number)
        accuracy = np.clip(0.7 + 0.1 * rng.normal(size=12), 0, 1)
        speaker = np.repeat(np.arange(12), 30)
        right = rng.random(360) < accuracy[speaker]
        predictions = Predictions(
            classes=("a", "b"),
            run=np.zeros(360, int),
            fold=speaker.astype(str),
            seed=np.zeros(360, int),
            setting=np.full(360, "x"),
            id=np.arange(360).astype(str),
            speaker=speaker.astype(str),
            label=np.zeros(360, int),
            prob=np.eye(2)[1 - right.astype(int)],
            vad=np.full((360, 3), np.nan),
            pred_vad=np.full((360, 3), np.nan),
        )
        low, high = summarise(predictions, n_bootstrap=300)[0]["metrics"]["wa"]["ci95"]
        covered += low <= 0.7 <= high
    assert 48 <= covered <= 60  # 80 % to 100 %: percentile intervals of 12 clusters are a little narrow


def test_a_draw_without_a_class_is_handled():
    """Only one speaker says the third class: 7 % of the draws leave it out."""
    predictions = study(n_speakers=5, settings=("joint",))
    predictions.label[predictions.speaker != "s0"] %= 2
    metrics = summarise(predictions)[0]["metrics"]
    assert all(np.isfinite(metrics["ua"]["ci95"]))


def test_what_has_no_data_is_absent():
    predictions = study(settings=("static",), seeds=(0,))
    nothing = np.full(predictions.vad.shape, np.nan)
    emodb = summarise(dataclasses.replace(predictions, vad=nothing, pred_vad=nothing))[0]
    assert set(emodb["metrics"]) == {"wa", "ua", "macro_f1"} and "unpredicted" not in emodb
    unlabelled = summarise(dataclasses.replace(predictions, label=np.full_like(predictions.label, -1)))[0]
    assert not set(unlabelled["metrics"]) & {"wa", "ua", "macro_f1"}
    no_dominance = predictions.vad.copy()
    no_dominance[:, 2] = np.nan
    kemdy = summarise(dataclasses.replace(predictions, vad=no_dominance))[0]["metrics"]
    assert "ccc_dominance" not in kemdy and "rmse_dominance" not in kemdy
    assert kemdy["ccc_mean"]["pooled"] == pytest.approx(
        (kemdy["ccc_valence"]["pooled"] + kemdy["ccc_arousal"]["pooled"]) / 2
    )
    nobody = summarise(dataclasses.replace(predictions, vad=nothing, label=np.full_like(predictions.label, -1)))
    assert nobody == [{"name": "static", "metrics": {}}]
    assert summarise(rows_of(predictions, np.zeros(len(predictions.id), bool))) == []


def test_one_fold_and_one_speaker():
    predictions = study(n_speakers=3, settings=("static",))
    one_fold = summarise(dataclasses.replace(predictions, fold=np.full_like(predictions.fold, "official")))[0]
    assert set(one_fold["metrics"]["ua"]) == {"pooled", "fold_mean", "ci95"}
    assert one_fold["metrics"]["ua"]["fold_mean"] == one_fold["metrics"]["ua"]["pooled"]
    alone = summarise(rows_of(predictions, predictions.speaker == "s0"))[0]
    assert set(alone["metrics"]["ua"]) == {"pooled", "fold_mean"}


def test_a_fold_of_one_utterance_has_no_ccc_and_does_not_count():
    predictions = study(n_speakers=4, settings=("static",), seeds=(0,))
    keep = (predictions.speaker != "s3") | (predictions.id == predictions.id[-1])
    metrics = summarise(rows_of(predictions, keep))[0]["metrics"]
    others = summarise(rows_of(predictions, predictions.speaker != "s3"))[0]["metrics"]
    assert metrics["ccc_mean"]["fold_mean"] == pytest.approx(others["ccc_mean"]["fold_mean"], abs=1e-9)
    assert metrics["wa"]["fold_mean"] != pytest.approx(others["wa"]["fold_mean"], abs=1e-3)


def test_a_fold_of_equal_constants_has_no_ccc_and_does_not_count():
    """What is left of their variance is rounding error, which must not pass for a correlation."""
    predictions = study(n_speakers=4, per_speaker=7, settings=("static",), seeds=(0,))
    constant = predictions.speaker == "s3"
    predictions.vad[constant] = predictions.pred_vad[constant] = 4.3
    metrics = summarise(predictions)[0]["metrics"]
    others = summarise(rows_of(predictions, ~constant))[0]["metrics"]
    for name in DIMENSIONS:
        ours, theirs = metrics[f"ccc_{name}"], others[f"ccc_{name}"]
        assert ours["fold_mean"] == pytest.approx(theirs["fold_mean"], abs=1e-9)
        assert ours["pooled"] != pytest.approx(theirs["pooled"], abs=1e-3)


def test_predictions_that_are_not_finite_are_counted_and_not_hidden():
    predictions = study(settings=("static", "joint"), seeds=(0,))
    broken = np.flatnonzero(predictions.setting == "joint")[:7]
    predictions.prob[broken] = np.nan
    predictions.pred_vad[broken[:2], 1] = np.inf
    static, joint = summarise(predictions)
    assert joint["unpredicted"] == {"class": 7, "arousal": 2}
    assert set(joint["metrics"]) == {
        "ccc_valence",
        "ccc_dominance",
        "ccc_mean",
        "rmse_valence",
        "rmse_dominance",
    }
    assert "unpredicted" not in static and len(static["metrics"]) == 10


def test_a_whole_study_takes_a_second():
    """IEMOCAP with eleven settings: 60,841 rows."""
    predictions = study(10, 553, seeds=(0,), settings=tuple(f"alpha={number}" for number in range(11)))
    start = time.perf_counter()
    summarise(predictions)
    assert time.perf_counter() - start < 10  # measured 1.0


# --------------------------------------------------------------------------------------------- baselines


def table_of_folds(predictions):
    """The corpus of a study, as arrays, and its leave-one-speaker-out folds."""
    first = rows_of(
        predictions,
        (predictions.setting == predictions.setting[0]) & (predictions.seed == predictions.seed[0]),
    )
    speakers = sorted(set(first.speaker.tolist()))
    folds = []
    for number, name in enumerate(speakers):
        val = speakers[(number + 1) % len(speakers)]
        test, validation = first.speaker == name, first.speaker == val
        folds.append(Fold(name, train=~test & ~validation, val=validation, test=test))
    return first.label, first.vad, folds


def test_majority_class():
    predictions = study()
    label, _, folds = table_of_folds(predictions)
    metrics = majority_class(predictions, label, folds)
    guess = np.empty_like(label)
    for fold in folds:
        guess[fold.test] = np.bincount(label[fold.train]).argmax()
    assert set(metrics) == {"wa", "ua", "macro_f1"}
    assert metrics["wa"]["pooled"] == pytest.approx(accuracy_score(label, guess))
    assert metrics["ua"]["pooled"] == pytest.approx(balanced_accuracy_score(label, guess))


def test_majority_class_looks_at_training_labels_only():
    predictions = study()
    label, _, folds = table_of_folds(predictions)
    (only,) = [fold for fold in folds if fold.name == "s0"]
    label = np.where(only.train, 2, 0)
    expected = np.mean(predictions.label[predictions.fold == "s0"] == 2)
    one_fold = rows_of(predictions, predictions.fold == "s0")
    assert majority_class(one_fold, label, [only])["wa"]["pooled"] == pytest.approx(expected)
    assert majority_class(one_fold, np.full_like(label, -1), [only]) == {}


def test_class_mean_lookup():
    predictions = study()
    label, vad, folds = table_of_folds(predictions)
    vad = vad.copy()
    vad[4, 1] = np.nan
    lookup = class_mean_lookup(predictions, label, vad, folds)
    assert list(lookup) == ["static", "joint"]
    for setting, metrics in lookup.items():
        assert set(metrics) == {"ccc_mean"} | {f"{kind}_{name}" for kind in ("ccc", "rmse") for name in DIMENSIONS}
        for dim, name in enumerate(DIMENSIONS):
            per_seed = []
            for seed in (0, 1):
                rows = rows_of(predictions, (predictions.setting == setting) & (predictions.seed == seed))
                guess = np.empty(len(rows.id))
                for row, (speaker, prob) in enumerate(zip(rows.speaker, rows.prob, strict=True)):
                    (fold,) = [fold for fold in folds if fold.name == speaker]
                    guess[row] = np.nanmean(vad[fold.train & (label == prob.argmax()), dim])
                per_seed.append(audmetric.concordance_cc(rows.vad[:, dim], guess))
            assert metrics[f"ccc_{name}"]["pooled"] == pytest.approx(np.mean(per_seed), abs=1e-5)


def test_class_mean_lookup_of_a_class_without_ratings_is_the_training_mean():
    predictions = study(settings=("static",), seeds=(0,))
    label, vad, folds = table_of_folds(predictions)
    rated = np.where((label == 1)[:, None], np.nan, vad)
    lookup = class_mean_lookup(predictions, label, rated, folds)["static"]
    guess = np.empty_like(vad)
    predicted = predictions.prob.argmax(axis=1)
    for fold in folds:
        for number in range(3):
            rows = fold.train if number == 1 else fold.train & (label == number)
            guess[fold.test & (predicted == number)] = np.nanmean(rated[rows], axis=0)
    assert lookup["rmse_valence"]["pooled"] == pytest.approx(rmse(guess[:, 0], vad[:, 0]), abs=1e-5)


def test_baselines_without_vad():
    """EmoDB."""
    predictions = study(settings=("static",))
    label, vad, folds = table_of_folds(predictions)
    nothing = np.full_like(predictions.vad, np.nan)
    emodb = dataclasses.replace(predictions, vad=nothing, pred_vad=nothing)
    assert class_mean_lookup(emodb, label, np.full_like(vad, np.nan), folds) == {"static": {}}
    assert majority_class(emodb, label, folds) == majority_class(predictions, label, folds)


def test_average_seeds_is_the_mean_over_seeds_of_each_test_utterance():
    keys = {
        "run": np.array([0, 0, 1, 1, 2, 2]),
        "fold": np.array(["a", "a", "b", "b", "a", "a"]),
        "seed": np.array([0, 0, 0, 0, 1, 1]),
        "setting": np.array(["s"] * 6),
        "id": np.array(["u2", "u1", "u3", "u4", "u1", "u2"]),
        "speaker": np.array(["a", "a", "b", "b", "a", "a"]),
        "label": np.array([0, 1, 0, 1, 1, 0]),
    }
    prob = np.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.5, 0.5], [0.75, 0.25]])
    predictions = Predictions(
        classes=("x", "y"), prob=prob, vad=np.full((6, 3), 3.0), pred_vad=np.arange(18.0).reshape(6, 3), **keys
    )
    averaged = average_seeds(predictions)
    assert averaged.id.tolist() == ["u2", "u1", "u3", "u4"]
    assert averaged.label.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(averaged.prob, [[0.5, 0.5], [0.75, 0.25], [0.5, 0.5], [0.0, 1.0]])
    np.testing.assert_allclose(averaged.pred_vad[:2, 0], [(0 + 15) / 2, (3 + 12) / 2])
