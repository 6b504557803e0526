"""Arrays in, figures out: the study's four pictures and its curve beside ours.

Figures are made without pyplot, so that nothing is shared and nothing needs a screen. The palette
is seaborn's "colorblind"; lines differ in dash or marker as well as in color.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from hemascope.metrics.calibration import Reliability
from hemascope.metrics.comparison import NetworkFigure
from hemascope.metrics.statistics import Interval
from hemascope.store.files import write_bytes

Series = Sequence[float] | NDArray[np.float64]

_DPI = 300
_PALETTE = sns.color_palette("colorblind")
_STYLE: Any = {
    **sns.axes_style("whitegrid"),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "legend.fontsize": 8,
    "svg.hashsalt": "hemascope",  # the same figure gives the same file
    "svg.fonttype": "path",
}
_MARKERS = "osD^v"
_MOST_LETTERS = 48  # in a legend beside the axes
_DARK_SHARE = 0.65  # from here on white is easier to read on the blue than black


def save_figure(figure: Figure, stem: Path) -> None:
    """Writes `stem`.png at 300 dpi and `stem`.svg.

    Raises:
        OutputError: If a file cannot be written.
    """
    for suffix, metadata in ((".png", None), (".svg", {"Date": None})):
        write_bytes(stem.with_suffix(suffix), render(figure, suffix[1:], metadata))


@mpl.rc_context(_STYLE)
def render(figure: Figure, kind: str, metadata: Mapping[str, None] | None = None) -> bytes:
    """The figure as the bytes of a "png" or "svg" file."""
    content = io.BytesIO()
    figure.savefig(content, format=kind, dpi=_DPI, metadata=metadata)
    return content.getvalue()


def _figure(width: float, height: float, title: str, caption: str) -> tuple[Figure, Axes]:
    figure = _sheet(width, height, "", caption)
    axes = figure.subplots()
    axes.set_title(title, fontsize=10, fontweight="bold", loc="left")
    return figure, axes


def _sheet(width: float, height: float, title: str, caption: str) -> Figure:
    """A figure of several panels under one title."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left")
    figure.supxlabel(caption, fontsize=6.5, color="0.35", x=0.01, ha="left")
    return figure


@mpl.rc_context(_STYLE)
def learning_curve(
    curves: Mapping[str, Series], *, quantity: str, title: str, caption: str, as_percent: bool
) -> Figure:
    """One quantity over the epochs, a curve per split (the study's first two pictures)."""
    figure, axes = _figure(4.8, 3.4, title, caption)
    for i, (label, values) in enumerate(curves.items()):
        epochs, dash = np.arange(1, len(values) + 1), ("-", "--", ":")[i]
        color, marker = _PALETTE[i], _MARKERS[i]
        axes.plot(epochs, values, color=color, marker=marker, ls=dash, markersize=3.5, label=label)
    _finish_curve(axes, quantity, as_percent=as_percent)
    return figure


def _finish_curve(axes: Axes, quantity: str, *, as_percent: bool) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(quantity)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if as_percent:
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.legend(frameon=False)


