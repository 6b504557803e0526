"""What `hemascope corruptions` found, in words and one picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.report import plots
from hemascope.report.text import markdown_table


def corruptions_text(content: Mapping[str, Any]) -> str:
    """Accuracy on every corruption: the mean over five severities, and the mildest and worst."""
    networks: Mapping[str, Any] = content["networks"]
    relative = content.get("relative_error")
    header = ["accuracy, %", "severities 1 to 5", *networks]
    rows = [[*header, "error, relative"] if relative else header]
    clean = ["as they are", "", *(f"{100 * net['clean']:.2f}" for net in networks.values())]
    rows.append([*clean, ""] if relative else clean)
    for name, corruption in content["corruptions"].items():
        levels = ", ".join(f"{level:g}" for level in corruption["levels"])
        cells = [name, f"{corruption['unit']}: {levels}"]
        for net in networks.values():
            each = [100 * value for value in net["accuracy"][name]]
            cells.append(f"{np.mean(each):.2f} ({each[0]:.1f} to {each[-1]:.1f})")
        if relative:
            cells.append(_ratio(relative["by_corruption"][name]))
        rows.append(cells)
    mean = ["mean", "", *(f"{100 * net['mean_accuracy']:.2f}" for net in networks.values())]
    rows.append([*mean, _ratio(relative["mean"])] if relative else mean)
    at_28 = content["image_size"] == 28
    sentence = (
        f"{content['data']}, split {content['split']}, {content['num_images']:,} images, "
        f"{content['num_views']} view{'s' if content['num_views'] > 1 else ''} of each. Mean over "
        "five severities, and the mildest and the worst; lengths are in 28ths of the image's side"
        + (", one pixel here, 7.1 of BloodMNIST's photographs." if at_28 else ".")
    )
    if relative:
        sentence += f" Relative error: over that of {content['against']}."
    return "\n\n".join([sentence, markdown_table(rows), *content["warnings"]])


def draw_corruptions(content: Mapping[str, Any], folder: Path) -> None:
    """Accuracy over severity, a panel for each corruption."""
    networks: Mapping[str, Any] = content["networks"]
    panels = {
        corruption: {
            name: [net["clean"], *net["accuracy"][corruption]] for name, net in networks.items()
        }
        for corruption in content["corruptions"]
    }
    caption = f"{content['data']}, split {content['split']}\n{RESEARCH_USE_ONLY}"
    figure = plots.small_curves(
        panels,
        x_label="severity (0: as it is)",
        y_label="accuracy",
        title="Accuracy on images made worse",
        caption=caption,
    )
    plots.save_figure(figure, folder / "corruptions")


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
