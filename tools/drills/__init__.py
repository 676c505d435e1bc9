"""The drills of `tools/drill.py`: a module per subcommand, with `add_arguments` and `run`."""