@mpl.rc_context(_STYLE)
def confusion_heatmap(
    confusion: NDArray[np.int64],
    names: Sequence[str],
    *,
    normalize: bool,
    title: str,
    caption: str,
) -> Figure:
    """The confusion matrix: counts, or each row as shares of its true class."""
    figure, axes = _figure(6.0, 5.2, title, caption)
    totals = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, totals, out=np.zeros(confusion.shape), where=totals > 0)
    sns.heatmap(
        shares,  # colored by share in both, so that rare classes can be read as well
        annot=shares if normalize else confusion,
        fmt=".2f" if normalize else "d",
        annot_kws={"fontsize": 7.5},
        cmap="Blues",
        vmin=0,
        vmax=1,
        square=True,
        linewidths=0.5,
        xticklabels=list(names),
        yticklabels=list(names),
        cbar_kws={"label": "share of the true class", "shrink": 0.8},
        ax=axes,
    )
    for text, share in zip(axes.texts, shares.flat, strict=True):
        text.set_color("white" if share > _DARK_SHARE else "0.1")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_xticklabels(axes.get_xticklabels(), rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticklabels(axes.get_yticklabels(), rotation=0)
    return figure


@mpl.rc_context(_STYLE)
def precision_recall_bars(
    precision: Series,
    recall: Series,
    names: Sequence[str],
    *,
    title: str,
    caption: str,
    spread: tuple[Series, Series] | None = None,
) -> Figure:
    """Precision and recall of each class side by side, with their spread over seeds if given."""
    figure, axes = _figure(6.4, 3.4, title, caption)
    places, width = np.arange(len(names)), 0.38
    spreads = spread or (None, None)
    for i, (label, values) in enumerate((("precision", precision), ("recall", recall))):
        axes.bar(
            places + (i - 0.5) * width,
            values,
            width,
            yerr=spreads[i],
            error_kw={"elinewidth": 1, "capsize": 2},
            color=_PALETTE[i],
            hatch=("", "///")[i],
            edgecolor="white",
            label=label,
        )
    axes.set_xticks(places, list(names), rotation=30, ha="right", rotation_mode="anchor")
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


@dataclass(frozen=True)
class CurveGroup:
    """The same curve of several seeds: shape (seeds, epochs)."""

    label: str
    values: NDArray[np.float64]


@mpl.rc_context(_STYLE)
def curves_against_paper(
    groups: Sequence[CurveGroup],
    published: Mapping[int, float],
    *,
    quantity: str,
    title: str,
    caption: str,
    as_percent: bool,
) -> Figure:
    """Mean curve of each group with the range over its seeds, and the published points."""
    figure, axes = _figure(5.2, 3.6, title, caption)
    for i, group in enumerate(groups):
        epochs = np.arange(1, group.values.shape[1] + 1)
        mean = group.values.mean(axis=0)
        low, high = group.values.min(axis=0), group.values.max(axis=0)
        axes.fill_between(epochs, low, high, color=_PALETTE[i], alpha=0.2, linewidth=0)
        label = f"{group.label} (mean and range, n = {len(group.values)})"
        marker = _MARKERS[i % len(_MARKERS)]
        axes.plot(epochs, mean, color=_PALETTE[i], marker=marker, markersize=3.5, label=label)
    axes.scatter(
        list(published),
        list(published.values()),
        marker="*",
        s=110,
        color="black",
        zorder=5,
        label="published",
    )
    _finish_curve(axes, quantity, as_percent=as_percent)
    return figure


@mpl.rc_context(_STYLE)
def forest(
    panels: Mapping[str, Mapping[str, Interval]],
    *,
    title: str,
    caption: str,
    zero_line: bool = False,
) -> Figure:
    """Shares in per cent with their intervals below one another, a panel for each quantity.

    Args:
        panels: The rows of each quantity by their label, the same in each; small marks are the
            single runs behind one.
        title: Above the figure.
        caption: Below it.
        zero_line: Whether to mark zero, for differences.
    """
    labels = list(next(iter(panels.values())))
    width, height = 1.6 + 2.1 * len(panels), 1.5 + 0.34 * len(labels)
    figure = _sheet(width, height, title, caption)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    places = np.arange(len(labels))[::-1]
    for axes, (quantity, rows) in zip(grid, panels.items(), strict=True):
        for place, row in zip(places, rows.values(), strict=True):
            low, high = 100 * row.low, 100 * row.high
            axes.plot([low, high], [place, place], color=_PALETTE[0], lw=1.6)
            axes.plot(100 * row.value, place, "s", color=_PALETTE[0], markersize=5)
            if isinstance(row, NetworkFigure):
                runs = 100 * np.array(row.values)
                heights = np.full(len(runs), place + 0.22)
                axes.plot(runs, heights, "|", color=_PALETTE[1], markersize=6)
        if zero_line:
            axes.axvline(0, color="0.3", lw=0.8, ls="--")
        axes.set_xlabel(quantity, fontsize=8)
        axes.tick_params(labelsize=7.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=3))
        axes.grid(visible=False, axis="y")
        axes.margins(y=0.5 / max(len(labels), 1))
    grid[0].set_yticks(places, labels)
    return figure


