"""What a network said of some images: the one currency behind every network."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hemascope.core.classes import ClassSet


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-probabilities of logits (N, C), same shape, computed in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network said of some images: the one currency behind every network.

    Attributes:
        ids: One id per image, shape (N,).
        logits: Unnormalized scores, shape (N, C), float32.
        labels: The true class of each image, shape (N,), int64 in [0, C).
        classes: What the C columns and the labels mean.
    """

    ids: tuple[str, ...]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: ClassSet

    def __post_init__(self) -> None:
        """Holds the parts to one another.

        Raises:
            ValueError: If shapes or labels do not fit together.
        """
        expected = (len(self.ids), len(self.classes))
        if self.logits.shape != expected or self.labels.shape != expected[:1]:
            msg = (
                f"predictions do not fit together: logits {self.logits.shape}, labels "
                f"{self.labels.shape}, expected {expected} and {expected[:1]}"
            )
            raise ValueError(msg)

    def scaled(self, temperature: float) -> "Predictions":
        """The same with logits divided by a temperature above 0: above 1 less confident."""
        logits = (self.logits / np.float64(temperature)).astype(np.float32)
        return replace(self, logits=logits)

    @cached_property
    def log_probs(self) -> NDArray[np.float64]:
        """Log of the softmax of the logits, shape (N, C), computed in float64."""
        return log_softmax(self.logits)

    @cached_property
    def probs(self) -> NDArray[np.float64]:
        """Softmax of the logits, shape (N, C); rows sum to 1."""
        return np.exp(self.log_probs)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The class with the highest logit, shape (N,); the first one on a tie."""
        return self.logits.argmax(axis=1)
