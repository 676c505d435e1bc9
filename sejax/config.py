"""All options, each with its default and its unit. The files under `configs/` start from these and change them."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from sejax.corpora.read import CORPORA
from sejax.engine.losses import VAD_LOSSES
from sejax.engine.tasks import TASKS
from sejax.errors import InputError
from sejax.features.registry import FEATURES, defaults
from sejax.models.encoders import ENCODERS
from sejax.pretrained import LORA_TARGETS, MODES, STREAMS
from sejax.protocols.registry import NORMALISATIONS, PROTOCOLS

ACOUSTIC = tuple(name for name in FEATURES if name != "raw")
"""The features that are streams of their own name; raw audio is the input of a fine-tuned model."""


def default_config() -> ConfigDict:
    """Returns the complete config, locked: an option that is not here does not exist."""
    config = ConfigDict()
    _set_data(config)
    _set_streams(config)
    _set_model(config)
    _set_training(config)
    config.lock()
    return config


def _set_data(config: ConfigDict) -> None:
    """Sets the options of the corpus and of the protocol."""
    config.corpus = "synthetic"  # a row of CORPORA: synthetic, iemocap, emodb, table
    config.data_dir = ""  # folder or file of the corpus; the synthetic one is written below cache_dir if this is empty
    config.labels = "default"  # a label scheme of the corpus; for a table, the scale of its VAD (1..7)
    config.synthetic = ConfigDict({"fraction": 0.2, "seed": 0})  # 1.0: IEMOCAP's 5,531 utterances
    config.cache_dir = "~/.cache/sejax"  # computed features and compiled programs
    config.workers = 0  # processes that compute features; 0: one per core
    config.max_bad_fraction = 0.01  # largest share of unusable audio files that is dropped without an error
    config.allow_duplicates = False  # the same audio in training and test: an error unless allowed

    config.protocol = "loso"  # a row of PROTOCOLS: loso, loso_session, official, table
    config.normalisation = "train"  # "speaker": by each speaker's own audio (transductive, and reported so)
    config.select_on_test = False  # chooses the epoch on the test speakers (optimistic, and reported so)


def _set_streams(config: ConfigDict) -> None:
    """Sets the options of the streams and of their features."""
    config.streams = ("mfcc", "stf", "mel")
    ssl = {"revision": "main", "layers": "all", "max_seconds": 30.0, "dtype": "float32"}
    config.features = ConfigDict(
        {
            # The settings of each acoustic feature, with their defaults: lengths in samples at 16 kHz.
            **{name: defaults(name) for name in ACOUSTIC},
            # Pretrained models, each a stream of its name. `model`: a folder or a Hugging Face id; `layers`: all
            # (mixed by learned weights), last, or the number of one (0 is the input of the first layer). Audio longer
            # than `max_seconds` is computed in overlapping windows, in `dtype`: float32 or bfloat16.
            "ssl": {stream: {"model": checkpoint, **ssl} for stream, checkpoint in STREAMS.items()},
        }
    )
    config.speeds = (1.0,)  # speed-perturbed copies to train on; 1.0 comes first
    config.max_seconds = 15.0  # later frames are not encoded (0: no limit); statistics use the whole utterance
    config.buckets = 4  # groups of similar length
    config.frames_dtype = "float16"  # of acoustic frames on the device: float16, bfloat16, float32


def _set_model(config: ConfigDict) -> None:
    """Sets the options of the joint model and of its fine-tuned parts."""
    config.model = ConfigDict(
        {
            # A row of ENCODERS (lstm, transformer, conv, linear), or none (the stream's statistics alone); for a
            # pretrained model also finetune: raw audio through the model itself (config.finetune), then linear.
            "encoder": {
                **dict.fromkeys(ACOUSTIC, "none"),
                "mfcc": "lstm",
                "stf": "transformer",
                "mel": "conv",
                **dict.fromkeys(STREAMS, "linear"),
            },
            "layers": 1,
            "stride": 4,  # consecutive frames that an encoder concatenates; half as many of 20 ms frames
            "width": 64,
            "heads": 4,
            "fused": 256,
            "self_attention": True,
            "co_attention": True,
            "guided": "",  # a stream whose frames are pooled by the other streams' vectors (CA-MSER)
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
            "checkpointing": True,  # recomputes layers in the backward pass: less memory, a third slower
            "dtype": "float32",  # of the pretrained model's products: float32, bfloat16
        }
    )


def _set_training(config: ConfigDict) -> None:
    """Sets the options of losses, weighting, optimisation and of the study."""
    config.loss = ConfigDict({"vad": "ccc", "class_weight": "none", "soft_labels": False})
    config.tasks = ("class", "vad")  # or ("class", "valence", "arousal", "dominance")
    config.weighting = "static"  # or another scheme of sejax.weighting
    config.alpha = 0.5  # prior share of the class task; the others have equal parts of the rest
    config.tau = 1.0  # temperature of the schemes dynamic and dwa (whose paper has 2)
    # Where a scheme measures the gradients of the tasks. The fused representation needs one backward pass through the
    # trunk, the trunk's parameters one per task.
    config.gradients_at = "representation"  # representation, parameters

    config.compute_dtype = "float32"  # of the trunk's products: float32, bfloat16; parameters and sums are float32
    config.epochs = 30
    config.batch_size = 32
    config.learning_rate = 1e-3
    config.weight_decay = 1e-2
    config.warmup = 0.1  # share of all steps
    config.clip_norm = 1.0
    config.dropout = 0.3
    config.statistics_dropout = 0.3
    config.label_smoothing = 0.1
    config.averaging = 0.99  # decay of the moving average of the parameters, which is evaluated
    config.patience = 0  # epochs without a better validation score after which a run stops; 0: never
    config.augment = ConfigDict(
        {"time_masks": 2, "time_mask_frames": 20, "feature_masks": 2, "feature_mask_share": 0.15}
    )

    # Settings x seeds x folds are the runs of the study.
    config.seeds = 1
    config.seed = 0  # the first seed
    config.grid = _empty_grid()
    config.runs_per_chunk = 0  # runs vmapped together; 0: on a CPU one per device, else as many as memory holds
    config.frames_on = "auto"  # where frames are kept: device, host (streamed batch by batch), auto (host if too many)
    config.devices = 0  # devices that share the runs; 0: all (on a CPU each core is one)
    config.memory_fraction = 0.9  # of a device's free memory that a program may need
    config.checkpoint_every = 5  # epochs
    config.tensorboard = True
    config.bootstrap = 1000  # draws of speakers for the intervals


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
"""The options that a grid may vary within a program: traced numbers, so that all settings are runs of one program."""

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
"""The options that a grid may also vary, at the price of a program for each combination."""

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
"""The options that may differ when a workdir is continued: they do not change what is learned."""


def _empty_grid() -> ConfigDict:
    grid = ConfigDict(dict.fromkeys(STACKED, ()))
    for name in STRUCTURAL:
        *folders, option = name.split(".")
        node = grid
        for folder in folders:
            if folder not in node:
                node[folder] = ConfigDict()
            node = node[folder]
        node[option] = ()
    return grid


def grid_of(config: ConfigDict) -> dict[str, tuple[Any, ...]]:
    """Returns the values that the grid varies, by the option's full name."""
    return {name: values for name in (*STACKED, *STRUCTURAL) if (values := tuple(at(config.grid, name)))}


