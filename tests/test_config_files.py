"""A user's own config file: what is wrong with it, and in which line."""

from pathlib import Path

import pytest
from tiny_study import ROOT

from sejax.config import default_config
from sejax.errors import InputError
from sejax.resolve.flag import load_config

HEAD = "from sejax.config import default_config\ndef get_config(*words):\n    config = default_config()\n"


def _problem(argument: str) -> str:
    with pytest.raises(InputError) as refused:
        load_config(argument)
    sentence = str(refused.value)
    assert "\n" not in sentence.strip() and "Traceback" not in sentence
    return sentence.strip()


def test_a_config_is_locked_and_takes_its_argument(tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_text(f"{HEAD}    config.labels, = words\n    config.streams = ['mel']\n    return config\n")
    config = load_config(f"{file}:a:b")
    assert (config.labels, config.streams, config.is_locked) == ("a:b", ("mel",), True)


def test_a_frozen_config_is_taken_as_any_other(tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_text(f"{HEAD}    from ml_collections import FrozenConfigDict\n    return FrozenConfigDict(config)\n")
    config = load_config(str(file))
    assert config == default_config()
    config.epochs = 3  # as --config.epochs=3 does
    assert config.is_locked


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("config.epoch = 3", "the config has no option 'epoch', did you mean 'epochs'?"),
        ("config['epoch'] = 3", "the config has no option 'epoch', did you mean 'epochs'?"),
        ("config.model.encoder.mfc = 'lstm'", "the config has no option 'mfc', did you mean 'mfcc'?"),
        ("config.epochs = 3.5", "the option 'epochs' is 3.5 (float), expected a whole number (int)"),
        ("config.epochs = '3'", "the option 'epochs' is 3 (str), expected a whole number (int)"),
        ("config.streams = 'mfcc'", "the option 'streams' is mfcc (str), expected a tuple"),
        ("config.tensorboard = 'yes'", "the option 'tensorboard' is yes (str), expected True or False"),
        ("config.model = 3", "the option 'model' is 3 (int), expected a group of options"),
        (
            "import numpy; config.epochs = numpy.int64(3)",
            "the option 'epochs' is 3 (numpy.int64), expected a whole number (int)",
        ),
        ("config.alpha = 10**400", "OverflowError: int too large to convert to float"),
        ("{}['x']", "KeyError: 'x'"),
        ("unknown", "NameError: name 'unknown' is not defined"),
        ("raise ValueError('no such corpus')", "ValueError: no such corpus"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("exit(0)", "calls sys.exit, expected a file whose function get_config returns a config"),
        ("open('/nowhere/x')", "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/x'"),
    ],
)
def test_an_error_in_a_config_file_names_file_and_line(tmp_path: Path, line: str, problem: str):
    file = tmp_path / "mine.py"
    file.write_text(f"{HEAD}    {line}\n    return config\n")
    assert _problem(str(file)) == f"{file}, line 4: {problem}"


@pytest.mark.parametrize(
    ("content", "argument", "sentence"),
    [
        ("def f(:\n", "", "{file}, line 1: invalid syntax"),
        ("def get_config():\n  x = 1\n    y = 2\n", "", "{file}, line 3: unexpected indent"),
        ("raise SystemExit\n", "", "{file}, line 1: calls sys.exit, expected a file whose function get_config"),
        ("1 / 0\n", "", "{file}, line 1: ZeroDivisionError: division by zero"),
        ("x = 1\n", "", "{file}: has no function get_config, expected one that returns a config (configs/demo.py)"),
        ("get_config = 3\n", "", "{file}: has no function get_config, expected one that returns a config"),
        ("def get_config(): pass\n", "", "{file}: get_config returns None, expected the config of sejax.config."),
        ("def get_config(): return {}\n", "", "{file}: get_config returns {{}}, expected the config of sejax.config"),
        (
            "def get_config(): pass\n",
            ":words",
            "--config is {file}:words, expected {file}, because its get_config takes no argument",
        ),
        ("def get_config(words): pass\n", "", "--config is {file}, expected {file}:ARGUMENT"),
        (
            "from sejax.errors import InputError\ndef get_config(): raise InputError('this file has no streams')\n",
            "",
            "this file has no streams",
        ),
    ],
)
def test_files_that_are_no_configs(tmp_path: Path, content: str, argument: str, sentence: str):
    file = tmp_path / "mine.py"
    file.write_text(content)
    assert _problem(f"{file}{argument}").startswith(sentence.format(file=file))


def test_files_that_cannot_be_read(tmp_path: Path):
    expected = "expected a Python file with a function get_config"
    assert (
        _problem(str(tmp_path / "no.py")) == f"{tmp_path}/no.py: cannot be read (No such file or directory), {expected}"
    )
    assert _problem(str(tmp_path)) == f"{tmp_path}: cannot be read (Is a directory), {expected}"
    for empty in ("", " ", ":words"):
        assert _problem(empty) == "--config is empty, expected FILE or FILE:ARGUMENT, for instance configs/demo.py"


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("configs/joint.py:emodb,foo", "configs/joint.py:emodb,foo has 'foo', expected a corpus (aesdd, audformat, "),
        ("configs/joint.py:emodb,iemocap", "configs/joint.py:emodb,iemocap names 2 corpora, expected one"),
        ("configs/probe.py:mfcc", "configs/probe.py:mfcc has 'mfcc', expected a corpus (aesdd, audformat, "),
        ("configs/demo.py:x", "--config is configs/demo.py:x, expected configs/demo.py, because its get_config takes"),
    ],
)
def test_configs_refuse_their_argument_with_their_own_sentence(
    monkeypatch: pytest.MonkeyPatch, argument: str, sentence: str
):
    monkeypatch.chdir(ROOT)
    assert _problem(argument).startswith(sentence)