@mpl.rc_context(_STYLE)
def reliability_diagram(bins: Mapping[str, Reliability], *, title: str, caption: str) -> Figure:
    """Accuracy against confidence, and how many images there are of each confidence.

    Args:
        bins: Those of each curve, by its name.
        title: Above the figure.
        caption: Below it.
    """
    figure = _sheet(4.6, 4.8, "", caption)
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.set_title(title, fontsize=10, fontweight="bold", loc="left")
    axes.plot([0, 1], [0, 1], color="0.3", lw=0.8, ls="--", label="perfect calibration")
    for i, (label, shown) in enumerate(bins.items()):
        count, width = shown.count, 0.4 / len(shown.count)
        known = count > 0
        points = (shown.confidence[known], shown.accuracy[known])
        axes.plot(
            *points,
            color=_PALETTE[i],
            marker=_MARKERS[i],
            ls=("-", ":")[i % 2],
            label=label,
        )
        places = (np.arange(len(count)) + 0.5) / len(count) + (i - 0.5) * width
        counts.bar(places, count, width, color=_PALETTE[i], hatch=("", "///")[i % 2])
    axes.set_ylabel("accuracy")
    axes.legend(frameon=False)
    counts.set_yscale("log")
    counts.set_ylabel("images")
    counts.set_xlabel("confidence")
    return figure


@mpl.rc_context(_STYLE)
def risk_coverage_curves(curves: Mapping[str, tuple[Series, Series]], *, caption: str) -> Figure:
    """The share of errors among the images answered, as more and more of them are."""
    figure, axes = _figure(5.2, 3.6, "Risk-coverage curve", caption)
    for i, (label, (coverage, risk)) in enumerate(curves.items()):
        color = _PALETTE[i % len(_PALETTE)]
        axes.plot(coverage, risk, color=color, ls=("-", "--", ":", "-.")[i % 4], label=label)
    axes.set_xlabel("coverage")
    axes.set_ylabel("share of errors")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    axes.legend(frameon=False)
    return figure


