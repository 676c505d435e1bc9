"""All options, each with its default and its unit. The files under `configs/` start from these and change them."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from sejax.corpora.join import parse_sources
from sejax.corpora.read import CORPORA
from sejax.corpora.schema import SAMPLING_RATE
from sejax.engine.augment import AUGMENTATIONS, RATES
from sejax.engine.losses import VAD_LOSSES
from sejax.engine.runs import CORRUPTED
from sejax.engine.tasks import TASKS
from sejax.errors import FLAG, SHARE, TEXT, WORDS, Check, InputError, is_number, number, one_of, shown, single, whole
from sejax.features.audio import SPEED
from sejax.features.corrupt import CORRUPTIONS, parse_all
from sejax.features.registry import FEATURES, defaults, full_settings
from sejax.features.settings import setting_check
from sejax.models.encoders import ENCODERS
from sejax.pretrained import CONTEXTS, LORA_TARGETS, MODES, STREAMS
from sejax.pretrained.extract import DTYPES, LEAST_MAX_SECONDS
from sejax.protocols.registry import NORMALISATIONS, PROTOCOLS
from sejax.weighting import SCHEMES

ACOUSTIC = tuple(name for name in FEATURES if name != "raw")
"""The features that are streams of their own name; raw audio is the input of a fine-tuned model."""

LARGEST_SEED = 2**31 - 1
"""Runs hold their seeds as int32."""


def default_config() -> ConfigDict:
    """Returns the complete config, locked: an option that is not here does not exist."""
    config = ConfigDict()
    _set_data(config)
    _set_streams(config)
    _set_model(config)
    _set_training(config)
    config.lock()
    return config


class Words(NamedTuple):
    """What the argument of a config file names."""

    corpus: str  # "": none
    streams: tuple[str, ...]
    others: tuple[str, ...]


def read_words(file: str, words: str, *, streams: Sequence[str], others: Sequence[str] = ()) -> Words:
    """Returns what the argument of a config file names, in its order.

    Args:
      file: the config file, named in errors.
      words: a corpus of `CORPORA`, streams and other words, with commas between.
      streams: those that the file knows.
      others: further words that it knows.

    Raises:
      InputError: a word is not known, or there are several corpora.
    """
    found = tuple(word.strip() for word in words.split(","))
    if unknown := [word for word in found if word not in (*CORPORA, *streams, *others)]:
        more = f", {' or '.join(others)}" if others else ""
        raise InputError(
            f"{file}:{words} has {unknown[0]!r}, expected a corpus ({', '.join(CORPORA)}) and streams "
            f"({', '.join(streams)}){more}, with commas between"
        )
    corpora = [word for word in found if word in CORPORA]
    if len(corpora) > 1:
        raise InputError(f"{file}:{words} names {len(corpora)} corpora, expected one")
    return Words(
        corpora[0] if corpora else "",
        tuple(word for word in found if word in streams),
        tuple(word for word in found if word in others),
    )


def _set_data(config: ConfigDict) -> None:
    """Sets the options of the corpus and of the protocol."""
    config.corpus = "synthetic"  # a row of CORPORA (README, Your data)
    config.data_dir = ""  # folder or file of the corpus; the synthetic one is written below cache_dir if this is empty
    config.corpora = ()  # several corpora as one, each `[name=]reader[/labels]:path`, in place of corpus and data_dir
    config.corpus_temperature = 1.0  # above 1, small corpora of several are visited more often than once an epoch
    config.labels = "default"  # a scheme of the corpus, or common classes (four); for a table, its VAD's scale (1..7)
    config.synthetic = ConfigDict({"fraction": 0.2, "seed": 0})  # 1.0: IEMOCAP's 5,531 utterances
    config.cache_dir = "~/.cache/sejax"  # computed features and compiled programs
    config.workers = 0  # processes that compute features; 0: one per core
    config.max_bad_fraction = 0.01  # largest share of unusable audio files that is dropped without an error
    config.find_copies = True  # recordings under two names: resampled, cut, compressed; False: equal samples alone
    config.allow_duplicates = False  # the same audio in training and test: an error unless allowed

    # A row of PROTOCOLS: loso, loso_session, official, table; of several corpora cross, leave_one_corpus_out, joint.
    config.protocol = "loso"
    config.folds = 0  # of a corpus at most, to which its speakers are dealt (loso, cross, joint); 0: one per speaker
    config.allow_shared_speakers = False  # official splits that train on test speakers (optimistic, and reported so)
    config.normalisation = "train"  # speaker, corpus: by the own audio of each (transductive, and reported so)
    config.select_on_test = False  # chooses the epoch on the test speakers (optimistic, and reported so)


def _set_streams(config: ConfigDict) -> None:
    """Sets the options of the streams and of their features."""
    config.streams = ("mfcc", "stf", "mel")
    ssl = {"revision": "main", "layers": "all", "context": "utterance", "max_seconds": 30.0, "dtype": "float32"}
    config.features = ConfigDict(
        {
            # The settings of each acoustic feature, with their defaults: lengths in samples at 16 kHz.
            **{name: defaults(name) for name in ACOUSTIC},
            # Pretrained models, each a stream of its name. `model`: a folder or a Hugging Face id; `layers`: all
            # (mixed by learned weights), last, or the number of one (0 is the input of the first layer). `context`:
            # what a frame sees, the utterance; of Whisper also padded, the utterance and the silence up to 30 s. Audio
            # longer than `max_seconds` is computed in overlapping windows, in `dtype`: float32 or bfloat16.
            "ssl": {stream: {"model": checkpoint, **ssl} for stream, checkpoint in STREAMS.items()},
        }
    )
    config.speeds = (1.0,)  # speed-perturbed copies to train on; 1.0 comes first
    # Corrupted copies to train on (sejax.features.corrupt): "noise:10", "rir:0.6+pink:5", "noise:10@FOLDER", ... An
    # utterance has those at the speeds, and one per corruption. Validation and test audio is never corrupted.
    config.corruptions = ()
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
            # Of pretrained models' statistics: those of every hidden state side by side, or mixed by learned weights.
            "joined_states": False,
            "deviations": True,  # over time, beside the means; False: the means alone
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
            # From here to feature_mask_min, None is what the checkpoint's config.json says.
            "dropout": placeholder(float),  # behind positions, attention and feed-forward
            "attention_dropout": placeholder(float),  # of attention's probabilities
            "activation_dropout": placeholder(float),  # inside the feed-forward
            "projection_dropout": placeholder(float),  # behind the projection of the convolutions' features
            "time_mask_prob": placeholder(float),  # share of the frames that are masked, in spans of
            "time_mask_length": placeholder(int),  # frames (20 ms; of Whisper 10 ms)
            "time_mask_min": placeholder(int),  # spans of an utterance that is long enough
            "feature_mask_prob": placeholder(float),  # share of the features that are masked, in spans of
            "feature_mask_length": placeholder(int),  # features (of Whisper bands of the spectrogram)
            "feature_mask_min": placeholder(int),  # spans
            "checkpointing": True,  # recomputes layers in the backward pass: less memory, a third slower
            "dtype": "float32",  # of the pretrained model's products: float32, bfloat16
        }
    )


def _set_training(config: ConfigDict) -> None:
    """Sets the options of losses, weighting, optimisation and of the study."""
    # `class_prior`: corpus takes the frequency of the classes in each corpus out of what is learned (logit adjustment).
    config.loss = ConfigDict({"vad": "ccc", "class_weight": "none", "class_prior": "none", "soft_labels": False})
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
    config.clip_norm = 1.0  # largest norm of the gradient; 0: no clipping
    config.dropout = 0.3
    config.statistics_dropout = 0.3
    config.label_smoothing = 0.1
    config.averaging = 0.99  # decay of the moving average of the parameters, which is evaluated
    config.patience = 0  # epochs without a better validation score after which a run stops; 0: never
    config.augment = ConfigDict(
        {
            "time_masks": 2,
            "time_mask_frames": 20,
            "feature_masks": 2,
            "feature_mask_share": 0.15,
            "corrupted": 0.0,  # share of an epoch's utterances that are drawn from config.corruptions
            # Of raw audio, which fine-tuned models hear: other streams have config.corruptions.
            "noise": 0.0,  # share of the utterances that get white noise in a step
            "noise_snr": (5.0, 20.0),  # lowest and highest signal-to-noise ratio, in dB
            "gain": 0.0,  # largest change of the level, up or down, in dB
            # Parameter of the Beta distribution of the shares in which utterances of a run are mixed: features, class
            # target and dimensions. 0: not mixed; 1: all shares are as likely.
            "mixup": 0.0,
        }
    )

    # Settings x seeds x folds are the runs of the study.
    config.seeds = 1
    config.seed = 0  # the first seed, up to 2,147,483,647
    config.grid = _empty_grid()
    config.final = False  # also trains each setting and seed on every speaker, for the median of its folds' epochs
    config.runs_per_chunk = 0  # runs vmapped together; 0: on a CPU one per device, else as many as memory holds
    config.frames_on = "auto"  # where frames are kept: device, host (streamed batch by batch), auto (host if too many)
    config.devices = 0  # devices that share the runs; 0: all (on a CPU each core is one)
    config.memory_fraction = 0.9  # of a device's free memory that a program may need
    config.checkpoint_every = 5  # epochs
    config.tensorboard = True
    config.bootstrap = 1000  # draws of speakers for the intervals; 0: no intervals


STACKED = (
    "weighting",
    "alpha",
    "tau",
    "learning_rate",
    "weight_decay",
    "dropout",
    "statistics_dropout",
    "label_smoothing",
    CORRUPTED,
    *(f"augment.{name}" for name in RATES),
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
    "final",
    "data_dir",
    "corpora",  # their names and labels are in the data, which is compared
    "devices",
    "frames_on",
    "memory_fraction",
    # A checkpoint may lie elsewhere: its contents are compared.
    *(f"features.ssl.{stream}.{name}" for stream in STREAMS for name in ("model", "revision")),
)
"""The options that may differ when a workdir is continued: they do not change what is learned."""


def _empty_grid() -> ConfigDict:
    grid = ConfigDict()
    for name in (*STACKED, *STRUCTURAL):
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
      InputError: see `check_config`.
    """
    changed = config.copy_and_resolve_references()
    for name, value in structure.items():
        *folders, option = name.split(".")
        node = changed
        for folder in folders:
            node = node[folder]
        node[option] = value
    check_config(changed)
    return changed


