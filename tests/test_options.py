"""Every option has a check, and the check refuses what makes no sense with one sentence."""

import re

import pytest
from ml_collections import ConfigDict
from odd_values import odd_values, options, sane, set_option

from sejax.config import CHECKS, VARIED, check_config, default_config, differences, settings_of
from sejax.errors import InputError
from sejax.resolve.flag import parse_config


def _refusal(config: ConfigDict) -> str:
    """The sentence with which a config is refused; empty if it is accepted."""
    try:
        check_config(config)
    except InputError as error:
        return str(error)
    return ""


def test_every_option_has_a_check():
    assert set(options()) == set(CHECKS) | set(VARIED)
    assert {name.removeprefix("grid.").removeprefix("search.between.") for name in VARIED} <= set(CHECKS)


@pytest.mark.parametrize("name", options())
def test_defaults_are_sane(name: str):
    assert sane(name, options()[name])


@pytest.mark.parametrize("name", options())
def test_odd_values_are_refused_by_a_sentence_or_sane(name: str):
    values = odd_values(name)
    assert len(values) >= 10
    refused, config = 0, default_config()
    for value in values:
        set_option(config, name, value)
        sentence = _refusal(config)
        if not sentence:
            assert sane(name, value), f"config.{name} = {value!r} is accepted"
            continue
        refused += 1
        assert re.fullmatch(r"[^\n]{10,900}[^.\n]", sentence), sentence
        last = name.rsplit(".", 1)[-1]
        assert name in sentence or last in sentence, sentence
        assert "expected" in sentence
    assert refused >= 10


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("clip_norm", -1.0, "config.clip_norm is -1.0, expected 0 (no clipping) or a number from 1e-06 to 1e+06"),
        ("clip_norm", float("nan"), "config.clip_norm is nan, expected 0 (no clipping) or a number from"),
        ("averaging", 1.0, "config.averaging is 1.0, expected a number from 0 to below 1"),
        ("patience", -1, "config.patience is -1, expected a whole number from 0 (never stop) to 100,000"),
        (
            "speeds",
            (1.0, 1.0),
            "config.speeds is (1.0, 1.0), expected a tuple that begins with 1.0, of up to 16 differ",
        ),
        ("seed", 2**40, "config.seed is 1099511627776, expected a whole number from 0 to 2,147,483,647"),
        ("seed", -1, "config.seed is -1, expected a whole number from 0 to 2,147,483,647"),
        ("seed", 2**31 - 1, ""),
        ("devices", -1, "config.devices is -1, expected a whole number from 0 (all) to 65,536"),
        ("bootstrap", -5, "config.bootstrap is -5, expected 0 (no intervals) or a whole number from 20 to 100,000"),
        ("bootstrap", 10**8, "config.bootstrap is 100000000, expected 0 (no intervals) or a whole number from 20 to"),
        ("bootstrap", 1, "config.bootstrap is 1, expected 0 (no intervals) or a whole number from 20 to 100,000"),
        ("max_seconds", 0.001, "config.max_seconds is 0.001, expected 0 (no limit) or a number from 0.1 to 86,400"),
        ("max_seconds", 0, ""),
        ("model.heads", 0, "config.model.heads is 0, expected a whole number from 1 to 256"),
        ("augment.time_masks", -1, "config.augment.time_masks is -1, expected a whole number from 0 to 100"),
        ("buckets", 1000, "config.buckets is 1000, expected a whole number from 1 to 32"),
        ("epochs", True, "config.epochs is True, expected a whole number from 1 to 100,000"),
        ("memory_fraction", 0.0, "config.memory_fraction is 0.0, expected a number from 0.01 to 1"),
        ("learning_rate", 0.0, "config.learning_rate is 0.0, expected a number from 1e-08 to 10"),
        (
            "learning_rate",
            1e-50,
            "config.learning_rate is 1e-50, expected a number from 1e-08 to 10 (in float32 it is 0)",
        ),
        ("learning_rate", 1e-12, "config.learning_rate is 1e-12, expected a number from 1e-08 to 10"),
        ("learning_rate", 1e-8, ""),
        ("alpha", 1 - 1e-11, "config.alpha is 0.99999999999, expected a number from 0 to 1 (in float32 it is 1)"),
        ("alpha", 1e-42, "config.alpha is 1e-42, expected a number from 0 to 1 (in float32 it is 0)"),
        ("alpha", 1 - 1e-6, ""),
        ("averaging", 1 - 1e-11, "config.averaging is 0.99999999999, expected a number from 0 to below 1 (in float32"),
        ("weight_decay", 1e-50, "config.weight_decay is 1e-50, expected a number from 0 to 1,000 (in float32 it is 0)"),
        ("finetune.lora_alpha", 1e-50, "config.finetune.lora_alpha is 1e-50, expected a number above 0 and up to 1,0"),
        (
            "grid.alpha",
            (0.5, 0.50000000001),
            "config.grid.alpha is (0.5, 0.50000000001), expected each value once (in float32 some are equal)",
        ),
        ("grid.alpha", (0.5, 0.500001), ""),
        ("grid.dropout", (0.1, 1e-60), "a value of config.grid.dropout is 1e-60, expected a number from 0 to 0.99 (in"),
        (
            "speeds",
            (1.0, 1 + 1e-11),
            "config.speeds is (1.0, 1.00000000001), expected a tuple that begins with 1.0, of",
        ),
        ("batch_size", 1, "config.batch_size is 1, expected 2 or more: one utterance has no loss ccc"),
        ("cache_dir", "", "config.cache_dir is '', expected text that is not empty"),
        ("features.mel.hop_length", 0, "config.features.mel.hop_length is 0, expected a whole number from 1 to 65,536"),
        ("features.mel.n_mels", 900, "config.features.mel.n_mels is 900, expected at most the 513 bins of n_fft"),
        ("features.prosody.fmin", 600, "config.features.prosody.fmin is 600, expected below fmax (600 Hz)"),
        (
            "features.prosody.fmax",
            9000,
            "config.features.prosody.fmax is 9000, expected at most 2000 Hz",
        ),
        ("features.voice.fmin", 19, "config.features.voice.fmin is 19, expected at least 20 Hz"),
        (
            "features.ssl.wavlm.max_seconds",
            1.0,
            "config.features.ssl.wavlm.max_seconds is 1.0, expected a number from 3",
        ),
        (
            "features.ssl.wavlm.layers",
            "-1",
            "config.features.ssl.wavlm.layers is '-1', expected all, last or the number",
        ),
        ("grid.alpha", (0.5, -0.1), "a value of config.grid.alpha is -0.1, expected a number from 0 to 1"),
        ("grid.alpha", (0.5, 0.5), "config.grid.alpha is (0.5, 0.5), expected each value once"),
        ("grid.alpha", (1, 1.0), "config.grid.alpha is (1, 1.0), expected each value once"),
        ("grid.alpha", 0.5, "config.grid.alpha is 0.5, expected a tuple of values"),
        (
            "grid.model.layers",
            (1, 1.5),
            "a value of config.grid.model.layers is 1.5, expected a whole number from 0 to",
        ),
        ("grid.streams", ("mfcc", "mel"), "a value of config.grid.streams is 'mfcc', expected a tuple of names out of"),
        ("grid.batch_size", (8, 2**40), "a value of config.grid.batch_size is 1099511627776, expected a whole number"),
        (
            "grid.weighting",
            ("joint", "best"),
            "a value of config.grid.weighting is 'best', expected one of static, dyn",
        ),
    ],
)
def test_sentences(name: str, value: object, sentence: str):
    config = default_config()
    set_option(config, name, value)
    found = _refusal(config)
    assert found.startswith(sentence) and bool(found) == bool(sentence), found


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seed": 2**31 - 3, "seeds": 4}, "config.seeds is 4, expected at most 3: the last seed is 2,147,483,647"),
        (
            {"features.mfcc.hop_length": 8000, "max_seconds": 0.25},
            "config.max_seconds is 0.25, expected 0.5 or more, a frame of mfcc, or 0 (no limit)",
        ),
        (
            {"batch_size": 1, "alpha": 1.0, "grid.alpha": (1.0, 0.5)},
            "config.batch_size is 1, expected 2 or more: one utterance has no loss ccc",
        ),
        ({"batch_size": 1, "alpha": 1.0}, ""),
        ({"batch_size": 1, "loss.vad": "mse"}, ""),
        (
            {"model.width": 6},
            "config.model.width is 6, expected a multiple of 2 * model.heads = 8",
        ),
        (
            {"select_on_test": True, "choose": "setting", "grid.alpha": (0.5, 0.9)},
            "config.choose is 'setting', expected epoch with config.select_on_test: a fold's own validation speakers "
            "choose its setting",
        ),
        (
            {"select_on_test": True, "test_epoch": "last"},
            "config.select_on_test is True, expected False with config.test_epoch=last, which chooses none",
        ),
        (
            {"loss.prior_tau": 0.5},
            "config.loss.prior_tau is 0.5, expected 1 without config.loss.class_prior = corpus or train",
        ),
        ({"loss.prior_tau": 0.5, "grid.loss.class_prior": ("none", "train")}, ""),
        (
            {"grid.loss.effective_beta": (0.9, 0.99), "loss.class_weight": "balanced"},
            "config.grid.loss.effective_beta is (0.9, 0.99), expected 0.99 without config.loss.class_weight = "
            "effective",
        ),
        (
            {"streams": ("mfcc", "hubert"), "model.encoder.hubert": "finetune", "grid.class_temperature": (1.0, 2.0)},
            "config.class_temperature is 2.0, expected 1 with a fine-tuned model: the folds share its batches, and "
            "have different classes to balance",
        ),
    ],
)
def test_options_are_checked_together(changes: dict[str, object], sentence: str):
    config = default_config()
    config.update_from_flattened_dict(changes)
    assert _refusal(config) == sentence


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (("alpha=0.9", "streams=mfcc+mel model.co_attention=False"), ""),
        (("alpha=2",), "alpha of a setting of config.settings is 2.0, expected a number from 0 to 1"),
        (("alpha",), "alpha of a setting of config.settings is '', expected a number from 0 to 1"),
        (("alpha=half",), "alpha of a setting of config.settings is 'half', expected a number from 0 to 1"),
        (
            ("model.layers=1.5",),
            "model.layers of a setting of config.settings is '1.5', expected a whole number from 0",
        ),
        (("model.co_attention=no",), "model.co_attention of a setting of config.settings is 'no', expected True or"),
        (("streams=mfcc+mell",), "streams of a setting of config.settings is ('mfcc', 'mell'), expected a tuple of na"),
        (("weighting=best",), "weighting of a setting of config.settings is 'best', expected one of static, dynamic"),
        (
            ("alpha=0.9", "alhpa=0.5"),
            "config.settings has 'alhpa=0.5', where 'alhpa' is no option that a grid may vary (did you mean 'alpha'?), "
            "expected OPTION=VALUE with blanks between several",
        ),
        (
            ("epochs=3",),
            "config.settings has 'epochs=3', where 'epochs' is no option that a grid may vary, expected OP",
        ),
        (("alpha=0.5 alpha=1",), "config.settings has 'alpha=0.5 alpha=1', expected each option once"),
        (
            ("tau=2 alpha=0.5", "alpha=0.50 tau=2.0"),
            "config.settings has 'tau=2 alpha=0.5' and 'alpha=0.50 tau=2.0', expected each setting once",
        ),
    ],
)
def test_sentences_of_listed_settings(settings: tuple[str, ...], sentence: str):
    config = default_config()
    config.settings = settings
    found = _refusal(config)
    assert found.startswith(sentence) and bool(found) == bool(sentence), found


