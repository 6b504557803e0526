"""One way to ask any network: images in, logits out."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hemascope.core.classes import ClassSet
from hemascope.core.images import LabeledImages
from hemascope.core.predictions import Predictions

_AT_ONCE = 16 * 128  # images: whole batches of every engine


class Engine(Protocol):
    """Anything that answers images with logits, whatever engine runs it."""

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, C) of RGB images (N, H, H, 3)."""
        ...


def predict(engine: Engine, images: LabeledImages, classes: ClassSet) -> Predictions:
    """What a network says of labeled images, of which a part is in memory at a time."""
    firsts = range(0, max(len(images), 1), _AT_ONCE)
    logits = [engine.logits(images.images[first : first + _AT_ONCE]) for first in firsts]
    return Predictions(images.ids, np.concatenate(logits), images.labels, classes)
