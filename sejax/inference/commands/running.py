"""How every command of inference runs: sentences instead of tracebacks, and an exit status."""

import os
import signal
import sys
from collections.abc import Callable

from sejax.errors import InputError
from sejax.host.disk import disk_problem
from sejax.host.output import discard_output
from sejax.host.progress import close_bars


def run(command: Callable[[], int], *, interrupted: str) -> int:
    """Runs a command and returns its exit status.

    Args:
      command: returns 0, or 1 if something could not be used.
      interrupted: what Ctrl-C leaves, a part of a sentence.
    """
    # jax sets 1, which commands that a process with jax starts inherit; XLA then logs what concerns no user.
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    try:
        status = command()
        sys.stdout.flush()
        return status
    except InputError as error:
        close_bars()
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        close_bars()
        print(f"error: interrupted, {interrupted}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # as of any command whose reader wants no more (`| head`)
        discard_output()
        return 128 + signal.SIGPIPE
    except Exception as error:  # safetensors has errors of its own for a full disk
        if not (problem := disk_problem(error)):
            raise
        close_bars()
        if isinstance(error, OSError) and not error.filename:
            discard_output()
            print(f"error: standard output cannot be written ({problem}), expected a disk with room", file=sys.stderr)
        else:
            print(f"error: a file cannot be written ({problem}), expected a disk with room", file=sys.stderr)
        return 1


def use_compilation_cache(folder: str = "~/.cache/sejax/xla") -> None:
    """Keeps compiled programs for later processes, by default where a study keeps them, unless jax has a place."""
    import jax

    if not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))
