"""What is in a corpus, before any model: counts, durations, texts, votes, ratings and losses, as a tree for JSON."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import entr

from sejax.corpora.schema import DIMENSIONS, SPLITS, Corpus, Utterance
from sejax.host.wording import count

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_BINS = 30  # of a histogram, at most
_MOST_PLACES = 300  # of the plane that are kept as they are
_GRID = 16  # steps of the plane over the scale, about
_TIE = 1e-9  # shares of votes closer than this are equal


def describe_data(corpus: Corpus, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Returns what data.json holds. What the corpus lacks is absent, or an empty list.

    - `corpus`, `label_source`, `classes`; the numbers of `utterances`, `speakers` (known ones), `unknown_speakers`
      (utterances of which nobody knows who speaks), `sessions`, `hidden` (utterances whose labels are kept back),
      `secondary` (utterances for which raters named further emotion words);
    - `by_class`: utterances, speakers, and where they are known `seconds` (total), `median_seconds`, `entropy` (mean,
      in bits), and [mean, standard deviation] of each rated dimension. The class None is that of the utterances
      without a class;
    - `by_corpus` (where there are several), `by_split`, `by_gender`, `by_speaker` (of known speakers): utterances,
      speakers, seconds, the number of each class, and `unlabelled`;
    - `durations`: see `_durations`; `texts`: see `_texts`; `votes`: see `_votes`; `ratings`: see `_ratings`;
    - `dropped`: the kinds of reasons with their numbers of utterances, and whether it is by design.

    Args:
      corpus: with the utterances that can be used.
      seconds: how long an utterance lasts, by its id; where it is absent, nobody knows.
    """
    utterances, classes = corpus.utterances, corpus.classes
    known = [u for u in utterances if u.speaker_known]
    gender_of = _genders(known)

    def groups(name: str, of: Callable[[Utterance], str | None], members: Sequence[Utterance] = utterances) -> Any:
        return [{name: value, **_counts(part, classes, seconds)} for value, part in _by(members, of).items()]

    corpora, genders = (groups(name, _field(name)) for name in ("corpus", "gender"))
    splits = sorted(groups("split", _field("split")), key=lambda row: _place_of_split(row["split"]))
    speakers = groups("speaker", lambda u: u.speaker, known)
    unlabelled = [u for u in utterances if u.label is None]
    by_class: list[tuple[str | None, list[Utterance]]] = [
        (name, [u for u in utterances if u.label == name]) for name in classes
    ]
    by_class += [(None, unlabelled)] if unlabelled and classes else []
    tree = {
        "corpus": corpus.name,
        "label_source": corpus.label_source,
        "classes": list(classes),
        "utterances": len(utterances),
        "speakers": len({u.speaker for u in known}),
        "unknown_speakers": len(utterances) - len(known),
        "sessions": len({(u.corpus, u.session) for u in utterances if u.session is not None}),
        "hidden": sum(u.hidden for u in utterances),
        "secondary": sum(bool(u.secondary) for u in utterances),
        "by_class": [{"class": name, **_class(part, classes, seconds)} for name, part in by_class],
        "by_corpus": corpora if len(corpora) > 1 else [],
        "by_split": [] if all(u.split is None for u in utterances) else splits,
        "by_gender": [] if all(u.gender is None for u in utterances) else genders,
        "by_speaker": [{**row, "gender": gender_of.get(row["speaker"])} for row in speakers],
        "durations": _durations([seconds[u.id] for u in utterances if u.id in seconds]),
        "texts": _texts(utterances),
        "votes": _votes(utterances, classes),
        "ratings": _ratings(corpus),
        "dropped": [
            {"kind": kind.value, "utterances": number, "by_design": kind.is_selection}
            for kind, number in Counter(lost.kind for lost in corpus.dropped).most_common()
        ],
    }
    return {name: value for name, value in tree.items() if value is not None}


def _place_of_split(name: str | None) -> tuple[bool, int, int]:
    """Returns the key that sorts splits: train, val, test, test1, test2, ...; those of no split come last."""
    part = (name or "").rstrip("0123456789")
    return name is None, SPLITS.index(part) if name else 0, int((name or "")[len(part) :] or 0)


