"""Functionals: what voices carry, without pretrained weights, for corpora of a few hundred utterances.

python -m sejax.main --config configs/functionals.py:emodb --config.data_dir=emodb.zip --workdir runs/functionals
python -m sejax.main --config configs/functionals.py:table --config.data_dir=my.csv --workdir runs/mine

An utterance is one vector: statistics of prosody, of the voice and of the auditory spectrum, as in openSMILE's ComParE
set. A linear map with dropout reads it, classes weigh the same, and copies at other speeds stand for speakers who are
not there. The choices were made on the validation speakers of EmoDB (experiments/emodb). Streams after the corpus
replace the three.
"""

from ml_collections import ConfigDict

from sejax.config import default_config, read_words


def get_config(words: str = "emodb") -> ConfigDict:
    """Returns the config of a corpus and acoustic streams.

    Args:
      words: A corpus of `CORPORA` and streams, with commas between. Without streams they are prosody, voice, auditory.

    Raises:
      InputError: A word is neither a corpus nor a stream, or there are several corpora.
    """
    config = default_config()
    acoustic = tuple(name for name in config.features if name != "ssl")
    found = read_words("configs/functionals.py", words, streams=acoustic)
    config.corpus = found.corpus or "emodb"
    config.streams = found.streams or ("prosody", "voice", "auditory")
    for stream in config.streams:
        config.model.encoder[stream] = "none"
    config.model.activation = False
    config.model.fused = 64
    config.loss.class_weight = "balanced"
    config.statistics_dropout = 0.6
    config.dropout = 0.5
    config.learning_rate = 2e-3
    config.speeds = (1.0, 0.9, 1.1)
    config.epochs = 20
    config.buckets = 1
    config.seeds = 5
    return config
