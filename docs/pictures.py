"""Makes the documentation's pictures from a reproduced study and from the rendered-cell generator.

Command: python docs/pictures.py runs/study
(benchmark.png is figures/benchmark.png of hemascope benchmark --out, made 1,000 pixels wide.)
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render
from hemascope.inference.predictor import Predictor
from hemascope.report.overlays import draw_overlay

IMAGES = Path(__file__).parent / "images"
COPIES = {
    "curves-test-accuracy.png": "learning-curve.png",
    "paper-cnn/confusion-normalized.png": "confusion.png",
}
_WIDTH = 1000
_PER_CLASS, _SIZE = 12, 84


def main() -> None:
    """Writes docs/images/*.png."""
    study = Path(sys.argv[1])
    for source, target in COPIES.items():
        with Image.open(study / "figures" / source) as image:
            height = round(image.height * _WIDTH / image.width)
            small = image.convert("RGB").resize((_WIDTH, height), Image.Resampling.LANCZOS)
            small.save(IMAGES / target, optimize=True)
    labels = np.repeat(np.arange(len(BLOOD_CELLS)), _PER_CLASS)
    cells = render(labels, seed=3, image_size=_SIZE)
    rows = cells.reshape(len(BLOOD_CELLS), _PER_CLASS, _SIZE, _SIZE, 3)
    sheet = rows.transpose(0, 2, 1, 3, 4).reshape(len(BLOOD_CELLS) * _SIZE, -1, 3)
    Image.fromarray(sheet).save(IMAGES / "rendered-cells.jpg", quality=88)
    _draw_overlay(IMAGES / "overlay.png")


def _draw_overlay(path: Path) -> None:
    """A rendered cell and what speaks for its class, as `predict --explain` draws it."""
    predictor = Predictor("hemanet")
    cells = render(np.full(1, BLOOD_CELLS.names.index("eosinophil")), seed=2)
    [answer] = predictor.answer(cells)
    maps = predictor.maps(cells)[0, BLOOD_CELLS.names.index(answer.predicted_class)]
    with TemporaryDirectory() as folder:
        draw_overlay(Path(folder), 0, "cell", cells[0], maps, answer)
        next(Path(folder).iterdir()).replace(path)


if __name__ == "__main__":
    main()
