"""The reader of MSP-IMPROV (Busso et al., IEEE Transactions on Affective Computing 8, 2017), from its release tree.

    Evaluation.txt (in some copies Evalution.txt)                        utterances, labels, raters
    [Audio/]session{1..6}/S01A/{P,R,S,T}/MSP-IMPROV-S01A-F01-P-FM01.wav   audio

A name says: the sentence (01), the emotion that the actor was to show (A), the speaker (F01), the kind of recording
(P natural, R target sentence read, S other improvised, T target sentence improvised), and the turn. The digits of the
speaker alone are two people: F01 and M01. The list names the videos, UTD-IMPROV-...avi.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable

from sejax.corpora.files import find_path, require_folder, require_path, separate_absent
from sejax.corpora.labels import Labelled, LabelScheme, classify, find_scheme, plurality
from sejax.corpora.msp import CLASS_OF_LETTER, Evaluation, RaterCounts, read_evaluations, secondary_shares, votes_of
from sejax.corpora.published import compare_counts
from sejax.corpora.ratings import describe_ratings
from sejax.corpora.schema import Corpus, Utterance
from sejax.errors import InputError

VAD_SCALE = (1.0, 5.0)
COUNTS = {"utterances": 8438, "anger": 792, "sadness": 885, "happiness": 2644, "neutral": 3477}

_NAME = re.compile(r"(?:UTD|MSP)-IMPROV-(S(\d\d)([AHSN])-([FM])(\d\d)-([PRST])-[FM]{1,2}\d+)")
_CLASSES = ("anger", "happiness", "sadness", "neutral")
_WORDS = {name: name for name in _CLASSES}
_PERCEIVED = "perceived: plurality of at least 5 raters, no class for a tie"
MSP_IMPROV_SCHEMES = {
    scheme.name: scheme
    for scheme in (
        LabelScheme("perceived", _CLASSES, _WORDS, keep_rated=True, source=_PERCEIVED),
        LabelScheme("soft", _CLASSES, _WORDS, soft=True, keep_rated=True, source=_PERCEIVED),
        LabelScheme("acted", _CLASSES, _WORDS, source="intended"),
    )
}


def read_msp_improv(data_dir: str, labels: str = "default") -> Corpus:
    """Reads the release tree at `data_dir`.

    The scheme `perceived` (the default) has the raters' four classes, and keeps the utterances of other labels (O, X)
    for their ratings, without a class. `soft` also keeps those without ratings for their votes. `acted` has the
    emotion that the actor was to show, without votes; its ratings are still the raters'. `text` is set for the target
    sentences (R, T), which all actors say.

    Raises:
      InputError: no release is there, the scheme is unknown, or a line cannot be read (the message quotes it).
    """
    scheme = find_scheme("msp_improv", MSP_IMPROV_SCHEMES, labels, default="perceived")
    root = require_folder(data_dir, "MSP-IMPROV", "the folder with Evaluation.txt and session1 to session6")
    table = require_path(root, "MSP-IMPROV", "Evaluation.txt", "Evalution.txt")
    audio = os.path.dirname(require_path(root, "MSP-IMPROV", *_sessions("Audio/"), *_sessions("")))
    acted = scheme.name == "acted"
    raters = RaterCounts()
    labelled = list(_read(read_evaluations(table, VAD_SCALE), audio, raters, acted=acted))
    utterances, notes = classify(labelled, scheme)
    present, dropped = separate_absent(utterances)
    counts = Counter(
        name for item in labelled for name in ("utterances", None if acted else item.utterance.label) if name
    )
    expected = {name: n for name, n in COUNTS.items() if not acted or name == "utterances"}
    notes = [compare_counts("MSP-IMPROV", "counts", expected, counts), *raters.notes(), *notes]
    if acted:
        notes.append("the classes are intended, valence, arousal and dominance are perceived")
    return Corpus(
        name="msp_improv",
        classes=scheme.classes,
        vad_scale=VAD_SCALE,
        utterances=tuple(present),
        dropped=tuple(dropped),
        notes=(*notes, *describe_ratings(present, VAD_SCALE)),
        label_source=scheme.source,
    )


def _sessions(folder: str) -> tuple[str, ...]:
    return tuple(f"{folder}session{number}" for number in range(1, 7))


def _read(evaluations: Iterable[Evaluation], audio: str, counts: RaterCounts, *, acted: bool) -> Iterable[Labelled]:
    folders: dict[str, str] = {}  # of sessions, in the case in which they are written
    first: dict[str, str] = {}  # id -> its place
    for evaluation in evaluations:
        match = _NAME.fullmatch(evaluation.name)
        if match is None:
            raise InputError(
                f"{evaluation.where}: found {evaluation.name!r}, expected a name such as UTD-IMPROV-S01A-F01-P-FM01"
            )
        rest, sentence, letter, gender, number, kind = match.groups()
        id = f"MSP-IMPROV-{rest}"
        if id in first:
            raise InputError(f"{evaluation.where}: {id} occurs twice, first in {first[id]}, expected once")
        first[id] = evaluation.where
        raters = counts.each_once(evaluation.raters)
        votes = votes_of(raters)
        if votes:
            counts.compare(id, evaluation.label, plurality(votes))
        session = f"session{int(number)}"
        if session not in folders:
            folders[session] = find_path(audio, session) or os.path.join(audio, session)
        yield Labelled(
            Utterance(
                id=id,
                path=os.path.join(folders[session], f"S{sentence}{letter}", kind, f"{id}.wav"),
                speaker=f"{gender}{number}",
                corpus="msp_improv",
                session=session,
                text=f"sentence{sentence}" if kind in "RT" else None,
                gender=gender,
                label=CLASS_OF_LETTER[letter] if acted else evaluation.label,
                secondary=None if acted else secondary_shares(raters),
                vad=evaluation.vad,
                place=evaluation.where,
            ),
            () if acted else votes,
        )
