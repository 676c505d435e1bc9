"""A model tested on a corpus that it was not trained on, also under corruptions.

Where the corpus, or a part of it, is that of the model's own study, an utterance is predicted by those runs alone that
held its speaker out.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sejax.corpora.common_classes import find_common
from sejax.corpora.join import OWN_TEXTS
from sejax.corpora.schema import DIMENSIONS, Corpus, Utterance
from sejax.corpora.vad_scale import in_scale
from sejax.errors import InputError
from sejax.evaluation.class_map import ClassMap, match_classes
from sejax.evaluation.foreign import CLEAN, baselines, score
from sejax.evaluation.predictions import Predictions
from sejax.features.corrupt import Corruption
from sejax.features.extract import Segment
from sejax.host.progress import progress_bar
from sejax.host.wording import count
from sejax.inference.model import Model, Scored
from sejax.inference.records import Outputs, make_record

ENSEMBLE = "ensemble"
"""The fold of a prediction that runs of several folds have made."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a model is tested."""

    labels: str  # the option that the corpus was read with
    corruptions: Sequence[Corruption] = ()  # each is a test beside the clean one
    scale: tuple[float, float] | None = None  # of a model that does not say it
    allow_seen: bool = False  # predict utterances of speakers or audio that every run has heard
    workers: int = 1  # that decode
    max_bad_fraction: float = 0.01  # the largest share of unusable files
    n_bootstrap: int = 1000  # draws of speakers


def evaluate(model: Model, corpus: Corpus, options: Options) -> tuple[Predictions, dict[str, Any]]:
    """Tests a model on a corpus.

    Args:
      model: the model.
      corpus: with the truths.
      options: of the test.

    Returns:
      The predictions, and the corpus's entry in evaluation.json. `setting` is the name of the test, `fold` that of the
      runs that have predicted (`ENSEMBLE` for several); run and seed are -1, for the mean over runs.

    Raises:
      InputError: model and corpus have no class and no dimension in common; too many files cannot be used; or the
        runs have heard what they would be tested on.
    """
    scheme = find_common(options.labels)
    if scheme is not None and (model.labels == options.labels or not set(corpus.classes) <= set(scheme.classes)):
        scheme = None  # the model has its classes already, or it is a scheme of the corpus's own of that name
    classes = match_classes(model.names.classes, corpus.classes, scheme, trained_on=model.trained_on)
    rated = [
        name for place, name in enumerate(DIMENSIONS) if any(u.vad[place] == u.vad[place] for u in corpus.utterances)
    ]
    _require_something_in_common(model, corpus, classes, rated)
    scale = _scale(model, options)
    _choose_runs(model, corpus, ["" for _ in corpus.utterances], options)  # what names say is said before hours of work
    tested = [utterance for utterance in corpus.utterances if utterance.has_truth]
    if not tested:
        raise InputError(f"no utterance of the corpus {corpus.name} has a label or a rating, expected some to test on")
    corpus, scored = _score(model, corpus, tested, options)
    chosen, notes = _choose_runs(model, corpus, [each.digest for each in scored], options)
    predictions, outside = _predictions(model, corpus, scored, chosen, classes, scale, options)
    shared = classes.shared
    labels = [utterance.label for utterance in corpus.utterances]
    unnamed = {name: labels.count(name) for name in corpus.classes if name not in shared and name in labels}
    if model.names.dimensions and rated:
        notes.append(_about_scale(scale, corpus))
    if corpus.dropped:
        lost = len(corpus.dropped)
        notes.append(
            f"{lost:,} of {count(lost + len(corpus.utterances), 'utterance')} cannot be used (the first: "
            f"{corpus.dropped[0].reason}); evaluation.json lists them"
        )
    if unknown := sum(not utterance.speaker_known for utterance in corpus.utterances):
        notes.append(
            f"{count(unknown, 'utterance')} of unknown speakers: the intervals take each for a speaker of its own"
        )
    return predictions, {
        "corpus": {
            "name": corpus.name,
            "labels": options.labels,
            "label_source": corpus.label_source,
            "classes": list(corpus.classes),
            "vad_scale": list(corpus.vad_scale),
            "utterances": len(corpus.utterances),
            "speakers": len({utterance.speaker for utterance in corpus.utterances}),
            "dropped": [{"id": lost.id, "reason": lost.reason} for lost in corpus.dropped],
            "notes": list(corpus.notes),
        },
        "classes": {
            "of": dict(classes.class_of),
            "shared": list(shared),
            "unnamed": unnamed,
            "outside": list(classes.outside),
            "outside_probability": outside,
        },
        "scale": None if scale is None else list(scale),
        "optimistic": any(runs == [] for runs in chosen),
        "notes": notes,
        "baselines": baselines(predictions, shared),
        "tests": score(predictions, shared, one_scale=scale is not None, n_bootstrap=options.n_bootstrap),
    }


