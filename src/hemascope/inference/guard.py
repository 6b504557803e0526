"""Which photographs are unlike those a model was trained on, and what is odd about them.

A photograph's distance is that of its features (what the last layer is given) to the nearest ones
of training images. Needs NumPy and Pillow alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.core.errors import DataError
from hemascope.core.framing import densities, find_cell, purple
from hemascope.metrics.two_samples import Shift, rank_test
from hemascope.store.model_folder import Head

Floats = NDArray[np.float32]
Images = NDArray[np.uint8]
Warned = Literal["unlike training", "no cell", "several cells", "out of focus", "unusual color"]

COLORLESS = "no color, so a model trained on color images cannot classify it"
SWAPPED = "redder than nuclei are: perhaps red and blue are swapped (BGR, as OpenCV reads images)"

_SET_ASIDE, _FAINT = 0.013, 0.004  # shares of val, by distance and by contrast
_OWN_SET_ASIDE = 0.02  # share of a laboratory's own images, after adapting to it
_NUM_DIRECTIONS = 128  # that features are projected on
_REST = 2.0  # weight of what lies in no kept direction, as most of a drawing does
_NUM_KEPT = 2500  # training images whose features are kept, as many of each class as possible
_NEIGHBOR = 5  # which of the nearest counts
_BATCH = 512  # images whose distances are computed at once
_IN_HALF = ("projection", "kept", "val")  # precision, in the file
_LATE = {"hue", "num_own"}  # which older files lack
_LOOKED_AT = 28  # pixels along a side, by which the contrast is measured
_MIDDLE, _CELL, _BORDER = 0.22, 0.35, 0.44  # distances from the middle, of the side
_NO_DENSITY = 1e-6  # in all of a cell
_HUE = -0.1  # optical density; of 1,500 cells each of five laboratories at most 3 % are below it
_GRAY = 8  # gray levels by which R, G and B of a gray image differ at most
_TINTED = 0.9  # gray levels that brightness leaves unexplained; of 23,000 cells two are below it
_FLAT = 2.5  # gray levels of contrast, below which nothing can be told from that
_POOLED = 28  # pixels along a side that it is told by
_LEAST_OF_CLASS = 20  # val images, for ranks among them
_RARE = 0.005  # share of val that is as blurred, or as oddly colored, at either end


@dataclass(frozen=True, eq=False)
class Guard:
    """What training and val images are like.

    Attributes:
        projection: Onto the directions in which features differ most, shape (K, P).
        kept: Features of some training images, as `project` makes them, shape (M, P + 1).
        kept_labels: Their classes, shape (M,).
        val: The same of the val images, shape (V, P + 1).
        val_labels: Their classes, shape (V,).
        threshold: The distance above which an answer is set apart, shape ().
        contrast: How much more the middle of an image with a cell is colored as a nucleus than its
            border, at least, shape ().
        sharpness: The least of an image in focus, shape ().
        colors: Lowest and highest mean optical density of R, G and B, shape (2, 3).
        weights: Of the network's own last layer, shape (C, K).
        biases: The same, shape (C,).
        hue: How much denser a cell is in red light than in blue, at least, shape ().
        num_own: How many of the kept features, the last ones, are of laboratories that the model
            was adapted to, shape ().

    Source: distance to the k-th nearest feature on the unit sphere, Sun et al., Out-of-Distribution
    Detection with Deep Nearest Neighbors, ICML 2022.
    """

    projection: Floats
    kept: Floats
    kept_labels: NDArray[np.int64]
    val: Floats
    val_labels: NDArray[np.int64]
    threshold: Floats
    contrast: Floats
    sharpness: Floats
    colors: Floats
    weights: Floats
    biases: Floats
    hue: Floats = field(default_factory=lambda: np.asarray(_HUE, dtype=np.float32))
    num_own: NDArray[np.int64] = field(default_factory=lambda: np.zeros((), dtype=np.int64))

    def distances(self, features: Floats) -> Floats:
        """One less the cosine to the fifth nearest feature of training, for features (N, K)."""
        return self.distances_of(self.project(features))

    def project(self, features: Floats) -> Floats:
        """Features (N, K) in the directions kept, and twice the length of the rest, (N, P + 1)."""
        inside = features @ self.projection
        rest = np.maximum((features**2).sum(axis=1) - (inside**2).sum(axis=1), 0)
        return np.column_stack([inside, _REST * np.sqrt(rest)]).astype(np.float32)

    def distances_of(self, projected: Floats, *, itself: bool = False) -> Floats:
        """Those of projected features (N, P), which may be among the kept ones `itself`."""
        kept = self._kept_on_sphere
        nearest = min(_NEIGHBOR + itself, kept.shape[1])
        found = [np.empty(0, dtype=np.float32)]
        for start in range(0, len(projected), _BATCH):
            cosines = on_sphere(projected[start : start + _BATCH]) @ kept
            found.append(1 - np.partition(cosines, -nearest, axis=1)[:, -nearest])
        return np.concatenate(found)

    @cached_property
    def _kept_on_sphere(self) -> Floats:
        return on_sphere(self.kept).T

    def restored(self, projected: Floats) -> Floats:
        """Features (N, K) of projected ones (N, P + 1), but for what the projection dropped."""
        return projected[:, :-1] @ self.projection.T

    @property
    def last_layer(self) -> Head:
        """The network's own."""
        return Head(self.weights, self.biases)

    def apart(self, images: Images, distances: Floats) -> NDArray[np.bool_]:
        """Which images (N, H, H, 3) at such distances are set apart, shape (N,)."""
        return (distances > self.threshold) | ~self._are_stained(images)

    def show_cells(self, images: Images) -> NDArray[np.bool_]:
        """Which images (N, H, H, 3) seem to show one cell each, stained as cells are, shape (N,).

        However unlike those of training it is.
        """
        found = self._are_stained(images)
        for i in np.flatnonzero(found):
            found[i] = find_cell(Image.fromarray(images[i])).diameter > 0
        return found

    def _are_stained(self, images: Images) -> NDArray[np.bool_]:
        """Whether the middle of images (N, H, H, 3) is colored as cells are, shape (N,)."""
        contrast, hue = _stain(images)
        return (contrast >= self.contrast) & (hue >= self.hue)

    def relabeled(self, of_old: NDArray[np.int64], *, forget: bool) -> "Guard":
        """The same for other classes: `of_old` says which, with -1 for none and at its end.

        Args:
            of_old: Shape (C + 1,).
            forget: Whether cells of a class that is none of the new ones are unlike training from
                now on; not where the new classes may be others' new names.
        """
        kept, val = of_old[self.kept_labels], of_old[self.val_labels]
        stay = (kept >= 0) | (self.kept_labels < 0) | (not forget)
        stays = (val >= 0) | (self.val_labels < 0) | (not forget)
        own = stay[len(stay) - int(self.num_own) :]
        return replace(
            self,
            kept=self.kept[stay],
            kept_labels=kept[stay],
            val=self.val[stays],
            val_labels=val[stays],
            num_own=np.asarray(own.sum()),
        )

    def adapted(self, images: Images, features: Floats, labels: NDArray[np.int64]) -> "Guard":
        """The same for a laboratory, whose features (N, K) count as training from now on.

        Labels of -1 are not known. The threshold only rises: to the distance below which all but
        a few of the laboratory's images are from one another and from training.
        """
        rows = np.random.default_rng(0).permutation(len(features))[:_NUM_KEPT]
        own = self.project(features[rows])
        joined = replace(
            self,
            kept=np.concatenate([self.kept, own]),
            kept_labels=np.concatenate([self.kept_labels, labels[rows]]),
            num_own=np.asarray(self.num_own + len(own)),
        )
        threshold = np.quantile(joined.distances_of(own, itself=True), 1 - _OWN_SET_ASIDE)
        threshold = np.maximum(self.threshold, threshold).astype(np.float32)
        contrast, hue = _stain(images)
        contrast = np.minimum(self.contrast, np.quantile(contrast, _FAINT))
        return replace(
            joined,
            threshold=np.asarray(threshold),
            contrast=np.asarray(contrast, dtype=np.float32),
            hue=_least_hue(hue, self.hue),
        )

    def warning(self, image: Images) -> Warned:
        """What is odd about an image (H, H, 3) that is set apart."""
        if self.is_swapped(image):
            return "unusual color"
        cell = find_cell(Image.fromarray(image))
        if not cell.diameter or _stain(image[None])[0][0] < self.contrast:
            return "no cell"
        if cell.num_nuclei > 1:
            return "several cells"
        if _sharpness(image[None])[0] < self.sharpness:
            return "out of focus"
        color = _color(image[None])[0]
        if (color < self.colors[0]).any() or (color > self.colors[1]).any():
            return "unusual color"
        return "unlike training"

    def is_swapped(self, image: Images) -> bool:
        """Whether red and blue of an image (H, H, 3) seem to be swapped, as OpenCV reads them."""
        if _stain(image[None])[1][0] >= self.hue:
            return False
        turned = np.ascontiguousarray(image[..., ::-1])
        contrast, hue = _stain(turned[None])
        has_cell = contrast[0] >= self.contrast and hue[0] >= self.hue
        return bool(has_cell and find_cell(Image.fromarray(turned)).diameter)

    def shift(self, distances: Sequence[float], labels: Sequence[int]) -> Shift:
        """How a laboratory's distances compare with those of val images of the same classes.

        After `adapted`, or with those of the model's own laboratory, if they are more alike. Each
        counts as its rank among val images of its class: cells of some classes are farther from
        their neighbors than others', and folders may hold any mixture.

        Args:
            distances: Of the laboratory's photographs, in units of the threshold.
            labels: Their predicted classes.
        """
        found = np.asarray(distances) * self.threshold
        against = [_shift(found, labels, self._val_distances, self.val_labels)]
        if self.num_own:
            own = slice(len(self.kept) - int(self.num_own), None)
            of_own = self.distances_of(self.kept[own], itself=True)
            against.append(_shift(found, labels, of_own, self.kept_labels[own]))
        return min(against, key=lambda shift: shift.larger)

    @cached_property
    def _val_distances(self) -> Floats:
        return self.distances_of(self.val)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is stored, in half precision where that is enough."""
        of_fields: dict[str, NDArray[Any]] = {f.name: getattr(self, f.name) for f in fields(self)}
        return of_fields | {name: of_fields[name].astype(np.float16) for name in _IN_HALF}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> "Guard":
        """The guard that `arrays` gave.

        Raises:
            DataError: If it is none.
        """
        needed = {one.name for one in fields(cls)} - _LATE
        if set(arrays) - _LATE != needed:
            raise DataError("the model's guard file does not hold a guard; export the model again.")
        whole: dict[str, Any] = {name: arrays[name].astype(np.float32) for name in _IN_HALF}
        return cls(**{**arrays, **whole})


def fit_guard(
    train: Floats,
    train_labels: NDArray[np.int64],
    val: Floats,
    val_labels: NDArray[np.int64],
    val_images: Images,
    last_layer: Head,
) -> Guard:
    """What to compare with: features of train (N, K) and val (V, K), and the images of val."""
    chosen = balanced(train_labels, _NUM_KEPT)
    _, _, directions = np.linalg.svd(train[chosen], full_matrices=False)
    projection = directions[:_NUM_DIRECTIONS].T.astype(np.float16).astype(np.float32)
    colors = np.quantile(_color(val_images), [_RARE, 1 - _RARE], axis=0)
    contrast, hue = _stain(val_images)
    guard = Guard(
        projection,
        np.empty((0, 0), dtype=np.float32),
        train_labels[chosen],
        np.empty((0, 0), dtype=np.float32),
        val_labels,
        contrast=np.asarray(np.quantile(contrast, _FAINT), dtype=np.float32),
        hue=_least_hue(hue, _HUE),
        threshold=np.zeros((), dtype=np.float32),
        sharpness=np.asarray(np.quantile(_sharpness(val_images), _RARE), dtype=np.float32),
        colors=colors.astype(np.float32),
        weights=last_layer.weights,
        biases=last_layer.biases,
    )
    guard = replace(guard, kept=guard.project(train[chosen]), val=guard.project(val))
    threshold = np.quantile(guard.distances_of(guard.val), 1 - _SET_ASIDE)
    return replace(guard, threshold=np.asarray(threshold, dtype=np.float32))


def are_colorless(images: Images) -> NDArray[np.bool_]:
    """Which images (N, H, H, 3) are gray, or in one tint: color follows from brightness, (N,)."""
    red, green, blue = np.moveaxis(images, 3, 0)  # ten times as fast as a maximum over an axis of 3
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    found = spread.max(axis=(1, 2), initial=0) <= _GRAY
    size = images.shape[1]
    coarse, step = max(size // (_POOLED // 2), 1), max(size // _POOLED, 1)
    few = images[:, ::coarse, ::coarse]
    rough = _unexplained(few.reshape(len(few), few.shape[1] * few.shape[2], 3))
    for i in np.flatnonzero(rough < 3 * _TINTED):  # for most that is enough
        side = size // step * step
        parts = images[i, :side, :side].reshape(side // step, step, side // step, step, 3)
        smooth = parts.mean(axis=(1, 3)).reshape(1, -1, 3)  # without what a JPEG adds
        is_flat = smooth.mean(axis=2).std() < _FLAT
        found[i] |= not is_flat and _unexplained(smooth)[0] < _TINTED
    return found


def _unexplained(pixels: NDArray[np.generic]) -> NDArray[np.float64]:
    """How far colors (N, P, 3) are from the best cubic function of their brightness, (N,)."""
    colors = pixels.astype(np.float64)
    brightness = colors.mean(axis=2) / 255
    powers = np.stack([np.ones_like(brightness), brightness, brightness**2, brightness**3], axis=2)
    across = powers.transpose(0, 2, 1)
    fitted = np.linalg.solve(across @ powers + 1e-6 * np.eye(4), across @ colors)
    return np.sqrt(((colors - powers @ fitted) ** 2).mean(axis=(1, 2)))


def balanced(labels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Which images to keep: chosen at random, the same number of each class where possible."""
    order = np.random.default_rng(0).permutation(len(labels))
    seen = np.zeros(labels.max() + 1, dtype=np.int64)
    rank = np.empty(len(labels), dtype=np.int64)  # among those of its class
    for i in order:
        rank[i] = seen[labels[i]]
        seen[labels[i]] += 1
    return np.sort(order[np.argsort(rank[order], kind="stable")][:most])


