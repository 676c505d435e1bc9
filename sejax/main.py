"""python -m sejax.main --config FILE[:ARG] --workdir DIR [--mode train|evaluate|data] [--config.OPTION=VALUE ...]"""

import os
import re
import signal
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import NoReturn

# XLA, TFDS and orbax log what concerns no user, such as a false alarm whenever a compiled program is read from
# the cache on a CPU; what does concern one is printed by sejax.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if __name__ == "__main__":
    # Until `main` listens, Ctrl-C ends a process that has done nothing yet, without a traceback of the imports.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from absl import app, flags, logging

from sejax.errors import InputError
from sejax.host import stopping
from sejax.host.disk import disk_problem
from sejax.host.output import discard_output
from sejax.host.progress import close_bars
from sejax.resolve.flag import EXPECTED, define_config, parse_flags

_CONFIG = define_config(flags.FLAGS)
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

_EXPECTED = f"{EXPECTED} and --workdir FOLDER"


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; a wrong option is one sentence, not a traceback."""
    try:
        positional = parse_flags(flags.FLAGS, argv, expected=_EXPECTED)
        if _MODE.value == "data" and _DISTRIBUTED.value:
            raise InputError("--distributed is given with --mode data, expected one process: nothing is computed")
        if _CONFIG.value.jobs == "ray" and _DISTRIBUTED.value:
            raise InputError(
                "--distributed is given with config.jobs=ray, expected one of them: processes that share the runs of a "
                "program, or jobs on a cluster that this process asks for"
            )
        if flags.FLAGS.workdir is None:
            if _MODE.value != "data":
                raise InputError(f"--workdir is missing, {_EXPECTED}")
            return positional
        if not flags.FLAGS.workdir.strip():
            raise InputError("--workdir is empty, expected a folder")
        flags.FLAGS.workdir = os.path.expanduser(flags.FLAGS.workdir)  # a shell leaves the ~ of --workdir=~/runs
        return positional
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
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
            devices.start(distributed=_DISTRIBUTED.value, used=_CONFIG.value.devices)
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
    saved, again = _newest(checkpoints), {kind: _newest(checkpoints / kind) for kind in ("refit", "final")}
    of_again = "".join(f" (of the {kind} runs {epoch})" for kind, epoch in again.items() if epoch)
    what = f"epoch {saved}{of_again} is saved in {workdir}" if saved else "no epoch is saved yet"
    return f"stopped: {what}, computed features are kept; the same command continues"


def _newest(checkpoints: Path) -> int:
    """Returns the newest epoch of any program in a folder of checkpoints, 0 if there is none."""
    places = ("", "program-*/", "fold-*/", "program-*/fold-*/")
    names = [folder.name for place in places for folder in checkpoints.glob(f"{place}[0-9]*")]
    return max((int(name) for name in names if re.fullmatch("[1-9][0-9]*", name)), default=0)


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
