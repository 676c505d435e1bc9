"""Explanations of utterances as figures and tables: a part of the report, or a page of their own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from sejax.corpora.schema import DIMENSIONS
from sejax.host.atomic import atomic_write
from sejax.host.wording import count, printable
from sejax.report.figures import Figure, explanation_panel
from sejax.report.templating import style, template

_MOST_GROUPS = 12  # of a stream's statistics
_AID = (
    "Gradient times input of the output, against the mean of the training speakers{signs}. It is the model's own slope "
    "times how far a value is from the mean. It does not say what would happen without that value, nor what makes "
    "people hear the emotion, and where the model is not linear the parts do not add up to the output: each utterance "
    "says by how much.{attention} Statistics are of the whole utterance."
)
_COLOURED = ", at the time where it is heard: blue speaks for the output, orange against it"
_SIGNED = ": a sum above 0 speaks for the output, one below 0 against it"
_ATTENTION = " Attention says where a layer takes its frames from, not what it does with them."


@dataclass(frozen=True)
class PartRow:
    """A stream, or a group of its statistics: its share, for a bar, and its signed sum."""

    name: str
    of_stream: bool
    bar: float | None  # per cent; None: no bar
    cells: Sequence[str]


@dataclass(frozen=True)
class ExplanationView:
    """What was looked at in one utterance."""

    title: str
    facts: Sequence[tuple[str, str]]
    figure: Figure | None  # None: the model reads statistics alone, and nothing over time
    rows: Sequence[PartRow]


def view_explanation(
    title: str, facts: Sequence[tuple[str, str]], tree: Mapping[str, Any], key: str
) -> ExplanationView:
    """Returns the table of an explanation, and its figure where the model has looked at frames.

    Args:
      title: of the utterance.
      facts: about it.
      tree: as `sejax.evaluation.explanation` returns it.
      key: unique on the page.
    """
    runs = f", mean of {count(tree['runs'], 'run')}" if tree["runs"] > 1 else ""
    what = f"the class {tree['output']}" if tree["task"] == "class" else tree["output"]
    return ExplanationView(
        title,
        [
            *facts,
            ("explained", f"{what}{runs}"),
            ("output", f"{tree['value']:.3g}"),
            ("at the mean of training speakers", f"{tree['at_mean']:.3g}"),
            ("sum of the parts", f"{tree['sum']:.3g}, of a difference of {tree['value'] - tree['at_mean']:.3g}"),
        ],
        _over_time(title, tree, key),
        list(_rows(tree["streams"])),
    )


def reading_aid(views: Sequence[ExplanationView]) -> str:
    """Returns how to read explanations, without what is of figures that they do not have."""
    if any(view.figure for view in views):
        return _AID.format(signs=_COLOURED, attention=_ATTENTION)
    return _AID.format(signs=_SIGNED, attention="")


def _over_time(title: str, tree: Mapping[str, Any], key: str) -> Figure | None:
    """Returns the figure of what was looked at over time; None where no stream has frames."""
    frames = {name: stream["frames"] for name, stream in tree["streams"].items() if "frames" in stream}
    if not frames:
        return None
    layers: dict[str, list[Any]] = {}
    for layer in tree["attention"]:
        layers.setdefault(layer["stream"], []).append(layer)
    names = list(dict.fromkeys(layer["layer"] for of_stream in layers.values() for layer in of_stream))
    colours = {name: ("s4", "s5", "s6", "s1")[place % 4] for place, name in enumerate(names)}
    svg = explanation_panel(
        tree["level"],
        frames,
        {name: [(colours[layer["layer"]], layer) for layer in of_stream] for name, of_stream in layers.items()},
        key=key,
        label=f"Level and what was looked at over time, {title}",
        seconds=tree["seconds"],
    )
    legend = [("s3", "for"), ("s2", "against"), *((colours[name], name) for name in names)]
    return Figure("Over time", Markup(svg), legend)


def write_explanations(path: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Writes a page of the explanations of predicted utterances.

    Args:
      path: of the page.
      records: rows of predictions with an `explanation` (`sejax.inference.records`).
    """
    views = [
        view_explanation(_title(record), _facts(record), record["explanation"], f"explanation-{number}")
        for number, record in enumerate(records, 1)
    ]
    page = template("explained_page.html.j2").render(
        style=style(), title=count(len(views), "explanation"), explanations=views, aid=reading_aid(views)
    )
    with atomic_write(path) as file:
        file.write(page)


def _title(record: Mapping[str, Any]) -> str:
    times = [record[name] for name in ("start", "end")]
    part = (
        "" if times == [None, None] else ", {} to {} s".format(*("the end" if t is None else f"{t:g}" for t in times))
    )
    return printable(record["file"]) + part


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if record.get("label"):
        facts.append(("label", f"{record['label']}, confidence {record['confidence']:.2f}"))
    return facts + [(name, f"{record[name]:.2f}") for name in DIMENSIONS if record.get(name) is not None]


def _rows(streams: Mapping[str, Any]) -> Iterable[PartRow]:
    for name, stream in sorted(streams.items(), key=lambda item: -item[1]["share"]):
        share = 100 * stream["share"]
        yield PartRow(name, True, round(share, 1), [f"{share:.1f}", f"{stream['sum']:+.3f}"])
        if "frames" in stream and "statistics" in stream:
            frames = stream["frames"]
            yield PartRow("over time", False, None, [f"{100 * frames['share']:.1f}", f"{frames['sum']:+.3f}"])
        groups = stream.get("statistics", {}).get("groups", {})
        for group, value in sorted(groups.items(), key=lambda item: -abs(item[1]))[:_MOST_GROUPS]:
            yield PartRow(group, False, None, ["", f"{value:+.3f}"])
