"""All options, each with its default and its unit. The files under `configs/` start from these and change them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from sejax.corpora.read import CORPORA
from sejax.engine.augment import RATES
from sejax.engine.runs import CLASS_TEMPERATURE, CORRUPTED
from sejax.errors import InputError
from sejax.features.registry import FEATURES, defaults
from sejax.pretrained import STREAMS

ACOUSTIC = tuple(name for name in FEATURES if name != "raw")
"""The features that are streams of their own name; raw audio is the input of a fine-tuned model."""


COMPUTED = (*ACOUSTIC, *STREAMS)
"""The streams whose features are computed from audio; `config.feature_files` has others."""


BASELINE = "_svm"
"""The ending of a stream's name that makes the name of a classical baseline."""


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


def at(config: ConfigDict, name: str) -> Any:
    """Returns the value of the option of that full name."""
    value = config
    for part in name.split("."):
        value = value[part]
    return value


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
    config.compute = "processes"  # what computes features, a row of ENGINES: processes, beam (Apache Beam), ray
    config.beam_options = ()  # of Beam's pipeline: "--runner=FlinkRunner", ...
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
    # Own vectors as streams, each `name=path`: an npz or a CSV file, one per utterance id (README, Your own features).
    config.feature_files = ()
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
    config.loss = ConfigDict(
        {
            "vad": "ccc",  # a row of VAD_LOSSES: ccc, mse, mae
            "class_weight": "none",  # balanced: inverse to a class's frequency; effective: to its effective number
            "effective_beta": 0.99,  # of the effective number: 0 weights all classes alike, towards 1 as balanced does
            # Takes the frequency of the classes in training (train: balanced softmax), or in each corpus (corpus), out
            # of what is learned (logit adjustment).
            "class_prior": "none",
            "prior_tau": 1.0,  # strength of this adjustment
            "focal_gamma": 0.0,  # of the focal loss; 0: cross-entropy
            "soft_labels": False,  # the raters' votes as targets, where there are some; utterances without a label too
            "vote_entropy": 0.0,  # by how much utterances weigh less whose raters disagree; 1: nothing if evenly split
        }
    )
    config.class_temperature = 1.0  # above 1, an epoch visits rare classes more often; at 1e6 all equally often
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
    config.grid = _nothing_varied((*STACKED, *STRUCTURAL))
    config.settings = ()  # in place of a grid: each setting as tables name it, "alpha=0.9 streams=mfcc+mel"
    # `draws` settings at random, of the grid's values and of numbers between two (lowest and highest), in place of all
    # combinations. `halving`: at rungs each fold stops all settings but one of so many (needs choose=setting); 0: none.
    config.search = ConfigDict({"draws": 0, "seed": 0, "halving": 0, "between": _nothing_varied(DRAWN)})
    config.test_epoch = "best"  # of a run on its validation speakers; last: none is chosen
    config.choose = "epoch"  # on validation speakers; setting: each fold also takes its best one, as the row `chosen`
    config.refit = False  # tests runs trained again on training and validation speakers, for as many epochs as chosen
    # Linear support vector machines on the statistics of a stream, trained on the same folds: ("egemaps_svm", ...).
    config.baselines = ()
    config.final = False  # also trains each setting and seed on every speaker, for the median of its folds' epochs
    config.runs_per_chunk = 0  # runs vmapped together; 0: on a CPU one per device, else as many as memory holds
    config.frames_on = "auto"  # where frames are kept: device, host (streamed batch by batch), auto (host if too many)
    # serial: the programs of a study one after the other in this process; ray: programs (and folds of full fine-tuning)
    # side by side as tasks of a Ray cluster (extra `ray`).
    config.jobs = "serial"
    # That share the runs; 0: all, of Ray one for each job. On a CPU each core is one, and no others are used.
    config.devices = 0
    config.memory_fraction = 0.9  # of a device's free memory that a program may need
    config.checkpoint_every = 5  # epochs
    config.tensorboard = True
    config.explain = 0  # test utterances of each setting whose explanation the report shows
    # Permutations of each stream and group of statistics among validation speakers, whose loss of score is reported.
    config.importance = 0
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
    CLASS_TEMPERATURE,
    "loss.class_weight",
    "loss.effective_beta",
    "loss.class_prior",
    "loss.prior_tau",
    "loss.focal_gamma",
    "loss.vote_entropy",
    *(f"augment.{name}" for name in RATES),
)
"""The options that a grid may vary within a program: numbers and arrays of a run, so that all settings are runs of one
program."""


STRUCTURAL = (
    "streams",
    "batch_size",
    "gradients_at",
    "loss.vad",
    "loss.soft_labels",
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


DRAWN = tuple(name for name in STACKED if name not in ("weighting", "loss.class_weight", "loss.class_prior"))
"""The options that `config.search.between` may draw: the numbers among those of `STACKED`."""


def _nothing_varied(names: Sequence[str]) -> ConfigDict:
    grid = ConfigDict()
    for name in names:
        *folders, option = name.split(".")
        node = grid
        for folder in folders:
            if folder not in node:
                node[folder] = ConfigDict()
            node = node[folder]
        node[option] = ()
    return grid
