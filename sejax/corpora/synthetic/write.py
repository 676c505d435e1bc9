"""Writes the synthetic corpus: invented speech with IEMOCAP's class counts, VAD statistics, durations and layout.

It is written as an IEMOCAP release tree with a marker file beside it, which
`sejax.corpora.readers.iemocap.read_synthetic` reads.
"""

import contextlib
import json
import os
import shutil
import tempfile
import wave
import zlib
from collections.abc import Generator, Mapping, Sequence

import numpy as np
from jaxtyping import Float32

from sejax.corpora.readers.iemocap import SYNTHETIC_MARKER, iemocap_shape
from sejax.corpora.schema import SAMPLING_RATE
from sejax.corpora.synthetic import voice
from sejax.corpora.synthetic.turns import VOWEL_LETTERS, SyntheticTurn, plan_turns
from sejax.errors import InputError
from sejax.host.processes import map_in_processes
from sejax.host.progress import progress_bar

# Raise it with any change to this package that changes a byte of what is written.
SYNTHETIC_VERSION = 1
ROOM_LEVEL = -69.0  # level of the noise in the room, dB full scale
UTTERANCES_PER_PROCESS = 200  # with fewer, starting one more process takes longer than it saves


def prepare_synthetic(data_dir: str, cache_dir: str, settings: Mapping[str, float], workers: int | None = None) -> str:
    """Writes the corpus unless it is there already, and returns its folder.

    Args:
      data_dir: the folder of the corpus; if empty, a folder of `cache_dir` that is named after the settings.
      cache_dir: used if `data_dir` is empty.
      settings: `fraction` and `seed` of `write_synthetic`.
      workers: number of processes, as in `write_synthetic`.

    Raises:
      InputError: see `write_synthetic`.
    """
    fraction, seed = settings["fraction"], int(settings["seed"])
    folder = data_dir or os.path.join(cache_dir, f"synthetic-{fraction:g}-{seed}")
    write_synthetic(folder, fraction=fraction, seed=seed, workers=workers)
    return folder