def _field(name: str) -> Callable[[Utterance], str | None]:
    return lambda utterance: getattr(utterance, name)


def _by(utterances: Sequence[Utterance], of: Callable[[Utterance], str | None]) -> dict[str | None, list[Utterance]]:
    """Returns the utterances of each value, in the order of the values; those without one come last."""
    found: dict[str | None, list[Utterance]] = {}
    for utterance in utterances:
        found.setdefault(of(utterance), []).append(utterance)
    return {value: found[value] for value in sorted(found, key=lambda value: (value is None, value or ""))}


def _genders(utterances: Sequence[Utterance]) -> dict[str, str]:
    """Returns the gender of each speaker of whom the corpus says one."""
    said: dict[str, set[str]] = {}
    for utterance in utterances:
        if utterance.gender:
            said.setdefault(utterance.speaker, set()).add(utterance.gender)
    return {speaker: next(iter(genders)) for speaker, genders in said.items() if len(genders) == 1}


def _counts(part: Sequence[Utterance], classes: Sequence[str], seconds: Mapping[str, float]) -> dict[str, Any]:
    labels = Counter(u.label for u in part)
    return {
        **_size(part, seconds),
        "classes": {name: labels[name] for name in classes},
        "unlabelled": labels[None],
    }


def _size(part: Sequence[Utterance], seconds: Mapping[str, float]) -> dict[str, Any]:
    lasting = [seconds[u.id] for u in part if u.id in seconds]
    size: dict[str, Any] = {"utterances": len(part), "speakers": len({u.speaker for u in part if u.speaker_known})}
    return size | ({"seconds": round(sum(lasting), 3)} if lasting else {})


def _class(part: Sequence[Utterance], classes: Sequence[str], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Returns what `by_class` says of the utterances of one class."""
    found = _size(part, seconds)
    if "seconds" in found:
        found["median_seconds"] = round(float(np.median([seconds[u.id] for u in part if u.id in seconds])), 3)
    if len(entropies := vote_entropy(part, classes)):
        found["entropy"] = float(entropies.mean())
    for dimension, name in enumerate(DIMENSIONS):
        rated = [u.vad[dimension] for u in part if math.isfinite(u.vad[dimension])]
        if rated:
            # One rating has no deviation.
            deviation = [float(np.std(rated, ddof=1))] if len(rated) > 1 else []
            found[name] = [float(np.mean(rated)), *deviation]
    return found


def _durations(seconds: Sequence[float]) -> dict[str, Any] | None:
    """Returns the known durations: their number, total, quantiles (linear interpolation) and histogram, in seconds.

    The histogram ends at the 99th percentile where the longest is far from it: `above` counts the longer ones.
    """
    if not seconds:
        return None
    values = np.array(seconds, np.float64)
    longest, most = float(values.max()), float(np.quantile(values, 0.99))
    end = longest if longest <= 1.5 * most else most
    step = _nice_step(end / _BINS)
    n_bins = max(1, math.ceil(round(end / step, 6)))
    drawn = np.minimum(values[values <= end], n_bins * step)  # `end` may be off by rounding
    counts, _ = np.histogram(drawn, n_bins, (0.0, n_bins * step))
    return {
        "utterances": len(values),
        "total": round(float(values.sum()), 3),
        "quantiles": {f"{q:g}": round(float(np.quantile(values, q)), 3) for q in QUANTILES},
        "histogram": {"step": step, "counts": counts.tolist(), "above": len(values) - len(drawn)},
    }


def _nice_step(least: float) -> float:
    """Returns the least of 1, 2 and 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least)) if least > 0 else 0.1
    return next(round(n * power, 12) for n in (1, 2, 5, 10) if n * power >= least * (1 - 1e-9))


def _texts(utterances: Sequence[Utterance]) -> dict[str, int] | None:
    """Returns how much the corpus repeats its texts; None if it names none.

    - `utterances`: those with a text; `texts`: the number of different ones;
    - `several_speakers`: utterances whose text two or more known speakers say;
    - `one_class`: utterances with a class whose text occurs in two or more such utterances, all of that class: the
      words then give the class away.
    """
    parts = _by([u for u in utterances if u.text is not None], lambda u: u.text)
    if not parts:
        return None
    labels = [[u.label for u in part if u.label is not None] for part in parts.values()]
    return {
        "utterances": sum(map(len, parts.values())),
        "texts": len(parts),
        "several_speakers": sum(
            len(part) for part in parts.values() if len({u.speaker for u in part if u.speaker_known}) > 1
        ),
        "one_class": sum(len(of_text) for of_text in labels if len(of_text) > 1 and len(set(of_text)) == 1),
    }


