"""Classify peripheral blood cells, and show how far the answers can be trusted.

Example:
    >>> import hemascope
    >>> predictor = hemascope.load("hemanet")
    >>> predictor.class_names[7]
    'platelet'
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hemascope.core.packaged import FOR_PHOTOGRAPHS

if TYPE_CHECKING:
    from pathlib import Path

    from hemascope.classifier import CellClassifier
    from hemascope.inference.predictor import Predictor
    from hemascope.settings.compute import NumViews, OnnxPrecision

__all__ = ["CellClassifier", "Predictor", "load"]
__version__ = "0.2.0"

# Official builds of ONNX Runtime (1.32, say) keep an identifier of this machine in the home folder
# and, by their Privacy.md, send events to their makers, unless this is set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Imported when they are asked for, so that `hemascope --help` waits for none of them.
_HOMES = {"CellClassifier": "hemascope.classifier", "Predictor": "hemascope.inference.predictor"}


def load(
    model: str | Path = FOR_PHOTOGRAPHS,
    *,
    precision: OnnxPrecision | None = None,
    views: NumViews | None = None,
    coverage: float | None = None,
    crop: float | None = None,
    frame: str = "",
    as_trained: bool = False,
    threads: int = 0,
) -> Predictor:
    """A trained model, ready to predict: one that ships with hemascope, or an exported one.

    Args:
        model: Its name or folder; by default the packaged one for photographs ("hemanet" is for
            tiles of 28 pixels).
        precision: Which of its graphs; by default the one it recommends.
        views: 8 averages over eight flips and rotations (test-time augmentation); by default 1, or
            8 where the last layer is moved.
        coverage: Of the prediction sets; by default the highest fitted.
        crop: Share of each photograph's central square to use; by default the model's own.
        frame: auto, whole, cell or a frame file; by default the model's own.
        as_trained: Whether the last layer stays as it is for laboratories unlike training's too.
        threads: Threads for each call; 0 for all cores.

    Raises:
        hemascope.core.errors.DataError: If there is no such model, or it is damaged.
        hemascope.core.errors.UsageError: If it cannot do what is asked.
    """
    from hemascope.inference.predictor import Predictor

    return Predictor(
        model,
        precision=precision,
        views=views,
        coverage=coverage,
        crop=crop,
        frame=frame,
        as_trained=as_trained,
        threads=threads,
    )


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'hemascope' has no attribute '{name}'")
