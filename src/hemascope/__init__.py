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

if TYPE_CHECKING:
    from pathlib import Path

    from hemascope.classifier import CellClassifier
    from hemascope.inference.predictor import Predictor

__all__ = ["CellClassifier", "Predictor", "load"]
__version__ = "0.1.0"

# Official builds of ONNX Runtime (1.32, say) keep an identifier of this machine in the home folder
# and, by their Privacy.md, send events to their makers, unless this is set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Imported when they are asked for, so that `hemascope --help` waits for none of them.
_HOMES = {"CellClassifier": "hemascope.classifier", "Predictor": "hemascope.inference.predictor"}


def load(model: str | Path = "hemanet", **options: Any) -> Predictor:
    """A trained model, ready to answer: one that ships with hemascope, or an exported one.

    Args:
        model: Its name or folder.
        options: Those of `Predictor`: precision, views, coverage, crop, threads.

    Raises:
        hemascope.errors.DataError: If there is no such model, or it is damaged.
        hemascope.errors.UsageError: If it cannot do what is asked.
    """
    from hemascope.inference.predictor import Predictor

    return Predictor(model, **options)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'hemascope' has no attribute '{name}'")
