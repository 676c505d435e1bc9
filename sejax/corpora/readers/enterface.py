"""The reader of eNTERFACE'05 (Martin et al., ICDE Workshops 2006), from its folders and converted audio.

    subject 1/anger/sentence 1/s1_an_1.avi, converted to s1_an_1.wav beside or in place of it

Names of files are irregular (subject 11 is called s12_*, subject 2 has two sentences swapped, s16_su_3avi): subject,
emotion and sentence are those of the folders. There is no subject 12. Subject 6 has whole recordings in place of
sentences. The recordings were elicited: each subject reacted to a story.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator

from sejax.corpora.files import require_folder
from sejax.corpora.labels import Labelled, LabelScheme, classify, find_scheme
from sejax.corpora.published import compare_counts
from sejax.corpora.schema import Corpus, Dropped, Loss, Utterance
from sejax.errors import InputError
from sejax.host.wording import count

# The class and its letters in names.
LETTERS = {"anger": "an", "disgust": "di", "fear": "fe", "happiness": "ha", "sadness": "sa", "surprise": "su"}
# Without the six recordings of subject 6.
COUNTS = {"utterances": 1257, "subjects": 42, **{name: 207 if name == "happiness" else 210 for name in LETTERS}}
ENTERFACE_SCHEMES = {
    "default": LabelScheme("default", tuple(LETTERS), {name: name for name in LETTERS}, source="elicited"),
}

_SUBJECT = re.compile(r"subject[\s_-]*(\d+)", re.IGNORECASE)
_SENTENCE = re.compile(r"sentence[\s_-]*(\d+)", re.IGNORECASE)
_CONVERT = "find . -name '*.avi' -exec sh -c 'ffmpeg -i \"$1\" -ac 1 -ar 16000 \"${1%.avi}.wav\"' _ {} \\;"


def read_enterface(data_dir: str, labels: str = "default") -> Corpus:
    """Reads the folders `subject N` in `data_dir`, or in the one folder in it that holds them.

    `speaker` is the number of the folder, `text` class and sentence, as each sentence belongs to one class: the words
    give the class away. A sentence with a video and no wav file is dropped with a sentence.

    Raises:
      InputError: no subjects are there, no wav file is there but videos are (the message has the command that converts
        them), a folder of a sentence has two wav files, or the scheme is unknown.
    """
    scheme = find_scheme("enterface", ENTERFACE_SCHEMES, labels, default="default")
    root = _find_root(require_folder(data_dir, "eNTERFACE'05", "the folder with subject 1 to subject 44"))
    utterances: list[Utterance] = []
    dropped: list[Dropped] = []
    whole: list[str] = []
    for subject, label, path in _emotions(root):
        files = sorted(name for name in os.listdir(path) if _is_file(path, name))
        whole += [os.path.join(path, name) for name in files if name.casefold().endswith((".avi", ".wav"))]
        for name in sorted(os.listdir(path)):
            match = _SENTENCE.fullmatch(name)
            if match is not None and os.path.isdir(os.path.join(path, name)):
                found = _sentence(os.path.join(path, name), subject, label, int(match[1]))
                if isinstance(found, Utterance):
                    utterances.append(found)
                elif found is not None:
                    dropped.append(found)
    if not utterances and dropped:
        raise InputError(f"{root} holds videos (avi) and no wav file, expected one beside each: {_CONVERT}")
    counts = Counter(utterance.label for utterance in utterances)
    found_counts = {
        "utterances": len(utterances),
        "subjects": len({utterance.speaker for utterance in utterances}),
        **{label: n for label, n in counts.items() if label is not None},
    }
    notes = [compare_counts("eNTERFACE'05", "counts", COUNTS, found_counts)]
    if whole:
        notes.append(
            f"{count(len(whole), 'recording')} outside the folders of sentences left out, as those of subject 6 are "
            f"not cut (the first: {whole[0]})"
        )
    notes.append("each sentence belongs to one class: the words give the class away")
    classified, outside = classify(map(Labelled, sorted(utterances, key=lambda utterance: utterance.id)), scheme)
    return Corpus(
        name="enterface",
        classes=scheme.classes,
        vad_scale=(1.0, 5.0),  # unused: there is no VAD
        utterances=tuple(classified),
        dropped=tuple(dropped),
        notes=(*notes, *outside),
        label_source=scheme.source,
    )


def _find_root(data_dir: str) -> str:
    inside = [os.path.join(data_dir, name) for name in sorted(os.listdir(data_dir))]
    for root in (data_dir, *inside):
        if os.path.isdir(root) and any(_SUBJECT.fullmatch(name) for name in os.listdir(root)):
            return root
    raise InputError(f"no eNTERFACE'05 in {data_dir!r}: expected folders subject 1 to subject 44 in it")


def _is_file(folder: str, name: str) -> bool:
    return not name.startswith(".") and os.path.isfile(os.path.join(folder, name))


def _emotions(root: str) -> Iterator[tuple[int, str, str]]:
    """Yields the number of the subject, the class and the path of each folder of an emotion."""
    for name in sorted(os.listdir(root)):
        match = _SUBJECT.fullmatch(name)
        folder = os.path.join(root, name)
        if match is None or not os.path.isdir(folder):
            continue
        for emotion in sorted(os.listdir(folder)):
            path = os.path.join(folder, emotion)
            if emotion.startswith(".") or not os.path.isdir(path):
                continue
            label = emotion.casefold().strip()
            if label not in LETTERS:
                raise InputError(f"{path}: the folder is called {emotion!r}, expected one of {', '.join(LETTERS)}")
            yield int(match[1]), label, path


def _sentence(folder: str, subject: int, label: str, number: int) -> Utterance | Dropped | None:
    """Returns the utterance of a sentence's folder, what is lost if it has a video only, None for an empty folder."""
    names = sorted(name for name in os.listdir(folder) if _is_file(folder, name))
    sounds = [name for name in names if name.casefold().endswith(".wav")]
    videos = [name for name in names if name.casefold().endswith(".avi")]
    id = f"s{subject:02d}_{LETTERS[label]}_{number}"
    if len(sounds) > 1:
        raise InputError(f"{folder} has the wav files {' and '.join(sounds[:3])}, expected one")
    if sounds:
        return Utterance(
            id=id,
            path=os.path.join(folder, sounds[0]),
            speaker=f"s{subject:02d}",
            corpus="enterface",
            text=f"{label}_{number}",
            label=label,
        )
    if not videos:
        return None
    wav = os.path.join(folder, os.path.splitext(videos[0])[0] + ".wav")
    return Dropped(id, wav, f"there is no audio file {wav}, but its video: convert it with ffmpeg", Loss.ABSENT)
