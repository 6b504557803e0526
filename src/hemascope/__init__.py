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
    from hemascope.classifier import CellClassifier
    from hemascope.inference.predictor import Predictor

    load = Predictor

__all__ = ["CellClassifier", "Predictor", "load"]
__version__ = "0.2.0"

# Official builds of ONNX Runtime (1.32, say) keep an identifier of this machine in the home folder
# and, by their Privacy.md, send events to their makers, unless this is set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Imported when they are asked for, so that `hemascope --help` waits for none of them.
_HOMES = {
    "CellClassifier": ("hemascope.classifier", "CellClassifier"),
    "Predictor": ("hemascope.inference.predictor", "Predictor"),
    "load": ("hemascope.inference.predictor", "Predictor"),
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'hemascope' has no attribute '{name}'")
