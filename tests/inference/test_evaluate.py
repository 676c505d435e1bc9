"""A model on another corpus: what its numbers are over, whom its runs have heard, corruptions, and the command."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_study import GOLDEN_SSL, read_csv, table_config, write_table, write_voice

from sejax.corpora.read import read_corpus
from sejax.corpora.schema import Corpus
from sejax.errors import InputError
from sejax.evaluation.predictions import Predictions
from sejax.features.audio import load_audio
from sejax.features.corrupt import corrupt, parse
from sejax.features.extract import Contents, Loaded
from sejax.inference.commands.evaluate import main
from sejax.inference.export import export_bundle
from sejax.inference.foreign import Options, evaluate
from sejax.inference.model import Model
from sejax.inference.records import Names, Outputs
from sejax.inference.scorer import Scorer
from sejax.inference.seen import Heard
from sejax.study import train_and_evaluate

CLASSES = ("anger", "sadness", "boredom")
LABELS = ("angry", "disgust", "sad")
RATED = {"angry": 1.5, "sad": 2.0, "disgust": 4.5}


class Planted(Scorer):
    """A model whose runs say what a test plants, by the name of the file."""

    contents = (Contents("raw", {}, {}, size=1, dtype=np.float32, window=400),)
    notes = ()

    def __init__(
        self,
        said: Mapping[str, Sequence[Sequence[float]]],
        *,
        values: Mapping[str, float] | None = None,
        scale: tuple[float, float] | None = None,
        classes: tuple[str, ...] = CLASSES,
    ) -> None:
        """Plants probabilities [run, class] and, if there are any, valence for each file."""
        self.said, self.values, self.loaded = said, values, []
        self._names = Names(classes, ("valence",) if values else (), intervals=False, spread=False)
        self._scale = scale

    @property
    def names(self) -> Names:
        return self._names

    @property
    def scale(self) -> tuple[float, float] | None:
        return self._scale

    def score(self, group):
        self.loaded += [loaded for (loaded,) in group if isinstance(loaded, Loaded)]
        return [
            self._outputs(Path(made.path).name) if isinstance(made, Loaded) else InputError(made.error)
            for (made,) in group
        ]

    def _outputs(self, name: str) -> Outputs:
        prob = np.array(self.said[name], float)
        values = np.full((len(prob), 1), self.values[name]) if self.values else np.zeros((len(prob), 0))
        return Outputs(prob, prob, values, np.zeros(values.shape[1]))


def table(folder: Path, *, speakers: int = 3, seed: int = 0) -> Corpus:
    """Writes and reads a corpus of three utterances of each speaker, one of each label, on a scale from 1 to 5."""
    rows = []
    for speaker in range(speakers):
        for place, label in enumerate(LABELS):
            name = f"{speaker}{label}.wav"
            write_voice(folder / name, seed=seed + 3 * speaker + place)
            rows.append({"path": name, "speaker": f"s{speaker}", "label": label, "valence": RATED[label] + speaker / 4})
    return read_corpus("table", str(write_table(folder / "corpus.csv", rows)), labels="1..5")


def files(corpus: Corpus) -> dict[str, str]:
    """The labels of a corpus by the names of its files."""
    return {Path(utterance.path).name: utterance.label or "" for utterance in corpus.utterances}


def numbers(tree: dict, test: int = 0) -> dict[str, float]:
    return {name: round(metric["pooled"], 6) for name, metric in tree["tests"][test]["metrics"].items()}


def test_the_numbers_are_over_what_both_have(tmp_path: Path):
    """Anger is always right, sadness in two of three, disgust cannot be named; boredom is left out."""
    corpus = table(tmp_path)
    said = {name: [[0.3, 0.1, 0.6] if label != "sad" else [0.1, 0.2, 0.7]] for name, label in files(corpus).items()}
    said["0sad.wav"] = [[0.2, 0.1, 0.7]]
    predictions, tree = evaluate(Model(Planted(said)), corpus, Options(labels="1..5", n_bootstrap=20))
    ua, wa = (1 + 2 / 3) / 2, 5 / 6
    expected = {"ua": ua, "wa": wa, "ua_all": (1 + 2 / 3 + 0) / 3}
    assert {name: numbers(tree)[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert tree["classes"]["of"] == {"anger": "angry", "sadness": "sad"}
    assert tree["classes"]["outside"] == ["boredom"] and tree["classes"]["unnamed"] == {"disgust": 3}
    assert tree["classes"]["outside_probability"] == pytest.approx((6 * 0.6 + 3 * 0.7) / 9)
    assert tree["baselines"] == {"chance": 0.5, "majority": {"class": "angry", "wa": 0.5}}
    recall = {name: round(own["recall"], 4) for name, own in tree["tests"][0]["recall"].items()}
    assert recall == {"angry": 1.0, "sad": 0.6667, "disgust": 0.0}
    assert predictions.classes == LABELS and set(predictions.run) == {-1}
    np.testing.assert_allclose(predictions.prob.sum(axis=1), 1)
    assert (predictions.prob[:, 1] == 0).all()


@pytest.mark.parametrize(("trained_with", "ua"), [("default", 0), ("the same", 1)])
def test_a_model_that_has_the_classes_of_the_scheme_is_not_mapped_again(trained_with: str, ua: float, tmp_path: Path):
    """A scheme that exchanges two words; the model's are right as they are."""
    table(tmp_path)
    scheme = tmp_path / "exchanged.csv"
    scheme.write_text("label,class\nangry,sad\nsad,angry\n")
    corpus = read_corpus("table", str(tmp_path / "corpus.csv"), labels=str(scheme))
    said = {name: [[1.0, 0.0] if label == "angry" else [0.0, 1.0]] for name, label in files(corpus).items()}
    planted = Planted(said, classes=("angry", "sad"))
    planted.labels = str(scheme) if trained_with == "the same" else trained_with
    _, tree = evaluate(Model(planted), corpus, Options(labels=str(scheme), n_bootstrap=20))
    assert numbers(tree)["ua"] == ua


