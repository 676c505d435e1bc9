"""The registry of corpora. Adding a corpus is one file with its reader and its label schemes, and one row here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sejax.corpora.readers.audformat import read_audformat
from sejax.corpora.readers.audio_folder import prepare_audio_folder, read_audio_folder
from sejax.corpora.readers.emodb import read_emodb
from sejax.corpora.readers.iemocap import read_iemocap, read_synthetic
from sejax.corpora.readers.table import read_table
from sejax.corpora.schema import Corpus
from sejax.corpora.spelling import unify
from sejax.corpora.synthetic.write import prepare_synthetic
from sejax.errors import InputError


@dataclass(frozen=True)
class CorpusReader:
    """One corpus that can be named in a config.

    Args:
      read: reads `data_dir` under the option `labels`.
      data_dir: what `data_dir` is, for messages.
      words: the label scheme with a class for each word of the corpus, which common classes are made of.
      prepare: writes a corpus that is generated or unpacked, and returns its folder. It is called with `data_dir`,
        `cache_dir`, the corpus's own section of the config (empty without one) and the number of worker processes.
    """

    read: Callable[[str, str], Corpus]
    data_dir: str
    words: str = "default"
    prepare: Callable[[str, str, Mapping[str, Any], int | None], str] | None = None


CORPORA: Mapping[str, CorpusReader] = {
    "emodb": CorpusReader(read_emodb, "emodb.zip or its unpacked folder"),
    "iemocap": CorpusReader(read_iemocap, "the folder IEMOCAP_full_release, or the one that holds it", "words"),
    "synthetic": CorpusReader(
        read_synthetic, "the folder that write_synthetic has written", "words", prepare=prepare_synthetic
    ),
    "table": CorpusReader(read_table, "a CSV file"),
    "audformat": CorpusReader(read_audformat, "the folder of a database with its db.yaml"),
    "audio_folder": CorpusReader(
        read_audio_folder, "a folder of audio files with metadata.csv, .jsonl or .parquet", prepare=prepare_audio_folder
    ),
}


def read_corpus(name: str, data_dir: str, *, labels: str = "default") -> Corpus:
    """Reads the corpus called `name` at `data_dir`.

    Args:
      name: a key of `CORPORA`.
      data_dir: the place of the corpus on disk: see `CorpusReader.data_dir`.
      labels: a label scheme of the corpus; for a table the scale of valence, arousal and dominance, such as `1..7`;
        for a folder also its names of columns (see `parse_options`); for a database in audformat a kind of its labels.

    Raises:
      InputError: `name` is unknown, `data_dir` is empty, a word has two spellings (see `unify`), no utterance has
        usable audio, or the reader's own errors.
    """
    if name not in CORPORA:
        raise InputError(f"config.corpus is {name!r}, expected one of {', '.join(CORPORA)}")
    if not data_dir:
        raise InputError(f"config.data_dir is '', expected {CORPORA[name].data_dir}: the corpus {name} needs data_dir")
    try:
        corpus = unify(CORPORA[name].read(data_dir, labels))
    except OSError as error:  # such as a folder that may not be listed
        raise InputError(f"{error.filename or data_dir} cannot be read ({error.strerror})") from error
    corpus.require_usable(max_bad_fraction=1.0)
    return corpus