def test_settings_are_checked_with_the_other_options():
    config = default_config()
    config.settings, config.grid.tau = ("alpha=1.0", "alpha=0.5"), (1.0, 2.0)
    assert _refusal(config) == "config.settings is ('alpha=1.0', 'alpha=0.5'), expected () beside config.grid.tau"
    config.grid.tau = ()
    assert _refusal(config) == ""
    config.choose = "setting"
    assert _refusal(config) == (
        "config.choose is 'setting', expected epoch where fewer than two settings train the same tasks"
    )
    config.settings = ("alpha=1.0", "alpha=0.5", "weighting=joint")
    assert _refusal(config) == ""
    config.batch_size = 1
    assert _refusal(config) == "config.batch_size is 1, expected 2 or more: one utterance has no loss ccc"
    config.settings, config.choose = ("alpha=1.0", "alpha=1 weighting=joint"), "epoch"
    assert _refusal(config) == ""


def test_listed_settings_are_those_of_a_grid_and_are_written_as_it_names_them():
    grid, listed = (
        default_config(),
        parse_config(
            [
                "--config=configs/demo.py",
                "--config.grid.alpha=()",
                "--config.settings=('streams=mfcc alpha=0.5', 'streams=mfcc alpha=1', 'streams=mfcc+mel alpha=.50', "
                "'streams=mfcc+mel alpha=1.0')",
            ]
        ),
    )
    grid.grid.alpha, grid.grid.streams = (0.5, 1.0), (("mfcc",), ("mfcc", "mel"))
    of_grid = {frozenset(setting.name.split()): setting.values for setting in settings_of(grid)}
    of_list = {frozenset(setting.name.split()): setting.values for setting in settings_of(listed)}
    assert of_list == of_grid
    assert [setting.name for setting in settings_of(listed)][2] == "streams=mfcc+mel alpha=0.5"
    # What a setting does not name is the config's own, of options that another one names too.
    listed.settings, listed.alpha = ("streams=mel", "model.heads=2"), 0.25
    first, second = settings_of(listed)
    assert (first.values["model.heads"], first.values["alpha"]) == (4, 0.25)
    assert second.values["streams"] == ("mfcc", "mel")