def _names(known: Iterable[str]) -> Check:
    """Returns the check for a tuple of different words, one or more."""
    known = tuple(known)
    return Check(
        lambda names: (
            isinstance(names, tuple)
            and len(names) > 0
            and all(isinstance(name, str) and name in known for name in names)
            and len(set(names)) == len(names)
        ),
        f"a tuple of names out of {', '.join(known)}, each name once",
    )


def _or_none(check: Check) -> Check:
    """Returns the check for an option of fine-tuning that the checkpoint has its own value of."""
    return Check(lambda value: value is None or check.holds(value), f"{check.expected}, or None: the checkpoint's")


def _encoder(stream: str) -> Check:
    """Returns the check for the encoder of a stream."""
    return one_of((*ENCODERS, "none", *(("finetune",) if stream in STREAMS else ())))


_TUPLE = Check(lambda values: isinstance(values, tuple), "a tuple of values")
_MOST_SPEEDS = 16
_RATE = number(0, 0.99)  # of a dropout: something has to be left
_PROPER_SHARE = number(0, 1, below=True)

CHECKS: Mapping[str, Check] = {
    "corpus": one_of(CORPORA),
    "corpora": Check(
        lambda sources: isinstance(sources, tuple) and all(map(WORDS.holds, sources)),
        "a tuple of texts, each [name=]reader[/labels]:path",
    ),
    "data_dir": TEXT,
    "corpus_temperature": number(1, 1e6),
    "labels": WORDS,
    "synthetic.fraction": number(0, 1, above=True),
    "synthetic.seed": whole(0, LARGEST_SEED),
    "cache_dir": WORDS,
    "workers": whole(0, 1024, "one per core"),
    "max_bad_fraction": SHARE,
    "allow_duplicates": FLAG,
    "find_copies": FLAG,
    "protocol": one_of(PROTOCOLS),
    "folds": Check(
        lambda n: is_number(n) and isinstance(n, int) and (n == 0 or 3 <= n <= 1000),
        "0 (one per speaker) or a whole number from 3 to 1,000",
    ),
    "allow_shared_speakers": FLAG,
    "normalisation": one_of(NORMALISATIONS),
    "select_on_test": FLAG,
    "streams": _names((*ACOUSTIC, *STREAMS)),
    **{
        f"features.{feature}.{name}": setting_check(default)
        for feature in ACOUSTIC
        for name, default in defaults(feature).items()
    },
    **{
        f"features.ssl.{stream}.{name}": check
        for stream in STREAMS
        for name, check in {
            "model": WORDS,
            "revision": WORDS,
            "layers": Check(
                lambda layers: WORDS.holds(layers) and (layers in ("all", "last") or layers.isdecimal()),
                "all, last or the number of a layer, as text",
            ),
            "context": one_of(CONTEXTS),
            "max_seconds": number(LEAST_MAX_SECONDS, 86_400),
            "dtype": one_of(DTYPES),
        }.items()
    },
    "speeds": Check(
        lambda speeds: (
            isinstance(speeds, tuple)
            and all(map(SPEED.holds, speeds))
            and speeds[:1] == (1.0,)
            and len(set(map(single, speeds))) == len(speeds) <= _MOST_SPEEDS
        ),
        f"a tuple that begins with 1.0, of up to {_MOST_SPEEDS} different numbers from 0.25 to 4",
    ),
    "corruptions": CORRUPTIONS,
    "max_seconds": Check(
        lambda seconds: is_number(seconds) and (seconds == 0 or 0.1 <= seconds <= 86_400),
        "0 (no limit) or a number from 0.1 to 86,400",
    ),
    "buckets": whole(1, 32),  # lengths are cut at 32 quantiles
    "frames_dtype": one_of(("float16", "bfloat16", "float32")),
    **{f"model.encoder.{stream}": _encoder(stream) for stream in (*ACOUSTIC, *STREAMS)},
    "model.layers": whole(0, 64),
    "model.stride": whole(1, 64),
    "model.width": whole(2, 8192),
    "model.heads": whole(1, 256),
    "model.fused": whole(1, 65_536),
    "model.self_attention": FLAG,
    "model.co_attention": FLAG,
    "model.guided": TEXT,
    "model.statistics": FLAG,
    "model.joined_states": FLAG,
    "model.deviations": FLAG,
    "model.activation": FLAG,
    "finetune.mode": one_of(MODES),
    "finetune.frozen_layers": whole(0, 1000),
    "finetune.lora_rank": whole(1, 4096),
    "finetune.lora_alpha": number(0, 1e6, above=True),
    "finetune.lora_targets": _names(LORA_TARGETS),
    "finetune.learning_rate": number(1e-6, 1000),
    "finetune.layer_decay": number(0, 10, above=True),
    "finetune.layer_drop": _PROPER_SHARE,
    **{f"finetune.{name}_dropout": _or_none(_PROPER_SHARE) for name in ("attention", "activation", "projection")},
    "finetune.dropout": _or_none(_PROPER_SHARE),
    **{f"finetune.{axis}_mask_prob": _or_none(_PROPER_SHARE) for axis in ("time", "feature")},
    **{f"finetune.{axis}_mask_length": _or_none(whole(1, 1000)) for axis in ("time", "feature")},
    **{f"finetune.{axis}_mask_min": _or_none(whole(0, 1000)) for axis in ("time", "feature")},
    "finetune.checkpointing": FLAG,
    "finetune.dtype": one_of(DTYPES),
    "loss.vad": one_of(VAD_LOSSES),
    "loss.class_weight": one_of(("none", "balanced")),
    "loss.class_prior": one_of(("none", "corpus")),
    "loss.soft_labels": FLAG,
    "tasks": Check(
        lambda tasks: isinstance(tasks, tuple) and all(isinstance(task, str) for task in tasks) and tasks in TASKS,
        " or ".join(map(str, TASKS)),
    ),
    "weighting": one_of(SCHEMES),
    "alpha": SHARE,
    "tau": number(1e-3, 1e6),
    "gradients_at": one_of(("representation", "parameters")),
    "compute_dtype": one_of(("float32", "bfloat16")),
    "epochs": whole(1, 100_000),
    "batch_size": whole(1, 10_000),
    "learning_rate": number(1e-8, 10),  # smaller steps are lost in float32
    "weight_decay": number(0, 1000),
    "warmup": SHARE,
    "clip_norm": Check(
        lambda norm: is_number(norm) and (norm == 0 or 1e-6 <= norm <= 1e6),
        "0 (no clipping) or a number from 1e-06 to 1e+06",
    ),
    "dropout": _RATE,
    "statistics_dropout": _RATE,
    "label_smoothing": _RATE,
    "averaging": _PROPER_SHARE,
    "patience": whole(0, 100_000, "never stop"),
    **{f"augment.{name}": check for name, check in AUGMENTATIONS.items()},
    CORRUPTED: SHARE,
    "seeds": whole(1, 1000),
    "seed": whole(0, LARGEST_SEED),
    "runs_per_chunk": whole(0, 100_000, "as many as memory holds"),
    "frames_on": one_of(("auto", "device", "host")),
    "devices": whole(0, 65_536, "all"),
    "memory_fraction": number(0.01, 1),
    "checkpoint_every": whole(1, 100_000),
    "tensorboard": FLAG,
    "final": FLAG,
    "bootstrap": Check(
        lambda draws: is_number(draws) and isinstance(draws, int) and (draws == 0 or 20 <= draws <= 100_000),
        "0 (no intervals) or a whole number from 20 to 100,000",
    ),
}
"""What each option may be, by its full name; choices come from the registries that own them.

The values that a grid varies are checked by the check of their option.
"""


