"""The registry of corpora. Adding a corpus is one file with its reader and its label schemes, and one row here."""

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sejax.corpora.common_classes import find_common, with_common_classes, without_empty_classes
from sejax.corpora.direction import wrong_directions
from sejax.corpora.readers.aesdd import read_aesdd
from sejax.corpora.readers.audformat import read_audformat
from sejax.corpora.readers.audio_folder import prepare_audio_folder, read_audio_folder
from sejax.corpora.readers.biic_podcast import read_biic_podcast
from sejax.corpora.readers.cafe import read_cafe
from sejax.corpora.readers.cremad import read_cremad
from sejax.corpora.readers.emodb import read_emodb
from sejax.corpora.readers.emovo import read_emovo
from sejax.corpora.readers.emozionalmente import read_emozionalmente
from sejax.corpora.readers.enterface import read_enterface
from sejax.corpora.readers.esd import read_esd
from sejax.corpora.readers.iemocap import IEMOCAP_SCHEMES, read_iemocap, read_synthetic
from sejax.corpora.readers.jl import read_jl
from sejax.corpora.readers.kemdy import read_kemdy19, read_kemdy20
from sejax.corpora.readers.meld import read_meld
from sejax.corpora.readers.mesd import read_mesd
from sejax.corpora.readers.msp_improv import read_msp_improv
from sejax.corpora.readers.msp_podcast import read_msp_podcast
from sejax.corpora.readers.quechua import read_quechua
from sejax.corpora.readers.ravdess import read_ravdess, read_ravdess_song
from sejax.corpora.readers.savee import read_savee
from sejax.corpora.readers.shemo import read_shemo
from sejax.corpora.readers.subesco import read_subesco
from sejax.corpora.readers.table import read_table
from sejax.corpora.readers.tess import read_tess
from sejax.corpora.readers.vam import read_vam
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
      schemes: the words for the option `labels`; a common scheme of that name is then not meant.
      words: the label scheme with a class for each word of the corpus, which common classes are made of.
      prepare: writes a corpus that is generated or unpacked, and returns its folder. It is called with `data_dir`,
        `cache_dir`, the corpus's own section of the config (empty without one) and the number of worker processes.
    """

    read: Callable[[str, str], Corpus]
    data_dir: str
    words: str = "default"
    schemes: Collection[str] = ("default",)
    prepare: Callable[[str, str, Mapping[str, Any], int | None], str] | None = None


CORPORA: Mapping[str, CorpusReader] = {
    "aesdd": CorpusReader(read_aesdd, "aesdd.zip or its unpacked folder"),
    "audformat": CorpusReader(read_audformat, "the folder of a database with its db.yaml"),
    "audio_folder": CorpusReader(
        read_audio_folder, "a folder of audio files with metadata.csv, .jsonl or .parquet", prepare=prepare_audio_folder
    ),
    "biic_podcast": CorpusReader(
        read_biic_podcast, "the folder with Labels and Audios", schemes=("default", "eight", "four", "soft")
    ),
    "cafe": CorpusReader(read_cafe, "cafe.zip or its unpacked folder"),
    "cremad": CorpusReader(read_cremad, "cremad.zip or its unpacked folder, which holds AudioWAV", "intended"),
    "emodb": CorpusReader(read_emodb, "emodb.zip or its unpacked folder"),
    "emovo": CorpusReader(read_emovo, "emovo.zip or its unpacked folder"),
    "emozionalmente": CorpusReader(read_emozionalmente, "the folder with audio and metadata"),
    "enterface": CorpusReader(read_enterface, "the folder with subject 1 to subject 44"),
    "esd": CorpusReader(read_esd, "esd.zip or its unpacked folder"),
    "iemocap": CorpusReader(
        read_iemocap, "the folder IEMOCAP_full_release, or the one that holds it", "words", IEMOCAP_SCHEMES
    ),
    "jl": CorpusReader(read_jl, "jl.zip or its unpacked folder", "all"),
    "kemdy19": CorpusReader(read_kemdy19, "the folder with annotation and wav"),
    "kemdy20": CorpusReader(read_kemdy20, "the folder with annotation and wav"),
    "meld": CorpusReader(read_meld, "the folder with train_sent_emo.csv and the converted clips"),
    "mesd": CorpusReader(read_mesd, "mesd.zip or its unpacked folder"),
    "msp_improv": CorpusReader(read_msp_improv, "the folder with Evaluation.txt and session1 to session6"),
    "msp_podcast": CorpusReader(
        read_msp_podcast, "the folder with Labels and Audios", schemes=("default", "eight", "four", "soft")
    ),
    "quechua": CorpusReader(read_quechua, "the folder with Audios, Data and Labels"),
    "ravdess": CorpusReader(read_ravdess, "ravdess.zip or its unpacked folder"),
    "ravdess_song": CorpusReader(read_ravdess_song, "ravdess_song.zip or its unpacked folder"),
    "savee": CorpusReader(read_savee, "savee.zip or its unpacked folder"),
    "shemo": CorpusReader(read_shemo, "shemo.zip or its unpacked folder"),
    "subesco": CorpusReader(read_subesco, "subesco.zip or its unpacked folder"),
    "synthetic": CorpusReader(
        read_synthetic, "the folder that write_synthetic has written", "words", IEMOCAP_SCHEMES, prepare_synthetic
    ),
    "table": CorpusReader(read_table, "a CSV file"),
    "tess": CorpusReader(read_tess, "tess.zip or its unpacked folder"),
    "vam": CorpusReader(read_vam, "the folder with data"),
}


def read_corpus(name: str, data_dir: str, *, labels: str = "default") -> Corpus:
    """Reads the corpus called `name` at `data_dir`.

    Args:
      name: a key of `CORPORA`.
      data_dir: the place of the corpus on disk: see `CorpusReader.data_dir`.
      labels: a label scheme of the corpus; for a table the scale of valence, arousal and dominance, such as `1..7`;
        for a folder also its names of columns (see `parse_options`); for a database in audformat a kind of its labels;
        or common classes (`find_common`), unless the corpus has a scheme of that name.

    Raises:
      InputError: `name` is unknown, `data_dir` is empty, a word has two spellings (see `unify`), no utterance has
        usable audio, or the reader's own errors.
    """
    if name not in CORPORA:
        raise InputError(f"config.corpus is {name!r}, expected one of {', '.join(CORPORA)}")
    if not data_dir:
        raise InputError(f"config.data_dir is '', expected {CORPORA[name].data_dir}: the corpus {name} needs data_dir")
    reader = CORPORA[name]
    common = None if labels in reader.schemes else find_common(labels)
    try:
        corpus = unify(reader.read(data_dir, labels if common is None else reader.words))
    except OSError as error:  # such as a folder that may not be listed
        raise InputError(f"{error.filename or data_dir} cannot be read ({error.strerror})") from error
    wrong = wrong_directions(corpus)
    for sentence in wrong:
        print(f"note: {sentence}", file=sys.stderr)
    corpus = replace(corpus, notes=(*corpus.notes, *wrong))
    if common is not None:
        corpus = without_empty_classes(with_common_classes(corpus, common))
    corpus.require_usable(max_bad_fraction=1.0)
    return corpus
