"""What each option may be."""

from collections.abc import Iterable, Mapping, Sequence

from sejax.config.defaults import ACOUSTIC, BASELINE, COMPUTED, LARGEST_SEED
from sejax.corpora.read import CORPORA
from sejax.data.engines import ENGINES
from sejax.engine.augment import AUGMENTATIONS
from sejax.engine.imbalance import CLASS_PRIORS, CLASS_WEIGHTS
from sejax.engine.losses import VAD_LOSSES
from sejax.engine.runs import CLASS_TEMPERATURE, CORRUPTED
from sejax.engine.tasks import TASKS
from sejax.errors import FLAG, SHARE, TEXT, WORDS, Check, is_number, number, one_of, single, whole
from sejax.features.audio import SPEED
from sejax.features.corrupt import CORRUPTIONS
from sejax.features.registry import FEATURES, defaults
from sejax.features.settings import setting_check
from sejax.models.encoders import ENCODERS
from sejax.pretrained import CONTEXTS, LORA_TARGETS, MODES, STREAMS
from sejax.pretrained.extract import DTYPES, LEAST_MAX_SECONDS
from sejax.protocols.registry import NORMALISATIONS, PROTOCOLS
from sejax.weighting import SCHEMES


def _names(known: Iterable[str], least: int = 1) -> Check:
    """Returns the check for a tuple of different words."""
    known = tuple(known)
    return Check(
        lambda names: (
            isinstance(names, tuple)
            and len(names) >= least
            and all(isinstance(name, str) and name in known for name in names)
            and len(set(names)) == len(names)
        ),
        f"a tuple of names out of {', '.join(known)}, each name once",
    )


def _or_none(check: Check) -> Check:
    """Returns the check for an option of fine-tuning that the checkpoint has its own value of."""
    return Check(lambda value: value is None or check.holds(value), f"{check.expected}, or None: the checkpoint's")


def _encoder(stream: str) -> Check:
    """Returns the check for the encoder of a stream; a stream of statistics alone has none."""
    whole = stream in FEATURES and FEATURES[stream].whole
    return one_of((*(() if whole else ENCODERS), "none", *(("finetune",) if stream in STREAMS else ())))


def _texts(form: str) -> Check:
    """Returns the check for a tuple of texts, which are parsed later."""
    return Check(
        lambda texts: isinstance(texts, tuple) and all(map(WORDS.holds, texts)),
        f"a tuple of texts, each {form}",
    )


def _of_streams(streams: Sequence[str]) -> dict[str, Check]:
    """Returns the checks of the options that name streams out of some."""
    return {
        "streams": _names(streams),
        "baselines": _names((f"{stream}{BASELINE}" for stream in streams), least=0),
    }


TUPLE = Check(lambda values: isinstance(values, tuple), "a tuple of values")


_MOST_SPEEDS = 16


_RATE = number(0, 0.99)  # of a dropout: something has to be left


_PROPER_SHARE = number(0, 1, below=True)


CHECKS: Mapping[str, Check] = {
    "corpus": one_of(CORPORA),
    "corpora": _texts("[name=]reader[/labels]:path"),
    "data_dir": TEXT,
    "corpus_temperature": number(1, 1e6),
    "labels": WORDS,
    "synthetic.fraction": number(0, 1, above=True),
    "synthetic.seed": whole(0, LARGEST_SEED),
    "cache_dir": WORDS,
    "workers": whole(0, 1024, "one per core"),
    "compute": one_of(ENGINES),
    "beam_options": Check(
        lambda texts: isinstance(texts, tuple) and all(WORDS.holds(text) and text.startswith("--") for text in texts),
        "a tuple of texts, each --OPTION=VALUE",
    ),
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
    **_of_streams(COMPUTED),
    "feature_files": _texts("name=path"),
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
    **{f"model.encoder.{stream}": _encoder(stream) for stream in COMPUTED},
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
    "loss.class_weight": one_of(CLASS_WEIGHTS),
    "loss.effective_beta": _PROPER_SHARE,
    "loss.class_prior": one_of(CLASS_PRIORS),
    "loss.prior_tau": number(0, 10),
    "loss.focal_gamma": number(0, 10),
    "loss.soft_labels": FLAG,
    "loss.vote_entropy": SHARE,
    CLASS_TEMPERATURE: number(1, 1e6),
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
    "settings": _texts("OPTION=VALUE with blanks between several, of options that a grid may vary"),
    "runs_per_chunk": whole(0, 100_000, "as many as memory holds"),
    "frames_on": one_of(("auto", "device", "host")),
    "jobs": one_of(("serial", "ray")),
    "devices": whole(0, 65_536, "all"),
    "memory_fraction": number(0.01, 1),
    "checkpoint_every": whole(1, 100_000),
    "tensorboard": FLAG,
    "search.draws": whole(0, 10_000, "every combination of the grid"),
    "search.seed": whole(0, LARGEST_SEED),
    "search.halving": Check(
        lambda factor: is_number(factor) and isinstance(factor, int) and (factor == 0 or 2 <= factor <= 10),
        "0 (no halving) or a whole number from 2 to 10",
    ),
    "test_epoch": one_of(("best", "last")),
    "choose": one_of(("epoch", "setting")),
    "refit": FLAG,
    "final": FLAG,
    "explain": whole(0, 100, "none"),
    "importance": whole(0, 1000, "not measured"),
    "bootstrap": Check(
        lambda draws: is_number(draws) and isinstance(draws, int) and (draws == 0 or 20 <= draws <= 100_000),
        "0 (no intervals) or a whole number from 20 to 100,000",
    ),
}
"""What each option may be, by its full name; choices come from the registries that own them.

The values that a grid varies are checked by the check of their option.
"""


def checks_with(own: Sequence[str]) -> Mapping[str, Check]:
    """Returns `CHECKS` where there are also streams of these names, of feature files."""
    return {**CHECKS, **_of_streams((*COMPUTED, *own))}