def write_synthetic(folder: str, *, fraction: float, seed: int, workers: int | None = None) -> None:
    """Writes the corpus to `folder`, in the layout of IEMOCAP's release, unless it is there already.

    The bytes depend on `fraction` and `seed` alone. The folder appears under its name only when it is complete. A
    killed process leaves a folder `<folder>.partial-*` behind, which is never read and may be deleted.

    Args:
      folder: a new or empty folder, or one with the corpus of the same settings.
      fraction: share of the 5,531 utterances of IEMOCAP's usual set, with at least one per speaker and class.
        About a tenth as many are written in addition, with labels outside the usual label schemes.
      seed: 0 or more.
      workers: number of processes that synthesise (default: all CPUs, fewer for a small corpus). As with all
        programs that start processes, a script that calls this needs `if __name__ == "__main__":`.

    Raises:
      InputError: the folder holds something else or a corpus of other settings, a setting is out of range, or the
        folder cannot be written.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"config.synthetic.fraction is {fraction}, expected above 0 and up to 1")
    if seed < 0:
        raise InputError(f"config.synthetic.seed is {seed}, expected 0 or more")
    if workers is not None and workers < 1:
        raise InputError(f"config.workers is {workers}, expected 1 or more")
    folder = os.path.abspath(folder)
    settings = {"synthetic": SYNTHETIC_VERSION, "fraction": float(fraction), "seed": int(seed)}
    if _is_complete(folder, settings):
        return
    parent, name = os.path.split(folder)
    try:
        os.makedirs(parent, exist_ok=True)
        partial = tempfile.mkdtemp(prefix=f"{name}.partial-", dir=parent)
    except OSError as error:
        raise InputError(
            f"no folder can be made in {parent} ({error.strerror}), expected a folder to write to"
        ) from error
    try:
        os.chmod(partial, 0o755)  # mkdtemp makes it private
        _write_tree(os.path.join(partial, "IEMOCAP_full_release"), fraction, seed, workers)
        with open(os.path.join(partial, SYNTHETIC_MARKER), "w", encoding="utf-8") as file:
            json.dump(settings, file)
        try:
            os.replace(partial, folder)
        except OSError:
            # Another process may have finished first; anything else is raised by the check or here.
            if not _is_complete(folder, settings):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_tree(root: str, fraction: float, seed: int, workers: int | None) -> None:
    """Writes the release tree below `root`: first the text files, then the audio."""
    turns = plan_turns(fraction, seed)
    by_recording: dict[str, list[SyntheticTurn]] = {}
    for turn in turns:
        by_recording.setdefault(turn.recording, []).append(turn)
    for recording, members in by_recording.items():
        session = os.path.join(root, f"Session{members[0].session}")
        evaluation = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"]
        words = []
        for turn in members:
            vad = ", ".join(f"{value:.4f}" for value in turn.vad)
            evaluation.append(f"[{turn.start:.4f} - {turn.end:.4f}]\t{turn.id}\t{turn.code}\t[{vad}]")
            evaluation += [*turn.raters, ""]
            words.append(f"{turn.id} [{turn.start:08.4f}-{turn.end:08.4f}]: {turn.transcript}")
        for folder, lines in (("EmoEvaluation", evaluation), ("transcriptions", words)):
            path = os.path.join(session, "dialog", folder, recording + ".txt")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
        os.makedirs(os.path.join(session, "sentences", "wav", recording))

    jobs = [(root, seed, turn) for turn in turns]
    # Closing ends the processes: after an interrupt none of them may write while the folder is removed.
    with (
        contextlib.closing(_write_all(jobs, workers)) as written,
        progress_bar(len(jobs), f"synthetic corpus  {len(jobs)} utterances", leave=True) as progress,
    ):
        for _ in written:
            progress.update()


def _write_all(jobs: Sequence[tuple[str, int, SyntheticTurn]], workers: int | None) -> Generator[None, None, None]:
    processes = min(workers or os.cpu_count() or 1, 1 + len(jobs) // UTTERANCES_PER_PROCESS)
    if processes == 1:
        yield from map(_write_audio, jobs)
    else:
        yield from map_in_processes(_write_audio, jobs, workers=processes, chunk=16)


def _write_audio(job: tuple[str, int, SyntheticTurn]) -> None:
    """Synthesises one turn and writes its file."""
    root, seed, turn = job
    samples = speak_turn(turn, seed)
    path = os.path.join(root, f"Session{turn.session}", "sentences", "wav", turn.recording, turn.id + ".wav")
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLING_RATE)
        file.writeframes(np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def speak_turn(turn: SyntheticTurn, seed: int) -> Float32[np.ndarray, " samples"]:
    """Returns the sound of one turn at 16 kHz: its speaker's voice, its emotion, and the noise of the room.

    It depends on the seed and the turn alone.
    """
    shape = iemocap_shape()
    gender = turn.id.rpartition("_")[2][0]
    speaker = voice.draw_speaker(np.random.default_rng([seed, turn.session, ord(gender)]), gender)
    rng = np.random.default_rng([seed, zlib.crc32(turn.id.encode())])
    vad = (np.array(turn.expressed) - shape["vad_mean"]) / shape["vad_sd"]
    anger, joy, sorrow = (turn.mixture.count(name) / len(turn.mixture) for name in ("angry", "happy", "sad"))
    expression = voice.express(rng, vad, anger, joy, sorrow)
    vowels = [VOWEL_LETTERS.index(letter) for letter in turn.transcript.lower() if letter in VOWEL_LETTERS]
    samples = voice.synthesise(rng, speaker, expression, vowels, turn.end - turn.start)
    room = 10 ** ((ROOM_LEVEL + 3 * rng.standard_normal()) / 20)
    return samples + np.float32(room) * rng.standard_normal(len(samples), dtype=np.float32)


def _is_complete(folder: str, settings: dict[str, int | float]) -> bool:
    """Returns whether `folder` holds the corpus of these settings.

    Raises:
      InputError: it holds anything else.
    """
    if not os.path.lexists(folder) or (os.path.isdir(folder) and not os.listdir(folder)):
        return False
    marker = os.path.join(folder, SYNTHETIC_MARKER)
    if not os.path.isfile(marker):
        raise InputError(
            f"{folder} exists and is no synthetic corpus ({SYNTHETIC_MARKER} is missing), expected a new folder"
        )
    with open(marker, encoding="utf-8") as file:
        written = file.read()
    if written != json.dumps(settings):
        raise InputError(
            f"{folder} has the synthetic corpus {written}, expected {json.dumps(settings)}: give a new folder"
        )
    return True
