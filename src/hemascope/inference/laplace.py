"""Uncertainty of a last layer's weights: a Laplace approximation around them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemascope.core.errors import UsageError
from hemascope.core.predictions import log_softmax

Floats = NDArray[np.float64]

MOST_WEIGHTS = 12_000  # their covariance has the square of that


@dataclass(frozen=True, eq=False)
class Curvature:
    """The Gauss-Newton matrix of the summed cross-entropy in a last layer's weights.

    Attributes:
        mean: The trained weights, a row for each class and the bias last, shape (C, D + 1).
        matrix: The curvature, shape (C (D + 1), C (D + 1)), of the weights row by row.
    """

    mean: Floats
    matrix: Floats

    def samples(
        self, features: NDArray[np.float32], *, prior: float, num_samples: int, seed: int
    ) -> Floats:
        """Log-probabilities by as many last layers as asked, drawn from the posterior.

        Args:
            features: What the last layer is given, shape (N, D).
            prior: Precision of the Gaussian prior of every weight, above 0.
            num_samples: S.
            seed: Of the draws.

        Returns:
            Shape (S, N, C).

        Raises:
            UsageError: If the posterior has no covariance in floating point.
        """
        from scipy.linalg import LinAlgError, cholesky, solve_triangular

        precision = self.matrix + prior * np.eye(len(self.matrix))
        try:
            factor = cholesky(precision, lower=True, overwrite_a=True)
        except LinAlgError as error:
            raise UsageError(
                f"the curvature of the last layer cannot be inverted at a prior of {prior:g}."
            ) from error
        drawn = np.random.default_rng(seed).normal(size=(len(factor), num_samples))
        offsets = solve_triangular(factor, drawn, lower=True, trans=1, overwrite_b=True)
        layers = self.mean[None] + offsets.T.reshape(num_samples, *self.mean.shape)
        inputs = _with_one(features)
        return np.stack([log_softmax((inputs @ layer.T).astype(np.float32)) for layer in layers])


def fit_curvature(
    features: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> Curvature:
    """The curvature of a last layer at its weights, over the images it was trained on.

    Args:
        features: What the layer is given for each training image, shape (N, D).
        weight: Shape (C, D).
        bias: Shape (C,).

    Raises:
        UsageError: If it has too many weights.

    Source: last-layer Laplace with the full generalized Gauss-Newton matrix, Daxberger et al.,
    Laplace Redux, NeurIPS 2021.
    """
    mean = np.concatenate([weight, bias[:, None]], axis=1).astype(np.float64)
    if mean.size > MOST_WEIGHTS:
        raise UsageError(
            f"the last layer has {mean.size:,} weights, of which the Laplace approximation would "
            f"need a square table; it is for up to {MOST_WEIGHTS:,}."
        )
    inputs = _with_one(features).astype(np.float64)
    probs = np.exp(log_softmax((inputs @ mean.T).astype(np.float32)))
    num_classes, width = mean.shape
    matrix = np.empty((num_classes, width, num_classes, width))
    for one in range(num_classes):
        for other in range(one, num_classes):
            weights = probs[:, one] * ((one == other) - probs[:, other])
            block = inputs.T @ (weights[:, None] * inputs)
            matrix[one, :, other] = matrix[other, :, one] = block
    return Curvature(mean, matrix.reshape(mean.size, mean.size))


def _with_one(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([features, np.ones((len(features), 1), dtype=np.float32)], axis=1)
