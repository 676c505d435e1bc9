"""Figures of the report as inline SVG: small, byte-stable, and coloured by the CSS variables of the page.

Matplotlib draws with placeholder colours, which are replaced by `var(--name)` for the names of `COLOURS`. Text stays
text, in the font of the page. Titles and legends are part of the page; the names in a forest plot alone are the user's.
"""

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
from jaxtyping import Float, Int
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Sheet
from matplotlib.ticker import MaxNLocator

from sejax.evaluation.confidence import Reliability

COLOURS = {"ink": "#000a01", "muted": "#000a02", "line": "#000a03"} | {
    f"s{number}": f"#000b0{number}" for number in range(1, 7)
}
# Points are pixels, which no CSS variable can colour: this colour is visible on light and dark pages.
_POINT = "#4c8bd6"
_LONGEST_NAME = 44  # characters of a name in a figure
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.5,
    "text.color": COLOURS["ink"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.3,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Figure:
    """An SVG panel with its title; the legend has a colour and a name for each curve."""

    title: str
    svg: Markup
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Figures:
    """Figures that share a title and a sentence that says how to read them."""

    title: str
    figures: Sequence[Figure]
    aid: str


@dataclass(frozen=True)
class Curve:
    """A quantity of every run over epochs, NaN after the end of its training; `colour` is a key of `COLOURS`."""

    name: str
    colour: str
    values: Float[np.ndarray, "run epoch"]
    chosen: Int[np.ndarray, " run"] | None = None  # epochs, from 1, that get a dot; 0: none
    # The least and the greatest value within each epoch.
    extremes: tuple[Float[np.ndarray, "run epoch"], Float[np.ndarray, "run epoch"]] | None = None


@dataclass(frozen=True)
class Estimated:
    """A named number with its interval, if it has one; `colour` is a key of `COLOURS`."""

    name: str
    value: float
    interval: Sequence[float]
    colour: str


@dataclass(frozen=True)
class Bar:
    """A mean with its standard deviation; `inner` is a part of the bar above."""

    name: str
    mean: float
    deviation: float
    inner: bool = False


def curve_panel(curves: Sequence[Curve], *, key: str, label: str, limits: tuple[float, float] | None = None) -> str:
    """Returns SVG of curves over epochs.

    A curve is the mean over runs with a band of one standard deviation and a dot per chosen epoch. The means of the
    least and the greatest value of each epoch are dotted.

    Args:
      curves: at least one of them with a finite value.
      key: unique on the page.
      label: for screen readers.
      limits: of the vertical axis; None fits them to the curves.
    """

    def draw(axes: Axes) -> None:
        for curve in curves:
            _draw_curve(axes, curve)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if limits:
            axes.set_ylim(*limits)

    return _svg(draw, key=key, label=label, size=(2.75, 1.95))


def _draw_curve(axes: Axes, curve: Curve) -> None:
    colour = COLOURS[curve.colour]
    finite = np.isfinite(curve.values)
    shown = finite.any(axis=0)
    if not shown.any():
        return
    epochs = 1 + np.flatnonzero(shown)
    finite, values = finite[:, shown], np.where(finite, curve.values, 0.0)[:, shown]
    number = finite.sum(axis=0)
    mean = values.sum(axis=0) / number
    deviation = np.sqrt((finite * (values - mean) ** 2).sum(axis=0) / number)
    if number.max() > 1:
        axes.fill_between(epochs, mean - deviation, mean + deviation, color=colour, alpha=0.15, linewidth=0)
    axes.plot(epochs, mean, color=colour, marker="o" if len(epochs) == 1 else "", markersize=3)
    for extreme in curve.extremes or ():
        mean_extreme = np.where(np.isfinite(extreme), extreme, 0.0)[:, shown].sum(axis=0) / number
        axes.plot(epochs, mean_extreme, color=colour, linewidth=0.7, linestyle=":")
    if curve.chosen is not None:
        runs = np.flatnonzero(curve.chosen)
        at = curve.values[runs, curve.chosen[runs] - 1]
        axes.plot(curve.chosen[runs], at, "o", color=colour, markersize=2.6, alpha=0.75, markeredgewidth=0)


def scatter_panel(
    true: Float[np.ndarray, " row"],
    predicted: Float[np.ndarray, " row"],
    *,
    key: str,
    label: str,
    limits: tuple[float, float],
) -> str:
    """Returns SVG of predicted against true values and the line of perfect agreement.

    Args:
      true: values in the corpus's scale.
      predicted: of the same rows.
      key: unique on the page.
      label: for screen readers.
      limits: of both axes.
    """

    def draw(axes: Axes) -> None:
        # Thousands of points as vectors would make the page large, so they are pixels inside the SVG.
        alpha = float(np.clip(9 / np.sqrt(len(true)), 0.08, 0.7))
        axes.plot(limits, limits, color=COLOURS["muted"], linewidth=0.9)
        axes.plot(true, predicted, "o", color=_POINT, markersize=3, alpha=alpha, mew=0, rasterized=True)
        axes.set(xlim=limits, ylim=limits, xlabel="true", ylabel="predicted")
        axes.set_aspect("equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))

    return _svg(draw, key=key, label=label, size=(2.75, 2.65))


def reliability_panel(found: Mapping[str, Reliability], *, key: str, label: str) -> str:
    """Returns SVG of accuracy by confidence with the line of perfect calibration, and the number of rows in each bin.

    The dots are as large as their bins.

    Args:
      found: by colour, a key of `COLOURS`.
      key: unique on the page.
      label: for screen readers.
    """

    def draw(axes: Axes, counts: Axes) -> None:
        axes.plot((0, 1), (0, 1), color=COLOURS["muted"], linewidth=0.9)
        for colour, bins in found.items():
            filled = bins.rows > 0
            place, share = (bins.confidence[filled], bins.accuracy[filled]), bins.rows[filled] / bins.rows.max()
            axes.plot(*place, color=COLOURS[colour], linewidth=0.9)
            axes.scatter(*place, s=2 + 28 * share, color=COLOURS[colour], linewidth=0, alpha=0.8)
            edges = np.linspace(0, 1, len(bins.rows) + 1)
            counts.stairs(bins.rows, edges, color=COLOURS[colour], linewidth=1.1)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
        counts.set(ylim=(0, None), xlabel="confidence", ylabel="number")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        counts.yaxis.set_major_locator(MaxNLocator(2, integer=True))

    return _svg(draw, key=key, label=label, size=(2.75, 2.65), heights=(3, 1))


def risk_panel(
    coverage: Float[np.ndarray, " point"], risk: Float[np.ndarray, " point"], *, key: str, label: str
) -> str:
    """Returns SVG of the share of errors among the most confident predictions, by their share of all.

    Args:
      coverage: share of all predictions.
      risk: share of errors among them.
      key: unique on the page.
      label: for screen readers.
    """

    def draw(axes: Axes) -> None:
        axes.fill_between(coverage, risk, color=COLOURS["s3"], alpha=0.15, linewidth=0)
        axes.plot(coverage, risk, color=COLOURS["s3"])
        axes.set(xlim=(0, 1), ylim=(0, None), xlabel="share of predictions kept (coverage)", ylabel="errors (risk)")
        axes.yaxis.set_major_locator(MaxNLocator(5))

    return _svg(draw, key=key, label=label, size=(2.75, 2.65))


def weight_panel(weights: Float[np.ndarray, "run layer"], *, key: str, label: str) -> str:
    """Returns SVG of the weight of each layer: mean over runs, one standard deviation, and a line at equal weights.

    Args:
      weights: of the layers from 0, which sum to 1 in each run.
      key: unique on the page.
      label: for screen readers.
    """

    def draw(axes: Axes) -> None:
        layers = np.arange(weights.shape[1])
        axes.bar(layers, weights.mean(axis=0), width=0.75, color=COLOURS["s3"], alpha=0.6, linewidth=0)
        if len(weights) > 1:
            axes.errorbar(
                layers, weights.mean(axis=0), weights.std(axis=0), fmt="none", color=COLOURS["s3"], elinewidth=0.9
            )
        axes.axhline(1 / len(layers), color=COLOURS["muted"], linewidth=0.9)
        axes.set(xlabel="layer", ylim=(0, None))
        axes.grid(visible=False, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))

    return _svg(draw, key=key, label=label, size=(2.75, 1.95))


def histogram_panel(counts: Sequence[int], step: float, *, key: str, label: str, unit: str) -> str:
    """Returns SVG of the number of utterances in bins from 0.

    Args:
      counts: of the bins.
      step: the width of a bin.
      key: unique on the page.
      label: for screen readers.
      unit: of the horizontal axis.
    """

    def draw(axes: Axes) -> None:
        axes.bar(step * np.arange(len(counts)), counts, 0.9 * step, align="edge", color=COLOURS["s3"], alpha=0.7)
        axes.set(xlim=(0, step * len(counts)), ylim=(0, None), xlabel=unit, ylabel="utterances")
        axes.grid(visible=False, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))

    return _svg(draw, key=key, label=label, size=(2.75, 2.65))


