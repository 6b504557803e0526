"""What `hemascope transfer` found on another laboratory's cells, in words."""

from collections.abc import Mapping
from typing import Any

from hemascope.report.statistics import networks_table, pairs_table
from hemascope.report.text import markdown_table


def transfer_text(transfer: Mapping[str, Any]) -> str:
    """Preprocessing, every way to fit colors with its intervals and calibration, and the tests."""
    image = transfer["image"]
    preprocessing = (
        f"Preprocessing: the central {100 * image['crop']:.3g} % of pictures of other sizes, "
        f"bilinear to {image['size']} pixels; colors as they are, or fitted to the training "
        "images' mean and spread of each channel."
    )
    if "reason" in transfer:
        return f"{preprocessing}\n\n{transfer['reason']}"
    comparison = transfer["comparison"]
    left_out = ", ".join(transfer["left_out"])
    calibration = [["colors", "ECE", "NLL (nats)", "mean confidence"]]
    for name, row in transfer["calibration"].items():
        calibration.append(
            [name, f"{row['ece']:.3f}", f"{row['nll']:.3f}", f"{row['confidence']:.3f}"]
        )
    temperature = transfer["temperature"]
    scaling = f"temperature {temperature:.3f}, of val" if temperature else "no temperature"
    classes = "Classes of a single image are left out below"
    return "\n\n".join(
        [
            preprocessing,
            (f"{classes}: {left_out}. " if left_out else "")
            + f"{comparison['num_images']:,} images, every way to fit their colors; 'classes "
            "known' answers only with classes that occur. Per cent, with 95 % bootstrap "
            "intervals.",
            markdown_table(networks_table(comparison)),
            f"Calibration under the shift ({scaling}):",
            markdown_table(calibration),
            "Differences in pairs (paired bootstrap, McNemar's exact test; p-values after Holm):",
            markdown_table(pairs_table(comparison)),
        ]
    )
