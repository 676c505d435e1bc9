"""python -m sejax.main --config FILE[:ARG] --workdir DIR [--mode train|evaluate|data] [--config.OPTION=VALUE ...]"""

import inspect
import os
import re
import signal
import sys
import traceback
import warnings
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NoReturn

# XLA, TFDS and orbax log what concerns no user, such as a false alarm whenever a compiled program is read from
# the cache on a CPU; what does concern one is printed by sejax.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if __name__ == "__main__":
    # Until `main` listens, Ctrl-C ends a process that has done nothing yet, without a traceback of the imports.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from absl import app, flags, logging
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from sejax.errors import InputError, shown
from sejax.host import stopping
from sejax.host.disk import disk_problem
from sejax.host.output import discard_output
from sejax.host.progress import close_bars

_CONFIG = config_flags.DEFINE_config_file("config", None, "The study, for instance configs/demo.py.")
flags.DEFINE_string(
    "workdir", None, "Folder for checkpoints, predictions, metrics and the report; --mode data can do without."
)
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "data"],
    "train: train what is missing, then evaluate; evaluate: only that; data: show what a study would be trained on.",
)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "This is one of several processes of the study (README).")
flags.mark_flag_as_required("config")

# How ml_collections and absl say it, with more or fewer quotes.
_UNKNOWN_OPTION = re.compile(
    r"""\W*(?:Key )?\W*(\w+)(?:\W+does not exist.*?)?\W*(?:n?Did you mean \W*(\w+).*)?""", re.DOTALL
)
_OTHER_TYPE = re.compile(
    r"Could not override field '(\w+)' \(reference\)\. (.*) is of original type <class '([\w.]+)'> "
    r"and cannot be casted to type <class '([\w.]+)'>",
    re.DOTALL,
)
_OPTION_VALUE = re.compile(r"flag --config\.([\w.]+)=(.*)", re.DOTALL)
_OPTION = re.compile(r"--?(?:no)?config\.([^=]*)")
_CONFIG_FLAG = re.compile("--?config(=.*)?", re.DOTALL)
_MISSING_FLAG = re.compile(r"flag --(\w+)=None: .*")
_EXPECTED = "expected --config FILE[:ARGUMENT] and --workdir FOLDER"
_TYPES = {
    "int": "a whole number (int)",
    "float": "a number (float)",
    "bool": "True or False",
    "str": "text (str)",
    "tuple": "a tuple",
}


class _ConfigFile(flags.ArgumentParser):
    """The parser of --config: a file becomes the config that its `get_config` returns."""

    def parse(self, argument: str) -> ConfigDict:
        try:
            return load_config(argument)
        except InputError as error:
            raise flags.Error(str(error)) from error  # absl puts words before a ValueError


flags.FLAGS["config"].parser = _ConfigFile()


def load_config(argument: str) -> ConfigDict:
    """Returns the config of FILE or FILE:ARGUMENT, locked: what the file's `get_config` returns for the argument.

    Raises:
      InputError: the file cannot be read or run, or returns something else than a config.
    """
    file, colon, words = argument.partition(":")
    if not file.strip():
        raise InputError("--config is empty, expected FILE or FILE:ARGUMENT, for instance configs/demo.py")
    module = ModuleType("config_file")
    module.__file__ = file
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(Path(file).read_bytes(), file, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise InputError(_in_file(error, file)) from error
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise InputError(f"{file}: has no function get_config, expected one that returns a config (configs/demo.py)")
    arguments = [words] if colon else []
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError:
        expected = f"{file}, because its get_config takes no argument" if colon else f"{file}:ARGUMENT"
        raise InputError(f"--config is {argument}, expected {expected}") from None
    try:
        config = get_config(*arguments)
    except (Exception, SystemExit) as error:
        raise InputError(_in_file(error, file)) from error
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"{argument}: get_config returns {shown(config)}, expected the config of sejax.config.default_config"
        )
    # Options of the command line change a config, which a frozen one does not allow.
    return (config.as_configdict() if isinstance(config, FrozenConfigDict) else config).lock()


def _in_file(error: Exception | SystemExit, file: str) -> str:
    """Returns the sentence for an error that a config file raised."""
    if isinstance(error, InputError):
        return str(error)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines, problem = [error.lineno], error.msg
    elif isinstance(error, OSError) and not lines:
        return f"{file}: cannot be read ({error.strerror}), expected a Python file with a function get_config"
    elif isinstance(error, SystemExit):
        problem = "calls sys.exit, expected a file whose function get_config returns a config"
    else:
        problem = _of_option(error) or "".join(traceback.format_exception_only(error)).strip()
    return f"{file}{f', line {lines[-1]}' if lines else ''}: {problem}"


def _of_option(error: Exception) -> str:
    """Returns the sentence for an option that does not exist or has another type; empty for other errors."""
    if isinstance(error, TypeError) and (found := _OTHER_TYPE.fullmatch(str(error))):
        option, value, kind, expected = found.groups()
        return f"the option {option!r} is {value} ({kind}), expected {_TYPES.get(expected, 'a group of options')}"
    is_unknown = isinstance(error, AttributeError | KeyError) and re.search("does not exist|Did you mean", str(error))
    if is_unknown and (found := _UNKNOWN_OPTION.fullmatch(str(error))):
        return f"the config has no option {found[1]!r}{f', did you mean {found[2]!r}?' if found[2] else ''}"
    return ""