def test_dimensions_are_brought_to_the_scale_of_the_corpus(tmp_path: Path):
    """A model that is right on its scale from -1 to 1."""
    corpus = table(tmp_path)
    valence = {Path(u.path).name: (u.vad[0] - 3) / 2 for u in corpus.utterances}
    said = {name: [[]] for name in valence}
    options = Options(labels="1..5", n_bootstrap=20)
    planted = Planted(said, values=valence, scale=(-1.0, 1.0), classes=())
    predictions, tree = evaluate(Model(planted), corpus, options)
    assert numbers(tree) == {"ccc_valence": 1, "ccc_mean": 1, "pcc_valence": 1, "rmse_valence": 0}
    np.testing.assert_allclose(predictions.pred_vad[:, 0], predictions.vad[:, 0], rtol=1e-12)
    assert "dimensions are brought from the model's scale, -1 to 1, to the corpus's, 1 to 5" in tree["notes"]
    # Who does not know the scale gives what no scale changes.
    unknown = Planted(said, values=valence, classes=())
    _, tree = evaluate(Model(unknown), corpus, options)
    assert numbers(tree) == {"pcc_valence": 1} and "PCC alone" in " ".join(tree["notes"])
    _, tree = evaluate(Model(unknown), corpus, replace(options, scale=(-1.0, 1.0)))
    assert numbers(tree)["ccc_valence"] == 1
    with pytest.raises(InputError, match=r"^--scale is 1..7, but the model says that its scale is -1..1"):
        evaluate(Model(planted), corpus, replace(options, scale=(1.0, 7.0)))


def test_nothing_in_common_is_an_error_with_both_lists(tmp_path: Path):
    corpus = table(tmp_path)
    planted = Planted({}, classes=("LABEL_0", "LABEL_1"))
    with pytest.raises(InputError) as refused:
        evaluate(Model(planted), corpus, Options(labels="1..5"))
    assert str(refused.value).startswith(
        "the model predicts LABEL_0, LABEL_1, and the corpus table has angry, disgust, sad, valence, expected a class"
    )
    assert not planted.loaded


# ---------------------------------------------------------------------- whom the runs have heard


