"""Disturbs sejax in every way that its users meet, and counts what held.

    python tools/drill.py kill --kills 200
    python tools/drill.py jobs --cases 20
    python tools/drill.py damage
    python tools/drill.py fuzz --cases 200000
    python tools/drill.py options --runs 30
    python tools/drill.py odd
    python tools/drill.py serve

Each subcommand is a module of `tools/drills`, whose docstring says what holds. It prints what was tried, what held and
what failed, each failure with the command that tries it again. The exit status is 1 if anything failed. `--help` after
a subcommand shows its options; `--out FILE.json` keeps the result.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tools.drills import damage, fuzz, jobs, kill, odd, options, serve
from tools.drills.tally import circumstances, show

DRILLS = {"kill": kill, "jobs": jobs, "damage": damage, "fuzz": fuzz, "options": options, "odd": odd, "serve": serve}


def main(words: Sequence[str] | None = None) -> int:
    """Runs a drill and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="drill", required=True)
    for name, drill in DRILLS.items():
        command = commands.add_parser(name, description=drill.__doc__)
        drill.add_arguments(command)
        command.add_argument("--out", type=Path, help="JSON file for the result")
        command.add_argument("--folder", type=Path, help="keeps corpus, cache and reference for the next drill")
    arguments = parser.parse_args(words)
    # A shell that starts this in the background ignores Ctrl-C for it and for what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="drill-") as scratch:
        tally = DRILLS[arguments.drill].run(arguments, (arguments.folder or Path(scratch)).absolute(), Path(scratch))
    words = list(sys.argv[1:] if words is None else words)
    result = {
        "drill": arguments.drill,
        "options": words,
        "seconds": round(time.monotonic() - began, 1),
        **tally.result(),
        **circumstances(),
    }
    show(result)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