def with_structure(config: ConfigDict, structure: Mapping[str, Any]) -> ConfigDict:
    """Returns a copy of the config with other values of some of the `STRUCTURAL` options.

    Raises:
      InputError: see `check_config`, or a value has another type than its option.
    """
    changed = config.copy_and_resolve_references()
    for name, value in structure.items():
        *folders, option = name.split(".")
        node = changed
        for folder in folders:
            node = node[folder]
        expected = type(node[option])
        _expect(f"grid.{name}", value, type(value) is expected, f"values of type {expected.__name__}")
        node[option] = value
    check_config(changed)
    return changed


class Check(NamedTuple):
    """A condition on the value of one option, and the words for it in the error."""

    holds: Callable[[Any], bool]
    expected: str


def one_of(choices: Iterable[Any]) -> Check:
    """Returns the check for a value out of some choices."""
    choices = tuple(choices)
    words = (str(choice) if isinstance(choice, str) else repr(choice) for choice in choices)
    return Check(lambda value: value in choices, f"one of {', '.join(words)}")


def at_least(least: int) -> Check:
    """Returns the check for a number from `least` on."""
    return Check(lambda value: value >= least, f"{least} or more")


SHARE = Check(lambda value: 0.0 <= value <= 1.0, "a share from 0 to 1")
PROPER_SHARE = Check(lambda value: 0.0 <= value < 1.0, "a share from 0 to below 1")
POSITIVE = Check(lambda value: value > 0, "more than 0")

