"""Makes the README's pictures from a reproduced study and from the rendered-cell generator.

Command: python docs/pictures.py runs/study
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from hemascope.core import BLOOD_CELLS
from hemascope.data.rendered import render

IMAGES = Path(__file__).parent / "images"
COPIES = {
    "against-paper-test_accuracy.png": "learning-curve.png",
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


if __name__ == "__main__":
    main()
