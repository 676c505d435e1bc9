"""A frozen linear probe, SUPERB's way (Yang et al., 2021): how much a pretrained model alone knows of emotion.

python -m sejax.main --config configs/superb.py:hubert --config.data_dir=IEMOCAP_full_release --workdir runs/superb
python -m sejax.main --config configs/superb.py:wavlm --config.data_dir=IEMOCAP_full_release --workdir runs/superb_wavlm

All hidden states mixed by learned weights, projected to 256, averaged over time, one linear layer. The three maps are
linear, so the average can come first: an utterance is one vector per layer, and IEMOCAP takes 0.4 GB instead of the 25
GB of its frames. Unlike SUPERB it trains class and dimensions together with the two single tasks beside them, chooses
the epoch on speakers that are not trained on, normalises by the training speakers, and `--config.protocol=loso` leaves
one speaker out instead of one session.

Published, 5 sessions, development shares speakers with training (WA): hubert-base 64.92, wav2vec2-base 63.43,
wavlm-base 65.94. sejax's number for it has not been measured.
"""

from ml_collections import ConfigDict

from sejax.config import default_config


def get_config(stream: str = "hubert") -> ConfigDict:
    """`stream`: hubert, wav2vec2 or wavlm."""
    config = default_config()
    if stream not in config.features.ssl:
        raise ValueError(f"configs/superb.py:{stream}: expected one of {', '.join(config.features.ssl)}")
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
