"""Every option there is, with its default and its unit. The files under `configs/` start from this and change it."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from sejax.corpora.schema import DIMENSIONS
from sejax.errors import InputError
from sejax.pretrained import LORA_TARGETS, MODES


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
    ssl = {"revision": "main", "layers": "all", "max_seconds": 30.0, "dtype": "float32"}
    config.features = ConfigDict(
        {
            "mfcc": {"n_mfcc": 40, "n_mels": 128, "n_fft": 1024, "win_length": 400, "hop_length": 160},
            "mel": {"n_mels": 128, "n_fft": 1024, "win_length": 400, "hop_length": 160},
            "stf": {"variant": "standard", "win_length": 400, "hop_length": 160},
            "prosody": {"fmin": 60, "fmax": 600, "win_length": 1024, "hop_length": 160},
            # Pretrained models, each a stream of its name. `model`: a folder or a Hugging Face id; `layers`: all
            # (mixed by learned weights), last, or the number of one (0 is the first layer's input); audio longer
            # than `max_seconds` goes through in overlapping windows; `dtype` is computed in: float32, bfloat16.
            "ssl": {
                "hubert": {"model": "facebook/hubert-base-ls960", **ssl},
                "wav2vec2": {"model": "facebook/wav2vec2-base", **ssl},
                "wavlm": {"model": "microsoft/wavlm-base", **ssl},
            },
        }
    )
    config.speeds = (1.0,)  # speed-perturbed copies to train on; 1.0 comes first
    config.max_seconds = 15.0  # frames after this are not encoded (0: no limit); statistics are of the whole
    config.buckets = 4  # groups of similar length
    config.frames_dtype = "float16"  # float16, bfloat16, float32: what acoustic frames are stored in on the device

    # --- model
    config.model = ConfigDict(
        {
            # lstm, transformer, conv, linear, or none (the stream's statistics alone); for a pretrained model also
            # finetune: raw audio through the model itself (config.finetune), then linear
            "encoder": {
                "mfcc": "lstm",
                "stf": "transformer",
                "mel": "conv",
                "prosody": "none",
                "hubert": "linear",
                "wav2vec2": "linear",
                "wavlm": "linear",
            },
            "layers": 1,
            "stride": 4,  # frames that an encoder lays side by side; half as many where a frame is 20 ms
            "width": 64,
            "heads": 4,
            "fused": 256,
            "self_attention": True,
            "co_attention": True,
            "guided": "",  # a stream whose frames are weighed by what the others look for (CA-MSER)
            "statistics": True,
            "deviations": True,  # of pretrained models' statistics; False: their means alone
            "activation": True,  # behind the fusion; False and no encoders: a linear probe
        }
    )
    config.finetune = ConfigDict(
        {
            "mode": "lora",  # frozen; lora: adapters; full: all above the convolutions and `frozen_layers`
            "frozen_layers": 0,  # lower Transformer layers without adapters, or not trained
            "lora_rank": 8,
            "lora_alpha": 16.0,
            "lora_targets": ("q_proj", "v_proj"),  # of q_proj, k_proj, v_proj, out_proj, intermediate, output
            "learning_rate": 1.0,  # of the top layer, in units of the learning rate
            "layer_decay": 0.9,  # of the learning rate, from each layer to the one below
            "layer_drop": 0.05,  # share of the layers that a step skips
            "time_mask_prob": 0.05,  # share of the frames that are masked, in spans of
            "time_mask_length": 10,  # frames (200 ms)
            "checkpointing": True,  # layers are computed again on the way back: less memory, a third slower
            "dtype": "float32",  # float32 or bfloat16: what the pretrained model computes in
        }
    )

    # --- losses and weighting
    config.loss = ConfigDict({"vad": "ccc", "class_weight": "none", "soft_labels": False})
    config.tasks = ("class", "vad")  # or ("class", "valence", "arousal", "dominance")
    config.weighting = "static"  # or another scheme of sejax.weighting
    config.alpha = 0.5  # prior share of the class task; the others have equal parts of the rest
    config.tau = 1.0  # temperature of the schemes dynamic and dwa (whose paper has 2)
    # Where a scheme measures the tasks' gradients. At the fused representation the trunk is walked back once, at the
    # trunk's parameters once per task.
    config.gradients_at = "representation"  # representation, parameters

    # --- training
    config.compute_dtype = "float32"  # float32, bfloat16: of the trunk's products; parameters and sums are float32
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
    config.grid = _empty_grid()
    config.runs_per_chunk = 0  # runs vmapped together; 0: on a CPU one per device, else as many as memory holds
    config.frames_on = "auto"  # device; host: each batch's are streamed to it; auto: on the host if they do not fit
    config.devices = 0  # devices that share the runs; 0: all (on a CPU each core is one)
    config.memory_fraction = 0.9  # of a device's free memory that a program may need
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
"""What a grid may vary within a program: numbers that are traced, so that all settings are runs of one program."""

STRUCTURAL = (
    "streams",
    "batch_size",
    "gradients_at",
    "loss.vad",
    "model.layers",
    "model.stride",
    "model.width",
    "model.heads",
    "model.fused",
    "model.self_attention",
    "model.co_attention",
    "model.statistics",
    "augment.time_masks",
    "augment.feature_masks",
)
"""What a grid may vary beside that, at the price of a program for each combination."""

CHANGEABLE = (
    "cache_dir",
    "workers",
    "tensorboard",
    "checkpoint_every",
    "bootstrap",
    "data_dir",
    "devices",
    "frames_on",
    "memory_fraction",
)
"""What may differ when a workdir is continued: it does not change what is learned."""


def _empty_grid() -> ConfigDict:
    grid = ConfigDict(dict.fromkeys(STACKED, ()))
    for name in STRUCTURAL:
        *folder, option = name.split(".")
        place = grid
        for part in folder:
            if part not in place:
                place[part] = ConfigDict()
            place = place[part]
        place[option] = ()
    return grid


def grid_of(config: ConfigDict) -> dict[str, tuple[Any, ...]]:
    """What the grid varies, by the option's full name."""
    return {name: found for name in (*STACKED, *STRUCTURAL) if (found := tuple(at(config.grid, name)))}


