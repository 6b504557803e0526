"""Pure NumPy metrics of `Predictions`; every figure is a fraction in [0, 1] unless it says so."""

import math
from collections.abc import Callable

from pydantic import ConfigDict

from hemascope.core.predictions import Predictions
from hemascope.metrics import classification as cls
from hemascope.metrics.classification import Confusion, Floats
from hemascope.settings.run import Settings, Share


def _macro(per_class: Callable[[Confusion], Floats]) -> Callable[[Predictions], float]:
    return lambda p: float(cls.macro(per_class(cls.confusion_of(p)), cls.confusion_of(p)))


# To add a metric: its function, its row here, its field in `Figures`, and its row in
# tests/reference/test_metrics.py.
METRICS: dict[str, Callable[[Predictions], float]] = {
    "accuracy": lambda p: float(cls.accuracy(cls.confusion_of(p))),
    "balanced_accuracy": lambda p: float(cls.balanced_accuracy(cls.confusion_of(p))),
    "f1_weighted": lambda p: float(cls.weighted(cls.f1(cls.confusion_of(p)), cls.confusion_of(p))),
    "f1_macro": _macro(cls.f1),
    "precision_macro": _macro(cls.precision),
    "recall_macro": _macro(cls.recall),
    "sensitivity_macro": _macro(cls.recall),
    "specificity_macro": lambda p: cls.specificity_macro(cls.confusion_of(p)),
    "auroc_ovr_macro": lambda p: cls.auroc_ovr_macro(p.probs, p.labels),
    "loss": cls.cross_entropy,
}


class ClassFigures(Settings):
    """The figures of one class; `support` is its number of images."""

    model_config = ConfigDict(strict=True)

    support: int
    precision: Share
    recall: Share | None
    sensitivity: Share | None
    specificity: Share | None
    f1: Share
    auroc: Share | None


class Figures(Settings):
    """Every row of `METRICS`, the per-class table and the confusion matrix.

    A figure that is not defined for these labels (the AUROC of a class without images) is None.
    `absent_classes` names the classes without images; macro figures leave out those that are not
    predicted either.
    """

    model_config = ConfigDict(strict=True)

    accuracy: Share
    balanced_accuracy: Share
    f1_weighted: Share
    f1_macro: Share
    precision_macro: Share
    recall_macro: Share
    sensitivity_macro: Share
    specificity_macro: Share | None
    auroc_ovr_macro: Share | None
    loss: float
    absent_classes: tuple[str, ...]
    per_class: dict[str, ClassFigures]
    confusion_matrix: tuple[tuple[int, ...], ...]


def evaluate_all(predictions: Predictions) -> Figures:
    """Everything that predictions with their labels say of a network, in one place."""
    figures = {name: _known(metric(predictions)) for name, metric in METRICS.items()}
    per_class = {
        name: ClassFigures.model_validate({key: _known(value) for key, value in row.items()})
        for name, row in cls.per_class(predictions).items()
    }
    return Figures.model_validate(
        {
            **figures,
            "absent_classes": tuple(n for n, row in per_class.items() if row.support == 0),
            "per_class": per_class,
            "confusion_matrix": tuple(map(tuple, cls.confusion_of(predictions).tolist())),
        }
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
