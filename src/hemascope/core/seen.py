"""Tells the images that a model was trained on, at another size or crop too."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from hemascope.core.images import LabeledImages

_PAIRS = 2_000_000  # of looks that are compared at once
_ALIKE = 20  # bits of these by which one image at two sizes differs; two cells differ by more
_TELLING = re.compile(r"(?<!\d)[1-9]\d{4,}")  # a number that is not merely a place in a series


@dataclass(frozen=True, eq=False)
class Seen:
    """What tells some images.

    Attributes:
        looks: What each looks like (`LabeledImages.looks`), shape (N, 18).
        names: Hashes of their source ids, uint64, shape (M,). A source id is an image's name
            without its folder and suffix, where it holds a number of five digits or more beside
            other characters, such as `BA_225902`: `image_12` and `00012` tell no image.
    """

    looks: NDArray[np.uint8]
    names: NDArray[np.uint64]

    @classmethod
    def of(cls, images: LabeledImages) -> "Seen":
        """What tells these images."""
        names = _hashes(images)
        return cls(images.looks, np.unique(names[names > 0]))

    @classmethod
    def joined(cls, parts: Iterable["Seen | None"]) -> "Seen | None":
        """What is in several parts, each once; None if one of the parts is not known."""
        every = list(parts)
        known = [part for part in every if part is not None]
        if len(known) < len(every):
            return None
        return cls(
            np.unique(np.concatenate([part.looks for part in known]), axis=0),
            np.unique(np.concatenate([part.names for part in known])),
        )

    def find(self, images: LabeledImages) -> NDArray[np.bool_]:
        """Which of the images are among these, shape (N,): by their looks or source ids."""
        return np.isin(_hashes(images), self.names) | _look_alike(images.looks, self.looks)


def _hashes(images: LabeledImages) -> NDArray[np.uint64]:
    """A hash of each image's source id; 0 where it has none."""
    stems = (PurePosixPath(name).stem for name in images.names or images.ids)
    digests = (
        blake2b(stem.encode(), digest_size=8).digest()
        if _TELLING.search(stem) and not stem.isdecimal()
        else bytes(8)
        for stem in stems
    )
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _look_alike(looks: NDArray[np.uint8], known: NDArray[np.uint8]) -> NDArray[np.bool_]:
    found = np.zeros(len(looks), dtype=bool)
    ours, theirs = (  # as whole words of 64 bits, which are compared eight times as fast as bytes
        np.pad(one, ((0, 0), (0, -one.shape[1] % 8))).view(np.uint64).T for one in (looks, known)
    )
    step = max(1, _PAIRS // max(1, len(known)))
    for i in range(0, len(looks) if len(known) else 0, step):
        differing = np.zeros((len(looks[i : i + step]), len(known)), dtype=np.uint8)
        for our, their in zip(ours, theirs, strict=True):
            differing += np.bitwise_count(our[i : i + step, None] ^ their)
        found[i : i + step] = differing.min(axis=1) <= _ALIKE
    return found
