"""A new last layer for known features, and how good it is on cells it was not fitted to."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from hemascope.core.errors import DataError
from hemascope.core.fit import MovedLayer
from hemascope.core.predictions import log_softmax
from hemascope.inference.guard import Guard, on_sphere
from hemascope.store.model_folder import Head

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
Rows = NDArray[np.intp]

LEAST_TO_MOVE = 50  # cells, to say that their laboratory is unlike those of training
_STRENGTHS = (0.003, 0.03, 0.3)  # inverse of the ridge penalty, tried by cross-validation
_FOLDS, _DIVISIONS = 5, 20  # and ways to divide groups into them
_STEPS = 300
_OLD = 3.0  # scale of the old logits: the ridge penalty shrinks their part less
_NEVER = -20.0  # logit
_DIRECTIONS, _RIDGE = 64, 0.25  # in which cells of a class differ most; added, of their mean
_TEMPERATURE = 4.0  # of the squared distances: the directions are not independent
_TRAINING, _EVEN = 20.0, 20.0  # cells that each class's mean and share in training count for
_ROUNDS = 20
_SCALES, _HALVINGS = (1e-4, 1e4), 40  # between which confidence is as before


@dataclass(frozen=True, eq=False)
class Cells:
    """Labeled cells as their features.

    Attributes:
        last_layer: Of the network that the features are of: what it would answer.
        scale: Of the features, about their standard deviation over training images.
        views: Features of the eight symmetries of each cell, shape (8, N, K).
        labels: Shape (N,), in [0, C).
    """

    last_layer: Head
    scale: float
    views: Floats
    labels: Labels


@dataclass(frozen=True, eq=False)
class Kept:
    """Cells of the old classes, of one view each: features (M, K) and labels (M,)."""

    features: Floats
    labels: Labels


def folds_of(labels: Labels, groups: Sequence[str] | None) -> list[tuple[Rows, Rows]]:
    """Rows to fit to and rows to judge by; no group is on both sides.

    Classes whose cells are of a single group (or a single cell) are fitted to, and not judged. Nor
    are cells of a class that all other folds lack: of a few ways to divide the groups, one is
    taken that leaves out the fewest.

    Raises:
        DataError: If fewer than two classes can be judged.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if len(np.unique(labels)) < 2:
        raise DataError("all labeled cells are of one class; label cells of at least two.")
    units = np.array(groups) if groups else np.arange(len(labels))
    counts = np.array([len(np.unique(units[labels == c])) for c in range(labels.max() + 1)])
    if (counts >= 2).sum() < 2:
        what = "groups (patients or slides)" if groups else "cells"
        raise DataError(
            f"too few labeled cells: fewer than two classes have cells of at least 2 {what}, so "
            "nothing can be judged on cells that were not fitted to; label more."
        )
    rows = np.flatnonzero(counts[labels] >= 2)
    kind = StratifiedGroupKFold if groups else StratifiedKFold
    num_folds = min(_FOLDS, len(np.unique(units[rows])), np.bincount(labels[rows]).max())
    best: list[tuple[Rows, Rows]] = []
    for seed in range(_DIVISIONS):
        splitter = kind(num_folds, shuffle=True, random_state=seed)
        folds: list[tuple[Rows, Rows]] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of groups that cannot be spread evenly
            for _, places in splitter.split(rows, labels[rows], units[rows]):
                fit = np.flatnonzero(~np.isin(units, units[rows[places]]))
                judge = rows[places][np.isin(labels[rows[places]], labels[fit])]
                if len(judge) and len(np.unique(labels[fit])) > 1:
                    folds.append((fit, judge))
        best = max(best, folds, key=num_judged)
        if num_judged(best) == len(rows):
            break
    judged = [labels[judge] for _, judge in best]
    if not judged or len(np.unique(np.concatenate(judged))) < 2:
        raise DataError(
            "too few groups (patients or slides): however they are divided, fewer than two classes "
            "can be judged by groups that were not fitted to; label cells of more."
        )
    return best


