"""The parsers that are fuzzed: how each gets its input, and which of its results are sane.

A parser raises InputError, or returns something sane. What is sane stands in the docstring of each class.
"""

import contextlib
import csv
import decimal
import io
import json
import math
import shutil
import struct
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np
import soundfile

from sejax.corpora.read import read_corpus
from sejax.corpora.readers.iemocap import CODE_COUNTS, parse_evaluation, parse_transcript
from sejax.corpora.schema import Corpus
from sejax.features.audio import Audio, load_audio
from tools.drills.mutations import TOKENS, mutate_bytes, mutate_json, mutate_text
from tools.drills.study import tone, write_tone
from tools.drills.tally import ROOT

SAMPLES_PER_BYTE = 2000  # more than the densest codec at 16 kHz; a header that promises more is not believed
LOUDEST = 16.0
_EXACT = decimal.Context(prec=10_000)  # float would make 1.999...9 and 2 one name


class Parser:
    """One parser. A worker process makes it once, in a folder of its own, and then asks for many cases."""

    share: ClassVar[float]  # of all cases

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def attempt(self, random: Random) -> str:
        """Parses one input that is drawn from `random`; returns what is insane about the result, "" if nothing is.

        Raises:
          InputError: the input was refused, which is right.
        """
        raise NotImplementedError


class Table(Parser):
    """A table corpus. Sane: see `corpus_problem`."""

    share = 0.3

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "sub").mkdir(exist_ok=True)
        for number, name in enumerate(("a.wav", "b.wav", "sub/c.wav", "é.wav")):
            write_tone(folder / name, number, seconds=0.1)
        self.texts = (
            "path,speaker,label\na.wav,s1,angry\nb.wav,s2,sad\nsub/c.wav,s3,angry\n",
            "path,speaker,id,start,end,valence,arousal,dominance\na.wav,s1,u1,0.01,0.09,1,2,3\nb.wav,s2,u2,,,4,,5\n",
            "path,speaker,session,text,gender,label,fold,split\na.wav,Müller,1,t1,f,angry,1,train\n"
            "b.wav,2,2,t2,Male,sad,2,val\nsub/c.wav,1.5,2,t2,,sad,2,test\n",
            '"path","speaker","label"\r\n"a.wav","s 1","an ""angry"" one"\r\n"b.wav","s,2","sad"\r\n',
        )

    def attempt(self, random: Random) -> str:
        table = self.folder / "table.csv"
        table.write_bytes(mutate_text(random, random.choice(self.texts), self.texts))
        labels = "default"
        if random.random() < 0.1:
            labels = mutate_text(random, random.choice(("1..7", "0..1", "default"))).decode("utf-8", "replace")
        return corpus_problem(read_corpus("table", str(table), labels=labels))


class Iemocap(Parser):
    """Label and transcription files. Sane: turns of finite times, known labels, VAD of 0 to 6 or NaN; text of words."""

    share = 0.2
    label_file = (
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
        "C-E2:\tNeutral;\t()\nC-E3:\tNeutral; Frustration;\t(a comment\nof two lines)\n"
        "A-E3:\tval 3; act 2; dom  2;\t()\nC-F1:\tNeutral;\t(curious)\n\n"
        "[10.0100 - 11.3925]\tSes01F_impro01_F001\txxx\t[nan, 2.5000]\nC-E2:\tAnger;\t()\n"
    )
    words = "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\nSes01F_impro01_M000 [010-11]: Yes.\nno turn\n"

    def attempt(self, random: Random) -> str:
        if random.random() < 0.2:
            words, nameless = parse_transcript(self._text(random, self.words))
            return "" if nameless >= 0 and all(words) else "a turn without a name"
        turns = parse_evaluation(self._text(random, self.label_file), "labels.txt")
        for turn in turns:
            if not 0 <= turn.start < turn.end < math.inf:
                return f"times {turn.start!r} to {turn.end!r}"
            if turn.code not in CODE_COUNTS or not all(math.isnan(value) or 0 <= value <= 6 for value in turn.vad):
                return f"label {turn.code!r} with {turn.vad}"
            if text := _text_problem(turn.id):
                return text
        return ""

    def _text(self, random: Random, text: str) -> str:
        """Returns a changed file as the reader decodes it."""
        return mutate_text(random, text, (self.label_file, self.words)).decode("utf-8-sig", "replace")


