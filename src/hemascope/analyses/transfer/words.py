"""What `hemascope evaluate --map` found on another laboratory's cells, in words."""

from collections.abc import Mapping
from dataclasses import dataclass

from hemascope.metrics.comparison import Comparison
from hemascope.report.statistics import left_out_sentence, networks_table, pairs_table
from hemascope.report.text import markdown_table
from hemascope.settings.run import TransferMap

_COLORS = {
    "none": "the colors are left as they are",
    "image": "each image's channels are fitted to the training images' mean and spread",
    "group": "the channels of all images together are fitted to the training images' mean and "
    "spread",
}


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
        preprocessing: What happens to an image before the network, in a sentence.
        temperature: By which logits were divided for the calibration; None where none was fitted.
        calibration: For each way.
        comparison: Every way as a network, with intervals, and all pairs with their tests.
    """

    preprocessing: str
    temperature: float | None
    calibration: Mapping[str, ShiftedCalibration]
    comparison: Comparison


def preprocessing_sentence(image_size: int, settings: TransferMap) -> str:
    """What happens to an image before the network, as the map asks for."""
    crop = "" if settings.crop == 1 else f"{100 * settings.crop:g} % of "
    jpeg = f"; saved as JPEG of quality {settings.jpeg} and read again" if settings.jpeg else ""
    return (
        f"{crop}the central square, bilinear to {image_size} pixels; {_COLORS[settings.colors]}"
        f"{jpeg}; pixels / 255."
    )


def transfer_text(transfer: Transfer) -> str:
    """Preprocessing, every way to fit colors with its intervals and calibration, and the tests."""
    comparison, temperature = transfer.comparison, transfer.temperature
    calibration = [["colors", "ECE", "NLL (nats)", "mean confidence"]]
    for name, row in transfer.calibration.items():
        calibration.append([name, f"{row.ece:.3f}", f"{row.nll:.3f}", f"{row.confidence:.3f}"])
    scaling = f"temperature {temperature:.3f}, of val" if temperature else "no temperature"
    return "\n\n".join(
        [
            f"Preprocessing of the figures above: {transfer.preprocessing} Their macro figures "
            "count all of the model's classes, also those that do not occur here; balanced "
            "accuracy counts those that do.",
            f"{comparison.num_images:,} images, every way to fit their colors; 'classes known' "
            "answers only with classes that the map names. Per cent, with 95 % bootstrap "
            f"intervals. {left_out_sentence(comparison)}".strip(),
            markdown_table(networks_table(comparison)),
            f"Calibration under the shift ({scaling}):",
            markdown_table(calibration),
            "Differences in pairs (paired bootstrap, McNemar's exact test; p-values after Holm):",
            markdown_table(pairs_table(comparison)),
        ]
    )
