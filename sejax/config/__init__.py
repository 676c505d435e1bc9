"""Every option: its default, its check, and what it may be together with the others."""

from sejax.config.checks import CHECKS
from sejax.config.defaults import BASELINE, STACKED, STRUCTURAL, at, default_config, read_words
from sejax.config.options import (
    OPTIONS,
    VARIED,
    check_config,
    differences,
    encoder_of,
    feature_files,
    settings_of,
    unchangeable,
    unknown_option,
    values_of,
    with_structure,
)

__all__ = [
    "BASELINE",
    "CHECKS",
    "OPTIONS",
    "STACKED",
    "STRUCTURAL",
    "VARIED",
    "at",
    "check_config",
    "default_config",
    "differences",
    "encoder_of",
    "feature_files",
    "read_words",
    "settings_of",
    "unchangeable",
    "unknown_option",
    "values_of",
    "with_structure",
]
