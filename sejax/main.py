"""python -m sejax.main --config FILE[:ARG] --workdir DIR [--mode train|evaluate] [--config.OPTION=VALUE ...]"""

import os
import re
import signal
import sys
from functools import partial
from pathlib import Path

# XLA, TFDS and orbax log what concerns no user, such as a false alarm whenever a compiled program is read from
# the cache on a CPU; what does concern one is printed by sejax.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if __name__ == "__main__":
    # Until `main` listens, Ctrl-C ends a process that has done nothing yet, without a traceback of the imports.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from absl import app, flags, logging
from ml_collections import config_flags

from sejax.errors import InputError
from sejax.host import stopping
from sejax.host.disk import disk_problem

_CONFIG = config_flags.DEFINE_config_file("config", None, "The study, for instance configs/demo.py.")
flags.DEFINE_string("workdir", None, "Folder for checkpoints, predictions, metrics and the report.")
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate"],
    "train: train what is missing, then evaluate; evaluate: only that.",
)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "This is one of several processes of the study (README).")
# How ml_collections says it, with more or fewer quotes.
_UNKNOWN_OPTION = re.compile(
    r"""\W*(?:Key )?\W*(\w+)(?:\W+does not exist.*?)?\W*(?:n?Did you mean \W*(\w+).*)?""", re.DOTALL
)
flags.mark_flags_as_required(["config", "workdir"])


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; a wrong option is one sentence, not a traceback."""
    try:
        positional = flags.FLAGS(argv)
        dict(_CONFIG.value)  # a file that could not be loaded says so here
        return positional
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        problem = str(error)
        if unknown := _UNKNOWN_OPTION.fullmatch(problem):
            problem = f"the config has no option {unknown[1]!r}"
            problem += f", did you mean {unknown[2]!r}?" if unknown[2] else ""
    print(f"error: {' '.join(problem.split())}", file=sys.stderr)
    sys.exit(2)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        print(f"error: {argv[1]!r} is not an option; expected --config, --workdir, --mode", file=sys.stderr)
        sys.exit(2)
    logging.set_verbosity(logging.ERROR)
    workdir = flags.FLAGS.workdir
    # Of several processes jax itself takes SIGTERM.
    last_words = partial(_last_words, workdir)
    if not _DISTRIBUTED.value:
        stopping.listen(last_words)
    try:
        # jax takes its devices only after the options are known to be right.
        from sejax.engine import devices
        from sejax.study import train_and_evaluate

        devices.start(distributed=_DISTRIBUTED.value)
        train_and_evaluate(_CONFIG.value, workdir, train=_MODE.value == "train")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        stopping.end(signal.SIGINT, last_words())
    except stopping.Terminated:
        stopping.end(signal.SIGTERM, last_words())
    except Exception as error:
        if not (problem := disk_problem(error)):
            raise
        print(f"error: {problem}, expected a disk that takes and gives files; {last_words()}", file=sys.stderr)
        sys.exit(1)


def _last_words(workdir: str) -> str:
    """Returns the line of a process that ends early: what is saved, and how to continue."""
    checkpoints = Path(workdir, "checkpoints")
    folders = (*checkpoints.glob("[0-9]*"), *checkpoints.glob("program-*/[0-9]*"))
    saved = [int(folder.name) for folder in folders if folder.name.isdecimal()]
    what = f"epoch {max(saved)} is saved in {workdir}" if saved else "no epoch is saved yet"
    return f"stopped: {what}, computed features are kept; the same command continues"


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