def _of_flag(error: Exception, argv: list[str]) -> str:
    """Returns the sentence for a wrong flag."""
    from sejax.config import CHECKS, OPTIONS, at, default_config, unknown_option

    problem = str(error)
    if missing := _MISSING_FLAG.fullmatch(problem):
        return f"--{missing[1]} is missing, {_EXPECTED}"
    if found := _OPTION_VALUE.fullmatch(problem):
        option, value = found[1], shown(found[2].removesuffix(f": {error.__context__}"))
        if option in CHECKS:
            example = f"--config.{option}={at(default_config(), option)}"
            return f"config.{option} is {value}, expected {CHECKS[option].expected}, for instance {example}"
        return f"config.{option} is {value}, expected its options one by one, --config.{option}.NAME=VALUE"
    options = (match[1] for match in map(_OPTION.match, argv) if match)
    unknown = [option for option in options if option not in OPTIONS]
    return problem if isinstance(error, flags.Error) or not unknown else unknown_option(unknown[0])


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; a wrong option is one sentence, not a traceback."""
    try:
        if sum(bool(_CONFIG_FLAG.fullmatch(word)) for word in argv) > 1:
            raise flags.Error(
                "--config is given more than once, expected one file; its options are changed by --config.OPTION=VALUE"
            )
        positional = flags.FLAGS(argv)
        if _MODE.value == "data" and _DISTRIBUTED.value:
            raise flags.Error("--distributed is given with --mode data, expected one process: nothing is computed")
        if flags.FLAGS.workdir is None:
            if _MODE.value != "data":
                raise flags.Error(f"--workdir is missing, {_EXPECTED}")
            return positional
        if not flags.FLAGS.workdir.strip():
            raise flags.Error("--workdir is empty, expected a folder")
        flags.FLAGS.workdir = os.path.expanduser(flags.FLAGS.workdir)  # a shell leaves the ~ of --workdir=~/runs
        return positional
    except (flags.Error, AttributeError, TypeError, ValueError, LookupError, OSError) as error:
        problem = _of_flag(error, argv)
    print(f"error: {' '.join(problem.split())}", file=sys.stderr)
    sys.exit(2)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        print(f"error: {argv[1]!r} is not an option; expected --config, --workdir, --mode", file=sys.stderr)
        sys.exit(2)
    # orbax logs an error with its traceback, and then raises it: Ctrl-C too. jax warns of compiled programs that a
    # full disk does not take: it compiles them again.
    logging.set_verbosity(logging.FATAL)
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
    workdir = flags.FLAGS.workdir
    # Of several processes jax itself takes SIGTERM.
    last_words = partial(_last_words, None if _MODE.value == "data" else workdir)
    if not _DISTRIBUTED.value:
        stopping.listen(last_words)
    try:
        # jax takes its devices only after the options are known to be right.
        from sejax.engine import checkpoint, devices
        from sejax.study import show_data, train_and_evaluate

        if _MODE.value == "data":
            show_data(_CONFIG.value, workdir)
        else:
            checkpoint.hide_late_complaints()
            devices.start(distributed=_DISTRIBUTED.value)
            train_and_evaluate(_CONFIG.value, workdir, train=_MODE.value == "train")
        sys.stdout.flush()
    except InputError as error:
        _end(str(error))
    except KeyboardInterrupt:
        stopping.end(signal.SIGINT, last_words())
    except stopping.Terminated:
        stopping.end(signal.SIGTERM, last_words())
    except BrokenPipeError:
        discard_output()
        _end(f"standard output is closed, expected a reader that stays to the end; {last_words()}")
    except Exception as error:
        if not (problem := disk_problem(error)):
            raise
        if isinstance(error, OSError) and not error.filename:  # as that of standard output is
            discard_output()
        _end(f"{problem}, expected a disk that takes and gives files; {last_words()}")


def _end(problem: str) -> NoReturn:
    """Prints the sentence on a line of its own, and ends the process."""
    close_bars()
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(1)


def _last_words(workdir: str | None) -> str:
    """Returns the line of a process that ends early: what is saved, and how to continue.

    Args:
      workdir: of the study; None while only data is shown.
    """
    if workdir is None:
        return "stopped: the data is not shown; the same command begins again"
    checkpoints = Path(workdir, "checkpoints")
    saved, final = _newest(checkpoints), _newest(checkpoints / "final")
    of_final = f" (of the final runs {final})" if final else ""
    what = f"epoch {saved}{of_final} is saved in {workdir}" if saved else "no epoch is saved yet"
    return f"stopped: {what}, computed features are kept; the same command continues"


def _newest(checkpoints: Path) -> int:
    """Returns the newest epoch of any program in a folder of checkpoints, 0 if there is none."""
    folders = (*checkpoints.glob("[0-9]*"), *checkpoints.glob("program-*/[0-9]*"))
    return max((int(folder.name) for folder in folders if re.fullmatch("[1-9][0-9]*", folder.name)), default=0)


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