def _votes(utterances: Sequence[Utterance], classes: Sequence[str]) -> dict[str, Any] | None:
    """Returns how much the raters differ; None without votes.

    `utterances` with votes; `ties`: those without a unique plurality; the `entropy` of the shares in bits: `mean`, and
    a histogram of equal bins from 0 to `most`, that of equal shares of all classes.
    """
    shares = _shares(utterances, classes)
    if not len(shares):
        return None
    entropies = vote_entropy(utterances, classes)
    most = math.log2(max(len(classes), 2))
    counts, _ = np.histogram(np.minimum(entropies, most), 20, (0.0, most))  # rounding may exceed it
    return {
        "utterances": len(shares),
        "ties": int(((shares.max(axis=1, keepdims=True) - shares < _TIE).sum(axis=1) > 1).sum()),
        "entropy": {"mean": float(entropies.mean()), "most": most, "counts": counts.tolist()},
    }


def _shares(utterances: Sequence[Utterance], classes: Sequence[str]) -> Float[np.ndarray, "voted class"]:
    voted = [u.distribution for u in utterances if u.distribution is not None]
    shares = np.zeros((len(voted), len(classes)))
    for row, distribution in enumerate(voted):
        shares[row] = [distribution.get(name, 0.0) for name in classes]
    return shares


def vote_entropy(utterances: Sequence[Utterance], classes: Sequence[str]) -> Float[np.ndarray, " voted"]:
    """Returns the entropy, in bits, of the raters' shares of each utterance that has votes (Shannon 1948)."""
    return entr(_shares(utterances, classes)).sum(axis=1) / math.log(2)


def _ratings(corpus: Corpus) -> dict[str, Any] | None:
    """Returns the ratings in the corpus's own scale; None without any.

    - `scale`: the lowest and the highest value; `outside`: utterances with a value beyond it;
    - `dimensions`: of each the number of utterances `rated` and `missing`, and of the rated mean and `sd` (sample);
    - `plane`: the number of utterances rated in valence and arousal, and `places`, [valence, arousal, utterances]: the
      ratings as they are if there are few different ones, else rounded to `step`. Absent without such utterances.
    """
    vad = np.array([u.vad for u in corpus.utterances], np.float64).reshape(-1, len(DIMENSIONS))
    rated = np.isfinite(vad)
    if not rated.any():
        return None
    low, high = corpus.vad_scale
    dimensions: dict[str, dict[str, Any]] = {}
    for dimension, name in enumerate(DIMENSIONS):
        values = vad[rated[:, dimension], dimension]
        dimensions[name] = {"rated": len(values), "missing": len(vad) - len(values)}
        if len(values):
            dimensions[name]["mean"] = float(values.mean())
        if len(values) > 1:
            dimensions[name]["sd"] = float(values.std(ddof=1))
    found = {
        "scale": [low, high],
        "outside": int(((vad < low) | (vad > high)).any(axis=1).sum()),
        "dimensions": dimensions,
    }
    both = vad[rated[:, :2].all(axis=1), :2]
    return found | ({"plane": _plane(both, low, high)} if len(both) else {})


def _plane(both: Float[np.ndarray, "rated 2"], low: float, high: float) -> dict[str, Any]:
    step = None
    places, counts = np.unique(both, axis=0, return_counts=True)
    if len(places) > _MOST_PLACES:
        # A power of two, so that whole and half ratings stay where they are.
        step = 2.0 ** round(math.log2((high - low) / _GRID))
        places, counts = np.unique(low + step * np.round((both - low) / step), axis=0, return_counts=True)
    pairs = zip(places.tolist(), counts.tolist(), strict=True)
    return {
        "utterances": len(both),
        **({} if step is None else {"step": step}),
        "places": [[valence, arousal, number] for (valence, arousal), number in pairs],
    }