def test_missing_and_unknown_options():
    config = default_config()
    with config.unlocked():
        del config.model["width"]
    assert _refusal(config) == "config.model.width is missing, expected all options of sejax.config.default_config"
    config = default_config()
    with config.unlocked():
        config.loss.vadd = "mse"
    assert _refusal(config) == "the config has no option 'loss.vadd', did you mean 'loss.vad'?"


def test_settings_of_features_differ_where_a_stream_is_made_of_them():
    """A workdir of an older version, whose prosody had a setting more, goes on if it does not read prosody."""
    here, there = default_config(), default_config().to_dict()
    there["features"]["prosody"]["win_length"] = 1024
    there["features"]["mel"]["n_mels"] = 20
    assert differences(here.to_dict(), there) == ["features.mel.n_mels is 128 here, 20 in the workdir"]
    here.settings = there["settings"] = ("streams=mfcc+prosody",)
    prosody = "features.prosody.win_length is None here, 1024 in the workdir"
    assert differences(here.to_dict(), there) == ["features.mel.n_mels is 128 here, 20 in the workdir", prosody]


def test_options_of_fine_tuning_differ_where_a_model_is_fine_tuned():
    """A workdir of an older version, whose defaults they were, goes on if nothing reads them."""
    here, there = default_config(), default_config()
    there.finetune.time_mask_prob, there.finetune.layer_drop = 0.05, 0.5
    assert differences(here.to_dict(), there.to_dict()) == []
    here.model.encoder.hubert = there.model.encoder.hubert = "finetune"
    assert differences(here.to_dict(), there.to_dict()) == [
        "finetune.layer_drop is 0.05 here, 0.5 in the workdir",
        "finetune.time_mask_prob is None here, 0.05 in the workdir",
    ]