def plane_panel(
    places: Float[np.ndarray, "place 3"],
    means: Sequence[tuple[str, str, Sequence[float], Sequence[float]]],
    *,
    key: str,
    label: str,
    scale: Sequence[float],
) -> str:
    """Returns SVG of ratings of valence and arousal, and of the means of classes.

    Args:
      places: valence, arousal and the number of utterances that have both.
      means: the mark of a class, its colour (a key of `COLOURS`), and the mean and the standard deviation (absent of a
        single rating) of its valence and of its arousal.
      key: unique on the page.
      label: for screen readers.
      scale: the lowest and the highest value of either.
    """

    def draw(axes: Axes) -> None:
        valence, arousal, number = places.T
        axes.axhline(sum(scale) / 2, color=COLOURS["muted"], linewidth=0.7)
        axes.axvline(sum(scale) / 2, color=COLOURS["muted"], linewidth=0.7)
        axes.scatter(valence, arousal, 4 + 90 * number / number.max(), color=COLOURS["s1"], alpha=0.4, linewidth=0)
        for mark, colour, of_valence, of_arousal in means:
            x, y = of_valence[0], of_arousal[0]
            (x_error, y_error) = (of[1] if len(of) > 1 else None for of in (of_valence, of_arousal))
            axes.errorbar(x, y, y_error, x_error, fmt="o", color=COLOURS[colour], markersize=5, elinewidth=1.1)
            axes.annotate(mark, (x, y), (3, 3), textcoords="offset points", fontweight="bold")
        margin = 0.06 * (scale[1] - scale[0])
        axes.set(xlabel="valence", ylabel="arousal", xlim=(scale[0] - margin, scale[1] + margin))
        axes.set_ylim(axes.get_xlim())
        axes.set_aspect("equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))

    return _svg(draw, key=key, label=label, size=(2.75, 2.65))


def forest_panel(estimates: Sequence[Estimated], *, key: str, label: str, unit: str) -> str:
    """Returns SVG of numbers with their intervals, one below the other, and a line at 0.

    Args:
      estimates: from the top.
      key: unique on the page.
      label: for screen readers.
      unit: of the horizontal axis.
    """
    half = _LONGEST_NAME // 2
    names = [n if len(n) <= _LONGEST_NAME else f"{n[: half - 1]}…{n[-half:]}" for n in (of.name for of in estimates)]
    # Names are the user's: they take their place when all else is written, and stay as they are.
    places = [f"@{number}{'n' * (len(name) - 2)}@" for number, name in enumerate(names)]

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=COLOURS["muted"], linewidth=0.9)
        for row, of in enumerate(estimates):
            if of.interval:
                axes.plot(of.interval, (row, row), color=COLOURS[of.colour], linewidth=1.6, solid_capstyle="butt")
            axes.plot(of.value, row, "o", color=COLOURS[of.colour], markersize=4.5)
        axes.set(xlabel=unit, ylim=(len(estimates) - 0.5, -0.5))
        axes.set_yticks(range(len(estimates)), places, color=COLOURS["ink"])
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6))

    svg = _svg(draw, key=key, label=label, size=(6.6, 0.55 + 0.2 * len(estimates)))
    for place, name in zip(places, names, strict=True):
        svg = svg.replace(place, html.escape(name))
    return svg


