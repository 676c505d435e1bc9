"""Measures speed and memory as ratios between sides that run in turn on one machine.

    python tools/bench.py train --torch-python PYTHON --out FILE.json
    python tools/bench.py probe --torch-python PYTHON --out FILE.json
    python tools/bench.py growth --out FILE.json
    python tools/bench.py compile --out FILE.json
    python tools/bench.py corpus --out FILE.json
    python tools/bench.py features --pyaudioanalysis-python PYTHON --out FILE.json
    python tools/bench.py ssl --torch-python PYTHON --out FILE.json
    python tools/bench.py whisper --torch-python PYTHON --out FILE.json
    python tools/bench.py predict --model BUNDLE --audio FOLDER --out FILE.json
    python tools/bench.py weighting --tasks 4 --gradients-at parameters --out FILE.json
    python tools/bench.py recurrence --out FILE.json
    python tools/bench.py plan --out FILE.json

Each subcommand is a module of `tools/benchmarks`, whose docstring describes the measurement. `--help` after a
subcommand shows its options.
"""

import argparse
import datetime
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tools.benchmarks import (
    compile,
    corpus,
    features,
    growth,
    plan,
    predict,
    probe,
    recurrence,
    sides,
    ssl,
    train,
    weighting,
    whisper,
)

WITH_SIDES = {"train": train, "compile": compile, "probe": probe, "features": features, "ssl": ssl, "whisper": whisper}
BENCHMARKS = {
    **WITH_SIDES,
    "corpus": corpus,
    "growth": growth,
    "predict": predict,
    "weighting": weighting,
    "recurrence": recurrence,
    "plan": plan,
}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, benchmark in BENCHMARKS.items():
        command = commands.add_parser(name, description=benchmark.__doc__)
        benchmark.add_arguments(command)
        command.add_argument("--out", type=Path, help="JSON file for the result")
    serve = commands.add_parser("serve", help="one side of a comparison (started by the other commands)")
    serve.add_argument("benchmark", choices=WITH_SIDES)
    serve.add_argument("side")
    serve.add_argument("options", type=json.loads)
    arguments = parser.parse_args(words)
    if arguments.command == "serve":
        sides.serve(WITH_SIDES[arguments.benchmark].side(arguments.side, arguments.options))
        return
    benchmark = BENCHMARKS[arguments.command]
    result = {
        "what": arguments.command,
        **benchmark.run(arguments),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    benchmark.show(result)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
