"""SUPERB's frozen linear probe (Yang et al., 2021), which measures the emotion information of a pretrained model.

python -m sejax.main --config configs/superb.py:hubert --config.data_dir=IEMOCAP_full_release --workdir runs/superb
python -m sejax.main --config configs/superb.py:wavlm --config.data_dir=IEMOCAP_full_release --workdir runs/superb_wavlm

All hidden states are mixed by learned weights, projected to 256 and averaged over time; one linear layer follows. The
three maps are linear, so the average can come first: an utterance is one vector per layer, and IEMOCAP takes 0.4 GB
instead of the 25 GB of its frames. There are three differences from SUPERB. The config trains a joint model of class
and dimensions and the two single-task models. It chooses the epoch on speakers that are not trained on. It normalises
by the training speakers. `--config.protocol=loso` leaves one speaker out instead of one session.

Published, 5 sessions, development shares speakers with training (WA): hubert-base 64.92, wav2vec2-base 63.43,
wavlm-base 65.94. This config has not been measured with sejax.
"""

from ml_collections import ConfigDict

from sejax.config import default_config
from sejax.errors import InputError


def get_config(stream: str = "hubert") -> ConfigDict:
    """Returns the config of a stream.

    Args:
      stream: A pretrained model of `config.features.ssl`: hubert, wav2vec2 or wavlm.

    Raises:
      InputError: There is no such pretrained model.
    """
    config = default_config()
    if stream not in config.features.ssl:
        raise InputError(f"configs/superb.py:{stream} has {stream!r}, expected one of {', '.join(config.features.ssl)}")
    config.corpus = "iemocap"
    config.protocol = "loso_session"
    config.streams = (stream,)
    config.model.encoder[stream] = "none"
    config.model.fused = 256
    config.model.activation = False
    config.model.deviations = False
    config.dropout = config.statistics_dropout = 0.0
    config.label_smoothing = 0.0
    config.weight_decay = 0.0
    config.grid.alpha = (0.5, 1.0, 0.0)
    config.epochs = 50
    return config
