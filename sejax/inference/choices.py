"""The words that options of commands take, which `--help` shows without loading anything else."""

from sejax.corpora.schema import DIMENSIONS

TABLES = ("csv", "jsonl")
"""The formats of tables of records: `sejax.inference.output`."""

CHECKPOINTS = ("auto", "embed", "reference")
"""What becomes of pretrained checkpoints in a bundle; "auto" embeds those that are no hub id."""

EXPLAINED = ("class", *DIMENSIONS)
"""The outputs that `--explain` names: `sejax.evaluation.explanation`."""
