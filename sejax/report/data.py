"""The section about the data, before any model: what data.json holds as facts, tables and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from sejax.corpora.describe import data_sentences, length
from sejax.corpora.schema import DIMENSIONS
from sejax.host.wording import count
from sejax.protocols.folds import ordered
from sejax.report.figures import Figure, Figures, histogram_panel, plane_panel

_MOST_SPEAKERS = 500  # rows; data.json has the rest
_UNFOLDED = 12  # rows of a table that is unfolded at first
_CLASS_COLOURS = ("s2", "s3", "s4", "s5", "s6")
_GENDERS = {"F": "female", "M": "male", None: "not known"}
_PLANE_AID = (
    "The area of a circle is the number of utterances with that rating, in the corpus's own scale. A numbered dot is "
    "the mean of a class, its lines one standard deviation."
)


@dataclass(frozen=True)
class ClassRow:
    """A class: its share of the largest class in per cent, for a bar, and its cells."""

    name: str
    bar: float
    cells: Sequence[str]


@dataclass(frozen=True)
class ClassTable:
    """A row for each class."""

    head: Sequence[str]
    rows: Sequence[ClassRow]


@dataclass(frozen=True)
class CountCell:
    """A count, its share of the row from 0 to 1, and whether it is dark."""

    count: str
    share: str
    dark: bool


@dataclass(frozen=True)
class CountTable:
    """A row for each speaker, gender, split or corpus: cells of text, the number of each class, and the total."""

    title: str
    head: Sequence[str]  # titles of the name and the texts
    classes: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str], Sequence[CountCell], str]]
    unfolded: bool
    aid: str = ""


@dataclass(frozen=True)
class DataView:
    """The section about the data."""

    facts: Sequence[tuple[str, str]]
    sentences: Sequence[str]
    classes: ClassTable | None
    counts: Sequence[CountTable]
    figures: Sequence[Figure]
    aid: str


def view_data(tree: Mapping[str, Any]) -> DataView | None:
    """Returns the section of what `describe_data` returns; None for an empty tree."""
    if not tree:
        return None
    figures = _figures(tree)
    return DataView(
        facts=_facts(tree),
        sentences=[f"{sentence[0].upper()}{sentence[1:]}." for sentence in data_sentences(tree)],
        classes=_class_table(tree) if tree["by_class"] else None,
        counts=_count_tables(tree),
        figures=figures.figures,
        aid=figures.aid,
    )


def _facts(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [("utterances", f"{tree['utterances']:,}")]
    if tree["speakers"]:
        facts.append(("speakers", f"{tree['speakers']:,}"))
    if tree["sessions"]:
        facts.append(("sessions", f"{tree['sessions']:,}"))
    if durations := tree.get("durations"):
        quantiles, known = durations["quantiles"], durations["utterances"]
        of = "" if known == tree["utterances"] else f" (of {known:,} utterances)"
        facts.append(("audio", f"{length(durations['total'])}{of}"))
        facts.append(("median duration", f"{quantiles['0.5']:.1f} s"))
        facts.append(("9 of 10 durations", f"{quantiles['0.05']:.1f} to {quantiles['0.95']:.1f} s"))
        facts.append(("shortest to longest", f"{quantiles['0']:.1f} to {quantiles['1']:.1f} s"))
    facts.append(("label source", tree["label_source"]))
    sizes = [row["utterances"] for row in tree["by_class"] if row["class"] is not None and row["utterances"]]
    if len(sizes) > 1:
        facts.append(
            ("largest to smallest class", f"{max(sizes):,} to {min(sizes):,}, ratio {max(sizes) / min(sizes):.1f}")
        )
    return facts


def _class_table(tree: Mapping[str, Any]) -> ClassTable:
    """Returns the table of the classes, with the columns of which any class has a value."""
    rows = tree["by_class"]
    most = max(row["utterances"] for row in rows) or 1
    columns = [
        ("utterances", [f"{row['utterances']:,}" for row in rows]),
        ("share", [f"{100 * row['utterances'] / max(tree['utterances'], 1):.1f} %" for row in rows]),
        ("speakers", [f"{row['speakers']:,}" for row in rows] if tree["speakers"] else []),
        ("minutes", [f"{row['seconds'] / 60:,.1f}" if "seconds" in row else "" for row in rows]),
        ("median, s", [f"{row['median_seconds']:.1f}" if "seconds" in row else "" for row in rows]),
        ("votes' entropy, bits", [f"{row['entropy']:.2f}" if "entropy" in row else "" for row in rows]),
        *((name, [_mean(row.get(name)) for row in rows]) for name in DIMENSIONS),
    ]
    shown = [(title, cells) for title, cells in columns if any(cells)]
    return ClassTable(
        head=["class", *(title for title, _ in shown)],
        rows=[
            ClassRow(
                name=row["class"] or "no class",
                bar=round(100 * row["utterances"] / most, 1),
                cells=[cells[place] or "–" for _, cells in shown],
            )
            for place, row in enumerate(rows)
        ],
    )


def _mean(values: Sequence[float] | None) -> str:
    """Returns a mean with its standard deviation; empty without one."""
    return " ± ".join(f"{value:.2f}" for value in values or ())


def _count_tables(tree: Mapping[str, Any]) -> list[CountTable]:
    tables = [_count_table(tree, name, tree[f"by_{name}"]) for name in ("corpus", "split", "gender")]
    by_name = {row["speaker"]: row for row in tree["by_speaker"]}
    speakers = [by_name[name] for name in ordered(by_name)]
    tables.append(_count_table(tree, "speaker", speakers))
    return [table for table in tables if table]


def _count_table(tree: Mapping[str, Any], kind: str, rows: Sequence[Mapping[str, Any]]) -> CountTable | None:
    if not rows:
        return None
    named = {"speakers": kind != "speaker", "gender": bool(tree["by_gender"]) and kind == "speaker"}
    timed = any("seconds" in row for row in rows)
    unlabelled = tree["classes"] and any(row["unlabelled"] for row in rows)
    head = [kind, *(name for name, there in named.items() if there), *(["minutes"] if timed else [])]
    view = []
    for row in rows[:_MOST_SPEAKERS]:
        texts = [f"{row['speakers']:,}"] if named["speakers"] else []
        texts += [_GENDERS[row["gender"]]] if named["gender"] else []
        texts += [f"{row['seconds'] / 60:,.1f}" if "seconds" in row else "–"] if timed else []
        counts = [*row["classes"].values(), *([row["unlabelled"]] if unlabelled else [])]
        cells = [_count_cell(number, row["utterances"]) for number in counts]
        name = _GENDERS[row["gender"]] if kind == "gender" else row[kind]
        view.append((name or "not known", texts, cells, f"{row['utterances']:,}"))
    more = len(rows) - _MOST_SPEAKERS
    return CountTable(
        title=f"Utterances by {kind} ({len(rows):,})",
        head=head,
        classes=[*tree["classes"], *(["no class"] if unlabelled else [])],
        rows=view,
        unfolded=len(rows) <= _UNFOLDED,
        aid=f"and {more:,} more in data.json" if more > 0 else "",
    )


def _count_cell(number: int, whole: int) -> CountCell:
    share = number / max(whole, 1)
    return CountCell(f"{number:,}", f"{share:.3f}", share >= 0.72)


def _figures(tree: Mapping[str, Any]) -> Figures:
    figures, aids = [], []
    if durations := tree.get("durations"):
        bins = durations["histogram"]
        panel = histogram_panel(
            bins["counts"], bins["step"], key="data-durations", label=_told(durations), unit="duration, s"
        )
        figures.append(Figure("Durations", Markup(panel)))
        if bins["above"]:
            longer = f"{count(bins['above'], 'utterance')} {'is' if bins['above'] == 1 else 'are'} longer"
            aids.append(f"{longer} than the axis, up to {durations['quantiles']['1']:.1f} s.")
    if votes := tree.get("votes"):
        entropy = votes["entropy"]
        counts, step = entropy["counts"], entropy["most"] / len(entropy["counts"])
        label = f"Histogram of the entropy of raters' votes, mean {entropy['mean']:.2f} bits"
        panel = histogram_panel(counts, step, key="data-votes", label=label, unit="entropy of the votes, bits")
        figures.append(Figure("Raters' disagreement", Markup(panel)))
        aids.append("0 bits: all raters agree; the end of the axis: equal shares of all classes.")
    plane = tree.get("ratings", {}).get("plane")
    if plane:
        figures.append(_plane(tree, plane))
        rounded = f" Ratings are rounded to {plane['step']:g}." if "step" in plane else ""
        aids.append(_PLANE_AID + rounded)
    return Figures("", figures, " ".join(aids))


def _told(durations: Mapping[str, Any]) -> str:
    quantiles = durations["quantiles"]
    return (
        f"Histogram of durations, median {quantiles['0.5']:.1f} s, from {quantiles['0']:.1f} to {quantiles['1']:.1f} s"
    )


def _plane(tree: Mapping[str, Any], plane: Mapping[str, Any]) -> Figure:
    means, legend = [], []
    for place, row in enumerate(tree["by_class"]):
        if row["class"] is not None and "valence" in row and "arousal" in row:
            colour = _CLASS_COLOURS[place % len(_CLASS_COLOURS)]
            means.append((str(place + 1), colour, row["valence"], row["arousal"]))
            legend.append((colour, f"{place + 1} {row['class']}"))
    label = f"Valence and arousal of {plane['utterances']:,} utterances, and the means of classes, as in the table"
    panel = plane_panel(
        np.array(plane["places"], np.float64), means, key="data-plane", label=label, scale=tree["ratings"]["scale"]
    )
    return Figure("Valence and arousal", Markup(panel), legend)
