"""Writes the table of published collections from MedMNIST's own metadata.

Usage: python benchmarks/collections_table.py [OUT], by default the file inside the package.
"""

import json
import sys
from pathlib import Path
from typing import Any

from medmnist import INFO

TABLE = Path(__file__).parents[1] / "src" / "hemascope" / "data" / "collections.json"
_SIZES = (28, 64, 128, 224)
_LABELS = ("multi-class", "binary-class", "ordinal-regression")  # one label an image

# What MedMNIST's metadata does not say, by collection.
_MORE: dict[str, dict[str, Any]] = {
    "bloodmnist": {
        "aliases": {
            "ig": "immature granulocyte",
            # MedMNIST's own name.
            "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)": (
                "immature granulocyte"
            ),
            "nrbc": "erythroblast",
            "normoblast": "erythroblast",
            "thrombocyte": "platelet",
        },
        "image": {"crop": 200 / 360, "jpeg_quality": 75, "photo_size": 360},
        "rebuilt_md5s": {"28": "c0a772f8e159f0aa301c3ca29553bacc"},
        "source": (
            "Single-cell photographs of normal peripheral blood (Acevedo et al., Data in Brief "
            "2020: Hospital Clinic of Barcelona, 2015 to 2019, CellaVision DM96, May "
            "Grünwald-Giemsa stain, individuals without infection, hematologic or oncologic "
            "disease and without drug treatment), as made into BloodMNIST by MedMNIST v2."
        ),
        "reference": (
            "The class of each cell as labeled by clinical pathologists of the source; one label "
            "each."
        ),
        "preparation": (
            "Central 200 of 360 pixels, bilinear to 28, JPEG of quality 75, whose artifacts are "
            "part of the data."
        ),
        "limits": (
            "One laboratory, one stain and one camera. The source publishes no patient "
            "identifiers, so no split can be shown to keep patients apart. Networks trained on "
            "these images fail on other laboratories' unless trained for it. Some labels are wrong."
        ),
    }
}


def _class_name(text: str) -> str:
    """A label's text without the explanation in parentheses that MedMNIST adds, in the singular."""
    name, parenthesis, _ = text.partition("(")
    return name.strip().removesuffix("s") if parenthesis else text.strip()


def row(key: str) -> dict[str, Any]:
    """What is known of one collection."""
    info: Any = INFO[key]
    suffixes = {size: "" if size == 28 else f"_{size}" for size in _SIZES}
    return {
        "title": info["python_class"],
        "classes": [_class_name(info["label"][str(i)]) for i in range(len(info["label"]))],
        "md5s": {str(size): info[f"MD5{end}"] for size, end in suffixes.items()},
        "url": info["url"],
        "license": info["license"],
        "source": info["description"],
        **_MORE.get(key, {}),
    }


def table() -> dict[str, dict[str, Any]]:
    """Every 2-D collection of MedMNIST whose images have one label each."""
    return {
        key: row(key)
        for key, info in INFO.items()
        if info["task"] in _LABELS and not key.endswith("3d")
    }


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else TABLE
    out.write_text(json.dumps(table(), indent=1, ensure_ascii=False) + "\n", "utf-8")
