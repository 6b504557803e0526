"""What `hemascope explain` found, in words and contact sheets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.report import plots

_TITLES = {
    "errors": "The errors it is surest of",
    "hits": "The hits it is least sure of",
}


def explain_text(content: Mapping[str, Any]) -> str:
    """The areas under the insertion and deletion curves, and what the sheets show."""
    lines = [
        f"{content['name']} on {content['data']}, split {content['split']}: "
        f"{content['num_errors']:,} errors among {content['num_images']:,} images.",
        f"Over {content['num_in_curves']} images, mean probability of the predicted class while "
        "pixels are blurred (deletion, lower is better) or given back (insertion, higher is "
        "better), those that matter most first:",
    ]
    width = max(map(len, content["curves"])) + 2
    for name, curve in content["curves"].items():
        areas = {
            kind: float(np.trapezoid(values) / (len(values) - 1)) for kind, values in curve.items()
        }
        lines.append(
            f"  {name:<{width}} deletion {areas['deletion']:.3f}   "
            f"insertion {areas['insertion']:.3f}"
        )
    if "Grad-CAM" not in content["methods"]:
        lines.append("This architecture has no convolution that ends in a map: no Grad-CAM.")
    return "\n".join([*lines, *content["warnings"], RESEARCH_USE_ONLY])


def draw_explanations(
    content: Mapping[str, Any],
    images: Mapping[str, NDArray[np.uint8]],
    maps: Mapping[str, Mapping[str, NDArray[np.float32]]],
    folder: Path,
) -> None:
    """A contact sheet of errors, one of hits, and the insertion and deletion curves."""
    caption = (
        f"{content['name']} | {content['data']}, split {content['split']}\n{RESEARCH_USE_ONLY}"
    )
    for group, title in _TITLES.items():
        if not content[group]:
            continue
        titles = [
            f"{row['predicted']} {100 * row['confidence']:.0f} %"
            + (f"\nlabel: {row['label']}" if group == "errors" else "")
            + f"\n{row['id']}"
            for row in content[group]
        ]
        figure = plots.contact_sheet(
            images[group], maps[group], titles, title=title, caption=caption
        )
        plots.save_figure(figure, folder / group)
    panels = {
        kind: {name: curve[kind] for name, curve in content["curves"].items()}
        for kind in ("deletion", "insertion")
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