def knowing(corpus: Corpus, *, by_audio: bool = True, final: bool = False) -> Planted:
    """Runs that hold one speaker out each, or nobody, are right about whom they have heard and wrong about all else."""
    right = {"angry": [0.9, 0.1, 0.0], "sad": [0.1, 0.9, 0.0], "disgust": [0.1, 0.1, 0.8]}
    wrong = {"angry": [0.1, 0.9, 0.0], "sad": [0.9, 0.1, 0.0], "disgust": [0.9, 0.1, 0.0]}
    speakers = sorted({u.speaker for u in corpus.utterances})
    held_out = [frozenset[str]()] if final else [frozenset({name}) for name in speakers]
    said = {
        Path(u.path).name: [(wrong if u.speaker in own else right)[u.label or ""] for own in held_out]
        for u in corpus.utterances
    }
    planted = Planted(said, classes=("anger", "sadness", "disgust"))
    planted.trained_on = corpus.name
    # Of a corpus that is known by its name alone the study has other audio.
    audio = {digest_of(u.path) if by_audio else f"{n}": frozenset({u.speaker}) for n, u in enumerate(corpus.utterances)}
    folds = ("all",) if final else tuple(f"fold of {name}" for name in speakers)
    planted.heard = Heard(corpus.name, folds, tuple(held_out), audio)
    return planted


def digest_of(path: str) -> str:
    planted = Planted({Path(path).name: [[1.0]]}, classes=("x",))
    segment = Model(planted).predict([path])[0]
    assert not segment.error
    return planted.loaded[0].digest


def test_an_utterance_is_predicted_by_the_runs_that_held_its_speaker_out(tmp_path: Path):
    """What the other runs know by heart does not help; their mean would be right about everything."""
    corpus = table(tmp_path)
    predictions, tree = evaluate(Model(knowing(corpus)), corpus, Options(labels="1..5", n_bootstrap=20))
    assert numbers(tree)["ua"] == 0 and not tree["optimistic"]
    assert [str(fold) for fold in predictions.fold] == [f"fold of {name}" for name in predictions.speaker]
    assert tree["notes"] == [
        "9 utterances of the model's own study: predicted by the runs that held their speakers out"
    ]
    heard_all = replace(corpus, name="other")
    forgetful = knowing(corpus)
    forgetful.heard = replace(forgetful.heard, speakers_of={"0": frozenset({"s0"})})
    _, tree = evaluate(Model(forgetful), heard_all, Options(labels="1..5", n_bootstrap=20))
    assert numbers(tree)["ua"] == 1  # the planted runs are as good as was said


def test_speakers_are_known_by_their_audio_under_any_name(tmp_path: Path):
    corpus = table(tmp_path)
    renamed = tuple(replace(u, speaker=f"nobody{u.speaker}", corpus="other") for u in corpus.utterances)
    foreign = replace(corpus, name="other", utterances=renamed)
    _, tree = evaluate(Model(knowing(corpus)), foreign, Options(labels="1..5", n_bootstrap=20))
    assert numbers(tree)["ua"] == 0


def test_speakers_of_the_same_corpus_are_known_by_their_names(tmp_path: Path):
    """New recordings of the study's speakers; the name of a table says nothing."""
    corpus = table(tmp_path)
    options = Options(labels="1..5", n_bootstrap=20)
    emodb = replace(corpus, name="emodb")
    _, tree = evaluate(Model(knowing(emodb, by_audio=False)), emodb, options)
    assert numbers(tree)["ua"] == 0
    _, tree = evaluate(Model(knowing(corpus, by_audio=False)), corpus, options)
    assert numbers(tree)["ua"] == 1
    assert tree["notes"] == ["no audio of the corpus, and no speaker of a corpus of its name, is among those of the "
                             "model's study"]  # fmt: skip
    joined = knowing(emodb, by_audio=False)
    prefixed = {
        digest: frozenset({f"emodb:{name}" for name in own}) for digest, own in joined.heard.speakers_of.items()
    }
    joined.heard = Heard("emodb+table", joined.heard.folds, tuple(frozenset({f"emodb:{s}" for s in own})
                         for own in joined.heard.held_out), prefixed)  # fmt: skip
    joined.trained_on = "emodb+table"
    _, tree = evaluate(Model(joined), emodb, options)
    assert numbers(tree)["ua"] == 0


def test_what_every_run_has_heard_is_refused_unless_asked_for(tmp_path: Path):
    corpus = table(tmp_path)
    options = Options(labels="1..5", n_bootstrap=20)
    final = Model(knowing(corpus, final=True))
    with pytest.raises(InputError, match=r"^table: 9 of 9 utterances are of speakers, or have audio, that every run"):
        evaluate(final, corpus, options)
    _, tree = evaluate(final, corpus, replace(options, allow_seen=True))
    assert tree["optimistic"] and tree["notes"][0].startswith("optimistic: 9 of 9 utterances")
    assert numbers(tree)["ua"] == 1
    # Where the names say it, no audio is opened first.
    emodb = replace(corpus, name="emodb")
    planted = knowing(emodb, final=True)
    with pytest.raises(InputError, match=r"^emodb: 9 of 9"):
        evaluate(Model(planted), emodb, options)
    assert not planted.loaded
    planted.heard = None
    with pytest.raises(InputError, match=r"^the model was trained on a corpus of the same name, emodb, and does not"):
        evaluate(Model(planted), emodb, options)
    _, tree = evaluate(Model(planted), emodb, replace(options, allow_seen=True))
    assert tree["optimistic"]


