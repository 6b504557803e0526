"""Several looks at the same image: its mirror images and quarter turns."""

import numpy as np
from numpy.typing import NDArray

from hemascope.core.images import symmetry
from hemascope.core.predictions import log_softmax
from hemascope.inference import Engine


class ViewsEngine:
    """Answers with the mean of what an engine says of the eight symmetries of each image.

    A cell has no up and no left, so all eight are as good a view of it. Works with any
    engine; takes eight times as long. The logits are the logarithm of the mean probabilities.
    """

    num_views = 8

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, C) of RGB images (N, H, H, 3)."""
        total: NDArray[np.float64] | None = None
        for view in range(self.num_views):
            log_probs = log_softmax(self._engine.logits(symmetry(images, view)))
            total = log_probs if total is None else np.logaddexp(total, log_probs)
        assert total is not None  # noqa: S101 - there are eight views
        return (total - np.log(self.num_views)).astype(np.float32)
