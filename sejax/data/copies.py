"""Finds the utterances of a corpus that hold the same recording, whatever was done to the files.

Suspects come from an index of the words of all fingerprints, which is sorted once: no utterance is compared with all
others. They are believed if the bits of their fingerprints agree where they overlap, and then their waveforms.

The limits lie between both sides. Copies (other sampling rates; cuts; mp3, Vorbis and Opus of 35 to 47 kbit/s) differ
in up to 12 % of the bits and correlate from 0.97 on, clipped ones in 20 % and from 0.80 on. Of 835 recordings by actors
who say the same sentences in several emotions, no two suspects differ in less than 37 %, and the best correlation of
two takes, of 1,295 pairs at any lag, is 0.46. A recording that is played 2.5 % faster correlates up to 0.47.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int, UInt32

from sejax.corpora.schema import Utterance
from sejax.data.stored import Stored
from sejax.errors import InputError
from sejax.features.audio import load_audio
from sejax.features.audioprint import (
    AUDIOPRINT_VERSION,
    BITS,
    SILENT,
    Alike,
    Copy,
    compare,
    first_part,
)
from sejax.host.atomic import atomic_write

REMEMBERED = "copies.json"
# Raised when the same fingerprints give other copies.
_VERSION = 1
# Share of the bits that may differ; the absolute correlation that is needed.
MAX_BIT_ERRORS, MIN_CORRELATION = 0.25, 0.75
# Words that are heard in both, about 0.56 s of sound; and their share of those of the utterance with fewer: turns of a
# dialogue that were cut from one recording overlap at their ends without being copies.
MIN_WORDS, MIN_SHARE = 24, 0.5
# Utterances next to each other among those with the same word that are suspected: copies form chains.
REACH = 8
# Pairs that are compared at once, to bound the memory.
_PAIRS_AT_ONCE = 4096
# Waveforms that are kept for the next pair.
_WAVEFORMS = 32

Words = UInt32[np.ndarray, " _words"]
Prints = Mapping[str, Stored | UInt32[np.ndarray, "_words 1"]]


def find_copies(
    utterances: Sequence[Utterance],
    prints: Prints,
    digests: Mapping[str, str],
    *,
    cache_dir: str,
) -> tuple[Copy, ...]:
    """Returns pairs that link all utterances of the same recording, the best of them; equal samples are left out.

    Of utterances with equal samples only the first takes part. Audio with less than 0.6 s of sound is too short to be
    recognised. What is found is remembered in the cache: the next time no audio is read, and no fingerprint.

    Args:
      utterances: their `path`, `start` and `end` are read.
      prints: the fingerprint of every usable utterance, by its id; see `sejax.features.audioprint.audioprint`.
      digests: of the decoded samples of every usable utterance, by its id.
      cache_dir: where the copies are remembered, if it can be written.

    Raises:
      InputError: the audio of a suspect can no longer be read.
    """
    by_digest: dict[str, Utterance] = {}
    for utterance in utterances:
        if utterance.id in digests:
            by_digest.setdefault(digests[utterance.id], utterance)
    identity = [AUDIOPRINT_VERSION, _VERSION, [[digest, utterance.id] for digest, utterance in by_digest.items()]]
    key = hashlib.blake2b(json.dumps(identity).encode(), digest_size=16).hexdigest()
    remembered = Path(cache_dir, REMEMBERED)
    known = _read_known(remembered)
    if key not in known:
        known[key] = _find(list(by_digest.values()), prints)
        _write_known(remembered, known)
    return known[key]


def _find(utterances: Sequence[Utterance], prints: Prints) -> tuple[Copy, ...]:
    words = [np.asarray(prints[utterance.id])[:, 0] for utterance in utterances]
    found: list[Copy] = []
    group = np.arange(len(utterances))  # the lowest row of the copies that an utterance is known to belong to

    @lru_cache(_WAVEFORMS)
    def samples(row: int) -> Float32[np.ndarray, " samples"]:
        utterance = utterances[row]
        audio = load_audio(utterance.path, start=utterance.start, end=utterance.end)
        return first_part(audio.samples)

    for row, other, lag in suspects(words):
        if group[row] == group[other]:
            continue
        alike = compare(samples(row), samples(other), lag)
        if abs(alike.correlation) >= MIN_CORRELATION:
            found.append(Copy(utterances[row].id, utterances[other].id, alike))
            group[group == max(group[row], group[other])] = min(group[row], group[other])
    return tuple(found)


def suspects(prints: Sequence[Words]) -> list[tuple[int, int, int]]:
    """Returns pairs whose fingerprints are alike: two rows, and the word of the first where the second begins.

    The most alike come first.
    """
    first, second, lag = _collisions(prints)
    lengths = np.array([len(words) for words in prints])
    begins = np.cumsum(lengths) - lengths
    flat = np.concatenate([*prints, np.zeros(0, np.uint32)])
    heard = np.array([np.count_nonzero(words != SILENT) for words in prints])
    needed = np.maximum(MIN_WORDS, MIN_SHARE * np.minimum(heard[first], heard[second]))
    rates, lags = np.ones(len(first)), lag.copy()
    # A hit may be off by one: the frames of a cut file lie between those of the whole one.
    for at in (lag - 1, lag, lag + 1):
        for begin in range(0, len(first), _PAIRS_AT_ONCE):
            some = slice(begin, begin + _PAIRS_AT_ONCE)
            rate, compared = _bit_error_rates(flat, begins, lengths, first[some], second[some], at[some])
            better = (compared >= needed[some]) & (rate < rates[some])
            rates[some] = np.where(better, rate, rates[some])
            lags[some] = np.where(better, at[some], lags[some])
    alike = np.flatnonzero(rates <= MAX_BIT_ERRORS)
    alike = alike[np.argsort(rates[alike], kind="stable")]
    return list(zip(first[alike].tolist(), second[alike].tolist(), lags[alike].tolist(), strict=True))


def _collisions(
    prints: Sequence[Words],
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Returns the pairs that have a word in common, and the lag at which they have the most."""
    lengths = [len(words) for words in prints]
    flat = np.concatenate([*prints, np.zeros(0, np.uint32)])
    owner = np.repeat(np.arange(len(prints)), lengths)
    position = np.concatenate([*map(np.arange, lengths), np.zeros(0, int)])
    order = np.flatnonzero(flat != SILENT)
    order = order[np.argsort(flat[order], kind="stable")]
    flat, owner, position = flat[order], owner[order], position[order]
    # One number for a pair and a lag. The owners of a word ascend.
    n, lags = len(prints), 2 * max(lengths, default=0) + 1
    keys = []
    for step in range(1, REACH + 1):
        hit = np.flatnonzero((flat[step:] == flat[:-step]) & (owner[step:] != owner[:-step]))
        pair = owner[hit] * n + owner[hit + step]
        keys.append(pair * lags + position[hit] - position[hit + step] + lags // 2)
    key, votes = np.unique(np.concatenate(keys), return_counts=True)
    # Those of the next lag count too: the frames of a cut file lie between those of the whole one.
    votes[:-1] += np.where(np.diff(key) == 1, votes[1:], 0)
    pair = key // lags
    order = np.lexsort((-votes, pair))
    best = order[np.flatnonzero(np.diff(pair[order], prepend=-1))]
    return pair[best] // n, pair[best] % n, key[best] % lags - lags // 2


def _bit_error_rates(
    flat: Words,
    begins: Int[np.ndarray, " utterances"],
    lengths: Int[np.ndarray, " utterances"],
    first: Int[np.ndarray, " pairs"],
    second: Int[np.ndarray, " pairs"],
    lag: Int[np.ndarray, " pairs"],
) -> tuple[Float[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Returns the share of different bits of each pair where it overlaps, and the number of words in which both sound.

    Args:
      flat: the words of all utterances, one after the other.
      begins: where those of each utterance begin.
      lengths: how many each has.
      first: the utterances of the pairs.
      second: the others.
      lag: the word of the first that stands where the second begins; may be negative.
    """
    mine, theirs = np.maximum(lag, 0), np.maximum(-lag, 0)
    sizes = np.maximum(np.minimum(lengths[first] - mine, lengths[second] - theirs), 0)
    pair = np.repeat(np.arange(len(first)), sizes)
    place = np.arange(len(pair)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    a, b = flat[(begins[first] + mine)[pair] + place], flat[(begins[second] + theirs)[pair] + place]
    heard = (a != SILENT) & (b != SILENT)
    compared = np.bincount(pair, heard, len(first)).astype(int)
    different = np.bincount(pair, np.where(heard, np.bitwise_count(a ^ b), 0), len(first))
    return different / np.maximum(BITS * compared, 1), compared


def _read_known(path: Path) -> dict[str, tuple[Copy, ...]]:
    """Returns what is remembered; nothing if the file is absent or damaged."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return {
            key: tuple(Copy(str(first), str(second), Alike(*map(float, alike))) for first, second, alike in copies)
            for key, copies in tree.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _write_known(path: Path, known: Mapping[str, tuple[Copy, ...]]) -> None:
    try:
        with atomic_write(path) as file:
            json.dump(known, file)
    except (OSError, InputError):  # a cache that can only be read, or has a folder of that name
        pass
