"""The generator of the synthetic corpus: its turns, its voices, and how it is written."""