OPTIONS = (*CHECKS, *(f"grid.{name}" for name in (*STACKED, *STRUCTURAL)))
"""The full names of all options."""


def unknown_option(name: str) -> str:
    """Returns the sentence for an option that does not exist."""
    (close,) = difflib.get_close_matches(name, OPTIONS, n=1) or ("",)
    return f"the config has no option {name!r}{f', did you mean {close!r}?' if close else ''}"


def check_config(config: ConfigDict) -> None:
    """Checks the options one by one, and together.

    Raises:
      InputError: an option is missing or unknown, or has a value that makes no sense.
    """
    _check_names(config)
    for name, check in CHECKS.items():
        check.require(f"config.{name}", at(config, name))
    parse_sources(config.corpora)
    _check_grid(config)
    _check_streams(config)
    _check_corruptions(config)
    width, heads = config.model.width, config.model.heads
    _expect("model.width", width, width % (2 * heads) == 0, f"a multiple of 2 * model.heads = {2 * heads}")
    most = LARGEST_SEED + 1 - config.seed
    _expect("seeds", config.seeds, config.seeds <= most, f"at most {most}: the last seed is {LARGEST_SEED:,}")
    trains_vad = min(config.grid.alpha or (config.alpha,)) < 1
    few = trains_vad and config.batch_size < VAD_LOSSES[config.loss.vad].least_rows
    _expect("batch_size", config.batch_size, not few, f"2 or more: one utterance has no loss {config.loss.vad}")


