"""The reader of RAVDESS (Livingstone and Russo, PLoS ONE 13(5), 2018): the audio of speech, and that of song.

    Actor_01/03-01-06-01-02-01-01.wav    modality, channel, emotion, intensity, statement, repetition, actor

Speech and song share folders and the form of the names. Two files of Actor_07's speech have the same audio.
"""

import re

from sejax.corpora.filenames import FileNames, read_by_filename
from sejax.corpora.schema import Corpus

LABELS = {
    "01": "neutral",
    "02": "calm",
    "03": "happiness",
    "04": "sadness",
    "05": "anger",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
ACTORS = [f"{actor:02d}" for actor in range(1, 25)]
SINGERS = [actor for actor in ACTORS if actor != "18"]
GENDERS = {actor: "F" if int(actor) % 2 == 0 else "M" for actor in ACTORS}


def _declare(name: str, title: str, channel: str, codes: list[str], actors: list[str], aside: str) -> FileNames:
    """Returns the declaration of speech or song: `codes` are the emotions that the actors have."""
    # Each actor has 2 statements in 2 repetitions at 2 intensities; neutral has one intensity.
    suffixes = [
        f"{code}-{intensity}-{statement}-{repetition}-{actor}"
        for code in codes
        for intensity in (("01",) if code == "01" else ("01", "02"))
        for statement in ("01", "02")
        for repetition in ("01", "02")
        for actor in actors
    ]
    names = [f"03-{channel}-{suffix}" for suffix in suffixes]
    return FileNames(
        name=name,
        title=title,
        example=f"Actor_01/03-{channel}-05-01-02-01-01.wav",
        parts=f"modality 03, channel {channel}, emotion, intensity, statement, repetition, actor",
        pattern=re.compile(rf"03-{channel}-(?P<code>\d\d)-0[12]-(?P<text>0[12])-0[12]-(?P<speaker>\d\d)"),
        lookups={
            "label": ("code", {code: LABELS[code] for code in codes}),
            "gender": ("speaker", {actor: GENDERS[actor] for actor in actors}),
        },
        counts={LABELS[code]: sum(suffix.startswith(code) for suffix in suffixes) for code in codes},
        folders=("**",),
        aside=(aside, re.compile(r"0[123]-0[12](-\d\d){5}")),
        copies=True,  # a copy of Kaggle holds audio_speech_actors_01-24 inside itself
        speakers={actor: len(names) // len(actors) for actor in actors},
        names=lambda _: names,
    )


RAVDESS = _declare("ravdess", "RAVDESS speech", "01", list(LABELS), ACTORS, "song or video")
RAVDESS_SONG = _declare("ravdess_song", "RAVDESS song", "02", list(LABELS)[:6], SINGERS, "speech or video")


def read_ravdess(data_dir: str, labels: str = "default") -> Corpus:
    """Reads the speech of RAVDESS by its file names: see `read_by_filename`. There is one label scheme, "default"."""
    return read_by_filename(RAVDESS, data_dir, labels)


def read_ravdess_song(data_dir: str, labels: str = "default") -> Corpus:
    """Reads the songs of RAVDESS by their file names: see `read_by_filename`. There is one label scheme, "default"."""
    return read_by_filename(RAVDESS_SONG, data_dir, labels)
