"""Classify peripheral blood cells, and show how far the answers can be trusted.

Example:
    >>> import hemascope
    >>> predictor = hemascope.load("hemanet")
    >>> predictor.class_names[7]
    'platelet'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from hemascope.inference.predictor import Predictor

__version__ = "0.1.0"


def load(model: str | Path = "hemanet", **options: Any) -> Predictor:
    """A trained model, ready to answer: one that ships with hemascope, or an exported one.

    Args:
        model: Its name or folder.
        options: Those of `hemascope.inference.predictor.Predictor`.

    Raises:
        hemascope.errors.DataError: If there is no such model, or it is damaged.
        hemascope.errors.UsageError: If it cannot do what is asked.
    """
    from hemascope.inference.predictor import Predictor  # so that --help stays fast

    return Predictor(model, **options)
