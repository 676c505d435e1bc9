"""How long the utterances of a corpus last, by the headers of their files: no sample is decoded."""

from sejax.corpora.schema import Corpus, Utterance
from sejax.errors import InputError
from sejax.features.audio import audio_seconds
from sejax.host.processes import map_in_threads
from sejax.host.progress import progress_bar

_AHEAD = 64  # utterances


def measure(corpus: Corpus, *, workers: int) -> tuple[Corpus, dict[str, float]]:
    """Opens the audio of each utterance, and moves those whose file cannot be used to `corpus.dropped`.

    What shows only in the samples, such as silence, does not show here.

    Args:
      corpus: as its reader returns it.
      workers: number of threads that open files.

    Returns:
      The corpus, and the duration of its utterances by id, in seconds.
    """
    seconds: dict[str, float] = {}
    errors: dict[str, str] = {}
    found = map_in_threads(_seconds, corpus.utterances, threads=workers, ahead=_AHEAD)
    with progress_bar(len(corpus.utterances), f"{corpus.name}: headers") as bar:
        for utterance, lasting in zip(corpus.utterances, found, strict=True):
            if isinstance(lasting, InputError):
                errors[utterance.id] = str(lasting)
            else:
                seconds[utterance.id] = lasting
            bar.update()
    return corpus.without(errors), seconds


def _seconds(utterance: Utterance) -> float | InputError:
    try:
        return audio_seconds(utterance.path, start=utterance.start, end=utterance.end)
    except InputError as error:
        return error
