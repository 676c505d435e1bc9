"""The reader of a user's own corpus: a CSV file with a row per utterance."""

import os

from sejax.corpora.described import COLUMNS, REQUIRED, VOTES, read_described
from sejax.corpora.rows import read_rows
from sejax.corpora.schema import Corpus
from sejax.corpora.vad_scale import parse_vad_scale
from sejax.errors import InputError


def read_table(data_dir: str, labels: str = "default") -> Corpus:
    """Reads the CSV file at `data_dir` (UTF-8, comma-separated, with the names of the columns in its first line).

    The columns `path` and `speaker` are required; the speaker may be `unknown`. Optional ones are `id` (default: the
    path without its extension, and the cut if there is one), `start` and `end` (seconds; they cut the utterance out of
    a longer file), `session`, `text` (an id, equal for equal words), `gender` (F or M), `label`, `votes:<class>` for
    any number of classes (the raters' votes for it, as number or share), `valence`, `arousal`, `dominance`, `fold`
    (fixes the folds) and `split` (train, val or test, or several tests: test1, test2, ...). Paths are relative to the
    folder of the CSV file. A blank cell is a missing value. `fold` and `split` must be filled in every row or in none.

    Which class a row has, which rows are left out and which are hidden: see `read_described`. A row whose `path` names
    no file is dropped. Each row that is not used has a sentence in `Corpus.dropped`.

    Args:
      data_dir: the CSV file.
      labels: no label scheme, because a table has none, but the VAD scale: see `parse_vad_scale`. With "default"
        the scale is the first of 1..5, 1..7, 0..1 and -1..1 that contains all values, and a note says so. Values
        outside a given scale are kept and counted in the notes.

    Raises:
      InputError: what `read_rows` and `read_described` refuse, with the file and the line.
    """
    scale = parse_vad_scale(labels)
    if not os.path.exists(data_dir):
        raise InputError(f"no table at {data_dir!r}: expected a CSV file with the columns path and speaker")
    rows = read_rows(data_dir, COLUMNS, REQUIRED, families=(VOTES,))
    folder = os.path.dirname(os.path.abspath(data_dir))
    return read_described(rows, folder, corpus="table", listing=data_dir, scale=scale)