def num_judged(folds: Sequence[tuple[Rows, Rows]]) -> int:
    """How many cells folds judge."""
    return sum(len(judge) for _, judge in folds)


def fit_head(cells: Cells, rows: Rows, num_classes: int, kept: Kept | None) -> Head:
    """A last layer for some of the cells, as strong as cross-validation within them supports."""
    from sklearn.model_selection import StratifiedKFold

    labels = cells.labels[rows]
    count = min(3, np.bincount(labels)[np.unique(labels)].min())
    if count < 2:
        return _fit(cells, rows, num_classes, kept, _STRENGTHS[0])
    inner = list(StratifiedKFold(count, shuffle=True, random_state=0).split(labels, labels))

    def loss(strength: float) -> float:
        total = 0.0
        for fit, judge in inner:
            head = _fit(cells, rows[fit], num_classes, kept, strength, views=1)
            found = log_softmax(head.logits(cells.views[0][rows[judge]]))
            total -= found[np.arange(len(judge)), labels[judge]].sum()
        return total

    return _fit(cells, rows, num_classes, kept, min(_STRENGTHS, key=loss))


def _fit(
    cells: Cells,
    rows: Rows,
    num_classes: int,
    kept: Kept | None,
    strength: float,
    views: int = 8,
) -> Head:
    """Multinomial logistic regression in which all classes weigh the same.

    It sees the features and what the old last layer makes of them, which is linear in them too.
    """
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
    old, scale = cells.last_layer, cells.scale
    features = np.hstack([features / scale, _OLD * old.logits(features)])
    weights /= np.bincount(labels, weights, num_classes)[labels]
    weights *= len(rows) / weights.sum()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=strength, max_iter=_STEPS)
        model.fit(features, labels, weights)
    coefficients, intercepts = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(coefficients) == 1:  # scikit-learn has one row for two classes
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    own, of_old = np.split(coefficients, [cells.views.shape[2]], axis=1)
    all_weights = np.zeros((num_classes, own.shape[1]), dtype=np.float32)
    biases = np.full(num_classes, _NEVER, dtype=np.float32)  # of a class that is not in these rows
    all_weights[model.classes_] = own / scale + _OLD * of_old @ old.weights
    biases[model.classes_] = intercepts + _OLD * of_old @ old.biases
    return Head(all_weights, biases)


def head_of(layer: MovedLayer) -> Head:
    """A last layer that was kept as text."""
    biases = np.array(layer.biases, dtype=np.float32)
    return Head(np.frombuffer(layer.weights, "<f4").reshape(len(biases), -1), biases)


def digest_of(head: Head) -> str:
    """What a moved layer is known to be of."""
    both = head.weights.astype("<f4").tobytes() + head.biases.astype("<f4").tobytes()
    return blake2b(both, digest_size=8).hexdigest()


def is_unlike(guard: Guard, layer: Head, features: Floats) -> bool:
    """Whether cells are of a laboratory unlike those of training, and enough to say it."""
    if len(features) < LEAST_TO_MOVE:
        return False
    distances = guard.distances(features) / guard.threshold
    predicted = layer.logits(features).argmax(axis=1)
    return guard.shift(distances.tolist(), predicted.tolist()).is_unlike


def moved_layer(
    guard: Guard, layer: Head, features: Floats, temperature: float
) -> MovedLayer | None:
    """The last layer moved to unlabeled cells of a laboratory unlike those of training.

    None for few cells, for those of the model's own laboratories, and for classes without any
    stored cells, of which nothing is known.
    """
    known = guard.kept_labels >= 0
    missing = set(range(len(layer.biases))) - set(guard.kept_labels[known].tolist())
    if missing or not is_unlike(guard, layer, features):
        return None
    kept = Kept(guard.restored(guard.kept[known]), guard.kept_labels[known])
    moved = moved_head(layer, kept, features, temperature)
    changed = moved.logits(features).argmax(axis=1) != layer.logits(features).argmax(axis=1)
    return MovedLayer(
        weights=moved.weights.astype("<f4").tobytes(),
        biases=tuple(moved.biases.tolist()),
        num_images=len(features),
        num_changed=int(changed.sum()),
        made_for=digest_of(layer),
    )