def _check_names(config: ConfigDict) -> None:
    """Checks that the config has all options and no others."""
    found = _flat(config.to_dict())
    for name in found:
        if name not in OPTIONS:
            raise InputError(unknown_option(name))
    for name in OPTIONS:
        if name not in found:
            raise InputError(f"config.{name} is missing, expected all options of sejax.config.default_config")


def _check_grid(config: ConfigDict) -> None:
    """Checks the values that the grid varies."""
    for name in (*STACKED, *STRUCTURAL):
        values = at(config.grid, name)
        _TUPLE.require(f"config.grid.{name}", values)
        for value in values:
            CHECKS[name].require(f"a value of config.grid.{name}", value)
        if len({single(value) if is_number(value) else value for value in values}) < len(values):
            same = "" if len(set(values)) < len(values) else " (in float32 some are equal)"
            raise InputError(f"config.grid.{name} is {shown(values)}, expected each value once{same}")


def _check_streams(config: ConfigDict) -> None:
    """Checks the streams together with the options that depend on them."""
    streams, encoder = config.streams, config.model.encoder
    encoded = [stream for stream in streams if encoder[stream] != "none"]
    _expect("model.statistics", False, bool(encoded or config.model.statistics), "True if no stream has an encoder")
    guided = config.model.guided
    guidable = guided in encoded and len(encoded) > 1
    _expect("model.guided", guided, not guided or guidable, "an encoded stream beside at least one other")
    if any(encoder[stream] == "finetune" for stream in streams):
        expected = "train if a model is fine-tuned: raw audio is not normalised"
        _expect("normalisation", config.normalisation, config.normalisation == "train", expected)
    for feature in ACOUSTIC:
        settings = full_settings(feature, config.features[feature].to_dict())
        hop_seconds = int(settings["hop_length"]) / SAMPLING_RATE
        fits = feature not in encoded or not 0 < config.max_seconds < hop_seconds
        _expect(
            "max_seconds", config.max_seconds, fits, f"{hop_seconds:g} or more, a frame of {feature}, or 0 (no limit)"
        )