# ---------------------------------------------------------------------- corruptions, and files that cannot be used


def test_a_corruption_changes_the_samples_that_the_model_hears(tmp_path: Path):
    corpus = table(tmp_path)
    planted = knowing(corpus)
    specs = [parse("noise:5"), parse("telephone+gain:-6")]
    predictions, tree = evaluate(Model(planted), corpus, Options(labels="1..5", corruptions=specs, n_bootstrap=20))
    assert [test["corruption"] for test in tree["tests"]] == ["clean", "noise:5", "telephone+gain:-6"]
    assert list(dict.fromkeys(predictions.setting.tolist())) == ["clean", "noise:5", "telephone+gain:-6"]
    heard = planted.loaded[:27]
    by_file: dict[str, list[Loaded]] = {}
    for loaded in heard:
        by_file.setdefault(loaded.path, []).append(loaded)
    for path, (clean, *corrupted) in by_file.items():
        np.testing.assert_array_equal(clean.samples, load_audio(path).samples)
        for spec, loaded in zip(specs, corrupted, strict=True):
            np.testing.assert_array_equal(loaded.samples, corrupt(clean.samples, spec, clean.digest))
            assert loaded.digest == clean.digest  # the noise is that of the utterance, and its speaker is known


def test_a_bad_file_counts_against_the_allowed_share(tmp_path: Path):
    corpus = table(tmp_path)
    model = Model(knowing(corpus, final=True))
    soundfile.write(tmp_path / "1sad.wav", np.zeros(16_000), 16_000)
    options = Options(labels="1..5", n_bootstrap=20, corruptions=[parse("gain:-3")])
    with pytest.raises(InputError, match=r"at least 1 of 9 utterances .*expected at most 1 %.*1sad.wav: is silent"):
        evaluate(model, corpus, replace(options, allow_seen=True))
    predictions, tree = evaluate(model, corpus, replace(options, max_bad_fraction=0.2, allow_seen=True))
    assert len(predictions.run) == 2 * 8 and not [name for name in predictions.id if "1sad" in str(name)]
    (lost,) = tree["corpus"]["dropped"]
    assert "1sad.wav: is silent" in lost["reason"] and any(
        "1 of 9 utterances cannot be used" in n for n in tree["notes"]
    )


# ---------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache_dir: str) -> tuple[Path, Path]:
    """A table of four speakers, and the workdir of a study that leaves each out and has a final model."""
    folder = tmp_path_factory.mktemp("evaluated")
    table(folder, speakers=4)
    config = table_config(cache_dir, folder / "corpus.csv")
    config.labels, config.final, config.epochs = "1..5", True, 3
    train_and_evaluate(config, str(folder / "workdir"))
    return folder / "corpus.csv", folder / "workdir"


def options_of(corpus: Path, cache_dir: str, *more: str) -> list[str]:
    return ["--config", "configs/demo.py", "--config.corpus=table", f"--config.data_dir={corpus}",
            f"--config.cache_dir={cache_dir}", "--config.workers=1", "--config.bootstrap=20", *more]  # fmt: skip


