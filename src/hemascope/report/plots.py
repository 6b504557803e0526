"""Arrays in, figures out, in one style: made for a paper's columns, with 8-point type.

Figures are made without pyplot, so nothing is shared and nothing needs a screen. The palette is
Okabe and Ito's; lines differ in dash or marker as well as in color.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from hemascope.metrics.calibration import Reliability
from hemascope.metrics.comparison import NetworkFigure
from hemascope.metrics.statistics import Interval
from hemascope.store.files import write_bytes

Series = Sequence[float] | NDArray[np.float64]

_COLUMN, _PAGE = 3.46, 7.09  # inches: 88 and 180 mm, a paper's one and two columns
_STYLE = mpl.rc_params_from_file(
    Path(__file__).with_name("paper.mplstyle"), use_default_template=False
)
PALETTE = tuple(_STYLE["axes.prop_cycle"].by_key()["color"])
_MARKERS = "osD^v"
_MOST_IN_COLUMN = 8  # classes of a confusion matrix
_MOST_LETTERS = 48  # in a legend beside the axes
_LETTERS_PER_INCH = 21  # of a caption
_DARK_SHARE = 0.65  # from here on white is easier to read on the blue than black
_FILES = {"png": None, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def save_figure(figure: Figure, stem: Path) -> None:
    """Writes `stem`.png at 300 dpi, `stem`.svg, and `stem`.pdf with its fonts embedded.

    Raises:
        OutputError: If a file cannot be written.
    """
    for kind, metadata in _FILES.items():
        write_bytes(stem.with_suffix(f".{kind}"), render(figure, kind, metadata))
        figure.set_layout_engine("none")  # laid out once is enough


@mpl.rc_context(_STYLE)
def render(figure: Figure, kind: str, metadata: Mapping[str, None] | None = None) -> bytes:
    """The figure as the bytes of a "png", "svg" or "pdf" file."""
    content = io.BytesIO()
    figure.savefig(content, format=kind, metadata=metadata)
    return content.getvalue()


def _figure(width: float, height: float, title: str, caption: str) -> tuple[Figure, Axes]:
    figure = _sheet(width, height, title, caption)
    return figure, figure.subplots()


def _sheet(width: float, height: float, title: str, caption: str) -> Figure:
    """A figure of one panel or several under one title."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    lines = (fill(line, round(_LETTERS_PER_INCH * width)) for line in caption.split("\n"))
    figure.supxlabel("\n".join(lines), fontsize=6, color="0.35", x=0.01, ha="left")
    return figure


def _in_percent(*axes: Axis, decimals: int | None = 0) -> None:
    for axis in axes:
        axis.set_major_formatter(PercentFormatter(xmax=1, decimals=decimals, symbol=" %"))


@dataclass(frozen=True)
class CurveGroup:
    """The same curve of several seeds: shape (seeds, epochs)."""

    label: str
    values: NDArray[np.float64]


