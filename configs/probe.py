"""The frozen probe: what a pretrained model knows of emotion, measured on any corpus.

python -m sejax.main --config configs/probe.py:emodb,whisper --config.data_dir=emodb.zip --workdir runs/probe
python -m sejax.main --config configs/probe.py:table,wavlm --config.data_dir=my.csv --workdir runs/probe_mine
python -m sejax.main --config configs/probe.py:iemocap,superb,hubert --config.data_dir=IEMOCAP_full_release \
    --workdir runs/superb

An utterance is one vector: the means over time of every hidden state, side by side, so that the layers that know
emotion, which are seldom the last ones, have weights of their own. A linear map with dropout reads it. Nothing is tuned
to a corpus: layers are weighted by training, the epoch is chosen on validation. Copies of the training data at other
speeds stand for speakers who are not there. Deviations beside the means do not improve validation
(experiments/pretrained).

With `superb` it is SUPERB's probe (Yang et al., 2021). All hidden states are mixed by learned weights, projected to 256
and averaged over time; one linear layer follows. The three maps are linear, so the average can come first. There are
three differences from SUPERB. The config trains a joint model of class and dimensions and the two single-task models.
It chooses the epoch on speakers that are not trained on. It normalises by the training speakers.
`--config.protocol=loso` leaves one speaker out instead of one session. Published, 5 sessions, development shares
speakers with training (WA): hubert-base 64.92, wav2vec2-base 63.43, wavlm-base 65.94.
"""

from ml_collections import ConfigDict

from sejax.config import default_config, read_words

SUPERB = "superb"


def get_config(words: str = "emodb,whisper") -> ConfigDict:
    """Returns the config of a corpus and pretrained streams.

    Args:
      words: A corpus of `CORPORA`, pretrained streams, and `superb` for SUPERB's rules, with commas between. Without
        streams the stream is whisper.

    Raises:
      InputError: A word is none of these, or there are several corpora.
    """
    config = default_config()
    found = read_words("configs/probe.py", words, streams=tuple(config.features.ssl), others=(SUPERB,))
    config.corpus = found.corpus or "emodb"
    config.streams = found.streams or ("whisper",)
    for stream in config.streams:
        config.model.encoder[stream] = "none"
    config.model.activation = config.model.deviations = False
    if SUPERB in found.others:
        _superb(config)
        return config
    config.model.joined_states = True
    config.model.fused = 64
    config.buckets = 1
    config.speeds = (1.0, 0.9, 1.1)
    config.seeds = 5
    config.learning_rate = 2e-3
    config.dropout = 0.5
    config.epochs = 20
    return config


def _superb(config: ConfigDict) -> None:
    """Sets SUPERB's rules."""
    config.protocol = "loso_session"
    config.model.fused = 256
    config.dropout = config.statistics_dropout = 0.0
    config.label_smoothing = 0.0
    config.weight_decay = 0.0
    config.grid.alpha = (0.5, 1.0, 0.0)
    config.epochs = 50
