"""The tables of Bautista & Shin (2025): each stream alone, parallel streams, attention, tasks and their weighting.

    python -m experiments.paper.tables --workdir runs/paper
    python -m experiments.paper.tables --corpus iemocap --data-dir IEMOCAP_full_release --workdir runs/paper \
        --wav2vec2 facebook/wav2vec2-base --hubert facebook/hubert-base-ls960

Two studies of `configs/joint.py` with the encoders of the default config: `streams` has a program for each structure,
`weighting` one program of the whole model, of which each fold also chooses a weighting on its validation speakers. The
plan says which program trains which row; `--plan` prints it alone. The tables are also written to table.md in the
workdir; a workdir that holds finished studies of the same options is only read.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from configs.joint import get_config
from experiments.train import train_once
from sejax.comparison.tables import paired_cells
from sejax.config import STRUCTURAL, check_config, default_config, settings_of
from sejax.engine.runs import enumerate_runs, group_by_structure, written
from sejax.errors import InputError
from sejax.evaluation.nested import CHOSEN
from sejax.evaluation.paired import Pair, compare
from sejax.evaluation.tables import COLUMNS
from sejax.host.atomic import atomic_write
from sejax.host.wording import count
from sejax.report.read import Study, read_study

CORPORA = ("synthetic", "iemocap")  # classes and dimensions, on one scale
ACOUSTIC = {"mfcc": "MFCC", "stf": "short-term features", "mel": "mel-spectrogram"}
PRETRAINED = {"wav2vec2": "Wav2Vec 2.0", "hubert": "HuBERT"}
METRICS = ("wa", "ua", "ccc_valence", "ccc_arousal", "ccc_dominance", "ccc_mean")
ALPHAS = tuple(tenth / 10 for tenth in range(1, 10))
CLASS_ONLY, VAD_ONLY, JOINT = "alpha=1.0", "alpha=0.0", "alpha=0.5"
NO_SELF, NO_CO = "model.self_attention=False", "model.co_attention=False"
PAIRS = (
    *(Pair(row, CLASS_ONLY, "ua") for row in (JOINT, "weighting=dynamic", "weighting=joint", CHOSEN)),
    *(Pair(row, VAD_ONLY, "ccc_mean") for row in (JOINT, "weighting=dynamic", "weighting=joint", CHOSEN)),
    *(Pair(JOINT, row, metric) for row in (f"{NO_SELF} {NO_CO}", NO_CO, NO_SELF) for metric in ("ua", "ccc_mean")),
)
"""The rows that are tested against each other, and in what: fixed before any result."""


class Published(NamedTuple):
    """What a publication says of IEMOCAP: 4 classes, 5,531 utterances."""

    system: str
    protocol: str
    scores: Mapping[str, str]  # by metric, as printed


PUBLISHED = (
    Published(
        "Bautista & Shin 2025, their best",
        "leave one subject out",
        {"wa": "72.66", "ua": "73.22", "ccc_mean": "0.3717"},
    ),
    Published(
        "CA-MSER (Zou et al. 2022)",
        "10-fold, the epoch is chosen on the test speaker: optimistic",
        {"wa": "71.64", "ua": "72.70"},
    ),
    Published(
        "class-mean look-up at 73 % accuracy",
        "computed from label statistics",
        {"ccc_mean": "0.376"},
    ),
)


def rows_of(pretrained: Sequence[str]) -> dict[str, dict[str, str]]:
    """Returns the rows of the tables: by study, what each setting is, by its name.

    Args:
      pretrained: the streams that hear raw audio, of `PRETRAINED`.
    """
    together = "+".join(ACOUSTIC)
    streams = {f"streams={name}": f"{title} alone" for name, title in ACOUSTIC.items()}
    streams |= {f"streams={name}": f"raw audio by {PRETRAINED[name]} alone" for name in pretrained}
    if pretrained:
        streams[f"streams={together}"] = "parallel streams without raw audio"
    if len(pretrained) > 1:
        streams |= {
            f"streams={together}+{name}": f"parallel streams, raw audio by {PRETRAINED[name]} only"
            for name in pretrained
        }
    return {
        "streams": {
            **streams,
            f"{NO_SELF} {NO_CO}": "parallel streams, no attention",
            NO_CO: "parallel streams, self-attention alone",
            NO_SELF: "parallel streams, co-attention alone",
        },
        "weighting": {
            CLASS_ONLY: "class only",
            VAD_ONLY: "VAD only",
            **{f"alpha={alpha}": f"joint, alpha {alpha}" for alpha in ALPHAS},
            "weighting=dynamic": "joint, dynamic weighting",
            "weighting=joint": "joint, joint weighting",
        },
    }


def study_configs(corpus: str, data_dir: str, checkpoints: Mapping[str, str]) -> dict[str, ConfigDict]:
    """Returns the configs of the studies, by the name of their workdir.

    Args:
      corpus: of `CORPORA`.
      data_dir: its folder.
      checkpoints: a folder or an id of the hub by stream of `PRETRAINED`.
    """
    configs = {}
    for study, rows in rows_of(list(checkpoints)).items():
        config = get_config(",".join((corpus, *ACOUSTIC, *checkpoints)))
        config.data_dir = data_dir
        for stream, checkpoint in checkpoints.items():
            config.features.ssl[stream].model = checkpoint
        for stream in ACOUSTIC:
            config.model.encoder[stream] = default_config().model.encoder[stream]
        config.grid.alpha, config.settings = (), tuple(rows)
        configs[study] = config
    configs["weighting"].choose = "setting"
    return configs


def plan(configs: Mapping[str, ConfigDict], rows: Mapping[str, Mapping[str, str]]) -> str:
    """Returns which program trains which rows, in lines.

    Raises:
      InputError: an option of a config makes no sense.
    """
    lines, programs = [], 0
    for study, config in configs.items():
        check_config(config)
        groups = group_by_structure(enumerate_runs(1, settings_of(config), [config.seed]), STRUCTURAL)
        for number, (structure, runs) in enumerate(groups, 1):
            what = {"streams": config.streams, **structure}
            described = ", ".join(f"{name}={written(value)}" for name, value in what.items())
            lines.append(f"{study}, program {number} of {len(groups)}: {described}")
            lines += [f"  {rows[study][run.setting.name]} ({run.setting.name})" for run in runs]
        programs += len(groups)
    settings = sum(map(len, rows.values()))
    return "\n".join(
        [*lines, f"{count(settings, 'row')} in {count(programs, 'program')}, each with all folds and seeds"]
    )


def results(studies: Mapping[str, Study], rows: Mapping[str, Mapping[str, str]]) -> str:
    """Returns the Markdown table of all rows with 95 % intervals, beside what is published.

    `look-up` is the mean CCC of the mean VAD of the predicted class in the training folds: what a row knows of
    dimensions by its classes alone.
    """
    lines = [["", "setting", *(f"{COLUMNS[key].title} {COLUMNS[key].unit}".strip() for key in METRICS), "look-up"]]
    for study, read in studies.items():
        titles = {**rows[study], CHOSEN: "joint, each fold's own choice of these"}
        for entry in read.settings:
            lookup = entry.lookup.get("ccc_mean")
            cells = [entry.metrics.get(key) for key in METRICS]
            texts = [
                COLUMNS[key].estimate(vars(cell)) if cell else "" for key, cell in zip(METRICS, cells, strict=True)
            ]
            known = COLUMNS["ccc_mean"].number(lookup.pooled) if lookup else ""
            lines.append([titles[entry.name], entry.name, *texts, known])
    majority = studies["weighting"].majority
    texts = [COLUMNS[key].estimate(vars(majority[key])) if key in majority else "" for key in METRICS]
    lines.append(["majority class", "", *texts, ""])
    for published in PUBLISHED:
        texts = [published.scores.get(key, "") for key in METRICS]
        lines.append([f"published, IEMOCAP: {published.system}", published.protocol, *texts, ""])
    return _markdown(lines)


def tests(studies: Mapping[str, Study], rows: Mapping[str, Mapping[str, str]]) -> str:
    """Returns the Markdown table of the differences of `PAIRS`, paired over speakers, as `sejax.compare` has them."""
    titles = {name: title for of_study in rows.values() for name, title in of_study.items()}
    titles |= {CHOSEN: "joint, each fold's own choice", JOINT: "joint, alpha 0.5, both attentions"}
    predictions = {name: of for study in studies.values() for name, of in study.predictions.by("setting").items()}
    lines = [["", "minus", "in", "difference", "p", "Holm"]]
    for found in compare(predictions, PAIRS):
        row, other, metric = found.pair
        title = f"{COLUMNS[metric].title} {COLUMNS[metric].unit}".strip()
        lines.append([titles[row], titles[other], title, *paired_cells(found)])
    return _markdown(lines)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    """Returns a table whose columns are aligned, so that it also reads as text."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    head, *body = (" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    rule = "-|-".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in (head, rule, *body)).replace(f"| {rule} |", f"|-{rule}-|")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", choices=CORPORA, default="synthetic")
    parser.add_argument("--data-dir", default="", help="folder of the corpus")
    for stream, title in PRETRAINED.items():
        parser.add_argument(f"--{stream}", default="", metavar="MODEL", help=f"{title}: a folder or an id of the hub")
    parser.add_argument("--workdir", type=Path, help="holds a workdir for each of the studies")
    parser.add_argument("--plan", action="store_true", help="prints which program trains which row, and ends")
    parser.add_argument("--epochs", type=int, help="in place of the config's")
    parser.add_argument("--seeds", type=int, help="in place of the config's")
    parser.add_argument(
        "--frames-only", action="store_true", help="without the statistics of the streams beside their encoders"
    )
    parser.add_argument("--fraction", type=float, help="of the synthetic corpus, in place of the config's")
    arguments = parser.parse_args(words)
    if not arguments.plan and arguments.workdir is None:
        parser.error("--workdir is missing, expected a folder, or --plan")
    try:
        _run(arguments)
    except InputError as error:
        sys.exit(f"error: {error}")


def _run(arguments: argparse.Namespace) -> None:
    """Prints the plan, trains the studies that are not finished, and prints their tables."""
    checkpoints = {stream: getattr(arguments, stream) for stream in PRETRAINED if getattr(arguments, stream)}
    rows = rows_of(list(checkpoints))
    configs = study_configs(arguments.corpus, arguments.data_dir, checkpoints)
    for config in configs.values():
        config.epochs = config.epochs if arguments.epochs is None else arguments.epochs
        config.seeds = config.seeds if arguments.seeds is None else arguments.seeds
        config.model.statistics = not arguments.frames_only
        if arguments.fraction is not None:
            config.synthetic.fraction = arguments.fraction
    print(plan(configs, rows))
    for stream in PRETRAINED.keys() - checkpoints.keys():
        print(f"no rows of {PRETRAINED[stream]}: --{stream} names no checkpoint")
    if arguments.plan:
        return
    for study, config in configs.items():
        train_once(config, arguments.workdir / study)
    studies = {study: read_study(str(arguments.workdir / study)) for study in configs}
    text = f"{results(studies, rows)}\n\n{tests(studies, rows)}"
    with atomic_write(arguments.workdir / "table.md") as file:
        file.write(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
