"""Paired differences against scipy, statsmodels and metrics.json; false alarms and power on simulated studies."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.stats
from fabricated import joined, study
from tiny_study import ROOT

from sejax.evaluation.intervals import summarise
from sejax.evaluation.metrics import ccc, confusion_matrix, unweighted_accuracy
from sejax.evaluation.paired import Pair, compare, holm, smallest_p
from sejax.evaluation.predictions import Predictions

METRICS = ("wa", "ua", "macro_f1", "ccc_valence", "ccc_mean")


def pairs(*metrics: str) -> list[Pair]:
    return [Pair("joint", "static", metric) for metric in metrics]


def by_setting(predictions: Predictions) -> dict[str, Predictions]:
    return predictions.by("setting")


def score(rows: Predictions, metric: str) -> float:
    """Returns a pooled metric of one seed, from the rows."""
    if metric == "ua":
        return float(unweighted_accuracy(confusion_matrix(rows.label, rows.prob.argmax(axis=1), len(rows.classes))))
    return float(np.mean([ccc(rows.pred_vad[:, dim], rows.vad[:, dim]) for dim in range(3)]))


def difference(ours: Predictions, theirs: Predictions, metric: str) -> float:
    return float(
        np.mean([score(of, metric) for of in ours.by("seed").values()])
        - np.mean([score(of, metric) for of in theirs.by("seed").values()])
    )


@pytest.mark.parametrize("metric", ["ua", "ccc_mean"])
def test_p_and_interval_are_those_of_scipy_for_the_pooled_difference(metric: str):
    predictions = by_setting(study(n_speakers=6, per_speaker=6).rounded())
    # A unit is a speaker with all seeds: numbers 0 to 5 are a setting's speakers, 10 to 15 those of the other.
    units = {
        10 * number + place: predictions[name].select(predictions[name].speaker == f"s{place}")
        for number, name in enumerate(("joint", "static"))
        for place in range(6)
    }

    def statistic(ours: np.ndarray, theirs: np.ndarray) -> float:
        return difference(*(joined([units[unit] for unit in chosen.tolist()]) for chosen in (ours, theirs)), metric)

    first, second = np.arange(6), 10 + np.arange(6)
    (found,) = compare(predictions, pairs(metric))
    expected = scipy.stats.permutation_test(
        (first, second), statistic, permutation_type="samples", n_resamples=10_000, vectorized=False
    )
    assert found.exact
    assert found.value == pytest.approx(expected.statistic, abs=1e-12)
    assert found.p == expected.pvalue
    assert found.smallest_p == 2 / 2**6
    interval = scipy.stats.bootstrap(
        (first, second), statistic, paired=True, method="percentile", n_resamples=500, vectorized=False, rng=0
    ).confidence_interval
    width = interval.high - interval.low
    np.testing.assert_allclose(found.ci95, interval, atol=0.12 * width)  # other draws


def test_the_difference_is_that_of_the_table_and_its_interval_of_the_same_draws():
    predictions = study(n_speakers=6)
    of = {entry["name"]: entry["metrics"] for entry in summarise(predictions)}
    for found in compare(by_setting(predictions), pairs(*METRICS)):
        metric = found.pair.metric
        assert found.value == pytest.approx(of["joint"][metric]["pooled"] - of["static"][metric]["pooled"], abs=1e-12)
    # A setting beside one that is always wrong has the setting's own interval.
    static = by_setting(predictions)["static"]
    wrong = dataclasses.replace(static, prob=np.eye(3)[(static.label + 1) % 3])
    (found,) = compare({"joint": static, "static": wrong}, pairs("wa"), draws=1000)
    np.testing.assert_allclose(found.ci95, of["static"]["wa"]["ci95"], atol=1e-12)
    assert found.p == smallest_p(6) == 2 / 2**6


def test_holm_equals_statsmodels():
    golden = json.loads((ROOT / "tests" / "golden" / "holm.json").read_text())
    assert [len(case["p"]) for case in golden["cases"]] == [1, 2, 5, 52, 30]
    for case in golden["cases"]:
        np.testing.assert_allclose(holm(np.array(case["p"])), case["corrected"], rtol=1e-12)
    assert holm(np.array([])).shape == (0,)


def test_holm_counts_all_that_is_compared_together():
    predictions = by_setting(study(n_speakers=6, settings=("joint", "static", "other")))
    wanted = [*pairs("ua", "ccc_mean"), Pair("other", "static", "ua")]
    found = compare(predictions, wanted)
    assert [of.pair for of in found] == wanted
    np.testing.assert_array_equal([of.p_holm for of in found], holm(np.array([of.p for of in found])))
    (alone,) = compare(predictions, pairs("ua"))
    assert alone.p_holm == alone.p == found[0].p


def test_many_speakers_are_exchanged_at_random_and_the_observed_way_counts():
    predictions = by_setting(study(n_speakers=12, per_speaker=12, seeds=(0,)))
    (exact,) = compare(predictions, pairs("ua"), draws=4096)
    (random,) = compare(predictions, pairs("ua"), draws=4095)
    assert exact.exact and not random.exact
    assert random.p == pytest.approx(exact.p, abs=4 * np.sqrt(exact.p * (1 - exact.p) / 4095))
    assert (random.p * 4096) == pytest.approx(round(random.p * 4096))
    static = predictions["static"]
    wrong = dataclasses.replace(static, prob=np.eye(3)[(static.label + 1) % 3])
    (clear,) = compare({"joint": static, "static": wrong}, pairs("ua"), draws=200)
    assert clear.p >= clear.smallest_p == 1 / 201
    assert compare(predictions, pairs("ua"), draws=500) == compare(predictions, pairs("ua"), draws=500)


def test_a_setting_does_not_differ_from_itself_and_speakers_without_a_difference_allow_no_small_p():
    static = by_setting(study(n_speakers=6))["static"]
    (same,) = compare({"joint": static, "static": static}, pairs("ua"))
    assert (same.value, same.ci95, same.p, same.differing, same.speakers) == (0.0, (0.0, 0.0), 1.0, 0, 6)
    wrong = np.where((static.speaker < "s3")[:, None], np.eye(3)[(static.label + 1) % 3], static.prob)
    (half,) = compare({"joint": static, "static": dataclasses.replace(static, prob=wrong)}, pairs("ua"))
    assert (half.p, half.smallest_p, half.differing) == (0.25, 0.25, 3)
    alone = by_setting(study(n_speakers=1))
    (single,) = compare(alone, pairs("wa"))
    assert single.ci95 is None and single.p == 1.0


def test_the_order_of_rows_does_not_matter():
    predictions = study(n_speakers=5)
    shuffled = predictions.select(np.random.default_rng(1).permutation(len(predictions.run)))
    assert compare(by_setting(predictions), pairs(*METRICS)) == compare(by_setting(shuffled), pairs(*METRICS))


def test_the_opposite_comparison_has_the_opposite_difference_and_the_same_p():
    predictions = by_setting(study(n_speakers=8))
    (found,), (back,) = (
        compare(predictions, [pair]) for pair in (Pair("joint", "static", "ua"), Pair("static", "joint", "ua"))
    )
    assert (back.value, back.p) == (-found.value, found.p)
    np.testing.assert_allclose(back.ci95, [-bound for bound in reversed(found.ci95)], atol=1e-12)


def test_one_seed_beside_five_is_the_difference_of_the_means():
    five, one = study(seeds=range(5)), study(seeds=(0,), rng_seed=9)
    joint, static = by_setting(five)["joint"], by_setting(one)["static"]
    truths = {"label": joint.label[: len(static.label)], "vad": joint.vad[: len(static.vad)]}
    static = dataclasses.replace(static, **truths)
    for found in compare({"joint": joint, "static": static}, pairs("ua", "ccc_mean")):
        assert found.value == pytest.approx(difference(joint, static, found.pair.metric), abs=1e-6)  # rounded rows
    (back,) = compare({"joint": joint, "static": static}, [Pair("static", "joint", "ua")])
    (found,) = compare({"joint": joint, "static": static}, pairs("ua"))
    assert (back.value, back.p) == (pytest.approx(-found.value), found.p)


def test_what_a_setting_does_not_predict_is_not_compared():
    predictions = by_setting(study())
    joint = predictions["joint"]
    no_valence = joint.pred_vad.copy()
    no_valence[:, 0] = np.nan
    predictions["joint"] = dataclasses.replace(joint, pred_vad=no_valence)
    found = compare(predictions, pairs("ua", "ccc_valence", "ccc_arousal", "ccc_mean", "nothing"))
    # A mean over two dimensions is no mean over three.
    assert [of.pair.metric for of in found] == ["ua", "ccc_arousal"]


N_SPEAKERS, PER_SPEAKER = 10, 16
STATIC = study(N_SPEAKERS, PER_SPEAKER, seeds=(0,), settings=("static",))


def simulated(rng: np.random.Generator, gain: float) -> dict[str, Predictions]:
    """Returns two settings whose speakers are hard or easy for both; the first is better by `gain` (of a logit)."""
    speaker = np.arange(len(STATIC.label)) // PER_SPEAKER
    ease, shift = rng.normal(1.2, 0.6, N_SPEAKERS)[speaker], rng.normal(0, 0.4, N_SPEAKERS)[speaker]
    found = {}
    for name, more in (("joint", gain), ("static", 0.0)):
        # What a setting is better at differs from speaker to speaker, as does what it is worse at.
        own = ease + rng.normal(0, 0.4, N_SPEAKERS)[speaker] + more
        logits = own[:, None] * np.eye(3)[STATIC.label] + rng.normal(size=STATIC.prob.shape)
        noise = rng.normal(size=STATIC.vad.shape) + rng.normal(0, 0.3, N_SPEAKERS)[speaker, None] + shift[:, None]
        found[name] = dataclasses.replace(STATIC, prob=np.exp(logits), pred_vad=STATIC.vad + (1 - more / 3) * noise)
    return found


def test_false_alarms_on_200_null_studies_and_power_under_a_real_difference():
    rng = np.random.default_rng(0)
    null = [compare(simulated(rng, 0.0), pairs("ua", "ccc_mean"), draws=1024) for _ in range(200)]
    low, high = scipy.stats.binom.ppf([0.0005, 0.9995], 200, 0.05)
    for place in range(2):
        p = np.array([found[place].p for found in null])
        assert low <= (p <= 0.05).sum() <= high
        assert abs(np.mean(p <= 0.5) - 0.5) < 0.12
    # Any false alarm of the two, after the correction.
    assert sum(min(of.p_holm for of in found) <= 0.05 for found in null) <= high
    real = [compare(simulated(rng, 1.0), pairs("ua", "ccc_mean"), draws=1024) for _ in range(30)]
    for place in range(2):
        assert sum(found[place].p <= 0.05 for found in real) >= 22