class Emodb(Parser):
    """A zip archive, read and then its audio. Sane: see `corpus_problem` and `audio_problem`."""

    share = 0.1

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.archives = []
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            content = io.BytesIO()
            with zipfile.ZipFile(content, "w", method) as archive:
                for number, name in enumerate(("03a01Fa", "03a01Wa", "08b02Na")):
                    archive.writestr(f"wav/{name}.wav", audio_bytes(tone(number, seconds=0.05), "WAV", "PCM_16"))
                archive.writestr("erkennung.txt", "03a01Fa 90 95\n")
            self.archives.append(content.getvalue())

    def attempt(self, random: Random) -> str:
        archive = self.folder / "emodb.zip"
        archive.write_bytes(mutate_bytes(random, random.choice(self.archives), self.archives))
        corpus = read_corpus("emodb", str(archive))
        if problem := corpus_problem(corpus, on_disk=False):
            return problem
        return audio_problem(load_audio(random.choice(corpus.utterances).path), archive.stat().st_size)


class Sound(Parser):
    """Audio of every container and coding that libsndfile writes. Sane: `audio_problem`, and a file that was cut is
    refused, noted, or still has 99 % of its samples."""

    share = 0.3

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        stereo = np.stack([tone(3, seconds=0.2), tone(4, seconds=0.2)], axis=1)
        self.sounds = dict(_every_format(tone(1, seconds=0.2)))
        self.sounds["WAV PCM_16 stereo"] = audio_bytes(stereo, "WAV", "PCM_16")
        self.sounds["FLAC PCM_24 stereo"] = audio_bytes(stereo, "FLAC", "PCM_24")
        self.names, self.contents = list(self.sounds), list(self.sounds.values())

    def attempt(self, random: Random) -> str:
        name = random.choice(self.names)
        content, path = self.sounds[name], self.folder / f"sound.{name.partition(' ')[0].lower()}"
        cut = random.random() < 0.2
        size = random.randrange(len(content))
        changed = content[:size] if cut else mutate_bytes(random, content, self.contents)
        path.write_bytes(changed)
        audio = load_audio(str(path))
        if problem := audio_problem(audio, len(changed)):
            return f"{name}: {problem}"
        if cut and not audio.note:
            path.write_bytes(content)
            whole = len(load_audio(str(path)).samples)
            if len(audio.samples) < 0.99 * whole:
                return (
                    f"{name}: cut after {len(changed)} of {len(content)} bytes, {len(audio.samples)} of {whole} samples"
                )
        return ""


class Checkpoint(Parser):
    """A pretrained checkpoint with its head. Sane: finite arrays of floats, distinct names of outputs."""

    share = 0.04

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        golden = ROOT / "tests" / "golden" / "ssl"
        self.sources = [golden / name for name in ("classifier", "dimensional", "wavlm-classifier", "classifier-last")]

    def attempt(self, random: Random) -> str:
        from sejax.pretrained.heads.classifier import load_classifier

        source, folder = random.choice(self.sources), self.folder / "checkpoint"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        contents = {
            name: (source / name).read_bytes()
            for name in ("config.json", "preprocessor_config.json", "model.safetensors")
        }
        name = random.choice(list(contents))
        change = _mutate_safetensors if name.endswith(".safetensors") else mutate_json
        for file, content in contents.items():
            (folder / file).write_bytes(change(random, content) if file == name else content)
        classifier = load_classifier(str(folder))
        if len(set(classifier.labels)) != len(classifier.labels) or not all(
            isinstance(label, str) and label.strip() for label in classifier.labels
        ):
            return f"outputs called {classifier.labels!r}"
        for where, x in _leaves({"params": classifier.checkpoint.params, "head": classifier.checkpoint.head}):
            if not np.isfinite(np.asarray(x, np.float64)).all():
                return f"{where} is not finite"
        return ""


