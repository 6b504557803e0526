"""What may be wrong with a data set: copies, doubtful labels, images that show nothing.

Images are compared at 28 pixels a side, or their own size if that is smaller: larger ones as
thumbnails, so that no threshold depends on how large the photographs are. The shift that is looked
for shrinks with smaller images, and detail is judged only among images of one size.

Pure functions over pixels, labels and probabilities; nothing here knows files or trains.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import laplace
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import median_abs_deviation
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import NearestNeighbors

from hemascope.core.errors import UsageError
from hemascope.core.images import symmetry

Images = NDArray[np.uint8]
Pairs = NDArray[np.intp]

# What two pictures of one cell may differ by: gray levels, and as a share of the contrast in them.
# Of BloodMNIST's cells the most alike are platelets, 11 gray levels and two fifths of it apart.
NEAR_DISTANCE, NEAR_SHARE = 12.0, 0.35
HASH_DISTANCE = 6  # bits of 64
NUM_NEIGHBORS = 5
_LARGEST_SHIFT, _SIZE = 2, 28  # pixels that a copy may be moved by in an image of so many
_NUM_SYMMETRIES = 8
_ROWS = 512  # images at a time
MOST_EXACT = 20_000  # images whose embeddings are all compared with one another
_BLANK_SPREAD = 4.0  # gray levels
_FAR = 5.0  # robust standard deviations


def thumbnails(images: Images, size: int) -> Images:
    """Images (N, H, H, 3) made no larger than `size` pixels, by averaging."""
    if images.shape[1] <= size:
        return images
    return np.stack(
        [
            np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX))
            for image in images
        ]
    )


def equal_groups(hashes: NDArray[np.uint64]) -> list[list[int]]:
    """The images that have the same hash, each group in order; images alone are left out."""
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.diff(hashes[order])) + 1
    groups = (group.tolist() for group in np.split(order, starts) if len(group) > 1)
    return sorted(groups)


def perceptual_hashes(images: Images) -> NDArray[np.uint64]:
    """64 bits of each image that small changes leave nearly the same, shape (N,).

    Source: pHash, the low frequencies of the discrete cosine transform, as in `imagehash.phash`.
    """
    from imagehash import phash

    bits = np.stack([phash(Image.fromarray(image)).hash.ravel() for image in images])
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def hash_pairs(hashes: NDArray[np.uint64], *, most_bits: int = HASH_DISTANCE) -> Pairs:
    """The pairs of images whose hashes differ in few bits, shape (P, 2), the lower index first.

    All of them: cut into one band more than bits may differ, two such hashes share a band, and only
    hashes that share one are compared.

    Source: Manku et al., Detecting Near-Duplicates for Web Crawling, WWW 2007.
    """
    found = [np.empty((0, 2), dtype=np.intp)]
    edges = np.linspace(0, 64, most_bits + 2).astype(np.uint64)
    for low, high in pairwise(edges):
        band = (hashes >> low) & ((np.uint64(1) << (high - low)) - np.uint64(1))
        for group in map(np.array, equal_groups(band)):
            for first in range(0, len(group), _ROWS):
                rows = hashes[group[first : first + _ROWS]]
                i, j = np.nonzero(np.bitwise_count(rows[:, None] ^ hashes[group]) <= most_bits)
                later = i + first < j
                found.append(np.stack([group[i + first], group[j]], axis=1)[later])
    return np.unique(np.concatenate(found), axis=0)


def neighbor_pairs(embeddings: NDArray[np.float32], *, k: int = NUM_NEIGHBORS) -> Pairs:
    """Each image with those nearest to it by the cosine of embeddings (N, D), shape (P, 2).

    Above `MOST_EXACT` images, by an approximate index; see `require_index`.
    """
    k = min(k, len(embeddings) - 1)
    if not k:
        return np.empty((0, 2), dtype=np.intp)
    centered = embeddings - embeddings.mean(axis=0)
    centered /= np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-12)
    # Of vectors of one length, those nearest in space are those nearest by cosine, found faster.
    if len(centered) <= MOST_EXACT:
        search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(centered)
        nearest = search.kneighbors(return_distance=False)
    else:
        index = require_index()(ndim=centered.shape[1], metric="cos", dtype="f32")
        index.add(np.arange(len(centered)), centered, threads=1)  # so that each run finds the same
        nearest = index.search(centered, k + 1).keys.astype(np.intp)  # itself among them
    pairs = np.stack([np.repeat(np.arange(len(centered)), nearest.shape[1]), nearest.ravel()], 1)
    return np.sort(pairs, axis=1)


def require_index() -> type[Any]:
    """The class of the approximate index that finds neighbors among very many images.

    Raises:
        UsageError: If it is not installed.
    """
    try:
        from usearch.index import Index
    except ImportError as error:
        raise UsageError(
            f"more than {MOST_EXACT:,} images are compared by an index, usearch: install it with "
            "pip install 'hemascope[scale]'."
        ) from error
    return Index


def near_pairs(images: Images, candidates: Pairs) -> Pairs:
    """Those of the pairs that show the same cell once more, shape (P, 2), without doubles."""
    pairs = np.unique(candidates, axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    parts = np.array_split(images, -(-len(images) // _ROWS) or 1)  # in eight bytes a pixel
    contrast = np.concatenate([part.std(axis=(1, 2)).mean(axis=1) for part in parts])
    coarse, found = thumbnails(images, _SIZE // 2), [pairs[:0]]
    for first in range(0, len(pairs), _ROWS):
        part = pairs[first : first + _ROWS]
        ours, theirs = part.T
        distance = aligned_distance(images[ours], images[theirs], (coarse[ours], coarse[theirs]))
        most = np.minimum(NEAR_DISTANCE, NEAR_SHARE * contrast[part].mean(axis=1))
        found.append(part[distance <= most])
    return np.concatenate(found)


def aligned_distance(
    ours: Images, theirs: Images, coarse: tuple[Images, Images] | None = None
) -> NDArray[np.float64]:
    """How far apart two images of each pair are at best, in gray levels, shape (N,).

    The root of the mean squared difference, when one of them (N, H, H, 3) is mirrored, turned by
    quarters and shifted by up to two pixels in 28 so that they are most alike. Which mirror image
    or turn is decided on copies of 14 pixels, which may be given as `coarse`.
    """
    coarse = coarse or (thumbnails(ours, _SIZE // 2), thumbnails(theirs, _SIZE // 2))
    by_symmetry = [
        _shifted_squares(coarse[0], symmetry(coarse[1], s)) for s in range(_NUM_SYMMETRIES)
    ]
    chosen = np.argmin(by_symmetry, axis=0)
    turned = np.empty_like(theirs)
    for s in np.unique(chosen):
        turned[chosen == s] = symmetry(theirs[chosen == s], int(s))
    return np.sqrt(_shifted_squares(ours, turned))


def _shifted_squares(ours: Images, theirs: Images) -> NDArray[np.float64]:
    """The least mean squared difference over all shifts, shape (N,)."""
    largest_shift = round(_LARGEST_SHIFT * ours.shape[1] / _SIZE)
    inside = ours.shape[1] - 2 * largest_shift
    crop = slice(largest_shift, largest_shift + inside)
    inner = ours[:, crop, crop].astype(np.float32)
    other = theirs.astype(np.float32)
    best = np.full(len(ours), np.inf)
    for top in range(2 * largest_shift + 1):
        for left in range(2 * largest_shift + 1):
            difference = inner - other[:, top : top + inside, left : left + inside]
            squares = np.einsum("nhwc,nhwc->n", difference, difference)
            best = np.minimum(best, squares / inner[0].size)
    return best


def joined_groups(num_images: int, pairs: Pairs) -> list[list[int]]:
    """What hangs together through pairs: groups of at least two, each in order."""
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (num_images, num_images))
    _, group = connected_components(links, directed=False)
    return equal_groups(group.astype(np.uint64))


def label_issues(
    labels: NDArray[np.int64], probs: NDArray[np.float64], *, min_images: int
) -> NDArray[np.intp]:
    """The images whose label is doubtful, the most doubtful first.

    Args:
        labels: The labels given, shape (N,).
        probs: What a network that has not seen the image says, shape (N, C).
        min_images: Classes with fewer are left alone: no network learns them.

    Source: confident learning, Northcutt et al., JAIR 2021, as in `cleanlab.filter` ("both").
    """
    from cleanlab.filter import find_label_issues

    counts = np.bincount(labels, minlength=probs.shape[1])
    known = np.flatnonzero(counts >= min_images)
    rows = np.flatnonzero(np.isin(labels, known))
    if len(known) < 2:
        return np.empty(0, dtype=np.intp)
    shares = probs[np.ix_(rows, known)]
    shares = shares / shares.sum(axis=1, keepdims=True)
    issues = find_label_issues(
        np.searchsorted(known, labels[rows]),
        shares,
        filter_by="both",
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    return rows[np.asarray(issues, dtype=np.intp)]


@dataclass(frozen=True)
class Flaws:
    """Images that show less than they should, by index.

    Attributes:
        blank: All of one color, or nearly.
        blurred: With far less detail than the others of the class.
        off_size: Of another width and height in their source than most.
    """

    blank: list[int]
    blurred: list[int]
    off_size: list[int]


def find_flaws(images: Images, labels: NDArray[np.int64], sizes: NDArray[np.int64] | None) -> Flaws:
    """Blank, blurred and off-size images among (N, H, H, 3)."""
    spread, detail = np.empty(len(images)), np.empty(len(images))
    for first in range(0, len(images), _ROWS):
        rows = slice(first, first + _ROWS)
        gray = images[rows].astype(np.float32).mean(axis=3)
        spread[rows] = gray.std(axis=(1, 2))
        detail[rows] = laplace(gray, axes=(1, 2))[:, 1:-1, 1:-1].var(axis=(1, 2))
    blank = spread < _BLANK_SPREAD
    blurred = np.zeros(len(images), dtype=bool)
    log_detail = np.log(np.maximum(detail, 1e-3))
    for label in np.unique(labels):
        of_class = (labels == label) & ~blank
        if of_class.any():
            blurred[of_class] = _far_below(log_detail[of_class])
    off_size: list[int] = []
    if sizes is not None:
        kinds, counts = np.unique(sizes, axis=0, return_counts=True)
        off_size = np.flatnonzero((sizes != kinds[counts.argmax()]).any(axis=1)).tolist()
    return Flaws(np.flatnonzero(blank).tolist(), np.flatnonzero(blurred).tolist(), off_size)


def _far_below(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    scale = median_abs_deviation(values, scale="normal")  # pyright: ignore[reportArgumentType] - scipy's stubs
    return (values < np.median(values) - _FAR * scale) & (scale > 0)


def folds_of(
    labels: NDArray[np.int64],
    num_folds: int,
    *,
    together: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Which fold each image is in, shape (N,): every class is spread evenly over them.

    Args:
        labels: Shape (N,).
        num_folds: How many folds; those beyond the images of the largest class, or beyond the
            groups, stay empty.
        together: Images with the same number, shape (N,), go into the same fold.
        seed: Of the draw.
    """
    fold = np.zeros(len(labels), dtype=np.int64)
    groups = np.arange(len(labels)) if together is None else together
    num_folds = min(num_folds, int(np.bincount(labels).max()), len(np.unique(groups)))
    if num_folds < 2:
        return fold
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer images than folds
        for number, (_, held) in enumerate(splitter.split(labels, labels, groups)):
            fold[held] = number
    return fold


def across(groups: Sequence[Sequence[int]], kinds: Sequence[object]) -> list[list[int]]:
    """Those groups whose members are not all of one kind, such as one label or one split."""
    return [list(group) for group in groups if len({kinds[i] for i in group}) > 1]
