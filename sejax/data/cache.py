"""Features of a corpus in a cache: computed once and read back from then on.

There is one dataset per corpus, feature, settings and view (see `sejax.data.shards`). Its name ends in a hash over
everything that changes the features: other settings or an audio file of other bytes give another dataset, and stale
shards are never read. All datasets that a study lacks are built in one pass over its audio.
"""

import contextlib
import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from sejax.corpora.schema import SAMPLING_RATE, Corpus, Utterance
from sejax.data.compute import compute
from sejax.data.engines import Engine
from sejax.data.fingerprints import fingerprint_audio, fingerprint_folder
from sejax.data.parts import Compute, compute_in_parts
from sejax.data.shards import Dataset, StreamFeatures, Writer, is_stored, read_shards, silent_tfds
from sejax.errors import InputError
from sejax.features.audio import check_speed
from sejax.features.corrupt import Corruption
from sejax.features.extract import Contents, Job, Perturbation, Segment
from sejax.host.disk import disk_problem
from sejax.host.progress import progress_bar
from sejax.host.wording import count, first_line

# Raised when the same settings give other numbers than before.
FEATURES_VERSION = 1
# Utterances in one shard: bounds the memory of records that are being written.
PER_SHARD = 64

CheckBad = Callable[..., None]  # `Corpus.require_usable`, of the errors by utterance id


class Wanted(NamedTuple):
    """One feature of one view of every utterance."""

    stream: str  # that reads it
    contents: Contents  # see `sejax.data.compute.contents`
    speed: float = 1.0  # factor of the speed perturbation; 1 changes nothing
    corruption: Corruption | None = None


def build_features(
    corpus: Corpus,
    wanted: Sequence[Wanted],
    *,
    cache_dir: str,
    workers: int | None = None,
    max_bad_fraction: float,
    per_shard: int = PER_SHARD,
    engine: Engine | None = None,
) -> list[StreamFeatures]:
    """Reads features of a corpus from the cache; computes those that are not stored there first, in one pass.

    Args:
      corpus: The `path`, `start` and `end` of its utterances are read.
      wanted: One or more. Streams of equal contents share a dataset.
      cache_dir: Folder of the shards; created if missing.
      workers: Number of processes that compute, or of threads that load audio where a pretrained model computes alone;
        None is one per core.
      max_bad_fraction: Share of the utterances that may be lost for their audio, those that the reader of the corpus
        has dropped among them; see `Corpus.require_usable`.
      per_shard: Number of utterances in one file.
      engine: What computes; None: this process and its workers.

    Raises:
      InputError: a wrong speed or number of workers, no utterances, a pretrained model that cannot be loaded, a cache
        that cannot be written, a corruption's folder whose files cannot be used, or more bad files than allowed
        (nothing is stored then).
    """
    check_bad = functools.partial(corpus.require_usable, max_bad_fraction)
    check_bad()
    if workers is not None and workers < 1:
        raise InputError(f"the number of workers is {workers}, expected 1 or more (None is one per core)")
    for each in wanted:
        check_speed(each.speed)
    workers = workers or os.cpu_count() or 1
    try:
        os.makedirs(cache_dir, exist_ok=True)
        audio = _identity_of_audio(corpus, fingerprint_audio(corpus.utterances, cache_dir, workers=workers))
        folders = {
            folder: fingerprint_folder(folder, cache_dir, workers=workers)
            for each in wanted
            for folder in (each.corruption.folders if each.corruption else ())
        }
        datasets = [_dataset(corpus.name, audio, each, folders) for each in wanted]
        with silent_tfds():
            stored = {dataset.name: _stored(cache_dir, dataset, corpus.utterances) for dataset in datasets}
            found = {name: features for name, features in stored.items() if features}
            lacking = [pair for pair in zip(wanted, datasets, strict=True) if pair[1].name not in found]
            if lacking:
                with _lock(cache_dir):
                    _build(
                        cache_dir,
                        corpus,
                        lacking,
                        workers=workers,
                        check_bad=check_bad,
                        per_shard=per_shard,
                        engine=engine,
                    )
                ids = [utterance.id for utterance in corpus.utterances]
                found |= {dataset.name: read_shards(cache_dir, dataset, ids) for _, dataset in lacking}
    except InputError:
        raise
    except Exception as error:
        # array_record has errors of its own for a disk that is full; NotImplementedError: a file system without locks.
        if not (isinstance(error, OSError | NotImplementedError) or disk_problem(error)):
            raise
        raise InputError(
            f"{cache_dir}: the features cannot be stored here ({disk_problem(error) or error}), expected a folder with "
            "room that can be written to (config.cache_dir)"
        ) from error
    features = [found[dataset.name] for dataset in datasets]
    # The shards may have been built when more bad files were allowed.
    for built in features:
        check_bad(built.errors)
    return features


