"""The study's metrics, computed from the confusion matrix, and two that need scores.

Division by zero is defined once, in `_ratio`: 0/0 is 0, scikit-learn's `zero_division=0`. So a
class that is never predicted has precision 0. In results a class without images has no recall, and
one without images of other classes no specificity (`per_class`, `specificity_macro`). A macro
average is over the classes that occur in the labels or are predicted, scikit-learn's
`labels=None`: a class that neither occurs nor is predicted does not count. Balanced accuracy and
AUROC are over the classes that occur in the labels, as in scikit-learn.

What takes a confusion matrix also takes a stack of them, (..., C, C), and gives as many figures:
that is how resampled test sets are evaluated at once.
"""

import numpy as np
from numpy.typing import NDArray

from hemascope.core.predictions import Predictions
from hemascope.metrics.two_samples import rank_test

Floats = NDArray[np.float64]
Confusion = NDArray[np.int64]


def confusion_matrix(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], num_classes: int
) -> Confusion:
    """Confusion matrix: shape (C, C), row = true class, column = predicted class."""
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def confusion_of(predictions: Predictions) -> Confusion:
    """The confusion matrix of some predictions, shape (C, C)."""
    return confusion_matrix(predictions.labels, predictions.predicted, len(predictions.classes))


def _ratio(part: Confusion, whole: Confusion) -> Floats:
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def _found(confusion: Confusion) -> Confusion:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _support(confusion: Confusion) -> Confusion:
    return confusion.sum(axis=-1)


def _given(confusion: Confusion) -> Confusion:
    return confusion.sum(axis=-2)


def accuracy(confusion: Confusion) -> Floats:
    """The share of images whose class was found, shape (...)."""
    return _found(confusion).sum(axis=-1) / confusion.sum(axis=(-2, -1))


def precision(confusion: Confusion) -> Floats:
    """Per class, the share of images given the class that are of it, shape (..., C)."""
    return _ratio(_found(confusion), _given(confusion))


def recall(confusion: Confusion) -> Floats:
    """Per class, the share of its images that were found (sensitivity), shape (..., C)."""
    return _ratio(_found(confusion), _support(confusion))


def specificity(confusion: Confusion) -> Floats:
    """Per class, the share of the other classes' images that were not given it, shape (..., C)."""
    others = confusion.sum(axis=(-2, -1))[..., np.newaxis] - _support(confusion)
    return _ratio(others - attraction(confusion), others)


def f1(confusion: Confusion) -> Floats:
    """Per class, the harmonic mean of precision and recall, shape (..., C)."""
    return _ratio(2 * _found(confusion), _given(confusion) + _support(confusion))


def macro(per_class: Floats, confusion: Confusion) -> Floats:
    """The plain mean over the classes that occur or are predicted, shape (...).

    Each matrix of a stack has its own classes: a resampled set may lack a class that another has.
    """
    counts = (_support(confusion) > 0) | (_given(confusion) > 0)
    return np.average(per_class, axis=-1, weights=counts)


def weighted(per_class: Floats, confusion: Confusion) -> Floats:
    """The mean over classes weighted by how often each truly occurs, shape (...)."""
    return np.average(per_class, axis=-1, weights=_support(confusion))


def balanced_accuracy(confusion: Confusion) -> Floats:
    """Mean recall over the classes that occur, shape (...)."""
    occurs = _support(confusion) > 0
    return np.where(occurs, recall(confusion), 0).sum(axis=-1) / occurs.sum(axis=-1)


def auroc_ovr(scores: Floats, labels: NDArray[np.int64]) -> Floats:
    """Per class, the chance that one of its images scores above one of another class.

    Args:
        scores: Probability of each class, shape (N, C).
        labels: True classes, shape (N,).

    Returns:
        Shape (C,), ties counted as one half; NaN for a class that has no image or all of them.

    Source: the Mann-Whitney U statistic (Hanley & McNeil, Radiology 1982).
    """
    return np.array([auroc(scores[:, c], labels == c) for c in range(scores.shape[1])])


def auroc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """How well scores (N,) tell positive images from the others; NaN where one kind is missing."""
    if positive.all() or not positive.any():
        return float("nan")
    return rank_test(scores[positive], scores[~positive]).larger


def auroc_ovr_macro(scores: Floats, labels: NDArray[np.int64]) -> float:
    """Mean one-vs-rest AUROC over the classes that occur; NaN where fewer than two do."""
    per_class = auroc_ovr(scores, labels)
    known = per_class[~np.isnan(per_class)]
    return float(known.mean()) if len(known) else float("nan")


def cross_entropy(predictions: Predictions) -> float:
    """Mean negative log-likelihood of the true classes, in nats, >= 0."""
    rows = np.arange(len(predictions.labels))
    return float(-predictions.log_probs[rows, predictions.labels].mean())


def specificity_macro(confusion: Confusion) -> float:
    """Macro specificity of a confusion matrix (C, C); NaN where fewer than two classes occur."""
    if np.count_nonzero(_support(confusion)) < 2:
        return float("nan")
    return float(macro(specificity(confusion), confusion))


def per_class(predictions: Predictions) -> dict[str, dict[str, float | int]]:
    """The per-class table: support, precision, recall, specificity, F1 and AUROC by class name.

    NaN where a share is of no images.
    """
    confusion = confusion_of(predictions)
    support = confusion.sum(axis=1)
    sensitivity = np.where(support > 0, recall(confusion), np.nan)
    columns = {
        "support": support,
        "precision": precision(confusion),
        "recall": sensitivity,
        "sensitivity": sensitivity,
        "specificity": np.where(support < support.sum(), specificity(confusion), np.nan),
        "f1": f1(confusion),
        "auroc": auroc_ovr(predictions.probs, predictions.labels),
    }
    return {
        name: {key: values[i].item() for key, values in columns.items()}
        for i, name in enumerate(predictions.classes.names)
    }


def attraction(confusion: Confusion) -> NDArray[np.int64]:
    """Per class, images of other classes that were given it (false positives), shape (..., C)."""
    return _given(confusion) - _found(confusion)


def most_confused(confusion: Confusion, names: tuple[str, ...]) -> list[tuple[str, str, int]]:
    """Pairs (true class, predicted class, images) of errors, the most frequent first."""
    errors = [
        (names[i], names[j], int(confusion[i, j]))
        for i, j in np.ndindex(*confusion.shape)
        if i != j and confusion[i, j] > 0
    ]
    return sorted(errors, key=lambda pair: -pair[2])