CHECKS: Mapping[str, Check] = {
    "corpus": one_of(CORPORA),
    "protocol": one_of(PROTOCOLS),
    "normalisation": one_of(NORMALISATIONS),
    "synthetic.fraction": Check(lambda fraction: 0 < fraction <= 1, "above 0 and up to 1"),
    "synthetic.seed": at_least(0),
    "workers": at_least(0),
    "max_bad_fraction": SHARE,
    "speeds": Check(lambda speeds: speeds[:1] == (1.0,), "a tuple that begins with 1.0"),
    "buckets": at_least(1),
    "frames_dtype": one_of(("float16", "bfloat16", "float32")),
    "model.stride": at_least(1),
    "model.fused": at_least(1),
    "loss.vad": one_of(VAD_LOSSES),
    "loss.class_weight": one_of(("none", "balanced")),
    "tasks": Check(lambda tasks: tasks in TASKS, " or ".join(map(str, TASKS))),
    "gradients_at": one_of(("representation", "parameters")),
    "compute_dtype": one_of(("float32", "bfloat16")),
    "epochs": at_least(1),
    "batch_size": at_least(1),
    "warmup": SHARE,
    "averaging": SHARE,
    "augment.feature_mask_share": SHARE,
    "seeds": at_least(1),
    "frames_on": one_of(("auto", "device", "host")),
    "memory_fraction": SHARE,
    "checkpoint_every": at_least(1),
}
"""The options that are checked alone; their choices come from the registries that own them."""

FINETUNING_CHECKS: Mapping[str, Check] = {
    "finetune.mode": one_of(MODES),
    "finetune.dtype": one_of(("float32", "bfloat16")),
    "finetune.frozen_layers": at_least(0),
    "finetune.lora_rank": at_least(1),
    "finetune.lora_targets": Check(
        lambda targets: len(targets) > 0 and set(targets) <= set(LORA_TARGETS), f"some of {', '.join(LORA_TARGETS)}"
    ),
    "finetune.learning_rate": POSITIVE,
    "finetune.layer_decay": POSITIVE,
    "finetune.layer_drop": PROPER_SHARE,
    "finetune.time_mask_prob": PROPER_SHARE,
    "finetune.time_mask_length": at_least(1),
    "normalisation": Check(
        lambda value: value == "train", "train if a model is fine-tuned: raw audio is not normalised by speaker"
    ),
}
"""The options that are checked if a stream is fine-tuned."""


def check_config(config: ConfigDict) -> None:
    """Checks the options one by one, and together.

    Raises:
      InputError: an option has a value that makes no sense.
    """
    _check_each(config, CHECKS)
    _check_streams(config)
    if any(config.model.encoder[stream] == "finetune" for stream in config.streams):
        _check_each(config, FINETUNING_CHECKS)
    width, heads = config.model.width, config.model.heads
    _expect("model.width", width, width % (2 * heads) == 0, f"a multiple of 2 * model.heads = {2 * heads}")


def _check_each(config: ConfigDict, checks: Mapping[str, Check]) -> None:
    for name, check in checks.items():
        value = at(config, name)
        _expect(name, value, check.holds(value), check.expected)


def _check_streams(config: ConfigDict) -> None:
    """Checks the streams, and the options of the model that depend on them."""
    streams, encoder, pretrained = config.streams, config.model.encoder, tuple(config.features.ssl)
    known = (*(name for name in config.features if name != "ssl"), *pretrained)
    _expect("streams", streams, len(streams) > 0, f"at least one of {', '.join(known)}")
    for stream in streams:
        _expect("streams", stream, stream in known, f"names out of {', '.join(known)}")
        kinds = (*ENCODERS, "none", *(("finetune",) if stream in pretrained else ()))
        _expect(f"model.encoder.{stream}", encoder[stream], encoder[stream] in kinds, f"one of {', '.join(kinds)}")
    _expect("streams", streams, len(set(streams)) == len(streams), "each name once")
    encoded = [stream for stream in streams if encoder[stream] != "none"]
    _expect("model.statistics", False, bool(encoded or config.model.statistics), "True if no stream has an encoder")
    guided = config.model.guided
    guidable = guided in encoded and len(encoded) > 1
    _expect("model.guided", guided, not guided or guidable, "an encoded stream beside at least one other")


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Returns the options in which two configs (as plain JSON values) differ, each as `name (here, there)`.

    An option that `there` lacks, because an older version wrote it, counts as its default. Options of `CHANGEABLE`
    do not count.
    """
    default = _flat(json.loads(default_config().to_json_best_effort()))
    here, there = _flat(here), _flat(there)
    there = {**{name: default[name] for name in here.keys() & default.keys()}, **there}
    return [
        f"{name} ({here.get(name)!r}, there {there.get(name)!r})"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name) and name not in CHANGEABLE
    ]


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested options by their full names."""
    return flatten_dict(dict(options), sep=".")


def at(config: ConfigDict, name: str) -> Any:
    """Returns the value of the option of that full name."""
    value = config
    for part in name.split("."):
        value = value[part]
    return value


def _expect(name: str, value: Any, condition: bool, expected: str) -> None:
    if not condition:
        raise InputError(f"config.{name} is {value!r}, expected {expected}")
