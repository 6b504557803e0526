"""What `hemascope corruptions` found, in words and one figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.report import plots
from hemascope.report.text import markdown_table, over_runs


@dataclass(frozen=True)
class Levels:
    """What the five severities of a corruption are, the mildest first, and their unit."""

    unit: str
    levels: Sequence[float]


@dataclass(frozen=True)
class Accuracies:
    """The accuracy of a network under corruptions.

    Attributes:
        clean: On the images as they are.
        accuracy: For each corruption, by severity.
        mean_accuracy: Over all corruptions and severities.
    """

    clean: float
    accuracy: Mapping[str, Sequence[float]]
    mean_accuracy: float


@dataclass(frozen=True)
class RelativeError:
    """The error over that of another network, and its mean; None where the other has no errors."""

    by_corruption: Mapping[str, float | None]
    mean: float | None


@dataclass(frozen=True)
class Corruptions:
    """Networks under every corruption, on the same images.

    Attributes:
        data: What the images are called.
        split: Which of them.
        num_images: Their number.
        num_views: How many views of each image a network was shown.
        image_size: H.
        warnings: What makes the figures say less than they seem to, in sentences.
        corruptions: The severities of each.
        networks: The accuracies of each.
        against: The network that the first one's error is set against, if any.
        relative_error: Of the first network.
    """

    data: str
    split: str
    num_images: int
    num_views: int
    image_size: int
    warnings: Sequence[str]
    corruptions: Mapping[str, Levels]
    networks: Mapping[str, Accuracies]
    against: str | None
    relative_error: RelativeError | None


def corruptions_text(content: Corruptions) -> str:
    """Accuracy on every corruption: the mean over five severities, and the mildest and worst."""
    networks, relative = content.networks, content.relative_error
    rows = [
        ["accuracy, %", "severities 1 to 5", *networks],
        ["as they are", "", *(f"{100 * net.clean:.2f}" for net in networks.values())],
    ]
    for name, corruption in content.corruptions.items():
        levels = ", ".join(f"{level:g}" for level in corruption.levels)
        cells = [name, f"{corruption.unit}: {levels}"]
        for net in networks.values():
            each = [100 * value for value in net.accuracy[name]]
            cells.append(f"{np.mean(each):.2f} ({each[0]:.1f} to {each[-1]:.1f})")
        rows.append(cells)
    rows.append(["mean", "", *(f"{100 * net.mean_accuracy:.2f}" for net in networks.values())])
    at_28 = content.image_size == 28
    sentence = (
        f"{content.data}, split {content.split}, {content.num_images:,} images, "
        f"{content.num_views} view{'s' if content.num_views > 1 else ''} of each. Mean over "
        "five severities, and the mildest and the worst; lengths are in 28ths of the image's side"
        + (", one pixel here, 7.1 of BloodMNIST's photographs." if at_28 else ".")
    )
    if relative:
        sentence += f" Relative error: over that of {content.against}."
        known = [*relative.by_corruption.values(), relative.mean]
        ratios = [over_runs([ratio], 2) for ratio in known]
        last_column = ["error, relative", "", *ratios]
        rows = [[*row, cell] for row, cell in zip(rows, last_column, strict=True)]
    return "\n\n".join([sentence, markdown_table(rows), *content.warnings])


def draw_corruptions(content: Corruptions, folder: Path) -> None:
    """Accuracy over severity, a panel for each corruption."""
    panels = {
        corruption: {
            name: [net.clean, *net.accuracy[corruption]] for name, net in content.networks.items()
        }
        for corruption in content.corruptions
    }
    figure = plots.small_curves(
        panels,
        x_label="severity (0: as it is)",
        y_label="accuracy",
        title="Accuracy under corruptions",
        caption=f"{content.data}, split {content.split}\n{RESEARCH_USE_ONLY}",
    )
    plots.save_figure(figure, folder / "corruptions")