def _identity_of_audio(corpus: Corpus, fingerprints: Iterable[Sequence[Any]]) -> hashlib.blake2b:
    """Returns the hash of what all datasets of a corpus have in common, to be continued by each.

    Args:
      fingerprints: see `fingerprint_audio`. They are not held: those of a million utterances are 200 MB of JSON.
    """
    identity = hashlib.blake2b(f'{{"corpus": {json.dumps(corpus.name)}, "utterances": ['.encode(), digest_size=8)
    for number, fingerprint in enumerate(fingerprints):
        identity.update(f"{', ' if number else ''}{json.dumps(fingerprint)}".encode())
    identity.update(b"], ")
    return identity


def _dataset(corpus: str, audio: hashlib.blake2b, wanted: Wanted, folders: Mapping[str, str]) -> Dataset:
    """Returns a dataset, whose name has a hash over everything that changes its features.

    Args:
      corpus: its name.
      audio: see `_identity_of_audio`.
      folders: digests of the folders that corruptions draw from.
    """
    contents, corruption = wanted.contents, wanted.corruption
    identity = {
        "stream": contents.feature,
        "settings": dict(sorted(contents.identity.items())),
        "speed": wanted.speed,
        "sampling_rate": SAMPLING_RATE,
        "version": FEATURES_VERSION,
        **({"corruption": [corruption.drawn_by, *(folders[x] for x in corruption.folders)]} if corruption else {}),
    }
    whole = audio.copy()
    whole.update(json.dumps(identity)[1:].encode())
    metadata = {"features_version": FEATURES_VERSION, **({"corruption": str(corruption)} if corruption else {})}
    return Dataset(f"{corpus}_{contents.feature}_{whole.hexdigest()}", corpus, contents, wanted.speed, metadata)


def _stored(
    cache_dir: str, dataset: Dataset, utterances: Sequence[Utterance], *, note: bool = True
) -> StreamFeatures | None:
    """Returns the features that the cache holds, None if it holds none or, with a note, if they are damaged."""
    if not is_stored(cache_dir, dataset):
        return None
    try:
        return read_shards(cache_dir, dataset, [utterance.id for utterance in utterances])
    # A damaged file can raise anything in TFDS and array_record. All of it can be computed again.
    except Exception as error:
        if note:
            folder = dataset.folder(cache_dir)
            empty = sorted(path.name for path in folder.rglob("*") if path.is_file() and not path.stat().st_size)
            problem = f"{empty[0]} is empty" if empty else first_line(error)
            print(f"note: {folder}: stored features are damaged ({problem}): they are computed again", file=sys.stderr)
        return None


