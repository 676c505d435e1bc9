"""predictions.csv: its bytes, its errors, its rows."""

import numpy as np
import pytest
from fabricated import study
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sejax.errors import InputError
from sejax.evaluation.predictions import Predictions


def test_the_file_as_it_is_laid_out(tmp_path):
    path = str(tmp_path / "predictions.csv")
    Predictions(
        classes=("angry", "happy"),
        run=np.array([0, 1]),
        fold=np.array(["a", "b"]),
        seed=np.array([0, 1]),
        setting=np.array(["alpha=0.5", "alpha=0.5, joint"]),
        split=np.array(["val", "test"]),
        id=np.array(["u1", "u2"]),
        speaker=np.array(["a", "b"]),
        label=np.array([1, -1]),
        prob=np.array([[0.25, 0.75], [1e-12, 1 / 3]], np.float32),
        vad=np.array([[2.5, np.nan, 3.0], [np.nan] * 3]),
        pred_vad=np.array([[2.123456789, 3.0, -0.5], [np.nan] * 3]),
    ).write(path)
    with open(path, encoding="utf-8") as file:
        assert file.read() == (
            "run,fold,seed,setting,split,id,speaker,label,prob_angry,prob_happy,valence,arousal,dominance,"
            "pred_valence,pred_arousal,pred_dominance\n"
            "0,a,0,alpha=0.5,val,u1,a,happy,0.25,0.75,2.5,,3,2.12346,3,-0.5\n"
            '1,b,1,"alpha=0.5, joint",test,u2,b,,1e-12,0.333333,,,,,,\n'
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
        split=np.array(data.draw(st.lists(st.sampled_from(["val", "test"]), min_size=n, max_size=n)), dtype=str),
        id=text(),
        speaker=text(),
        label=data.draw(hnp.arrays(np.int64, n, elements=st.integers(-1, len(classes) - 1))),
        prob=block(len(classes)),
        vad=block(3),
        pred_vad=block(3),
    )
    folder = tmp_path_factory.mktemp("round_trip")
    first, second = str(folder / "first.csv"), str(folder / "second.csv")
    predictions.write(first)
    read = Predictions.read(first, split=None)
    read.write(second)
    with open(first, "rb") as one, open(second, "rb") as other:
        assert one.read() == other.read()
    assert read.classes == predictions.classes
    for name in ("run", "fold", "seed", "setting", "split", "id", "speaker", "label"):
        assert getattr(read, name).tolist() == getattr(predictions, name).tolist()
    for name in ("prob", "vad", "pred_vad"):
        np.testing.assert_allclose(getattr(read, name), getattr(predictions, name), rtol=6e-6)


BROKEN = {
    "missing": (None, "No such file"),
    "empty": ("", "is empty"),
    "no table": ("hello\n", "has the columns hello, expected"),
    "column missing": (
        "run,fold,seed,setting,split,id,speaker,label,prob_a,valence,arousal,dominance,pred_valence,pred_arousal\n",
        "pred_dominance",
    ),
    "short line": ("{header}\n0,f,0,s,test,u,p\n", "has 7 fields in line 2, expected 15"),
    "word for a number": ("{header}\n0,f,0,s,test,u,p,a,x,1,1,1,1,1,1\n", "'x' as prob_a in line 2.*a number"),
    "no whole number": ("{header}\n0.5,f,0,s,test,u,p,a,1,1,1,1,1,1,1\n", "'0.5' as run in line 2"),
    "unknown label": ("{header}\n0,f,0,s,test,u,p,z,1,1,1,1,1,1,1\n", "'z' as label in line 2.*one of a"),
    "unknown split": ("{header}\n0,f,0,s,train,u,p,a,1,1,1,1,1,1,1\n", "'train' as split in line 2.*val or test"),
    "not text": (b"\xff\xfe", "cannot be read"),
}


