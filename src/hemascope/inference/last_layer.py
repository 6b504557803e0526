"""A new last layer for known features, and how good it is on cells it was not fitted to."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemascope.core.errors import DataError
from hemascope.core.predictions import log_softmax
from hemascope.store.model_folder import Head

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
Rows = NDArray[np.intp]

_STRENGTHS = (0.003, 0.03, 0.3)  # inverse of the ridge penalty, tried by cross-validation
_FOLDS = 5
_STEPS = 300


@dataclass(frozen=True, eq=False)
class Cells:
    """Labeled cells as their features.

    Attributes:
        views: Features of the eight symmetries of each cell, shape (8, N, K).
        labels: Shape (N,), in [0, C).
        groups: What each comes from, such as a patient; None where nobody says.
    """

    views: Floats
    labels: Labels
    groups: Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class Kept:
    """Cells of the old classes, of one view each: features (M, K) and labels (M,)."""

    features: Floats
    labels: Labels


def folds_of(cells: Cells, class_names: Sequence[str]) -> list[tuple[Rows, Rows]]:
    """Rows to fit to and rows to judge by; no group is on both sides, all classes are on each.

    Raises:
        DataError: If there are too few cells or groups of a class.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    labels, groups = cells.labels, cells.groups
    if len(np.unique(labels)) < 2:
        raise DataError("all labeled cells are of one class; label cells of at least two.")
    units = np.array(groups) if groups else np.arange(len(labels))
    counts = [len(np.unique(units[labels == label])) for label in range(len(class_names))]
    what = "groups (patients or slides)" if groups else "labeled cells"
    if few := [f"{class_names[i]} ({n})" for i, n in enumerate(counts) if n < 2]:
        raise DataError(
            f"too few {what} to judge by: {', '.join(few)}; each class needs cells of at least 2 "
            "of them. Label more, or leave the class out (`skip_rare`)."
        )
    count = min(_FOLDS, *counts)
    splitter = (StratifiedGroupKFold if groups else StratifiedKFold)(
        count, shuffle=True, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of groups that cannot be spread evenly
        return list(splitter.split(labels, labels, groups))


def fit_head(cells: Cells, rows: Rows, num_classes: int, kept: Kept | None, scale: float) -> Head:
    """A last layer for some of the cells, as strong as cross-validation within them supports."""
    from sklearn.model_selection import StratifiedKFold

    labels = cells.labels[rows]
    count = min(3, np.bincount(labels)[np.unique(labels)].min())
    if count < 2:
        return _fit(cells, rows, num_classes, kept, scale, _STRENGTHS[0])
    inner = list(StratifiedKFold(count, shuffle=True, random_state=0).split(labels, labels))

    def loss(strength: float) -> float:
        total = 0.0
        for fit, judge in inner:
            head = _fit(cells, rows[fit], num_classes, kept, scale, strength, views=1)
            found = log_softmax(head.logits(cells.views[0][rows[judge]]))
            total -= found[np.arange(len(judge)), labels[judge]].sum()
        return total

    return _fit(cells, rows, num_classes, kept, scale, min(_STRENGTHS, key=loss))


def _fit(
    cells: Cells,
    rows: Rows,
    num_classes: int,
    kept: Kept | None,
    scale: float,
    strength: float,
    views: int = 8,
) -> Head:
    """Multinomial logistic regression in which all classes weigh the same."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    features = cells.views[:views, rows].reshape(-1, cells.views.shape[2])
    labels = np.tile(cells.labels[rows], views)
    weights = np.ones(len(labels))
    if kept:
        features = np.concatenate([features, kept.features])
        labels = np.concatenate([labels, kept.labels])
        share = len(weights) / len(kept.labels)  # the old cells count as much as the new ones
        weights = np.concatenate([weights, np.full(len(kept.labels), share)])
    weights /= np.bincount(labels, weights, num_classes)[labels]
    weights *= len(rows) / weights.sum()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=strength, max_iter=_STEPS)
        model.fit(features / scale, labels, weights)
    coefficients, intercepts = np.asarray(model.coef_), np.asarray(model.intercept_)
    all_weights = np.zeros((num_classes, features.shape[1]), dtype=np.float32)
    biases = np.full(num_classes, -20, dtype=np.float32)  # of a class that is not in these rows
    if len(model.classes_) == 2:
        all_weights[model.classes_] = np.stack([-coefficients[0], coefficients[0]]) / 2 / scale
        biases[model.classes_] = np.array([-intercepts[0], intercepts[0]]) / 2
    else:
        all_weights[model.classes_] = coefficients / scale
        biases[model.classes_] = intercepts
    return Head(all_weights, biases)


def choose_cells(doubts: NDArray[np.float64], features: Floats, count: int) -> list[int]:
    """The cells most worth labeling: doubtful ones that are unlike one another.

    Args:
        doubts: How doubtful each answer is, from 0 on, shape (N,).
        features: Shape (N, K).
        count: How many.

    Source: farthest-first traversal, Sener & Savarese, Active Learning for Convolutional Neural
    Networks: A Core-Set Approach, ICLR 2018; here weighted by doubt.
    """
    points = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    worth = doubts + 0.05  # a sure answer may be a mistake too
    chosen = [int(worth.argmax())]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < min(count, len(points)):
        nearest = np.minimum(nearest, 1 - points @ points[chosen[-1]])
        nearest[chosen[-1]] = 0
        chosen.append(int((worth * np.maximum(nearest, 0)).argmax()))
    return list(dict.fromkeys(chosen))