def _build(
    cache_dir: str,
    corpus: Corpus,
    wanted: Sequence[tuple[Wanted, Dataset]],
    *,
    workers: int,
    check_bad: CheckBad,
    per_shard: int,
    engine: Engine | None,
) -> None:
    """Computes features and writes the shards, but those that another process has written meanwhile."""
    absent: dict[str, tuple[Wanted, Dataset]] = {}
    for each, dataset in wanted:
        if not _stored(cache_dir, dataset, corpus.utterances, note=False):
            absent.setdefault(dataset.name, (each, dataset))
    if not absent:
        return
    title = _title(corpus, [each for each, dataset in wanted if dataset.name in absent])
    datasets = [dataset for _, dataset in absent.values()]
    computed = [(each.contents, Perturbation(each.speed, each.corruption)) for each, _ in absent.values()]
    writers = [Writer(cache_dir, dataset, per_shard=per_shard) for dataset in datasets]
    before = [writer.seconds for writer in writers]
    if there := sum(len(writer.there) for writer in writers):
        print(f"{title}: {count(there, 'record')} of an interrupted build are there", file=sys.stderr)
    began = time.monotonic()
    if engine and (jobs := _lacking(writers, corpus)):
        first = max(writer.files for writer in writers)
        compute_in_parts(engine, Compute(cache_dir, computed, datasets), jobs, first=first, per_part=per_shard)
        writers = [Writer(cache_dir, dataset, per_shard=per_shard) for dataset in datasets]
    _fill(writers, corpus, computed, title, workers=workers, check_bad=check_bad)
    for writer in writers:
        writer.close()
    took = time.monotonic() - began
    seconds = max(writer.seconds - had for writer, had in zip(writers, before, strict=True))
    print(f"{title} computed in {took:.1f} s, {seconds / took:.1f} s of audio per second", file=sys.stderr)


def _fill(
    writers: Sequence[Writer],
    corpus: Corpus,
    wanted: Sequence[tuple[Contents, Perturbation]],
    title: str,
    *,
    workers: int,
    check_bad: CheckBad,
) -> None:
    """Gives each writer the utterances that it lacks. With more bad files than allowed nothing stays."""
    jobs = _lacking(writers, corpus)
    errors = [{utterance: error for utterance, error in writer.there.items() if error} for writer in writers]
    for found in errors:
        check_bad(found)  # fewer may be allowed now than when they were found
    if not jobs:
        return
    computed = compute(wanted, [job for _, job in jobs], workers=workers)
    with (
        progress_bar(sum(len(job.tasks) for _, job in jobs), title) as bar,
        contextlib.closing(computed),
    ):
        for task, number, extraction in computed:
            utterance = jobs[number][0]
            if extraction.error:
                errors[task][utterance] = extraction.error
                try:
                    check_bad(errors[task])
                except InputError:
                    for writer in writers:
                        writer.discard()
                    raise
            writers[task].add(utterance, extraction)
            bar.update()


def _lacking(writers: Sequence[Writer], corpus: Corpus) -> list[tuple[str, Job]]:
    """Returns the utterances that some writers lack, by id: which of these it is wanted for."""
    return [
        (utterance.id, Job(Segment(utterance.path, utterance.start, utterance.end), lacking))
        for utterance in corpus.utterances
        if (lacking := [number for number, writer in enumerate(writers) if utterance.id not in writer.there])
    ]


def _title(corpus: Corpus, wanted: Sequence[Wanted]) -> str:
    """Returns the beginning of the lines about a build."""
    streams = ", ".join(dict.fromkeys(each.stream for each in wanted))
    speeds = list(dict.fromkeys(each.speed for each in wanted))
    said = (
        "" if speeds == [1] else f"  {'speed' if len(speeds) == 1 else 'speeds'} {', '.join(f'{x:g}' for x in speeds)}"
    )
    corrupted = "".join(f"  {x}" for x in dict.fromkeys(each.corruption.drawn_by for each in wanted if each.corruption))
    return f"{streams}  {corpus.name}{said}{corrupted}  {len(corpus.utterances)} utterances"


@contextlib.contextmanager
def _lock(cache_dir: str) -> Iterator[None]:
    """Allows one build at a time per cache; the lock of a killed process is free."""
    lock = FileLock(os.path.join(cache_dir, ".lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"{cache_dir}: another process computes features; waiting for it.", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
