"""What `hemascope transfer` found on another laboratory's cells, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hemascope.core.framing import Frame
from hemascope.core.image_spec import ImageSpec
from hemascope.metrics.comparison import Comparison
from hemascope.report.statistics import left_out_sentence, networks_table, pairs_table
from hemascope.report.text import markdown_table


@dataclass(frozen=True)
class ShiftedCalibration:
    """Calibration on another laboratory's cells, after the temperature of val; `nll` in nats."""

    ece: float
    nll: float
    confidence: float


@dataclass(frozen=True)
class Transfer:
    """A network on another laboratory's cells, their colors fitted in every way.

    Attributes:
        name: What the network is called.
        data: What the images are called.
        split: Which of them.
        image: How photographs become images, but for those that
        frames: of each laboratory, where its photographs decided.
        temperature: What logits were divided by for the calibration; None where none was fitted.
        calibration: For each way.
        comparison: Every way as a network, with intervals, and all pairs with their tests.
    """

    name: str
    data: str
    split: str
    image: ImageSpec
    frames: Sequence[Frame]
    temperature: float | None
    calibration: Mapping[str, ShiftedCalibration]
    comparison: Comparison


def transfer_text(transfer: Transfer) -> str:
    """Preprocessing, every way to fit colors with its intervals and calibration, and the tests."""
    comparison, temperature = transfer.comparison, transfer.temperature
    image, framed = transfer.image, " ".join(frame.describe() for frame in transfer.frames)
    known = ", of sizes that training had what training used" if image.geometries else ""
    cropped = f"The central {100 * image.crop:.3g} % of images of other sizes was used{known}."
    jpeg = f", JPEG of quality {image.jpeg_quality}" if image.jpeg_quality else ""
    calibration = [["colors", "ECE", "NLL (nats)", "mean confidence"]]
    for name, row in transfer.calibration.items():
        calibration.append([name, f"{row.ece:.3f}", f"{row.nll:.3f}", f"{row.confidence:.3f}"])
    scaling = f"temperature {temperature:.3f}, of val" if temperature else "no temperature"
    return "\n\n".join(
        [
            f"Preprocessing: {framed or cropped} Bilinear to {image.size} pixels{jpeg}; colors as "
            "they are, or fitted to the training images' mean and spread of each channel.",
            f"{comparison.num_images:,} images, every way to fit their colors; 'classes known' "
            "answers only with classes that occur. Per cent, with 95 % bootstrap intervals. "
            f"{left_out_sentence(comparison)}".strip(),
            markdown_table(networks_table(comparison)),
            *comparison.warnings,
            f"Calibration under the shift ({scaling}):",
            markdown_table(calibration),
            "Paired differences (bootstrap, McNemar's exact test; p-values Holm-corrected):",
            markdown_table(pairs_table(comparison)),
        ]
    )
