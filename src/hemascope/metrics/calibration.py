"""How far the confidence of a network can be taken at its word."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemascope.core.predictions import Predictions
from hemascope.metrics.classification import cross_entropy

Floats = NDArray[np.float64]
NUM_BINS = 15  # Guo et al. use 15
_NUM_DRAWS = 500  # of test sets whose confidence is right


@dataclass(frozen=True)
class Reliability:
    """Images in bins of confidence: a bin without images has NaN for both means, shape (bins,)."""

    confidence: Floats
    accuracy: Floats
    count: NDArray[np.int64]

    @property
    def error(self) -> float:
        """The mean distance of accuracy from confidence, weighted by images."""
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float((gaps * self.count).sum() / self.count.sum())


def reliability(
    confidence: Floats,
    right: NDArray[np.bool_],
    *,
    num_bins: int = NUM_BINS,
    equal_mass: bool = False,
) -> Reliability:
    """Confidence and accuracy in bins.

    Args:
        confidence: In [0, 1], shape (N,).
        right: Whether what was said with that confidence is so, shape (N,).
        num_bins: How many bins.
        equal_mass: Bins of equally many images (ties are broken by order), not of equal width.
    """
    if equal_mass:
        place = np.empty(len(confidence), dtype=np.int64)
        place[np.argsort(confidence, kind="stable")] = np.arange(len(confidence))
        bins = place * num_bins // len(confidence)
    else:  # (low, high], as Guo et al. have it
        bins = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    count = np.bincount(bins, minlength=num_bins)
    sums = [np.bincount(bins, weights=w, minlength=num_bins) for w in (confidence, right)]
    means = [np.divide(s, count, out=np.full(num_bins, np.nan), where=count > 0) for s in sums]
    return Reliability(means[0], means[1], count)


def ece(predictions: Predictions, *, num_bins: int = NUM_BINS, equal_mass: bool = False) -> float:
    """Expected calibration error of the predicted class, in [0, 1].

    Notes:
        Biased upwards on few images: a perfect network has a little of it too.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017; bins of equal mass,
    Nixon et al., Measuring Calibration in Deep Learning, 2019.
    """
    confidence, right = top_label(predictions)
    return reliability(confidence, right, num_bins=num_bins, equal_mass=equal_mass).error


def ece_by_chance(predictions: Predictions) -> float:
    """The ECE that these confidences would have on so many images if they were exactly right.

    The mean over test sets drawn so that each answer is right with the chance that its confidence
    says: the part of an ECE that is not the network's fault.

    Source: consistency resampling, Bröcker & Smith, Weather and Forecasting 2007.
    """
    confidence, _ = top_label(predictions)
    rng = np.random.default_rng(0)
    drawn = (rng.random(len(confidence)) < confidence for _ in range(_NUM_DRAWS))
    errors = [reliability(confidence, right).error for right in drawn]
    return float(np.mean(errors))


def classwise_ece(predictions: Predictions) -> float:
    """Mean over classes of the calibration error of that class's probability, in [0, 1].

    Source: Kull et al., Beyond temperature scaling, NeurIPS 2019.
    """
    errors = [
        reliability(predictions.probs[:, c], predictions.labels == c).error
        for c in range(len(predictions.classes))
    ]
    return float(np.mean(errors))


def brier(predictions: Predictions) -> float:
    """Mean squared distance of the probabilities from the truth, summed over classes: in [0, 2].

    Source: Brier, Monthly Weather Review 1950.
    """
    truth = np.eye(len(predictions.classes))[predictions.labels]
    return float(((predictions.probs - truth) ** 2).sum(axis=1).mean())


@dataclass(frozen=True)
class Calibration:
    """Every calibration figure of one network on some images; `nll` is in nats."""

    ece: float
    ece_by_chance: float
    ece_equal_mass: float
    ece_classwise: float
    brier: float
    nll: float


def calibration(predictions: Predictions) -> Calibration:
    """How far these probabilities can be taken at their word."""
    return Calibration(
        ece=ece(predictions),
        ece_by_chance=ece_by_chance(predictions),
        ece_equal_mass=ece(predictions, equal_mass=True),
        ece_classwise=classwise_ece(predictions),
        brier=brier(predictions),
        nll=cross_entropy(predictions),
    )


def top_label(predictions: Predictions) -> tuple[Floats, NDArray[np.bool_]]:
    """Confidence in the predicted class and whether it is right, each of shape (N,)."""
    return predictions.probs.max(axis=1), predictions.predicted == predictions.labels
