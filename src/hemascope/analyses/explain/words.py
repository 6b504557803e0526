"""What `hemascope explain` found, in words and contact sheets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.report import plots

_TITLES = {
    "errors": "Most confident errors",
    "hits": "Least confident correct predictions",
}


@dataclass(frozen=True)
class Explained:
    """An image that was explained, with the confidence in its predicted class."""

    id: str
    label: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class Curves:
    """The mean probability of the predicted class while more and more pixels are changed.

    Attributes:
        deletion: While pixels are blurred, those that matter most first.
        insertion: While they are given back.
    """

    deletion: Sequence[float]
    insertion: Sequence[float]


@dataclass(frozen=True)
class Explanations:
    """Where a network looks.

    Attributes:
        name: What the network is called.
        data: What the images are called.
        split: Which of them.
        warnings: What makes the figures say less than they seem to, in sentences.
        methods: The methods that this architecture allows.
        num_errors: The number of errors among all images.
        num_images: The number of images.
        num_in_curves: The number of images behind the curves.
        curves: For each method, and for pixels in random order.
        errors: The most confident errors.
        hits: The least confident correct predictions.
    """

    name: str
    data: str
    split: str
    warnings: Sequence[str]
    methods: Sequence[str]
    num_errors: int
    num_images: int
    num_in_curves: int
    curves: Mapping[str, Curves]
    errors: Sequence[Explained]
    hits: Sequence[Explained]


def explain_text(content: Explanations) -> str:
    """The areas under the insertion and deletion curves, and what the sheets show."""
    lines = [
        f"{content.name} on {content.data}, split {content.split}: {content.num_errors:,} errors "
        f"among {content.num_images:,} images.",
        f"Over {content.num_in_curves} images, mean probability of the predicted class while "
        "pixels are blurred (deletion, lower is better) or given back (insertion, higher is "
        "better), those that matter most first:",
    ]
    width = max(map(len, content.curves)) + 2
    for name, curves in content.curves.items():
        deletion, insertion = map(_area, (curves.deletion, curves.insertion))
        lines.append(f"  {name:<{width}} deletion {deletion:.3f}   insertion {insertion:.3f}")
    if "Grad-CAM" not in content.methods:
        lines.append("This architecture has no convolution that ends in a map: no Grad-CAM.")
    return "\n".join([*lines, *content.warnings, RESEARCH_USE_ONLY])


def _area(values: Sequence[float]) -> float:
    return float(np.trapezoid(values) / (len(values) - 1))


def draw_explanations(
    content: Explanations,
    images: Mapping[str, NDArray[np.uint8]],
    maps: Mapping[str, Mapping[str, NDArray[np.float32]]],
    folder: Path,
) -> None:
    """Contact sheets of errors and of correct predictions, and insertion and deletion curves."""
    caption = f"{content.name} | {content.data}, split {content.split}\n{RESEARCH_USE_ONLY}"
    for group, rows in (("errors", content.errors), ("hits", content.hits)):
        if not rows:
            continue
        titles = [
            f"{row.predicted} {100 * row.confidence:.0f} %"
            + (f"\nlabel: {row.label}" if group == "errors" else "")
            + f"\n{row.id}"
            for row in rows
        ]
        figure = plots.contact_sheet(
            images[group], maps[group], titles, title=_TITLES[group], caption=caption
        )
        plots.save_figure(figure, folder / group)
    panels = {
        "deletion": {name: curves.deletion for name, curves in content.curves.items()},
        "insertion": {name: curves.insertion for name, curves in content.curves.items()},
    }
    steps = len(next(iter(panels["deletion"].values()))) - 1
    figure = plots.small_curves(
        panels,
        x_label=f"pixels changed, in {steps} steps to all",
        y_label="probability",
        title="Mean probability of the predicted class",
        caption=caption,
    )
    plots.save_figure(figure, folder / "insertion-deletion")