def bar_panel(bars: Sequence[Bar], *, key: str, label: str, unit: str) -> str:
    """Returns SVG of bars one below the other, each a mean with one standard deviation.

    Args:
      bars: from above.
      key: unique on the page.
      label: for screen readers.
      unit: of the horizontal axis.
    """

    def draw(axes: Axes) -> None:
        for place, bar in enumerate(bars):
            colour = COLOURS["s1" if bar.inner else "s3"]
            axes.barh(place, bar.mean, 0.7, color=colour, alpha=0.6, linewidth=0)
            axes.errorbar(bar.mean, place, xerr=bar.deviation, fmt="none", color=colour, elinewidth=0.9)
        axes.axvline(0, color=COLOURS["muted"], linewidth=0.7)
        axes.set(ylim=(len(bars) - 0.4, -0.6), xlabel=unit)
        axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5))

    return _svg(draw, key=key, label=label, size=(3.4, 0.5 + 0.17 * max(len(bars), 3)))


def explanation_panel(
    level: Mapping[str, Any],
    frames: Mapping[str, Mapping[str, Any]],
    attention: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]],
    *,
    key: str,
    label: str,
    seconds: float,
) -> str:
    """Returns SVG of an utterance's level, of what each stream adds to the output over time, and of its attention.

    Args:
      level: `hop`, the seconds of a step, and `values` in decibel.
      frames: likewise of each encoded stream, gradient times input.
      attention: of each stream, a colour (a key of `COLOURS`) and `hop` and `weights` of each layer.
      key: unique on the page.
      label: for screen readers.
      seconds: of the utterance.
    """
    rows = [(name, kind) for name in frames for kind in ("sum", "attention") if kind == "sum" or attention.get(name)]

    def middle(part: Mapping[str, Any], values: Float[np.ndarray, " step"]) -> Float[np.ndarray, " step"]:
        return part["hop"] * (np.arange(len(values)) + 0.5)

    def draw(loudness: Axes, *others: Axes) -> None:
        values = np.array(level["values"])
        loudness.fill_between(middle(level, values), values, -80, color=COLOURS["s1"], alpha=0.45, linewidth=0)
        loudness.set(xlim=(0, seconds), ylim=(-80, 0), ylabel="level, dB")
        loudness.yaxis.set_major_locator(MaxNLocator(2))
        for axes, (name, kind) in zip(others, rows, strict=True):
            if kind == "sum":
                part, values = frames[name], np.array(frames[name]["values"])
                for colour, shown in (("s3", values.clip(min=0)), ("s2", values.clip(max=0))):
                    axes.fill_between(middle(part, values), shown, color=COLOURS[colour], alpha=0.8, linewidth=0)
                axes.axhline(0, color=COLOURS["muted"], linewidth=0.7)
            else:
                for colour, layer in attention[name]:
                    weights = np.array(layer["weights"])
                    axes.step(middle(layer, weights), weights, where="mid", color=COLOURS[colour], linewidth=1.0)
                axes.set_ylim(0, None)
            axes.set_ylabel(f"{name}\n{kind}")
            axes.yaxis.set_major_locator(MaxNLocator(2))
        others[-1].set_xlabel("seconds")

    heights = [2, *(3 if kind == "sum" else 2 for _, kind in rows)]
    return _svg(draw, key=key, label=label, size=(6.2, 0.6 + 0.3 * sum(heights)), heights=heights)


