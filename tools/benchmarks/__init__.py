"""The benchmarks of `tools/bench.py`: a module per subcommand, with `add_arguments`, `run` and `show`."""
