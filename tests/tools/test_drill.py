"""The drill in short: a few cases of each subcommand hold, and what does not hold is found and told."""

import json
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from sejax.errors import InputError
from tools import drill
from tools.drills import fuzz
from tools.drills.damage import damages
from tools.drills.mutations import mutate_bytes, mutate_json, mutate_text
from tools.drills.odd import odd_corpora
from tools.drills.parsers import PARSERS, Parser
from tools.drills.study import Finished, Reference, complaint
from tools.drills.tally import Failure, Tally

TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\nValueError: x\n'


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that keeps corpus, cache and undisturbed study for all drills of this module."""
    return tmp_path_factory.mktemp("drill") / "reference"


@pytest.mark.parametrize(
    "words",
    [
        "kill --kills 1 --signals SIGKILL",
        "damage --case 'the newest checkpoint: _CHECKPOINT_METADATA is gone, train'",
        "odd --case 'small corpora: two speakers'",
        "options --checks 300 --runs 0",
        "serve --cases 60",
        "fuzz --cases 600 --parsers iemocap history --seed 1",
    ],
    ids=lambda words: words.split()[0],
)
def test_a_short_drill_holds_and_is_written_down(words: str, reference: Path, tmp_path: Path):
    out = tmp_path / "result.json"
    parts = [part.strip() for part in words.split("'")]  # a name of a case stands between quotes
    arguments = [*parts[0].split(), *parts[1:2]]
    status = drill.main([*arguments, "--jobs", "1", "--folder", str(reference), "--out", str(out)])
    result = json.loads(out.read_text())
    assert status == 0, result["failures"]
    assert result["tried"] == result["held"] > 0
    assert result["drill"] == words.split()[0]
    assert result["failures"] == []
    assert {"date", "cpu", "cores", "versions", "git", "seconds", "options"} <= set(result)


def test_what_does_not_hold_is_told_and_is_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def run(*_: object) -> Tally:
        tally = Tally()
        tally.add("good", tries=3)
        tally.add("bad", Failure("a study differs", "python tools/drill.py odd --case x", ["its last line"]))
        return tally

    broken = SimpleNamespace(__doc__="", add_arguments=lambda parser: None, run=run)
    monkeypatch.setitem(drill.DRILLS, "odd", broken)
    assert drill.main(["odd", "--out", str(tmp_path / "result.json")]) == 1
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["tried"], result["held"], result["failed"]) == (4, 3, 1)
    assert result["kinds"]["bad"] == {"tried": 1, "held": 0}
    printed = capsys.readouterr()
    assert "tried 4, held 3, failed 1" in printed.out
    for text in ("a study differs", "--case x", "its last line"):
        assert text in printed.err


@pytest.mark.parametrize(
    ("status", "out", "err", "expected"),
    [
        (0, "report: x\n", "", ""),
        (1, "", "error: config.x is 0, expected 1\n", ""),
        (1, "", "note: a file is clipped\nerror: config.x is 0, expected 1\n", ""),
        (1, "", TRACEBACK, "traceback"),
        (0, "", TRACEBACK, "traceback"),
        (1, "", "", "0 sentences"),
        (1, "", "error: a\nerror: b\n", "2 sentences"),
        (1, "", "warning: x\n" * 40 + "error: a\n", "41 lines"),
        (0, "", "error: a\n", "status 0"),
        (-11, "", "", "signal 11"),
        (None, "", "", "hangs"),
        (3, "", "error: a\n", "status 3"),
    ],
)
def test_only_results_and_one_sentence_are_good_ends(status: int | None, out: str, err: str, expected: str):
    found = complaint(Finished(status, out, err, 1.0))
    assert expected in found
    assert bool(found) == bool(expected)


class Broken(Parser):
    """Refuses well, refuses badly, fails, and returns what is insane, in turn."""

    share = 0.0

    def attempt(self, random: Random) -> str:
        draw = random.randrange(4)
        if draw == 0:
            raise InputError("x is 0, expected 1")
        if draw == 1:
            raise InputError(" ")
        if draw == 2:
            raise KeyError("x")
        return "insane"


def test_a_parser_holds_only_with_one_sentence_or_a_sane_result(tmp_path: Path):
    parser = Broken(tmp_path)
    found = [fuzz.try_case(parser, "broken", number) for number in range(100)]
    problems = {problem[0].split(":")[0] for problem in found if problem}
    assert problems == {"the refusal says nothing", "KeyError", "insane"}
    assert 10 < found.count(None) < 50
    assert found == [fuzz.try_case(parser, "broken", number) for number in range(100)]


def test_shares_of_the_parsers_are_a_whole():
    assert sum(parser.share for parser in PARSERS.values()) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(20))
def test_mutations_change_the_input_and_can_be_repeated(seed: int):
    healthy = b'{"a": [1, 2, {"b": null}], "c": "text"}' * 1
    for mutate in (mutate_bytes, mutate_json, lambda random, content: mutate_text(random, content.decode())):
        changed = [mutate(Random(f"{seed}:{n}"), healthy) for n in range(20)]
        assert changed == [mutate(Random(f"{seed}:{n}"), healthy) for n in range(20)]
        assert len(set(changed) - {healthy}) > 10


def test_cases_have_names_of_their_own(tmp_path: Path):
    for epoch in (5, 6):
        for name in ("_METADATA", "d/0123456789abcdef0123", "d/fedcba9876543210fedc"):
            path = tmp_path / "workdir" / "checkpoints" / str(epoch) / "default" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    for name in ("acoustic_features/table_mfcc_00/1.0.0/features.json", "xla/jit_a-cache"):
        path = tmp_path / "cache" / name
        path.parent.mkdir(parents=True)
        path.write_text(name)
    names = [case.name for case in (*damages(Reference(tmp_path, 1.0)), *odd_corpora())]
    assert len(names) > 600
    assert len(set(names)) == len(names)
    assert not any("0123456789abcdef" in name for name in names)
