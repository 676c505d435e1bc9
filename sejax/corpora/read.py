"""Every corpus by its name."""

from sejax.corpora.emodb import read_emodb
from sejax.corpora.iemocap import read_iemocap
from sejax.corpora.schema import Corpus
from sejax.corpora.synthetic.write import is_synthetic, read_synthetic
from sejax.corpora.table import read_table
from sejax.errors import InputError

CORPORA = {
    "emodb": read_emodb,
    "iemocap": read_iemocap,
    "synthetic": read_synthetic,
    "table": read_table,
}


def read_corpus(name: str, data_dir: str, *, labels: str = "default") -> Corpus:
    """Reads the corpus called `name` (emodb, iemocap, synthetic or table) at `data_dir`.

    `data_dir` is IEMOCAP's release tree, EmoDB's zip archive or folder, a table's CSV file, or where
    `write_synthetic` has written. `labels` names one of the corpus's label schemes (`sejax.corpora.labels`);
    for a table it may give the scale of valence, arousal and dominance, such as `1..7`.

    Raises:
      InputError: no such corpus, no `data_dir`, or what the corpus's reader finds wrong, in one sentence.
    """
    if name not in CORPORA:
        raise InputError(f"unknown corpus {name!r}: there are {', '.join(sorted(CORPORA))}")
    if not data_dir:
        raise InputError(f"the corpus {name} needs data_dir, the place where it lies on disk")
    if name == "iemocap" and is_synthetic(data_dir):
        raise InputError(f"{data_dir!r} holds the synthetic corpus, not IEMOCAP: read it as the corpus synthetic")
    return CORPORA[name](data_dir, labels)