@mpl.rc_context(_STYLE)
def small_curves(
    panels: Mapping[str, Mapping[str, Series]],
    *,
    x_label: str,
    y_label: str,
    title: str,
    caption: str,
) -> Figure:
    """Many small panels on the same axes, the same curves in each; shares as per cent.

    Args:
        panels: The curves of each panel, by name, from x = 0 in steps of 1.
        x_label: Below.
        y_label: At the left.
        title: Above the figure.
        caption: Below it.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = _sheet(2.2 * columns + 0.6, 1.7 * rows + 1.2, title, caption)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, (name, curves) in zip(grid.flat, panels.items(), strict=False):
        for i, (label, values) in enumerate(curves.items()):
            style: Any = {"color": _PALETTE[i], "marker": _MARKERS[i % len(_MARKERS)]}
            axes.plot(np.arange(len(values)), values, markersize=3.5, label=label, **style)
        axes.set_title(name, fontsize=8.5)
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel(x_label, fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel(y_label, fontsize=8)
    grid[0][0].legend(fontsize=6.5)
    return figure


@dataclass(frozen=True)
class SpeedPoint:
    """What one engine does with batches of one size."""

    batch_size: int
    images_per_second: float
    p50_ms: float
    p99_ms: float


@mpl.rc_context(_STYLE)
def speed_curves(
    panels: Mapping[str, Mapping[str, Sequence[SpeedPoint]]], *, title: str, caption: str
) -> Figure:
    """Throughput, and below it the time of a call, over the size of a batch.

    Args:
        panels: The curves of each column, by name.
        title: Above the figure.
        caption: Below it.
    """
    names = {label: _clipped(label) for curves in panels.values() for label in curves}
    width = 1.4 + 0.07 * max(map(len, names.values())) + 3.0 * len(panels)
    figure = _sheet(width, 5.2, title, caption)
    grid = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
    lines: dict[str, Artist] = {}
    sizes = sorted({p.batch_size for curves in panels.values() for c in curves.values() for p in c})
    for (fast, slow), (heading, curves) in zip(grid.T, panels.items(), strict=True):
        for i, (label, curve) in enumerate(curves.items()):
            points = sorted(curve, key=lambda point: point.batch_size)
            shift = 0.4 * ((i + 0.5) / len(curves) - 0.5)  # so that no point hides another
            places = [sizes.index(point.batch_size) + shift for point in points]
            p50s = [point.p50_ms for point in points]
            color = _PALETTE[i % len(_PALETTE)]
            style: Any = {"color": color, "marker": _MARKERS[i % len(_MARKERS)], "markersize": 4}
            style["ls"] = ("-", "--", ":", "-.")[i % 4]
            (lines[label],) = fast.plot(places, [p.images_per_second for p in points], **style)
            slow.plot(places, p50s, **style)
            slow.vlines(places, p50s, [point.p99_ms for point in points], color=color, lw=1.2)
        fast.set_title(heading, fontsize=8.5)
        slow.set_xlabel("images in a call")
    grid[1, 0].set_xticks(range(len(sizes)), [str(size) for size in sizes])
    grid[1, 0].set_xlim(-0.5, len(sizes) - 0.5)
    grid[1, 0].set_ylabel("ms a call: p50, line up to p99")
    grid[1, 0].set_yscale("log")
    grid[1, 0].minorticks_off()
    grid[1, 0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    grid[1, 0].yaxis.set_major_formatter("{x:g}")
    grid[0, 0].set_ylim(bottom=0)
    grid[0, 0].set_ylabel("images per second")
    figure.legend(
        list(lines.values()),
        [names[label] for label in lines],
        loc="outside right upper",
        frameon=False,
    )
    return figure


def _clipped(label: str) -> str:
    """The end of a long name, as it is: a dollar would begin a formula."""
    end = label if len(label) <= _MOST_LETTERS else f"...{label[-_MOST_LETTERS:]}"
    return end.replace("$", r"\$")


@mpl.rc_context(_STYLE)
def contact_sheet(
    images: NDArray[np.uint8],
    maps: Mapping[str, NDArray[np.float32]],
    titles: Sequence[str],
    *,
    title: str,
    caption: str,
) -> Figure:
    """Images, each with what matters in it laid over copies of it.

    Args:
        images: RGB images (N, H, H, 3).
        maps: For each method, maps (N, H, H) from 0 to 1.
        titles: What stands above each image.
        title: Above the figure.
        caption: Below it.
    """
    wide = 1 + len(maps)
    columns = min(max(5 // wide, 2), len(images))
    rows = -(-len(images) // columns)
    side = 1.25 if maps else 1.5  # inches; the title above has to fit
    width, height = side * wide * columns + 0.3, (side + 0.5) * rows + 0.9
    heading = f"{title} (image; {'; '.join(maps)})" if maps else title
    figure = _sheet(width, height, heading, caption)
    cells = figure.subfigures(rows, columns, squeeze=False)
    for i, cell in enumerate(cells.flat):
        panels = cell.subplots(1, wide, squeeze=False)[0]
        for axes in panels:
            axes.set_axis_off()
        if i >= len(images):
            continue
        cell.suptitle(titles[i], fontsize=6.5)
        panels[0].imshow(images[i], interpolation="nearest")
        for axes, found in zip(panels[1:], maps.values(), strict=True):
            axes.imshow(images[i].mean(axis=2), cmap="gray", vmin=0, vmax=255)
            axes.imshow(found[i], cmap="inferno", alpha=0.6, vmin=0, vmax=1)
    return figure
