"""Every option there is, with its default and its unit. The files under `configs/` start from this and change it."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from sejax.errors import InputError


def default_config() -> ConfigDict:
    """The complete config, locked: an option that is not here does not exist."""
    config = ConfigDict()

    # --- data
    config.corpus = "synthetic"  # synthetic, iemocap, emodb, table
    config.data_dir = ""  # where the corpus lies; the synthetic one is written below cache_dir if this is empty
    config.labels = "default"  # a label scheme of the corpus: sejax/corpora/labels.py
    config.synthetic = ConfigDict({"fraction": 0.2, "seed": 0})  # 1.0: IEMOCAP's 5,531 utterances
    config.cache_dir = "~/.cache/sejax"  # computed features
    config.workers = 0  # processes that compute features; 0: one per core
    config.max_bad_fraction = 0.01  # largest share of unusable audio files that is dropped without an error
    config.allow_duplicates = False  # the same audio in training and test: an error unless allowed

    # --- protocol
    config.protocol = "loso"  # loso, loso_session, official, table
    config.normalisation = "train"  # "speaker": by each speaker's own audio (transductive, and reported so)
    config.select_on_test = False  # chooses the epoch on the test speakers (optimistic, and reported so)

    # --- streams
    config.streams = ("mfcc", "stf", "mel")
    config.features = ConfigDict(
        {
            "mfcc": {"n_mfcc": 40, "n_mels": 128, "n_fft": 1024, "win_length": 400, "hop_length": 160},
            "mel": {"n_mels": 128, "n_fft": 1024, "win_length": 400, "hop_length": 160},
            "stf": {"variant": "standard", "win_length": 400, "hop_length": 160},
            "prosody": {"fmin": 60, "fmax": 600, "win_length": 1024, "hop_length": 160},
        }
    )
    config.speeds = (1.0,)  # speed-perturbed copies to train on; 1.0 comes first
    config.max_seconds = 15.0  # frames after this are not encoded (0: no limit); statistics are of the whole
    config.buckets = 4  # groups of similar length

    # --- model
    config.model = ConfigDict(
        {
            # lstm, transformer, conv, or none (the stream's statistics alone)
            "encoder": {"mfcc": "lstm", "stf": "transformer", "mel": "conv", "prosody": "none"},
            "layers": 1,
            "stride": 4,  # frames that an encoder lays side by side
            "width": 64,
            "heads": 4,
            "fused": 256,
            "self_attention": True,
            "co_attention": True,
            "statistics": True,
        }
    )

    # --- losses and weighting
    config.loss = ConfigDict({"vad": "ccc", "class_weight": "none", "soft_labels": False})
    config.weighting = "static"  # static, dynamic, joint
    config.alpha = 0.5  # prior share of the class task, 1 - alpha of the VAD task
    config.tau = 1.0  # temperature of dynamic weighting

    # --- training
    config.epochs = 30
    config.batch_size = 32
    config.learning_rate = 1e-3
    config.weight_decay = 1e-2
    config.warmup = 0.1  # share of all steps
    config.clip_norm = 1.0
    config.dropout = 0.3
    config.statistics_dropout = 0.3
    config.label_smoothing = 0.1
    config.averaging = 0.99  # decay of the moving average of the parameters, which is what is evaluated
    config.patience = 0  # epochs without a better validation score after which a run stops; 0: never
    config.augment = ConfigDict(
        {"time_masks": 2, "time_mask_frames": 20, "feature_masks": 2, "feature_mask_share": 0.15}
    )

    # --- the study: settings x seeds x folds are runs of one program
    config.seeds = 1
    config.seed = 0  # the first seed
    config.grid = ConfigDict(dict.fromkeys(STACKED, ()))
    config.runs_per_chunk = 0  # runs vmapped together; 0: all of a seed
    config.devices = 0  # devices that share the runs; 0: all
    config.checkpoint_every = 5  # epochs
    config.tensorboard = True
    config.bootstrap = 1000  # draws of speakers for the intervals

    config.lock()
    return config


STACKED = (
    "weighting",
    "alpha",
    "tau",
    "learning_rate",
    "weight_decay",
    "dropout",
    "statistics_dropout",
    "label_smoothing",
)
"""What a grid may vary: numbers that are traced, so that all settings are runs of one program."""

CHANGEABLE = ("cache_dir", "workers", "tensorboard", "checkpoint_every", "bootstrap", "data_dir")
"""What may differ when a workdir is continued: it does not change what is learned."""


def check_config(config: ConfigDict) -> None:
    """Raises InputError for a choice or a number that makes no sense, in one sentence with the option's name."""
    choices: dict[str, tuple[str, ...]] = {
        "protocol": ("loso", "loso_session", "official", "table"),
        "normalisation": ("train", "speaker"),
        "loss.vad": ("ccc", "mse", "mae"),
        "loss.class_weight": ("none", "balanced"),
    }
    for name, allowed in choices.items():
        _expect(name, _at(config, name), _at(config, name) in allowed, f"one of {', '.join(allowed)}")
    for name in (
        "epochs",
        "batch_size",
        "seeds",
        "buckets",
        "checkpoint_every",
        "model.stride",
        "model.fused",
    ):
        _expect(name, _at(config, name), _at(config, name) >= 1, "1 or more")
    for name in ("warmup", "averaging", "max_bad_fraction", "augment.feature_mask_share"):
        _expect(name, _at(config, name), 0.0 <= _at(config, name) <= 1.0, "a share from 0 to 1")
    known = tuple(config.features)
    _expect("streams", config.streams, len(config.streams) > 0, f"at least one of {', '.join(known)}")
    for stream in config.streams:
        _expect("streams", stream, stream in known, f"names out of {', '.join(known)}")
        kinds = ("lstm", "transformer", "conv", "none")
        kind = config.model.encoder[stream]
        _expect(f"model.encoder.{stream}", kind, kind in kinds, f"one of {', '.join(kinds)}")
    encoded = any(config.model.encoder[stream] != "none" for stream in config.streams)
    _expect("model.statistics", False, encoded or config.model.statistics, "True where no stream has an encoder")
    _expect("speeds", config.speeds, config.speeds[:1] == (1.0,), "a tuple that begins with 1.0")
    width, heads = config.model.width, config.model.heads
    _expect("model.width", width, width % (2 * heads) == 0, f"a multiple of 2 * model.heads = {2 * heads}")


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The options in which two resolved configs differ, each as `name (ours, theirs)`."""
    found = []
    for name in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(name), theirs.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{name}.")
        elif a != b and prefix + name not in CHANGEABLE:
            found.append(f"{prefix}{name} ({a!r}, there {b!r})")
    return found


def _at(config: ConfigDict, name: str) -> Any:
    value = config
    for part in name.split("."):
        value = value[part]
    return value


def _expect(name: str, found: Any, condition: bool, expected: str) -> None:
    if not condition:
        raise InputError(f"config.{name} is {found!r}, expected {expected}")
