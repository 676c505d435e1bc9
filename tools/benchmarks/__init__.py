"""What `tools/bench.py` measures, a module for each subcommand: `add_arguments`, `run` and `show`."""