def with_structure(config: ConfigDict, structure: Mapping[str, Any]) -> ConfigDict:
    """A copy of the config with other values of some of the `STRUCTURAL` options.

    Raises:
      InputError: see `check_config`, or a value of another type than the option's.
    """
    own = config.copy_and_resolve_references()
    for name, value in structure.items():
        *folder, option = name.split(".")
        place = own
        for part in folder:
            place = place[part]
        expected = type(place[option])
        _expect(f"grid.{name}", value, type(value) is expected, f"values of type {expected.__name__}")
        place[option] = value
    check_config(own)
    return own


def check_config(config: ConfigDict) -> None:
    """Raises InputError for a choice or a number that makes no sense, in one sentence with the option's name."""
    choices: dict[str, tuple[str, ...]] = {
        "protocol": ("loso", "loso_session", "official", "table"),
        "normalisation": ("train", "speaker"),
        "frames_dtype": ("float16", "bfloat16", "float32"),
        "compute_dtype": ("float32", "bfloat16"),
        "loss.vad": ("ccc", "mse", "mae"),
        "loss.class_weight": ("none", "balanced"),
        "gradients_at": ("representation", "parameters"),
        "frames_on": ("auto", "device", "host"),
    }
    for name, allowed in choices.items():
        _expect(name, at(config, name), at(config, name) in allowed, f"one of {', '.join(allowed)}")
    for name in (
        "epochs",
        "batch_size",
        "seeds",
        "buckets",
        "checkpoint_every",
        "model.stride",
        "model.fused",
    ):
        _expect(name, at(config, name), at(config, name) >= 1, "1 or more")
    for name in ("warmup", "averaging", "max_bad_fraction", "memory_fraction", "augment.feature_mask_share"):
        _expect(name, at(config, name), 0.0 <= at(config, name) <= 1.0, "a share from 0 to 1")
    tasks = (("class", "vad"), ("class", *DIMENSIONS))
    _expect("tasks", config.tasks, config.tasks in tasks, f"{tasks[0]} or {tasks[1]}")
    pretrained = tuple(config.features.ssl)
    known = (*(name for name in config.features if name != "ssl"), *pretrained)
    _expect("streams", config.streams, len(config.streams) > 0, f"at least one of {', '.join(known)}")
    for stream in config.streams:
        _expect("streams", stream, stream in known, f"names out of {', '.join(known)}")
        kinds = ("lstm", "transformer", "conv", "linear", "none", *(("finetune",) if stream in pretrained else ()))
        kind = config.model.encoder[stream]
        _expect(f"model.encoder.{stream}", kind, kind in kinds, f"one of {', '.join(kinds)}")
    _expect("streams", config.streams, len(set(config.streams)) == len(config.streams), "each name once")
    encoded = [stream for stream in config.streams if config.model.encoder[stream] != "none"]
    _expect("model.statistics", False, bool(encoded or config.model.statistics), "True where no stream has an encoder")
    guided = config.model.guided
    guidable = guided in encoded and len(encoded) > 1
    _expect("model.guided", guided, not guided or guidable, "an encoded stream beside at least one other")
    if any(config.model.encoder[stream] == "finetune" for stream in config.streams):
        _check_finetuning(config)
    _expect("speeds", config.speeds, config.speeds[:1] == (1.0,), "a tuple that begins with 1.0")
    width, heads = config.model.width, config.model.heads
    _expect("model.width", width, width % (2 * heads) == 0, f"a multiple of 2 * model.heads = {2 * heads}")


def _check_finetuning(config: ConfigDict) -> None:
    finetune = config.finetune
    unlike = "train where a model is fine-tuned: raw audio is not normalised by speaker"
    _expect("normalisation", config.normalisation, config.normalisation == "train", unlike)
    for name, allowed in (("mode", MODES), ("dtype", ("float32", "bfloat16"))):
        _expect(f"finetune.{name}", finetune[name], finetune[name] in allowed, f"one of {', '.join(allowed)}")
    for name in ("layer_drop", "time_mask_prob"):
        _expect(f"finetune.{name}", finetune[name], 0.0 <= finetune[name] < 1.0, "a share from 0 to below 1")
    for name in ("lora_rank", "time_mask_length"):
        _expect(f"finetune.{name}", finetune[name], finetune[name] >= 1, "1 or more")
    _expect("finetune.frozen_layers", finetune.frozen_layers, finetune.frozen_layers >= 0, "0 or more")
    for name in ("learning_rate", "layer_decay"):
        _expect(f"finetune.{name}", finetune[name], finetune[name] > 0, "more than 0")
    targets = finetune.lora_targets
    usable = len(targets) > 0 and set(targets) <= set(LORA_TARGETS)
    _expect("finetune.lora_targets", targets, usable, f"some of {', '.join(LORA_TARGETS)}")


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


def at(config: ConfigDict, name: str) -> Any:
    """The value of the option of that full name."""
    value = config
    for part in name.split("."):
        value = value[part]
    return value


def _expect(name: str, found: Any, condition: bool, expected: str) -> None:
    if not condition:
        raise InputError(f"config.{name} is {found!r}, expected {expected}")