def summarise_data(tree: Mapping[str, Any]) -> str:
    """Returns what `describe_data` returns as lines for the terminal."""
    durations = tree.get("durations")
    head = [count(tree["utterances"], "utterance"), count(tree["speakers"], "speaker")]
    if tree["unknown_speakers"]:
        head.append(f"{count(tree['unknown_speakers'], 'utterance')} of unknown speakers")
    if durations:
        head.append(length(durations["total"]))
    lines = [f"{tree['corpus']}: {', '.join(head)}", f"label source: {tree['label_source']}"]
    lines += _class_lines(tree)
    for name in ("corpus", "split", "gender"):
        parts = [f"{row[name] or 'unknown'} {row['utterances']:,}" for row in tree[f"by_{name}"]]
        lines += [f"{name}: {', '.join(parts)}"] if parts else []
    if durations:
        low, median, high = (durations["quantiles"][q] for q in ("0", "0.5", "1"))
        lines.append(f"durations: {low:.1f} to {high:.1f} s, median {median:.1f} s")
    return "\n".join([*lines, *data_sentences(tree)])


def length(seconds: float) -> str:
    """Returns a total duration in words."""
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.1f} min"


def _class_lines(tree: Mapping[str, Any]) -> list[str]:
    rows = tree["by_class"]
    width = max((len(row["class"] or "no class") for row in rows), default=0)
    lines = []
    for row in rows:
        share = 100 * row["utterances"] / max(tree["utterances"], 1)
        spoken = f", {length(row['seconds'])}, median {row['median_seconds']:.1f} s" if "seconds" in row else ""
        speakers = count(row["speakers"], "speaker")
        name = (row["class"] or "no class").ljust(width)
        lines.append(f"  {name}  {row['utterances']:>6,}  {share:5.1f} %  {speakers}{spoken}")
    return lines


def data_sentences(tree: Mapping[str, Any]) -> list[str]:
    """Returns a sentence for each question about the data that numbers alone do not answer."""
    found, whole = [], tree["utterances"]
    if texts := tree.get("texts"):
        texts_of = f"{count(texts['texts'], 'different text')} in {count(texts['utterances'], 'utterance')}"
        shared = _part(texts["several_speakers"], texts["utterances"])
        found.append(f"{texts_of}: {shared} say one that several speakers say")
        if given := texts["one_class"]:
            found.append(
                f"{_part(given, texts['utterances'])} of the utterances with a text say one that occurs repeatedly and "
                "in one class alone: its words could give the class away"
            )
    if votes := tree.get("votes"):
        entropy = votes["entropy"]
        found.append(
            f"raters' votes for {_part(votes['utterances'], whole)} of the utterances: mean entropy "
            f"{entropy['mean']:.2f} of at most {entropy['most']:.2f} bits, {_part(votes['ties'], votes['utterances'])} "
            "without a unique plurality"
        )
    if secondary := tree["secondary"]:
        found.append(f"raters named further emotion words for {_part(secondary, whole)} of the utterances")
    if ratings := tree.get("ratings"):
        low, high = ratings["scale"]
        of_each = [
            f"{name} {each['rated']:,}" + (f" ({each['missing']:,} missing)" if each["missing"] else "")
            for name, each in ratings["dimensions"].items()
            if each["rated"]
        ]
        outside = f"; {count(ratings['outside'], 'utterance')} outside it" if ratings["outside"] else ""
        found.append(f"ratings on a scale from {low:g} to {high:g}: {', '.join(of_each)}{outside}")
    if unknown := tree["unknown_speakers"]:
        found.append(
            f"{_part(unknown, whole)} of the utterances have an unknown speaker, and whether one of these is in "
            "training and test nobody can say"
        )
    if hidden := tree["hidden"]:
        found.append(f"{_part(hidden, whole)} of the utterances have hidden labels: they are predicted, not scored")
    for lost in tree["dropped"]:
        by_design = ", by design" if lost["by_design"] else ""
        found.append(f"{count(lost['utterances'], 'utterance')} dropped{by_design}: {lost['kind']}")
    return found


def _part(number: int, whole: int) -> str:
    """Returns a number and its share: `20 (4 %)`."""
    return f"{number:,} ({100 * number / max(whole, 1):.0f} %)"