@pytest.mark.parametrize(("content", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "predictions.csv"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        header = (
            "run,fold,seed,setting,split,id,speaker,label,prob_a,valence,arousal,dominance,"
            "pred_valence,pred_arousal,pred_dominance"
        )
        path.write_text(content.replace("{header}", header), encoding="utf-8")
    with pytest.raises(InputError, match=sentence):
        Predictions.read(str(path))


OLDER = (
    "run,fold,seed,setting,id,speaker,label,prob_a,valence,arousal,dominance,pred_valence,pred_arousal,pred_dominance\n"
    "0,f,0,s,u,p,a,1,1,1,1,1,1,1\n"
)


def test_a_file_of_an_older_version_has_test_rows_alone(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text(OLDER, encoding="utf-8")
    read = Predictions.read(str(path))
    assert (read.split.tolist(), read.id.tolist()) == (["test"], ["u"])
    assert not len(Predictions.read(str(path), split="val").id)
    path.write_text(OLDER + "0,f,0,s,u,p\n", encoding="utf-8")
    with pytest.raises(InputError, match="has 6 fields in line 3, expected 14"):
        Predictions.read(str(path))


def test_what_is_read_is_the_rows_of_test_unless_others_are_asked_for(tmp_path):
    predictions = study(n_speakers=3, per_speaker=2, validated=True)
    path = str(tmp_path / "predictions.csv")
    predictions.write(path)
    assert 0 < (predictions.split == "test").sum() < len(predictions.id)
    for split in ("test", "val"):
        assert Predictions.read(path, split=split).id.tolist() == predictions.id[predictions.split == split].tolist()
    assert Predictions.read(path).id.tolist() == Predictions.read(path, split="test").id.tolist()
    assert Predictions.read(path, split=None).split.tolist() == predictions.split.tolist()


def test_average_seeds_is_the_mean_over_seeds_of_each_test_utterance():
    keys = {
        "run": np.array([0, 0, 1, 1, 2, 2]),
        "fold": np.array(["a", "a", "b", "b", "a", "a"]),
        "seed": np.array([0, 0, 0, 0, 1, 1]),
        "setting": np.array(["s"] * 6),
        "split": np.array(["test"] * 6),
        "id": np.array(["u2", "u1", "u3", "u4", "u1", "u2"]),
        "speaker": np.array(["a", "a", "b", "b", "a", "a"]),
        "label": np.array([0, 1, 0, 1, 1, 0]),
    }
    prob = np.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.5, 0.5], [0.75, 0.25]])
    predictions = Predictions(
        classes=("x", "y"), prob=prob, vad=np.full((6, 3), 3.0), pred_vad=np.arange(18.0).reshape(6, 3), **keys
    )
    averaged = predictions.average_seeds()
    assert averaged.id.tolist() == ["u2", "u1", "u3", "u4"]
    assert averaged.label.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(averaged.prob, [[0.5, 0.5], [0.75, 0.25], [0.5, 0.5], [0.0, 1.0]])
    np.testing.assert_allclose(averaged.pred_vad[:2, 0], [(0 + 15) / 2, (3 + 12) / 2])


def test_rows_are_selected_and_grouped():
    predictions = study(n_speakers=3, per_speaker=2, seeds=(4, 2), settings=("b", "a"))
    groups = predictions.by("setting")
    assert list(groups) == ["b", "a"] and list(predictions.by("seed")) == [4, 2]
    for name, rows in groups.items():
        assert set(rows.setting.tolist()) == {name} and rows.classes == predictions.classes
        np.testing.assert_array_equal(rows.prob, predictions.prob[predictions.setting == name])
        np.testing.assert_array_equal(rows.vad, predictions.vad[predictions.setting == name])
    assert sum(len(rows.id) for rows in predictions.by("speaker").values()) == len(predictions.id)
    assert predictions.select(np.array([5, 1])).id.tolist() == predictions.id[[5, 1]].tolist()


def test_the_predicted_class_needs_all_probabilities():
    predictions = study(n_speakers=1, per_speaker=3, seeds=(0,), settings=("a",))
    predictions.prob[:] = [[0.2, 0.4, 0.4], [np.nan, 0.9, 0.1], [0.1, 0.2, 0.7]]
    assert predictions.predicted_class().tolist() == [1, -1, 2]
