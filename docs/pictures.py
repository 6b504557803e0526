"""Makes the pictures of the documentation's gallery, on rendered cells, in a few minutes.

Command: python docs/pictures.py [FOLDER]

Every figure is made by the commands in `COMMANDS`, on a few hundred rendered cells: they show what
the figures look like, not how good a network is. FOLDER keeps what the commands write.
"""

import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from hemascope.core.classes import Split
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render
from hemascope.inference.predictor import Predictor
from hemascope.report.overlays import draw_overlay

IMAGES = Path(__file__).parent / "images"
COMMANDS = (
    "reproduce --data cells.npz --seeds 0,1 --out study",
    "train --preset hemanet-tiny --data cells.npz --epochs 6 --out tiny",
    "compare study tiny --out compared",
    "explain tiny --number 6 --out why",
    "corruptions tiny --against study/paper-cnn-seed0 --out corruptions",
    "benchmark tiny hemanet --batch 1,8,32 --threads 1 --seconds 0.5 --no-compile --out speed",
    "export tiny --out model",
    "adapt model --data laboratory --out adapted",
)
FIGURES = {  # what is shown, by its name in docs/images/gallery
    "learning-curve": "study/figures/curves-test-accuracy",
    "confusion": "study/figures/paper-cnn/confusion-normalized",
    "sensitivity": "study/figures/sensitivity",
    "precision-recall": "study/figures/paper-cnn/precision-recall",
    "reliability": "study/figures/reliability-paper-cnn",
    "risk-coverage": "study/figures/risk-coverage",
    "networks": "compared/figures/networks",
    "differences": "compared/figures/differences",
    "explanations": "why/figures/errors",
    "insertion-deletion": "why/figures/insertion-deletion",
    "corruptions": "corruptions/figures/corruptions",
    "benchmark": "speed/figures/benchmark",
    "adapted": "adapted/figures/sensitivity",
}
_COUNTS = {Split.TRAIN: 60, Split.VAL: 20, Split.TEST: 40}  # of each class
_PIXELS_PER_INCH = 150
_PER_CLASS, _SIZE = 12, 84


def main() -> None:
    """Writes docs/images/gallery/*.png, rendered-cells.jpg and overlay.png."""
    with TemporaryDirectory() as name:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else name)
        folder.mkdir(exist_ok=True)
        _write_data(folder)
        for command in COMMANDS:
            words = [sys.executable, "-m", "hemascope", *shlex.split(command)]
            subprocess.run(words, cwd=folder, check=True)  # noqa: S603 - our own
        target = IMAGES / "gallery"
        target.mkdir(exist_ok=True)
        for stem, source in FIGURES.items():
            _shrink(folder / f"{source}.png", target / f"{stem}.png")
    labels = np.repeat(np.arange(len(BLOOD_CELLS)), _PER_CLASS)
    cells = render(labels, seed=3, image_size=_SIZE)
    rows = cells.reshape(len(BLOOD_CELLS), _PER_CLASS, _SIZE, _SIZE, 3)
    sheet = rows.transpose(0, 2, 1, 3, 4).reshape(len(BLOOD_CELLS) * _SIZE, -1, 3)
    Image.fromarray(sheet).save(IMAGES / "rendered-cells.jpg", quality=88)
    _draw_overlay(IMAGES / "overlay.png")


def _write_data(folder: Path) -> None:
    """A few hundred rendered cells as an .npz file, and some in other colors as class folders."""
    arrays = {"class_names": np.array(BLOOD_CELLS.names)}
    for seed, (split, count) in enumerate(_COUNTS.items()):
        labels = np.repeat(np.arange(len(BLOOD_CELLS)), count)
        arrays |= {f"{split}_images": render(labels, seed=seed), f"{split}_labels": labels}
    np.savez(folder / "cells.npz", **arrays)  # pyright: ignore[reportArgumentType] - numpy's stub
    for i, image in enumerate(render(np.arange(160) % 4, seed=9)):
        place = folder / "laboratory" / BLOOD_CELLS.names[i % 4]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., [0, 2, 1]]).save(place / f"{i}.png")


def _shrink(source: Path, target: Path) -> None:
    """A figure in fewer pixels and colors: all at the same number of pixels an inch."""
    with Image.open(source) as image:
        scale = _PIXELS_PER_INCH / round(image.info["dpi"][0])
        size = (round(image.width * scale), round(image.height * scale))
        small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    small.quantize(128, dither=Image.Dither.NONE).save(target, optimize=True)


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