def _shift(
    distances: NDArray[np.floating],
    labels: Sequence[int],
    known: Floats,
    known_labels: NDArray[np.int64],
) -> Shift:
    of_class = np.asarray(labels)
    sample, reference = [np.empty(0)], [np.empty(0)]
    for label in np.unique(of_class):
        own = np.sort(known[known_labels == label])
        own = own if len(own) >= _LEAST_OF_CLASS else np.sort(known)
        sample.append(_ranks(distances[of_class == label], own))
        reference.append(_ranks(own, own))
    return rank_test(np.concatenate(sample), np.concatenate(reference))


def _ranks(values: NDArray[np.floating], of: NDArray[np.floating]) -> NDArray[np.float64]:
    """The share of sorted numbers that are smaller; equal ones count half."""
    return (np.searchsorted(of, values) + np.searchsorted(of, values, "right")) / (2 * len(of))


def on_sphere(features: Floats) -> Floats:
    """Features (N, K) scaled to length 1."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, np.finfo(np.float32).tiny)


def _sharpness(images: Images) -> NDArray[np.float64]:
    """How much neighboring pixels of images (N, H, H, 3) differ, of how much any do."""
    green = images[..., 1].astype(np.float64)
    steps = np.abs(np.diff(green, axis=1)).mean(axis=(1, 2))
    return steps / np.maximum(green.std(axis=(1, 2)), 1)


def _stain(images: Images) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the stain shows in the middle of images (N, H, H, 3), each of shape (N,).

    Returns:
        How much more the middle is colored as a nucleus than the border, and how much denser the
        cell is in red light than in blue, dark places (in green, which is in the middle) foremost.
    """
    step = max(images.shape[1] // _LOOKED_AT, 1)
    density = densities(images[:, ::step, ::step].astype(np.float32) / 255)
    found = purple(density)
    place = (np.arange(found.shape[1]) + 0.5) / found.shape[1] - 0.5
    away = np.hypot(place[:, None], place)
    middle = found[:, away < _MIDDLE].mean(axis=1) - found[:, away > _BORDER].mean(axis=1)
    red, green, blue = density[:, :, away < _CELL]
    weights = green**2
    hue = ((red - blue) * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), _NO_DENSITY)
    return middle.astype(np.float64), hue.astype(np.float64)


def _least_hue(hue: NDArray[np.float64], known: Floats | float) -> Floats:
    """What is at least expected of cells, some of which are as `hue` says."""
    return np.asarray(np.minimum(known, np.quantile(hue, _RARE)), dtype=np.float32)


def _color(images: Images) -> NDArray[np.float64]:
    """Mean optical density of R, G and B of images (N, H, H, 3), shape (N, 3)."""
    return -np.log(np.maximum(images, 1) / 255).mean(axis=(1, 2))