def _svg(
    draw: Callable[..., None],
    *,
    key: str,
    label: str,
    size: tuple[float, float],
    heights: Sequence[int] = (1,),
) -> str:
    """Draws one panel, `size` in inches. `key` makes its ids differ from those of the page's other figures.

    Args:
      draw: takes the axes, one below the other, in shares of `heights`.
    """
    # The user's matplotlibrc must not change the report.
    with matplotlib.style.context(_STYLE | {"svg.hashsalt": key}, after_reset=True):
        figure = Sheet(figsize=size)
        draw(*figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0])
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_figure(buffer, format="svg", dpi=200, metadata={"Date": None})
    return _compact(buffer.getvalue(), label)


def _compact(text: str, label: str) -> str:
    """Returns matplotlib's SVG without its header and unused ids, and with the colours of the page."""
    head, body = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->|^.*?(?=<svg)", "", text, flags=re.DOTALL
    ).split(">", 1)
    view = head.split('viewBox="')[1].split('"')[0]
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", body)
    # Places on the page, inside of tags; texts keep their digits.
    body = re.sub(r"\d+\.\d{3,}(?=[^<>]*>)", lambda match: f"{float(match[0]):.2f}", body)
    # The font of the page, in the size of the figure; older versions of matplotlib write one property `font`.
    body = re.sub(r"font-family: [^;\"]*;? ?", "", re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body))
    body = re.sub(r' transform="rotate\(-?0 [^"]*"|<g/>', "", body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    for name, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{name})")
    return f'<svg viewBox="{view}" role="img" aria-label="{html.escape(label)}">{body.strip()}'