def _require_something_in_common(model: Model, corpus: Corpus, classes: ClassMap, rated: Sequence[str]) -> None:
    names = model.names
    if not classes.shared and not set(names.dimensions) & set(rated):
        raise InputError(
            f"the model predicts {', '.join((*names.classes, *names.dimensions)) or 'nothing'}, and the corpus "
            f"{corpus.name} has {', '.join((*corpus.classes, *rated)) or 'no labels'}, expected a class or a dimension "
            "that both have (config.labels=four brings both to common classes, as does a CSV file with the columns "
            "label and class)"
        )


def _scale(model: Model, options: Options) -> tuple[float, float] | None:
    """Returns the scale of the model's dimensions, if it is known."""
    if model.scale is not None and options.scale is not None and model.scale != options.scale:
        raise InputError(
            "--scale is {:g}..{:g}, but the model says that its scale is {:g}..{:g}, expected no --scale".format(
                *options.scale, *model.scale
            )
        )
    return model.scale or options.scale


def _about_scale(scale: tuple[float, float] | None, corpus: Corpus) -> str:
    of_corpus = "{:g} to {:g}".format(*corpus.vad_scale)
    if scale is None:
        return (
            f"the model does not say the scale of its dimensions, that of the corpus is {of_corpus}: PCC alone is "
            "given (--scale LOW..HIGH says the model's)"
        )
    if scale == corpus.vad_scale:
        return f"dimensions are on a scale from {of_corpus}, the model's and the corpus's"
    of_model = "{:g} to {:g}".format(*scale)
    return f"dimensions are brought from the model's scale, {of_model}, to the corpus's, {of_corpus}"


def _score(model: Model, corpus: Corpus, tested: Sequence[Utterance], options: Options) -> tuple[Corpus, list[Scored]]:
    """Returns the corpus of the utterances that every test has predicted, and their outputs."""
    errors: dict[str, str] = {}
    found = []
    segments = [Segment(utterance.path, utterance.start, utterance.end) for utterance in tested]
    corruptions = (None, *options.corruptions)
    every = replace(corpus, utterances=tuple(tested))
    scores = model.score_each(segments, corruptions=corruptions, workers=options.workers)
    with closing(scores), progress_bar(len(tested), f"testing on {corpus.name}") as bar:
        for utterance, scored in zip(tested, scores, strict=True):
            failed = [outputs for outputs in scored.outputs if isinstance(outputs, InputError)]
            if failed:
                errors[utterance.id] = str(failed[0])
                every.require_usable(options.max_bad_fraction, errors)
            else:
                found.append(scored)
            bar.update()
    return every.without(errors), found


