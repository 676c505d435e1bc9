"""The reader of EmoDB, the Berlin Database of Emotional Speech (Burkhardt et al., Interspeech 2005).

File names are `SSTTTEv.wav`: speaker, text, emotion, version (`03a01Fa.wav`). The folder or archive may also
hold `erkennung.txt`, what share of 20 listeners recognised the intended emotion and found it natural: that is
no distribution over the classes, so it is not read.
"""

import math
import os
import re
import wave
import zipfile
from collections import Counter
from collections.abc import Callable
from typing import IO

from sejax.corpora.labels import EMODB_SCHEMES, LabelScheme, find_scheme
from sejax.corpora.schema import Corpus, Dropped, Utterance
from sejax.errors import InputError

MEN = ("03", "10", "11", "12", "15")
WOMEN = ("08", "09", "13", "14", "16")
CLASS_COUNTS = {
    "anger": 127,
    "boredom": 81,
    "neutral": 79,
    "happiness": 71,
    "fear": 69,
    "sadness": 62,
    "disgust": 46,
}
N_UTTERANCES = 535

_NAME = re.compile(r"(\d\d)([ab]\d\d)([WLNFATE])([a-z])")


def read_emodb(data_dir: str, labels: str = "default") -> Corpus:
    """Reads the zip archive or the unpacked folder at `data_dir` (the wav files in it or in its `wav`).

    Paths of files in an archive are written `<archive>::<member>`. EmoDB has no valence, arousal or
    dominance: `vad` is NaN. A wav file whose name does not say what it is, is dropped with a sentence. A file
    whose header cannot be read has no duration (what is wrong with it shows when its audio is read).

    Raises:
      InputError: nothing at `data_dir`, no zip archive, no utterances, a file name that occurs twice, an
        unknown scheme, or 535 utterances whose counts per class are not the published ones.
    """
    scheme = find_scheme("emodb", EMODB_SCHEMES, labels, default="default")
    if not os.path.exists(data_dir):
        raise InputError(f"no EmoDB at {data_dir!r}: expected emodb.zip or its unpacked folder")
    data_dir = os.path.abspath(data_dir)
    if os.path.isdir(data_dir):
        utterances, dropped = _read_folder(data_dir, scheme)
    else:
        utterances, dropped = _read_archive(data_dir, scheme)
    if not utterances:
        raise InputError(f"{data_dir} has no EmoDB utterance: expected files like wav/03a01Fa.wav")
    notes = []
    counts = Counter(utterance.label for utterance in utterances)
    if len(utterances) != N_UTTERANCES:
        notes.append(f"{len(utterances)} utterances, the full EmoDB has {N_UTTERANCES}")
    elif counts != Counter(CLASS_COUNTS):
        differ = [f"{name} {counts[name]} instead of {n}" for name, n in CLASS_COUNTS.items() if counts[name] != n]
        raise InputError(f"{data_dir} has {N_UTTERANCES} utterances but not the published counts: {', '.join(differ)}")
    else:
        notes.append(f"full corpus: {N_UTTERANCES} utterances with the published counts per class")
    return Corpus(
        name="emodb",
        classes=scheme.classes,
        vad_scale=(1.0, 5.0),  # there is no VAD; any scale will do
        utterances=tuple(sorted(utterances, key=lambda utterance: utterance.id)),
        dropped=tuple(sorted(dropped, key=lambda file: file.path)),
        notes=tuple(notes),
    )


def _read_folder(folder: str, scheme: LabelScheme) -> tuple[list[Utterance], list[Dropped]]:
    inner = os.path.join(folder, "wav")
    folder = inner if os.path.isdir(inner) else folder
    paths = [os.path.join(folder, name) for name in os.listdir(folder)]
    return _read_files([path for path in paths if os.path.isfile(path)], lambda path: open(path, "rb"), scheme)


def _read_archive(archive: str, scheme: LabelScheme) -> tuple[list[Utterance], list[Dropped]]:
    try:
        with zipfile.ZipFile(archive) as file:
            prefix = archive + "::"
            paths = [prefix + member for member in file.namelist()]
            return _read_files(paths, lambda path: file.open(path.removeprefix(prefix)), scheme)
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{archive} cannot be read as a zip archive ({error}): expected emodb.zip or a folder"
        ) from error


def _read_files(
    paths: list[str], open_file: Callable[[str], IO[bytes]], scheme: LabelScheme
) -> tuple[list[Utterance], list[Dropped]]:
    utterances: dict[str, Utterance] = {}
    dropped: list[Dropped] = []
    for path in paths:
        stem, extension = os.path.splitext(re.split(r"[/\\]", path)[-1])
        if extension.lower() != ".wav" or stem.startswith("."):  # macOS leaves ._* behind
            continue
        match = _NAME.fullmatch(stem)
        if match is None or match[1] not in MEN + WOMEN:
            known = " ".join(sorted(MEN + WOMEN))
            reason = f"{stem}.wav is not named like 03a01Fa.wav (speaker of {known}, text, emotion, version)"
            dropped.append(Dropped(stem, path, reason))
            continue
        if stem in utterances:
            raise InputError(f"the utterance {stem} occurs twice: {utterances[stem].path} and {path}")
        utterances[stem] = Utterance(
            id=stem,
            path=path,
            speaker=match[1],
            text=match[2],
            gender="M" if match[1] in MEN else "F",
            label=scheme.merge[match[3]],
            duration=_seconds(open_file, path),
        )
    return list(utterances.values()), dropped


def _seconds(open_file: Callable[[str], IO[bytes]], path: str) -> float | None:
    """What the header says, or None where there is no readable header."""
    try:
        with open_file(path) as file, wave.open(file) as audio:
            seconds = audio.getnframes() / audio.getframerate()
    except (wave.Error, EOFError, zipfile.BadZipFile, ZeroDivisionError, RuntimeError):
        return None
    return seconds if math.isfinite(seconds) else None
