"""The log of a training: history.jsonl, the progress bar and the scalars."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from sejax.engine.tasks import TASKS
from sejax.workdir import logs
from sejax.workdir.logs import History, Progress


class Bar:
    """Keeps what the progress bar would show."""

    def __init__(self) -> None:
        self.text = ""

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        self.text = text

    def update(self) -> None:
        pass


@pytest.fixture
def bar(monkeypatch: pytest.MonkeyPatch) -> Bar:
    shown = Bar()
    monkeypatch.setattr(logs, "progress_bar", lambda *args, **kwargs: shown)
    return shown


@pytest.mark.parametrize(
    ("tasks", "vad_loss", "text"),
    [
        (("class", "vad"), "ccc", "class loss 1.000, VAD 1-CCC 2.000, val UA 0.500"),
        (("class", "vad"), "mse", "class loss 1.000, VAD MSE 2.000, val UA 0.500"),
        (
            ("class", "valence", "arousal", "dominance"),
            "mae",
            "class loss 1.000, valence MAE 2.000, arousal MAE 3.000, dominance MAE 4.000, val UA 0.500",
        ),
    ],
)
def test_the_bar_shows_the_loss_of_every_task_by_its_name(bar: Bar, tasks: tuple[str, ...], vad_loss: str, text: str):
    progress = Progress(TASKS[tasks], vad_loss=vad_loss, epochs=3, done=0, runs=2)
    row = {f"loss_{name}": number for number, name in enumerate(tasks, 1)} | {"val_ua": 0.5, "score": 0.5}
    progress.update([row, row])
    assert bar.text == text


def test_the_bar_counts_diverged_runs_and_shows_the_means_of_the_others(bar: Bar):
    progress = Progress(TASKS["class", "vad"], vad_loss="ccc", epochs=3, done=0, runs=3)
    rows = [{"loss_class": loss, "score": score} for loss, score in ((1.0, 0.5), (2.0, 0.5), (math.nan, math.nan))]
    progress.update(rows)
    assert bar.text == "class loss 1.500, 1 run diverged"
    progress.update(rows[2:])
    assert bar.text == "class loss nan, 1 run diverged"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_history_is_json(tmp_path: Path, value: float):
    row: dict[str, Any] = {"epoch": 1, "run": 0, "setting": "a", "loss_class": value, "score": 0.123456789}
    history = History(tmp_path / "history.jsonl", runs={0}, epoch=0)
    history.write([row])
    (line,) = (tmp_path / "history.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail) == {**row, "loss_class": None, "score": 0.123457}