def moved_head(old: Head, known: Kept, features: Floats, temperature: float) -> Head:
    """A last layer moved to a laboratory's cells, of which no label is known.

    In the directions in which cells of a class differ most in training, each class is a Gaussian;
    all have one covariance. Expectation maximization moves their means from those of training,
    shifted by what all of the laboratory's cells have in common, toward the laboratory's. What
    the Gaussians say is linear in the features and added to the old logits; then all are scaled,
    so that answers are on average as confident as before.

    Args:
        old: The last layer before.
        known: Cells of training, of each of the C classes some.
        features: Of the laboratory's cells, shape (N, K).
        temperature: That the logits are divided by.

    Source: maximum a posteriori estimates of mixtures of Gaussians, Gauvain & Lee, IEEE Trans.
    Speech and Audio Processing 1994.
    """
    names = range(len(old.biases))
    means = np.array([known.features[known.labels == name].mean(axis=0) for name in names])
    inside = known.features - means[known.labels]
    variances, directions = np.linalg.eigh((inside.T @ inside / len(inside)).astype(np.float64))
    variances, directions = variances[-_DIRECTIONS:], directions[:, -_DIRECTIONS:]
    directions = directions / np.sqrt(variances + _RIDGE * variances.mean())
    cells, trained = features @ directions, means @ directions
    logits = old.logits(features)
    probs = _softmax(logits / temperature)
    weights, biases = old.weights, old.biases
    for _ in range(_ROUNDS):
        counts = probs.sum(axis=0)
        expected = trained + (cells - probs @ trained).mean(axis=0)
        moved = (probs.T @ cells + _TRAINING * expected) / (counts + _TRAINING)[:, None]
        shares = (counts + _EVEN) / (counts + _EVEN).sum()
        weights = 2 / _TEMPERATURE * moved @ directions.T
        biases = np.log(shares) - (moved**2).sum(axis=1) / _TEMPERATURE
        probs = _softmax(features @ weights.T + biases + logits)
    weights, biases = old.weights + weights, old.biases + biases
    found = (features @ weights.T + biases) / temperature
    before = _softmax(logits / temperature).max(axis=1).mean()

    (low, high), scale = _SCALES, 1.0
    for _ in range(_HALVINGS):
        scale = np.sqrt(low * high)
        is_less = _softmax(scale * found).max(axis=1).mean() < before
        low, high = (scale, high) if is_less else (low, scale)
    return Head((scale * weights).astype(np.float32), (scale * biases).astype(np.float32))


def choose_cells(probs: NDArray[np.float64], features: Floats, count: int) -> list[int]:
    """The cells most worth labeling, the most doubtful first.

    As many of each class that the model predicts, and of each the centers of as many clusters:
    labels of typical cells teach a last layer more than those of the oddest ones.

    Args:
        probs: What the model says, shape (N, C).
        features: Shape (N, K).
        count: How many.

    Source: Hacohen et al., Active Learning on a Budget: Opposite Strategies Suit High and Low
    Budgets, ICML 2022.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    points = on_sphere(features)
    predicted = probs.argmax(axis=1)
    found = [np.flatnonzero(predicted == label) for label in np.unique(predicted)]
    chosen: list[int] = []
    for i, rows in enumerate(sorted(found, key=len)):  # what a rare class lacks others get
        share = min((count - len(chosen)) // (len(found) - i), len(rows))
        if share:
            clusters = KMeans(share, random_state=0)  # k-means++, which starts once
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # of images that are equal
                away: NDArray[np.float64] = clusters.fit_transform(points[rows])
            cluster, nearest = away.argmin(axis=1), away.min(axis=1)
            order = np.lexsort((nearest, cluster))
            chosen += rows[order[np.unique(cluster[order], return_index=True)[1]]].tolist()
    return sorted(chosen, key=lambda row: probs[row].max())


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.exp(log_softmax(logits))
