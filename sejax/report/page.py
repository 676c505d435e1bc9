"""The report: the files of a finished workdir as one self-contained `report.html`, or its data before any: `data.html`.

A page needs no network, no script and no other file. Tables are HTML. Figures are inline SVG whose colours are CSS
variables, so one figure serves light screens, dark screens and paper. Equal files give equal bytes.

The templates hold the markup; this package gives them frozen records of formatted numbers.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sejax.build import Preview
from sejax.corpora.describe import length
from sejax.evaluation.tables import COLUMNS, Column, describe_final
from sejax.host.atomic import atomic_write
from sejax.host.wording import count
from sejax.report.data import view_data
from sejax.report.read import (
    Audit,
    DroppedUtterance,
    Duplicates,
    Protocol,
    Provenance,
    Setting,
    Study,
    read_audit,
    read_study,
)
from sejax.report.results import view_results
from sejax.report.settings import view_settings
from sejax.report.templating import style, template
from sejax.workdir.files import DATA_PAGE, REPORT

_MOST_ROWS = 500  # of a list in the audit; metrics.json has the rest
_TILES = {
    "wa": "Weighted accuracy",
    "ua": "Unweighted accuracy",
    "macro_f1": "Macro F1",
    "ccc_mean": "Mean CCC",
}


@dataclass(frozen=True)
class Mark:
    """A word that accompanies every number obtained with the test speakers, and its explanation."""

    word: str
    strong: bool
    sentence: str


_TRANSDUCTIVE = Mark(
    "transductive",
    False,
    "The features are normalised per speaker or corpus, with statistics of its own unlabelled audio, that of the test "
    "included. A system that meets a new speaker with a single utterance cannot do this; do not set these numbers "
    "beside ones that do without it.",
)
_OPTIMISTIC = Mark(
    "optimistic",
    True,
    "The epoch of every run was chosen on its test speakers (select_on_test), to reproduce work that does so. For new "
    "speakers, these numbers are optimistic.",
)
_SHARED = Mark(
    "optimistic",
    True,
    "The splits train on speakers of the test set (allow_shared_speakers). For new speakers, these numbers are "
    "optimistic.",
)


@dataclass(frozen=True)
class Tile:
    """A large number of the best setting, with its interval and its baselines."""

    title: str
    number: str
    unit: str
    interval: str
    baselines: Sequence[str]


@dataclass(frozen=True)
class Headline:
    """The top of the page."""

    title: str
    tiles: Sequence[Tile]
    best: str
    choice: tuple[str, str]  # the words before and after the name of the best setting
    lookup: str  # empty where there is nothing to compare with
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A table of texts; the first cell of a row is its title."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Details:
    """A part of the audit that can be unfolded: a table or lines, and a sentence below."""

    title: str
    table: Table | None = None
    lines: Sequence[str] = ()
    aid: str = ""


@dataclass(frozen=True)
class AuditView:
    """One sentence for each question, with its kind ("fine" or "look"), and the details."""

    findings: Sequence[tuple[str, str]]
    details: Sequence[Details]


@dataclass(frozen=True)
class ProvenanceView:
    """The command and the environment of the study."""

    command: str
    facts: Sequence[tuple[str, str]]
    config: str
    final: str  # of the final runs; empty without


def write_report(workdir: str) -> str:
    """Writes `report.html` into a finished workdir and returns its path.

    Raises:
      InputError: if one of `read.FILES` is missing in the workdir.
    """
    return _write(workdir, REPORT, render(read_study(workdir)))


def write_data_page(workdir: str, preview: Preview) -> str:
    """Writes `data.html`, which shows data before anything is trained on them, and returns its path."""
    protocol = preview.protocol
    page = template("data_page.html.j2").render(
        style=style(),
        title=f"{preview.corpus.name}, the data",
        study=[
            ("corpus", f"{preview.corpus.name}, labels {preview.labels}"),
            ("protocol", f"{protocol['name']}: {protocol['description'].split('; ')[0]}"),
            ("folds", f"{protocol['folds']:,}"),
        ],
        data=view_data(preview.data),
        audit=_audit(replace(read_audit(preview.audit), duplicates={})),
    )
    return _write(workdir, DATA_PAGE, page)


def _write(workdir: str, name: str, page: str) -> str:
    path = os.path.join(workdir, name)
    with atomic_write(path) as file:
        file.write(page)
    return path


def render(study: Study) -> str:
    """Returns the page of a study."""
    headline = _headline(study)
    return template("page.html.j2").render(
        style=style(),
        title=headline.title,
        marks=marks(study.protocol),
        remarks=study.remarks,
        headline=headline,
        data=view_data(study.data),
        results=view_results(study),
        settings=view_settings(study),
        audit=_audit(study.audit),
        provenance=_provenance(study.provenance, study.final_epochs),
    )


def marks(protocol: Protocol) -> list[Mark]:
    """Returns the marks of all numbers of a study."""
    found = [_TRANSDUCTIVE] if protocol.transductive else []
    found += [_SHARED] if protocol.shared_speakers else []
    return found + ([_OPTIMISTIC] if protocol.select_on_test else [])


# ---- Headline


def _headline(study: Study) -> Headline:
    corpus, protocol = study.corpus, study.protocol
    return Headline(
        title=f"{corpus.name}, {protocol.description.split('; ')[0]}",
        tiles=[_tile(study, COLUMNS[key], title) for key, title in _TILES.items() if key in study.best.metrics],
        best=study.best.name,
        choice=_choice(study),
        lookup=_lookup_sentence(study.best),
        facts=[
            ("corpus", f"{corpus.name}, labels {corpus.labels}"),
            ("audio", f"{count(corpus.utterances, 'utterance')}, {length(corpus.seconds)}"),
            ("speakers", f"{corpus.speakers:,}"),
            ("classes", ", ".join(corpus.classes) or "none"),
            ("protocol", f"{protocol.name}: {protocol.description}"),
            ("folds × seeds", f"{protocol.folds} × {protocol.seeds}"),
            ("normalisation", protocol.normalised_by),
        ],
    )


def _choice(study: Study) -> tuple[str, str]:
    """Returns the words before and after the name of the best setting."""
    if len(study.settings) == 1:
        return "Setting ", "."
    if study.best.choice:
        return "Of " + count(study.n_settings, "setting") + ", the row ", f": {study.best.about_choice}."
    where = "on the test speakers" if study.protocol.select_on_test else "on validation speakers"
    score = study.comparable_scores.get(study.best.name)
    if score is None:
        return f"None of {len(study.settings):,} settings has a score {where}; this is the first: ", "."
    return (
        f"Of {len(study.settings):,} settings, ",
        f" scores best {where} ({score:.3f}, mean over runs at the epoch that is kept); these are its test results.",
    )


def _tile(study: Study, column: Column, title: str) -> Tile:
    estimate = study.best.metrics[column.key]
    baselines = (("majority class", study.majority), ("class-mean look-up", study.best.lookup))
    return Tile(
        title=title,
        number=column.number(estimate.pooled),
        unit=column.unit,
        interval=column.interval(estimate.ci95) if estimate.ci95 else "",
        baselines=[
            f"{name} {column.number(estimates[column.key].pooled)}"
            for name, estimates in baselines
            if column.key in estimates
        ],
    )


def _lookup_sentence(setting: Setting) -> str:
    gain = setting.gain
    if gain is None:
        return ""
    if gain > 0:
        return f"Its mean CCC is {gain:.3f} above what the mean VAD of its predicted classes reaches (look-up)."
    return (
        f"Its mean CCC is {-gain:.3f} below what the mean VAD of its predicted classes reaches (look-up): "
        "beyond the class, it has learned nothing about the dimensions."
    )


# ---- Audit and provenance


def _audit(audit: Audit) -> AuditView:
    details = (
        _texts(audit),
        _duplicates(audit),
        _claimed_twice(audit),
        _classes(audit),
        _losses(audit),
        _dropped(audit),
        _notes(audit),
    )
    return AuditView(_findings(audit), [part for part in details if part])


def _findings(audit: Audit) -> list[tuple[str, str]]:
    lines = []
    for entry in audit.speakers_shared:
        names = ", ".join(entry["speakers"])
        lines.append(("look", f"Fold {entry['fold']}: speakers both trained and tested on: {names}."))
    if not audit.speakers_shared:
        lines.append(("fine", "No speaker is both trained and tested on in any fold."))
    for entry in audit.speakers_shared_with_validation:
        names = ", ".join(entry["speakers"])
        lines.append(("look", f"Fold {entry['fold']}: test speakers who are in validation too: {names}."))
    for entry in audit.speakers_trained_and_validated:
        names = ", ".join(entry["speakers"])
        line = f"Fold {entry['fold']}: validation speakers who are trained on too, so that it is too easy: {names}."
        lines.append(("look", line))
    if audit.spellings_checked:
        *fields, last = audit.spellings_checked
        line = f"No {', '.join(fields)} or {last} stands there in two spellings (case, form of numbers, Unicode form)."
        lines.append(("fine", line))
    if not any(texts["with_text"] for texts in audit.texts_shared):
        lines.append(("look", "The corpus names no texts: whether training and test share texts is unknown."))
    elif any(texts["shared"] for texts in audit.texts_shared):
        highest = 100 * max(texts["share"] for texts in audit.texts_shared)
        line = f"Test utterances say texts that were trained on: up to {highest:.0f} % of a fold's test set."
        lines.append(("look", line))
    else:
        lines.append(("fine", "No text of a test set was trained on."))
    across, elsewhere = audit.duplicates.get("across_test"), audit.duplicates.get("elsewhere")
    if across is None:
        lines.append(("look", "Whether audio occurs twice is not known before it is decoded: training looks for it."))
    elif across:
        line = f"The same audio inside and outside a test set: {count(len(across), 'group')}, allowed."
        lines.append(("look", line))
    else:
        lines.append(("fine", "No audio of a test set occurs outside it."))
    if elsewhere:
        lines.append(("look", f"The same audio twice on one side of every fold: {count(len(elsewhere), 'group')}."))
    if audit.speakers_claimed_twice:
        pairs = count(len(audit.speakers_claimed_twice), "pair")
        lines.append(("look", f"Speakers of two names have the same audio, and may be the same person: {pairs}."))
    if most := max((fold["test"] for fold in audit.unknown_speakers), default=0):
        line = (
            f"The corpus does not say who speaks in up to {count(most, 'test utterance')} of a fold: whether these "
            "voices were trained on is unknown."
        )
        lines.append(("look", line))
    if audit.classes_untrained:
        first, folds = audit.classes_untrained[0], count(len(audit.classes_untrained), "fold")
        names = ", ".join(first["classes"])
        lines.append(
            ("look", f"Classes are tested that are not trained, in {folds}, first in {first['fold']}: {names}.")
        )
    dropped = len(audit.dropped)
    lines.append(("look", f"{count(dropped, 'utterance')} dropped.") if dropped else ("fine", "No utterance dropped."))
    return lines


def _capped(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Details:
    more = len(rows) - _MOST_ROWS
    return Details(title, Table(head, rows[:_MOST_ROWS]), aid=f"and {more:,} more in metrics.json" if more > 0 else "")


def _texts(audit: Audit) -> Details | None:
    if not any(texts["with_text"] for texts in audit.texts_shared):
        return None
    rows = [
        (texts["fold"], f"{texts['with_text']:,}", f"{texts['shared']:,}", f"{100 * texts['share']:.0f} %")
        for texts in audit.texts_shared
    ]
    head = ("fold", "test utterances with a text", "text also trained on", "share of the test set")
    return Details("Texts shared between training and test", Table(head, rows))


def _duplicates(audit: Audit) -> Details | None:
    groups = [*audit.duplicates.get("across_test", ()), *audit.duplicates.get("elsewhere", ())]
    rows = [(", ".join(group["ids"]), _likeness(group), ", ".join(group.get("folds", ["none"]))) for group in groups]
    head = ("same audio", "how alike", "folds with it on both sides")
    return _capped("Duplicate audio", head, rows) if rows else None


def _likeness(group: Duplicates) -> str:
    if "copies" not in group:
        return "equal samples"
    return "; ".join(
        f"{copy['seconds']:.2f} s in common, offset {copy['offset']:.2f} s, correlation {copy['correlation']:.3f}"
        for copy in group["copies"]
    )


def _claimed_twice(audit: Audit) -> Details | None:
    rows = [
        (", ".join(pair["speakers"]), ", ".join(pair["ids"]), f"{pair['pairs']:,}", ", ".join(pair["folds"]) or "none")
        for pair in audit.speakers_claimed_twice
    ]
    head = ("names", "the first copies", "pairs of copies", "folds that train on one and test the other")
    return _capped("Speakers of two names with the same audio", head, rows) if rows else None


def _classes(audit: Audit) -> Details:
    folds, splits = audit.class_counts, ("train", "val", "test")
    classes = list(folds[0]["test"]) if folds else []
    unlabelled = any(number for fold in folds for number in fold["unlabelled"].values())
    rows = []
    for fold in folds:
        columns = [[fold[split][name] for split in splits] for name in classes]
        if unlabelled:
            columns.append([fold["unlabelled"][split] for split in splits])
        total = [sum(split) for split in zip(*columns, strict=True)]
        rows.append([fold["fold"], *[" / ".join(f"{n:,}" for n in column) for column in (*columns, total)]])
    head = ("fold", *classes, *(("no label",) if unlabelled else ()), "all")
    return Details("Utterances per class: train / validation / test", Table(head, rows))


def _losses(audit: Audit) -> Details | None:
    if not audit.dropped:
        return None
    first: dict[str, DroppedUtterance] = {}
    numbers = Counter(dropped.get("kind", "unknown") for dropped in audit.dropped)
    for dropped in audit.dropped:
        first.setdefault(dropped.get("kind", "unknown"), dropped)
    rows = [(kind, f"{n:,}", first[kind]["id"], first[kind]["reason"]) for kind, n in numbers.most_common()]
    return Details("Dropped utterances by kind of reason", Table(("kind", "utterances", "the first", "reason"), rows))


def _dropped(audit: Audit) -> Details | None:
    if not audit.dropped:
        return None
    rows = [(dropped["id"], dropped["reason"], dropped["path"]) for dropped in audit.dropped]
    return _capped(f"Dropped utterances ({len(rows):,})", ("utterance", "reason", "path"), rows)


def _notes(audit: Audit) -> Details | None:
    lines = [f"{remark}: {count(number, 'utterance')}" for remark, number in audit.notes.items()]
    lines += audit.corpus_notes
    return Details(f"Notes ({len(lines)})", lines=lines) if lines else None


def _provenance(provenance: Provenance, final_epochs: Sequence[int]) -> ProvenanceView:
    return ProvenanceView(
        command=provenance.command,
        facts=[
            ("device", provenance.device),
            ("git revision", provenance.git or "none"),
            ("started", provenance.started),
            ("versions", ", ".join(f"{name} {version}" for name, version in provenance.versions.items())),
        ],
        config=json.dumps(provenance.config, indent=2, ensure_ascii=False, sort_keys=True),
        final=describe_final(final_epochs) if final_epochs else "",
    )
