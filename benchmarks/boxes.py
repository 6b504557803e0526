"""What a laboratory loses whose cells were cut out by their bounding boxes, one by one.

    python benchmarks/boxes.py [MODEL] [--data ../shared/data] [--per-class 50]

Cuts cells of PBC's test split, JHU, Tecom and Raabin to the bounding boxes of their nuclei and a
margin, as a detector or an annotator would, and answers them three ways: the images as they were;
cut, each framed by a share of itself; cut, framed by one square in pixels, as `predict` decides.
Prints balanced accuracy with a 95 % interval (bootstrap over cells), and the shares of all cells
that are flagged, and wrong without a flag.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.core.answers import Answer
from hemascope.core.fit import LaboratoryFit
from hemascope.core.framing import MOST, NUCLEUS, find_cell
from hemascope.core.packaged import FOR_PHOTOGRAPHS
from hemascope.data.pictures import read_picture, to_picture
from hemascope.inference.predictor import Predictor

LABORATORIES = ("pbc_200/test", "labs/jhu", "tecom_wbc", "labs/raabin")
ALIASES = {"ig": "immature granulocyte", "immature_granulocyte": "immature granulocyte"}
_MARGIN = 0.4  # of the median nucleus, on each side of a nucleus' box
_BATCH = 64


def read(folder: Path, per_class: int) -> tuple[list[Image.Image], list[str]]:
    """Some cells of each class, and their classes."""
    images, names = list[Image.Image](), list[str]()
    rng = np.random.default_rng(0)
    for of_class in sorted(folder.iterdir()):
        files = sorted(of_class.iterdir())
        for place in rng.permutation(len(files))[:per_class]:
            images.append(read_picture(files[place]).image)
            names.append(ALIASES.get(of_class.name, of_class.name))
    return images, names


def cut(images: Sequence[Image.Image]) -> list[Image.Image]:
    """Each to its cell, at one magnification; as it is where no nucleus is found."""
    cells = [find_cell(one) for one in images]
    margin = _MARGIN * float(np.median([c.diameter * c.shorter for c in cells if c.diameter]))
    made = list[Image.Image]()
    for image, cell in zip(images, cells, strict=True):
        x, y = image.width / 2 + cell.x * cell.shorter, image.height / 2 + cell.y * cell.shorter
        half = cell.diameter * cell.shorter / 2 + margin
        left, top = max(round(x - half), 0), max(round(y - half), 0)
        right, bottom = min(round(x + half), image.width), min(round(y + half), image.height)
        made.append(image.crop((left, top, right, bottom)) if cell.diameter else image)
    return made


def answers(
    predictor: Predictor, images: Sequence[Image.Image], *, by_share: bool = False
) -> list[Answer]:
    """As `predict` gives them, or by a share where it would take a square in pixels."""
    reads = [lambda one=one: to_picture(one) for one in images]
    fit = predictor.decide(reads)
    if by_share and fit and fit.frame:
        share = min(fit.frame.nucleus / NUCLEUS, MOST)
        frame = fit.frame.model_copy(update={"pixels": 0, "share": share})
        fit = predictor.fit(reads, frame) or LaboratoryFit()
    parts = (reads[i : i + _BATCH] for i in range(0, len(reads), _BATCH))
    return [one for part in parts for one in predictor.answer_all(part, fit).answers]


def balanced(right: NDArray[np.bool_], names: NDArray[np.str_]) -> float:
    """Mean sensitivity over the classes, in per cent."""
    return 100 * float(np.mean([right[names == name].mean() for name in np.unique(names)]))


def line(found: Sequence[Answer], names: Sequence[str]) -> str:
    """Its figures."""
    true = np.array(names)
    right = np.array([one.predicted_class for one in found]) == true
    flagged = np.array([one.abstain for one in found])
    rng, drawn = np.random.default_rng(0), list[float]()
    for _ in range(1000):
        rows = rng.integers(0, len(true), len(true))
        drawn.append(balanced(right[rows], true[rows]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return (
        f"{balanced(right, true):5.1f} % [{low:.1f}, {high:.1f}], flagged "
        f"{100 * flagged.mean():.1f} %, wrong and not flagged "
        f"{100 * (~right & ~flagged).mean():.1f} %"
    )


def main() -> None:
    """Prints a line for each laboratory and way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", nargs="?", default=FOR_PHOTOGRAPHS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--per-class", type=int, default=50)
    asked = parser.parse_args()
    predictor = Predictor(asked.model)
    for laboratory in LABORATORIES:
        images, names = read(asked.data / laboratory, asked.per_class)
        boxes = cut(images)
        sides = np.percentile([min(one.size) for one in boxes], [5, 50, 95])
        print(f"{laboratory}: {len(images)} cells, cut to {sides.round().astype(int)} pixels")
        print("  whole images   ", line(answers(predictor, images), names), flush=True)
        print(
            "  cut, by a share", line(answers(predictor, boxes, by_share=True), names), flush=True
        )
        print("  cut, in pixels ", line(answers(predictor, boxes), names), flush=True)


if __name__ == "__main__":
    main()