@mpl.rc_context(_STYLE)
def learning_curves(
    groups: Sequence[CurveGroup],
    *,
    quantity: str,
    title: str,
    caption: str,
    as_percent: bool,
    published: Mapping[int, float] | None = None,
) -> Figure:
    """Mean curve of each group with the range over its seeds, and the published points if any."""
    figure, axes = _figure(_COLUMN, 2.5, title, caption)
    ends: list[tuple[float, float, str, str]] = []
    for i, group in enumerate(groups):
        epochs = np.arange(1, group.values.shape[1] + 1)
        mean, color = group.values.mean(axis=0), PALETTE[i % len(PALETTE)]
        low, high = group.values.min(axis=0), group.values.max(axis=0)
        axes.fill_between(epochs, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(epochs, mean, color=color, marker=_MARKERS[i % len(_MARKERS)])
        ends.append((float(mean[-1]), len(epochs), _clipped(group.label), color))
    for epoch, value in (published or {}).items():
        axes.scatter(epoch, value, marker="*", s=70, color="black", zorder=5)
    if published:
        ends.append((published[max(published)], max(published), "published", "black"))
    axes.set_xlabel("epoch")
    if quantity != title.lower():
        axes.set_ylabel(quantity)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if as_percent:
        _in_percent(axes.yaxis)
    axes.grid(visible=False, axis="x")
    _label_ends(axes, ends)
    return figure


def _label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Labels (y, x, text, color) at the ends of curves, none over another."""
    low, high = axes.get_ylim()
    place = low - 1
    for end, x, label, color in sorted(ends):
        place = max(end, place + 0.08 * (high - low))
        axes.annotate(
            label,
            (x, place),
            (6, 0),
            textcoords="offset points",
            color=color,
            va="center",
            fontweight="bold",
            annotation_clip=False,
        )
    axes.set_ylim(low, high)


@mpl.rc_context(_STYLE)
def confusion_heatmap(
    confusion: NDArray[np.int64],
    names: Sequence[str],
    *,
    normalize: bool,
    title: str,
    caption: str,
) -> Figure:
    """The confusion matrix: counts, or each row in per cent of its true class."""
    is_small = len(names) <= _MOST_IN_COLUMN
    size = (_COLUMN, 3.8) if is_small else (_PAGE, 1.6 + 0.3 * len(names))
    figure, axes = _figure(*size, title, caption)
    totals = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, totals, out=np.zeros(confusion.shape), where=totals > 0)
    # Colored by share in both, so that rare classes can be read as well.
    axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="w", linewidth=0.5)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.grid(visible=False)
    for (row, column), share in np.ndenumerate(shares):
        axes.text(
            column + 0.5,
            row + 0.5,
            f"{100 * share:.0f}" if normalize else str(confusion[row, column]),
            ha="center",
            va="center",
            fontsize=8 if is_small else 7,
            color="white" if share > _DARK_SHARE else "0.1" if share else "0.7",
        )
    places = np.arange(len(names)) + 0.5
    axes.set_xticks(places, names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    return figure


@mpl.rc_context(_STYLE)
def search_history(
    values: Sequence[float | None],
    complete: Sequence[bool],
    *,
    quantity: str,
    smallest: bool,
    caption: str,
) -> Figure:
    """The figure that each trial of a search came to, and the best one so far.

    Args:
        values: In the order of the trials; None for those that came to none.
        complete: Whether a trial was trained to its end; the others were stopped early.
        quantity: What the figure is.
        smallest: Whether the smallest is best.
        caption: Below the figure.
    """
    figure, axes = _figure(_COLUMN, 2.5, "What each trial came to", caption)
    shown, whole = np.array(values, dtype=float), np.array(complete)
    trials = np.arange(1, len(shown) + 1)
    last = whole & np.isfinite(shown)
    worst = np.inf if smallest else -np.inf
    best = np.minimum if smallest else np.maximum
    so_far = best.accumulate(np.where(last, shown, worst))
    known = np.isfinite(so_far)
    if last.any():  # a trial that went astray would hide what the others differ by
        low, high = shown[last].min(), shown[last].max()
        edge = max(high - low, 0.05 * abs(high))
        shown = shown.clip(low - edge, high + edge)
    axes.plot(trials[~whole], shown[~whole], "x", color="0.6", label="stopped early")
    axes.plot(trials[last], shown[last], "o", color=PALETTE[0], label="complete")
    best_line: Any = {"color": PALETTE[1], "drawstyle": "steps-post", "label": "best so far"}
    axes.plot(trials[known], so_far[known], **best_line)
    axes.set_xlabel("trial")
    axes.set_ylabel(quantity)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False, axis="x")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, handletextpad=0.3)
    return figure


Bounds = tuple[Series, Series]


@mpl.rc_context(_STYLE)
def class_dots(
    series: Mapping[str, Series],
    names: Sequence[str],
    *,
    quantity: str,
    title: str,
    caption: str,
    bounds: Mapping[str, Bounds] | None = None,
) -> Figure:
    """A share of each class as dots, a color for each series; lines from `bounds` to `bounds`."""
    figure, axes = _figure(_COLUMN, 1.2 + 0.2 * len(names), title, caption)
    places = np.arange(len(names))[::-1]
    for i, (label, values) in enumerate(series.items()):
        color, marker = PALETTE[i % len(PALETTE)], _MARKERS[i % len(_MARKERS)]
        shift = places + (0.24 * (0.5 * (len(series) - 1) - i) if bounds else 0)
        if bounds:
            axes.hlines(shift, *bounds[label], color=color, lw=1.2)
        axes.plot(values, shift, marker, color=color, markersize=5, label=label, alpha=0.9)
    if not bounds and len(series) > 1:
        of_class = np.array(list(series.values()))
        axes.hlines(places, of_class.min(0), of_class.max(0), color="0.85", lw=3, zorder=0)
    axes.set_yticks(places, list(names))
    axes.set_xlabel(quantity)
    axes.set_xlim(right=1.02)
    _in_percent(axes.xaxis)
    axes.grid(visible=False, axis="y")
    if len(series) > 1:
        columns = min(len(series), 4)
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=columns,
            handletextpad=0.1,
            columnspacing=1,
        )
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
    figure = _sheet(_PAGE, 1.3 + 0.34 * len(labels), title, caption)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    places = np.arange(len(labels))[::-1]
    for axes, (quantity, rows) in zip(grid, panels.items(), strict=True):
        for place, row in zip(places, rows.values(), strict=True):
            low, high = 100 * row.low, 100 * row.high
            axes.plot([low, high], [place, place], color=PALETTE[0], lw=1.6)
            axes.plot(100 * row.value, place, "s", color=PALETTE[0], markersize=5)
            if isinstance(row, NetworkFigure) and len(row.values) > 1:
                runs = 100 * np.array(row.values)
                heights = np.full(len(runs), place + 0.22)
                axes.plot(runs, heights, "|", color=PALETTE[1], markersize=6)
        if zero_line:
            axes.axvline(0, color="0.3", lw=0.8, ls="--")
        axes.set_xlabel(quantity)
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
    figure = _sheet(_COLUMN, 3.4, title, caption)
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color="0.3", lw=0.8, ls="--", label="perfect calibration")
    for i, (label, shown) in enumerate(bins.items()):
        count, width = shown.count, 0.4 / len(shown.count)
        known = count > 0
        points = (shown.confidence[known], shown.accuracy[known])
        axes.plot(
            *points,
            color=PALETTE[i],
            marker=_MARKERS[i],
            ls=("-", ":")[i % 2],
            label=label,
        )
        places = (np.arange(len(count)) + 0.5) / len(count) + (i - 0.5) * width
        counts.bar(places, count, width, color=PALETTE[i], hatch=("", "///")[i % 2])
    axes.set_ylabel("accuracy")
    _in_percent(axes.xaxis, axes.yaxis)
    axes.legend()
    counts.set_yscale("log")
    counts.minorticks_off()
    counts.yaxis.set_major_formatter("{x:g}")
    counts.set_ylabel("images")
    counts.set_xlabel("confidence")
    return figure


@mpl.rc_context(_STYLE)
def risk_coverage_curves(curves: Mapping[str, tuple[Series, Series]], *, caption: str) -> Figure:
    """The share of errors among the images answered, as more and more of them are."""
    figure, axes = _figure(_COLUMN, 2.5, "Risk-coverage curve", caption)
    ends: list[tuple[float, float, str, str]] = []
    for i, (label, (coverage, risk)) in enumerate(curves.items()):
        color = PALETTE[i % len(PALETTE)]
        axes.plot(coverage, risk, color=color, ls=("-", "--", ":", "-.")[i % 4])
        ends.append((float(risk[-1]), float(coverage[-1]), _clipped(label), color))
    axes.set_xlabel("coverage")
    axes.set_ylabel("share of errors")
    _in_percent(axes.xaxis, axes.yaxis, decimals=None)
    _label_ends(axes, ends)
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
    figure = _sheet(_PAGE if columns > 1 else _COLUMN, 1.7 * rows + 1.2, title, caption)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, (name, curves) in zip(grid.flat, panels.items(), strict=False):
        for i, (label, values) in enumerate(curves.items()):
            style: Any = {"color": PALETTE[i], "marker": _MARKERS[i % len(_MARKERS)]}
            axes.plot(np.arange(len(values)), values, label=label, **style)
        axes.set_title(name)
        _in_percent(axes.yaxis)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel(x_label)
    for axes in grid[:, 0]:
        axes.set_ylabel(y_label)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower right", ncols=4)
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
    figure = _sheet(_PAGE, 4.6 + 0.16 * len(names), title, caption)
    grid = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
    lines: dict[str, Artist] = {}
    sizes = sorted({p.batch_size for curves in panels.values() for c in curves.values() for p in c})
    for (fast, slow), (heading, curves) in zip(grid.T, panels.items(), strict=True):
        for i, (label, curve) in enumerate(curves.items()):
            points = sorted(curve, key=lambda point: point.batch_size)
            shift = 0.4 * ((i + 0.5) / len(curves) - 0.5)  # so that no point hides another
            places = [sizes.index(point.batch_size) + shift for point in points]
            p50s = [point.p50_ms for point in points]
            color = PALETTE[i % len(PALETTE)]
            style: Any = {"color": color, "marker": _MARKERS[i % len(_MARKERS)], "markersize": 4}
            style["ls"] = ("-", "--", ":", "-.")[i % 4]
            (lines[label],) = fast.plot(places, [p.images_per_second for p in points], **style)
            slow.plot(places, p50s, **style)
            slow.vlines(places, p50s, [point.p99_ms for point in points], color=color, lw=1.2)
        fast.set_title(heading)
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
        loc="outside upper right",
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
    columns = max((5 if maps else 6) // wide, 2)
    rows = -(-len(images) // columns)
    side = (_PAGE - 0.3) / (wide * columns)
    height = (side + 0.5) * rows + 0.9
    heading = f"{title} (image; {'; '.join(maps)})" if maps else title
    figure = _sheet(_PAGE, height, heading, caption)
    cells = figure.subfigures(rows, columns, squeeze=False)
    for i, cell in enumerate(cells.flat):
        panels = cell.subplots(1, wide, squeeze=False)[0]
        for axes in panels:
            axes.set_axis_off()
        if i >= len(images):
            continue
        cell.suptitle(titles[i], fontsize=6.5, fontweight="normal")
        panels[0].imshow(images[i], interpolation="nearest")
        for axes, found in zip(panels[1:], maps.values(), strict=True):
            axes.imshow(images[i].mean(axis=2), cmap="gray", vmin=0, vmax=255)
            axes.imshow(found[i], cmap="inferno", alpha=0.6, vmin=0, vmax=1)
    return figure