def _check_corruptions(config: ConfigDict) -> None:
    """Checks the corruptions, and whether runs draw from them."""
    parse_all(config.corruptions)
    shares = tuple(at(config.grid, CORRUPTED)) or (at(config, CORRUPTED),)
    name, value = (f"grid.{CORRUPTED}", shares) if at(config.grid, CORRUPTED) else (CORRUPTED, shares[0])
    expected = "a share above 0 with config.corruptions, and 0 without"
    _expect(name, value, (max(shares) > 0) == bool(config.corruptions), expected)
    tuned = any(config.model.encoder[stream] == "finetune" for stream in config.streams)
    expected = "one share for all runs: those of a seed share the batches of a fine-tuned model"
    _expect(name, value, len(shares) == 1 or not tuned, expected)
    for option in ("augment.noise", "augment.gain"):
        most = max(at(config.grid, option) or (at(config, option),))
        expected = "0 without a fine-tuned model: other streams do not hold audio (config.corruptions are for them)"
        _expect(option, most, most == 0 or tuned, expected)


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Returns the options in which a config and that of a workdir (as plain JSON values) differ, in words.

    An option that `there` lacks, because an older version wrote it, counts as its default. Options of `CHANGEABLE`
    do not count, nor do those of fine-tuning where no model is fine-tuned.
    """
    default = unchangeable(json.loads(default_config().to_json_best_effort()))
    here, there = unchangeable(here), unchangeable(there)
    there = {**{name: default[name] for name in here.keys() & default.keys()}, **there}
    tuned = any(name.startswith("model.encoder.") and here[name] == "finetune" for name in here)
    return [
        f"{name} is {here.get(name)!r} here, {there.get(name)!r} in the workdir"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name) and (tuned or not name.startswith("finetune."))
    ]


def unchangeable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options (nested) that have to stay the same in a workdir, by their full names."""
    return {name: value for name, value in _flat(options).items() if name not in CHANGEABLE}


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
        raise InputError(f"config.{name} is {shown(value)}, expected {expected}")
