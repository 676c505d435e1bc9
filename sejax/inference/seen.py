"""What the runs of a bundle have heard: the audio and the speakers of their study, and whom each run held out.

`utterances.csv` in a bundle has a row for each utterance of the study: its speaker, and the digest of its decoded
samples. `config.json` has the speakers that each run held out.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sejax.errors import InputError
from sejax.host.atomic import atomic_write
from sejax.workdir.data import AUDIO, UTTERANCES, held_out_speakers, read_rows

HELD_OUT = "held_out"  # in config.json
SPEAKER = "speaker"


@dataclass(frozen=True)
class Heard:
    """The corpus that a bundle's runs were trained on, as far as the bundle knows it.

    Attributes:
      corpus: its name; of several corpora their names with + between.
      folds: the fold of each run.
      held_out: of each run, the speakers whom it was neither trained on nor had its epoch chosen by.
      speakers_of: the speakers of each digest of decoded samples.
    """

    corpus: str
    folds: tuple[str, ...]
    held_out: tuple[frozenset[str], ...]
    speakers_of: Mapping[str, frozenset[str]]

    def select(self, places: Sequence[int]) -> "Heard":
        """Returns the same of the runs at these places."""
        folds = tuple(self.folds[place] for place in places)
        return replace(self, folds=folds, held_out=tuple(self.held_out[place] for place in places))

    @cached_property
    def speakers(self) -> frozenset[str]:
        """All speakers of the study."""
        return frozenset().union(*self.speakers_of.values())

    def named(self, corpus: str, speaker: str) -> frozenset[str]:
        """Returns the speaker of the study whom a speaker of a corpus is by name; empty if there is none."""
        return frozenset({speaker if corpus == self.corpus else f"{corpus}:{speaker}"}) & self.speakers

    def runs_without(self, speakers: frozenset[str]) -> list[int]:
        """Returns the places of the runs that held all of these speakers out; all runs where there are none."""
        return [place for place, held_out in enumerate(self.held_out) if speakers <= held_out]


def of_workdir(workdir: str, numbers: Sequence[int]) -> tuple[list[dict[str, str]], list[list[str]]] | None:
    """Returns what a workdir knows: the rows for `utterances.csv` of a bundle, and whom each of its runs held out.

    Args:
      workdir: of the study.
      numbers: of the runs.

    Returns:
      None if the study is of an older version, which did not write its audio down, or its files were changed since.
    """
    rows, held_out = read_rows(workdir), held_out_speakers(workdir, numbers)
    if rows is None or held_out is None:
        return None
    return [{SPEAKER: row[SPEAKER], AUDIO: row[AUDIO]} for row in rows], held_out


def write_rows(folder: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Writes `utterances.csv` of a bundle."""
    with atomic_write(folder / UTTERANCES) as file:
        writer = csv.DictWriter(file, (SPEAKER, AUDIO), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_heard(folder: Path, tree: Mapping[str, Any], folds: Sequence[str]) -> Heard | None:
    """Returns what a bundle knows of its study; None if it was exported by an older version, which kept nothing.

    Args:
      folder: of the bundle.
      tree: the content of config.json.
      folds: of all its runs.

    Raises:
      InputError: what is there cannot be read.
    """
    path = folder / UTTERANCES
    given = tree.get("study", {})
    if not path.is_file() or HELD_OUT not in given:
        return None
    speakers_of: dict[str, frozenset[str]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                speakers_of[row[AUDIO]] = speakers_of.get(row[AUDIO], frozenset()) | {row[SPEAKER]}
        held_out = tuple(frozenset(map(str, speakers)) for speakers in given[HELD_OUT])
        if len(held_out) != len(folds) or not speakers_of:
            raise ValueError(f"{len(held_out)} runs in {HELD_OUT}, {len(folds)} runs")
        return Heard(str(given["corpus"]["name"]), tuple(folds), held_out, speakers_of)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}: {error}), expected the speakers and the audio of the "
            "study; export the study again"
        ) from error