def test_a_workdir_on_its_own_corpus_gives_the_numbers_of_its_study(
    trained: tuple[Path, Path], cache_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    corpus, workdir = trained
    words = ["--config.labels=1..5", "--corrupt", "noise:0,telephone", "--out", str(tmp_path / "out")]
    assert main(["--model", str(workdir), *options_of(corpus, cache_dir, *words)]) == 0
    printed = capsys.readouterr().out
    assert "12 utterances of the model's own study: predicted by the runs that held their speakers out" in printed
    (tree,) = json.loads((tmp_path / "out" / "evaluation.json").read_text())["corpora"]
    (setting,) = json.loads((workdir / "metrics.json").read_text())["settings"]
    clean, noisy, _ = tree["tests"]
    for name, metric in setting["metrics"].items():
        assert clean["metrics"][name]["pooled"] == pytest.approx(metric["pooled"], abs=2e-3)
    rows = {row["id"]: row for row in read_csv(workdir / "predictions.csv") if row["split"] == "test"}
    predictions = Predictions.read(str(tmp_path / "out" / "predictions.csv"))
    assert len(predictions.run) == 3 * 12
    for place in np.flatnonzero(predictions.setting == "clean"):
        row = rows[predictions.id[place]]
        assert predictions.fold[place] == row["fold"]
        expected = [float(row[f"prob_{name}"]) for name in predictions.classes]
        np.testing.assert_allclose(predictions.prob[place], expected, atol=1e-4)
    assert noisy["metrics"]["rmse_valence"] != clean["metrics"]["rmse_valence"]
    table_rows = [line.split()[:2] for line in printed.splitlines() if line.startswith("table  ")]
    assert table_rows[:3] == [["table", "clean"], ["table", "noise:0"], ["table", "telephone"]]


def test_a_bundle_knows_its_study(trained: tuple[Path, Path], cache_dir: str, tmp_path: Path, capsys):
    corpus, workdir = trained
    bundle = export_bundle(str(workdir), str(tmp_path / "bundle"), runs=("final",)).folder
    with (bundle / "utterances.csv").open(newline="") as file:
        assert {row["speaker"] for row in csv.DictReader(file)} == {"s0", "s1", "s2", "s3"}
    given = ["--model", str(bundle), *options_of(corpus, cache_dir, "--config.labels=1..5")]
    assert main(given) == 1
    assert "error: table: 12 of 12 utterances are of speakers, or have audio, that every run" in capsys.readouterr().err
    assert main([*given, "--allow-seen"]) == 0
    printed = capsys.readouterr().out
    assert "optimistic: 12 of 12 utterances" in printed and "\ntable (optimistic)  clean" in printed
    (tmp_path / "new").mkdir()
    table(tmp_path / "new", seed=100)
    assert main(["--model", str(bundle), *options_of(tmp_path / "new" / "corpus.csv", cache_dir)]) == 0
    assert "no audio of the corpus" in capsys.readouterr().out
    (bundle / "utterances.csv").unlink()
    assert main(given) == 1
    assert "does not know on which speakers" in capsys.readouterr().err


def test_several_corpora_and_a_published_model(tmp_path: Path, cache_dir: str, capsys: pytest.CaptureFixture[str]):
    """The tiny classifier's classes are neu, hap, ang and sad; the corpora come in four classes."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        table(tmp_path / name, seed=len(name))
    sources = f"('one=table/1..5:{tmp_path}/one/corpus.csv', 'two=table/1..5:{tmp_path}/two/corpus.csv')"
    model = str(GOLDEN_SSL / "wavlm-classifier")
    more = [f"--config.corpora={sources}", "--config.labels=four", "--out", str(tmp_path / "out")]
    assert main(["--model", model, *options_of(Path(), cache_dir, *more)]) == 0
    printed = capsys.readouterr().out
    assert "  classes of the model and of the corpus: ang = angry" in printed
    tree = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [found["corpus"]["name"] for found in tree["corpora"]] == ["one", "two"]
    for found in tree["corpora"]:
        assert found["corpus"]["utterances"] == 6 and found["classes"]["shared"] == ["angry", "sad"]
        rows = Predictions.read(str(tmp_path / "out" / found["corpus"]["name"] / "predictions.csv"))
        assert rows.classes == ("angry", "sad") and set(rows.setting.tolist()) == {"clean"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config.corpsu=x"], "config has no option"),
        (["--corrupt", "hiss:3"], "the corruption is 'hiss:3', expected one of noise"),
        (["--corrupt", "noise:5,noise:5.0"], "--corrupt is noise:5,noise:5.0, expected each corruption once"),
        (["--scale", "7..1"], "--scale is '7..1', expected the least and the greatest value"),
        (["--setting", "a"], "--setting is of a workdir"),
        (["more"], "'more' is not an option"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    words: list[str], said: str, tmp_path: Path, cache_dir: str, capsys: pytest.CaptureFixture[str]
):
    table(tmp_path)
    given = options_of(tmp_path / "corpus.csv", cache_dir, "--config.labels=1..5", *words)
    assert main(["--model", str(GOLDEN_SSL / "wavlm-classifier"), *given]) == 1
    printed = capsys.readouterr()
    assert said in printed.err and len(printed.err.splitlines()) == 1 and not printed.out
