"""Pure NumPy metrics of `Predictions`; every figure is a fraction in [0, 1] unless it says so."""

import math
from collections.abc import Callable
from typing import Any

from hemascope.core.predictions import Predictions
from hemascope.metrics import classification as cls

# To add a metric: its function, its row here, and its row in tests/reference/test_metrics.py.
METRICS: dict[str, Callable[[Predictions], float]] = {
    "accuracy": lambda p: float(cls.accuracy(cls.confusion_of(p))),
    "balanced_accuracy": lambda p: float(cls.balanced_accuracy(cls.confusion_of(p))),
    "f1_weighted": lambda p: float(cls.weighted(cls.f1(cls.confusion_of(p)), cls.confusion_of(p))),
    "f1_macro": lambda p: float(cls.macro(cls.f1(cls.confusion_of(p)))),
    "precision_macro": lambda p: float(cls.macro(cls.precision(cls.confusion_of(p)))),
    "recall_macro": lambda p: float(cls.macro(cls.recall(cls.confusion_of(p)))),
    "sensitivity_macro": lambda p: float(cls.macro(cls.recall(cls.confusion_of(p)))),
    "specificity_macro": lambda p: float(cls.macro(cls.specificity(cls.confusion_of(p)))),
    "auroc_ovr_macro": lambda p: cls.auroc_ovr_macro(p.probs, p.labels),
    "loss": cls.cross_entropy,
}


def evaluate_all(predictions: Predictions) -> dict[str, Any]:
    """Every row of `METRICS`, the per-class table and the confusion matrix, ready for JSON.

    A figure that is not defined for these labels (AUROC of a class that does not occur) is None.
    """
    figures = {name: metric(predictions) for name, metric in METRICS.items()}
    table = cls.per_class(predictions)
    return {
        **{name: _known(value) for name, value in figures.items()},
        "per_class": {
            name: {key: _known(value) for key, value in row.items()} for name, row in table.items()
        },
        "confusion_matrix": cls.confusion_of(predictions).tolist(),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