class History(Parser):
    """history.jsonl. Sane: objects with the whole numbers epoch and run, a setting and a finite score or none."""

    share = 0.02
    lines = "".join(
        json.dumps(
            {"epoch": epoch, "run": run, "fold": "s1", "seed": 0, "setting": "static", "loss_class": 0.5, "score": 0.1}
        )
        + "\n"
        for epoch in (1, 2)
        for run in (0, 1)
    )

    def attempt(self, random: Random) -> str:
        from sejax.evaluation.selection import read_history, selection_scores

        path = self.folder / "history.jsonl"
        lines = self.lines.splitlines(keepends=True)
        if random.random() < 0.5:
            place = random.randrange(len(lines))
            lines[place] = mutate_json(random, lines[place].encode()).decode("utf-8", "replace") + "\n"
            path.write_text("".join(lines), encoding="utf-8")
        else:
            path.write_bytes(mutate_text(random, self.lines))
        rows = read_history(str(path))
        for row in rows:
            if not isinstance(row, dict) or not all(isinstance(row.get(name), int) for name in ("epoch", "run")):
                return f"a row {row!r:.100}"
        scores = selection_scores(rows, {0: 2, 1: 2})
        return "" if all(isinstance(name, str) for name in scores) else f"scores of {list(scores)!r:.100}"


class PredictionsFile(Parser):
    """predictions.csv. Sane: what is written again is read again as the same."""

    share = 0.02
    text = (
        "run,fold,seed,setting,split,id,speaker,label,prob_angry,prob_sad,valence,arousal,dominance,"
        "pred_valence,pred_arousal,pred_dominance\n"
        "0,s1,0,static,val,u1,s1,angry,0.7,0.3,1,2,3,1.5,2.5,3.5\n1,s2,0,static,test,u2,s2,,0.2,0.8,,2,3,1.5,2.5,3.5\n"
    )

    def attempt(self, random: Random) -> str:
        from sejax.evaluation.predictions import Predictions

        path, again = self.folder / "predictions.csv", self.folder / "again.csv"
        path.write_bytes(mutate_text(random, self.text))
        Predictions.read(str(path), split=None).write(str(again))
        once = again.read_bytes()
        Predictions.read(str(again), split=None).write(str(again))
        return "" if once == again.read_bytes() else "what is written cannot be read back as the same"


class Options(Parser):
    """Options of the command line as texts. Sane: exit status 2 with one line, or a config that is accepted."""

    share = 0.02

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from flax.traverse_util import flatten_dict

        from sejax.config import default_config

        self.options = flatten_dict(json.loads(default_config().to_json_best_effort()), sep=".")
        self.names = [name for name in self.options if not isinstance(self.options[name], dict)]

    def attempt(self, random: Random) -> str:
        from absl import flags

        from sejax import main
        from sejax.config import check_config

        name = random.choice(self.names)
        value = self.options[name]
        text = json.dumps(value) if isinstance(value, list) else str(value)
        if random.random() < 0.5:
            text = random.choice(TOKENS)
        else:
            text = mutate_text(random, text.replace("[", "(").replace("]", ")")).decode("utf-8", "replace")
        words = ["main", f"--config={ROOT / 'configs' / 'joint.py'}:table", "--workdir=w", f"--config.{name}={text}"]
        flags.FLAGS.unparse_flags()
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                main._parse(words)
        except SystemExit as end:
            lines = said.getvalue().splitlines()
            if end.code != 2 or len(lines) != 1 or not lines[0].startswith("error: "):
                return f"--config.{name}={text!r:.100}: status {end.code}, {len(lines)} lines"
            return "" if "Traceback" not in lines[0] else f"--config.{name}={text!r:.100}: a traceback in one line"
        check_config(flags.FLAGS.config)
        return ""


PARSERS: Mapping[str, type[Parser]] = {
    "table": Table,
    "iemocap": Iemocap,
    "emodb": Emodb,
    "audio": Sound,
    "checkpoint": Checkpoint,
    "history": History,
    "predictions": PredictionsFile,
    "options": Options,
}


def corpus_problem(corpus: Corpus, *, on_disk: bool = True) -> str:
    """Returns what is insane about a corpus that a reader accepted, "" if nothing is.

    Ids are there once and sorted; every text is trimmed, without control characters, and the same in CSV and back; no
    two speakers, labels, sessions or folds are equal up to case, Unicode form, invisible characters or the format of
    numbers; labels are classes; values are finite or NaN, times a span; the audio is a file.
    """
    ids = [utterance.id for utterance in corpus.utterances]
    if not ids or ids != sorted(set(ids)):
        return f"ids {ids!r:.100} are not sorted, each once"
    for column in ("speaker", "label", "session", "fold"):
        names = {name for utterance in corpus.utterances if (name := getattr(utterance, column)) is not None}
        kinds: dict[str, str] = {}
        for name in sorted(names):
            if kinds.setdefault(_folded(name), name) != name:
                return f"the {column} {name!r} and {kinds[_folded(name)]!r} are two"
    for utterance in corpus.utterances:
        texts = (utterance.id, utterance.speaker, utterance.label, utterance.session, utterance.text, utterance.fold)
        for text in texts:
            if text is not None and (problem := _text_problem(text)):
                return problem
        if utterance.label is not None and utterance.label not in corpus.classes:
            return f"the label {utterance.label!r} is no class"
        if any(math.isinf(value) for value in utterance.vad):
            return f"VAD {utterance.vad}"
        times = [time for time in (utterance.start, utterance.end, utterance.duration) if time is not None]
        if any(not 0 <= time < math.inf for time in times):
            return f"times {times}"
        if on_disk and not Path(utterance.path).is_file():
            return f"{utterance.path!r} is no file"
    return ""


