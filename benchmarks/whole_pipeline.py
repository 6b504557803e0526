"""How far `export --whole-pipeline` agrees with `predict`, on rendered and on real photographs.

Command: python benchmarks/whole_pipeline.py hemanet-64-labs [FOLDER...]

Rendered cells of several sizes, then up to 200 photographs of each folder, one by one.
"""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

from hemascope.data.rendered import render
from hemascope.inference.predictor import Predictor
from hemascope.settings.output import Output
from hemascope.workflows.export import export_whole

_SIZES = (28, 64, 150, 200)
_MOST, _PER_SIZE = 200, 24
_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


def main() -> None:
    """Prints a table."""
    model, *folders = sys.argv[1:]
    warnings.simplefilter("ignore")
    with TemporaryDirectory() as name:
        export_whole(Path(model), Output(Path(name) / "edge"))
        session = ort.InferenceSession(Path(name) / "edge" / "photographs.onnx")
    print("| photographs | n | same class | largest difference of a probability |")
    print("| --- | ---: | ---: | ---: |")
    for size in _SIZES:
        cells = render(np.arange(_PER_SIZE) % 8, seed=size, image_size=size)
        _row(f"rendered, {size} pixels", session, model, list(cells))
    for folder in folders:
        paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in _ENDINGS)
        step = max(len(paths) // _MOST, 1)
        photos = [np.asarray(Image.open(p).convert("RGB")) for p in paths[::step][:_MOST]]
        _row(Path(folder).name, session, model, photos)


def _row(title: str, session: object, model: str, photos: Sequence[NDArray[np.uint8]]) -> None:
    undecided = Predictor(model).spec.is_undecided
    known = all(Predictor(model).spec.knows(Image.fromarray(photo)) for photo in photos)
    predictor = Predictor(model, frame="" if known or not undecided else "whole")
    expected = predictor.predict_proba(photos)
    found = np.concatenate([session.run(["probs"], {"photographs": p[None]})[0] for p in photos])  # pyright: ignore
    apart = np.abs(found - expected)
    same = (found.argmax(axis=1) == expected.argmax(axis=1)).mean()
    how = "" if known or not undecided else ", whole"
    print(
        f"| {title}{how} | {len(photos)} | {100 * same:.1f} % | {apart.max():.6f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