def _choose_runs(
    model: Model, corpus: Corpus, digests: Sequence[str], options: Options
) -> tuple[list[list[int] | None], list[str]]:
    """Returns the places of the runs that may predict each utterance, and notes.

    There is none where all runs have heard it, and it is None where nothing is known, so that all runs predict.

    The speakers of an utterance are those of the study whose audio it has, and the one of the same name where the
    corpus has the name of the study's. A table's name says little: there names count only if audio is shared too.

    Args:
      model: the model.
      corpus: of the utterances.
      digests: of their decoded samples, "" where they are not decoded.
      options: say whether what all runs have heard may be predicted.

    Raises:
      InputError: it may not, and there is some; or it cannot be known and the corpus has the name of the study's.
    """
    utterances, heard = corpus.utterances, model.heard
    own_name = corpus.name in model.trained_on.split("+")
    if heard is None:
        nothing_known: list[list[int] | None] = [None for _ in utterances]
        if own_name and not options.allow_seen:
            raise InputError(
                f"the model was trained on a corpus of the same name, {corpus.name}, and does not know on which "
                "speakers (an older sejax exported it), expected a bundle that is exported again; --allow-seen tests "
                "it all the same, and calls the numbers optimistic"
            )
        if own_name:
            return [[] for _ in utterances], ["optimistic: the model was trained on a corpus of this name"]
        of_study = f", which was trained on {model.trained_on}," if model.trained_on else ""
        return nothing_known, [f"whether the model{of_study} has heard audio of this corpus is not known"]
    named_by_user = corpus.name in OWN_TEXTS
    by_name = own_name and (not named_by_user or any(digest in heard.speakers_of for digest in digests))
    chosen: list[list[int] | None] = []
    shared = 0
    for utterance, digest in zip(utterances, digests, strict=True):
        speakers = heard.speakers_of.get(digest, frozenset())
        if by_name:
            speakers |= heard.named(corpus.name, utterance.speaker)
        shared += bool(speakers)
        chosen.append(heard.runs_without(speakers))
    seen = [utterance.id for utterance, runs in zip(utterances, chosen, strict=True) if not runs]
    words = f"{len(seen):,} of {count(len(utterances), 'utterance')}"
    if seen and not options.allow_seen:
        raise InputError(
            f"{corpus.name}: {words} are of speakers, or have audio, that every run of the model was trained on or had "
            f"its epoch chosen by (the first: {seen[0]!r}), expected a corpus that it has not heard, or the runs of "
            "the folds (of a workdir, or of a bundle exported with --runs folds); --allow-seen tests it all the same, "
            "and calls the numbers optimistic"
        )
    notes = []
    if shared > len(seen):
        notes.append(
            f"{count(shared - len(seen), 'utterance')} of the model's own study: predicted by the runs that held their "
            "speakers out"
        )
    if seen:
        notes.append(f"optimistic: {words} are of speakers, or have audio, that every run was trained on")
    if not shared:
        notes.append(
            "no audio of the corpus, and no speaker of a corpus of its name, is among those of the model's study"
        )
    return chosen, notes


def _predictions(
    model: Model,
    corpus: Corpus,
    scored: Sequence[Scored],
    chosen: Sequence[Sequence[int] | None],
    classes: ClassMap,
    scale: tuple[float, float] | None,
    options: Options,
) -> tuple[Predictions, float]:
    """Returns the predictions of all tests, and the mean share of the clean one's that classes outside have."""
    utterances, names, folds = corpus.utterances, model.names, model.heard.folds if model.heard else ()
    tests = (CLEAN, *map(str, options.corruptions))
    prob, values = [], []
    for place in range(len(tests)):
        for each, runs in zip(scored, chosen, strict=True):
            outputs = each.outputs[place]
            assert isinstance(outputs, Outputs)
            record = make_record(names, outputs.of(runs) if runs else outputs, file="", start=None, end=None)
            prob.append([record.probabilities[name] for name in names.classes])
            values.append([record.dimensions.get(name, np.nan) for name in DIMENSIONS])
    of_model = np.array(prob, np.float64).reshape(len(values), len(names.classes))
    n, n_tests = len(utterances), len(tests)
    predictions = Predictions(
        classes=corpus.classes,
        run=np.full(n * n_tests, -1),
        fold=np.array([_fold(runs, folds) for runs in chosen] * n_tests),
        seed=np.full(n * n_tests, -1),
        setting=np.repeat(tests, n),
        split=np.full(n * n_tests, "test"),
        id=np.array([u.id for u in utterances] * n_tests),
        speaker=np.array([u.speaker for u in utterances] * n_tests),
        label=np.array(corpus.label_numbers() * n_tests),
        prob=classes.apply(of_model),
        vad=np.array([u.vad for u in utterances] * n_tests, np.float64),
        pred_vad=in_scale(np.array(values, np.float64), scale or corpus.vad_scale, corpus.vad_scale),
    )
    apart = classes.apart(of_model[:n])
    known = apart[np.isfinite(apart)]
    return predictions, float(known.mean()) if len(known) else 0.0


def _fold(runs: Sequence[int] | None, folds: Sequence[str]) -> str:
    """Returns the fold of the runs that predict an utterance, all where none is chosen; "" where it is not known."""
    names = {folds[run] for run in runs} if runs else set(folds)
    return ENSEMBLE if len(names) > 1 else "".join(names)