def _folded(name: str) -> str:
    """Returns what two spellings of one name have in common."""
    visible = "".join(c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf")
    folded = unicodedata.normalize("NFC", " ".join(visible.split()).casefold())
    try:
        return str(_EXACT.create_decimal(folded).normalize(_EXACT))
    except ArithmeticError:
        return folded


def _text_problem(text: str) -> str:
    if text != text.strip() or not text:
        return f"the text {text!r:.100} is not trimmed"
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
        return f"the text {text!r:.100} has control characters"
    if text != unicodedata.normalize("NFC", text):
        return f"the text {text!r:.100} is not composed (NFC)"
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow([text, "x"])
    return "" if next(csv.reader(io.StringIO(written.getvalue()))) == [text, "x"] else f"{text!r:.100} changes in CSV"


def audio_problem(audio: Audio, size: int) -> str:
    """Returns what is insane about audio that was accepted from a file of so many bytes, "" if nothing is."""
    samples = audio.samples
    if samples.dtype != np.float32 or samples.ndim != 1 or not np.isfinite(samples).all():
        return f"samples {samples.dtype} of shape {samples.shape}, or not finite"
    if not 400 <= len(samples) <= SAMPLES_PER_BYTE * size:
        return f"{len(samples)} samples of a file of {size} bytes"
    loudest = float(np.abs(samples).max())
    if loudest > LOUDEST:
        return f"samples up to {loudest:g}, expected -1 to 1"
    return f"a note of several lines: {audio.note!r:.100}" if "\n" in audio.note else ""


def audio_bytes(samples: np.ndarray, container: str, subtype: str, rate: int = 16_000) -> bytes:
    """Returns the samples as a file."""
    content = io.BytesIO()
    soundfile.write(content, samples, rate, format=container, subtype=subtype)
    return content.getvalue()


# No header; a resource fork, for which libsndfile writes a file "._" beside whatever it writes.
NO_FILES = ("RAW", "SD2")


def _every_format(samples: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Yields a file of every container and coding that says by itself what it is."""
    for container in sorted(soundfile.available_formats()):
        for subtype in sorted(soundfile.available_subtypes(container)):
            if container not in NO_FILES and soundfile.check_format(container, subtype):
                # Some codings want 8 kHz, some codecs cannot be written here.
                with contextlib.suppress(soundfile.LibsndfileError):
                    yield f"{container} {subtype}", audio_bytes(samples, container, subtype)


def _mutate_safetensors(random: Random, content: bytes) -> bytes:
    """Changes the JSON header, whose length then fits, or the bytes of the whole file, or numbers to NaN."""
    (length,) = struct.unpack("<Q", content[:8])
    header, arrays = content[8 : 8 + length], content[8 + length :]
    draw = random.random()
    if draw < 0.5:
        changed = mutate_json(random, header)
        return struct.pack("<Q", len(changed)) + changed + arrays
    if draw < 0.6:
        place = random.randrange(len(arrays) // 4) * 4
        value = random.choice((math.nan, math.inf, -math.inf))
        return content[: 8 + length] + arrays[:place] + struct.pack("<f", value) + arrays[place + 4 :]
    return mutate_bytes(random, content)


def _leaves(tree: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for name, inner in tree.items():
            yield from _leaves(inner, f"{where}/{name}")
    else:
        yield where, tree


def sentence_problem(sentence: str) -> str:
    """Returns what is wrong with the sentence of a refusal, "" if nothing is."""
    if not sentence.strip():
        return "the refusal says nothing"
    if not sentence.isprintable():
        return f"the refusal has control characters: {sentence!r:.200}"
    return "" if len(sentence) < 4000 else f"the refusal has {len(sentence)} characters: {sentence:.100}"
