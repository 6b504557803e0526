"""What every data source becomes: labeled images in three splits, with their provenance."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import chain
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.core.classes import ClassSet, Split
from hemascope.core.framing import Frame
from hemascope.core.image_spec import ImageSpec

Kind = Literal["official", "rebuilt", "rendered", "other"]

_CHUNK = 1024  # images at a time, and
_FEW = 64  # where each takes much memory
_LOOK_SIZE, _LOOK_FREQUENCIES = 28, 12  # pixels and frequencies along a side
_LOOK_BYTES = 18  # of 12 x 12 bits
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """Images with their classes.

    Attributes:
        images: RGB pixels, shape (N, H, W, 3), uint8, H = W.
        labels: Class of each image, shape (N,), int64.
        ids: One id per image, such as `train/123` or a file's path in its folder.
        names: What the source calls each image beside that, if it does.
        groups: What each image comes from, such as a patient, if the source says.
        sizes: Width and height of each image in its source, shape (N, 2), if they differ.
        laboratories: Which laboratory each image comes from, if the source says.
        weights: How much each image counts in training, shape (N,), if not all the same.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    names: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    sizes: NDArray[np.int64] | None = None
    laboratories: tuple[str, ...] | None = None
    weights: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    @property
    def filled_weights(self) -> NDArray[np.float64]:
        """How much each image counts, shape (N,); 1 where the source does not say."""
        return np.ones(len(self)) if self.weights is None else self.weights

    @cached_property
    def hashes(self) -> NDArray[np.uint64]:
        """A hash of the pixels of each image, shape (N,): equal images have equal ones.

        Notes:
            Of 64 bits: among a million images, two different ones share one with a chance of less
            than one in ten million.
        """
        digests = (
            hashlib.blake2b(image, digest_size=8).digest()
            for i in range(0, len(self), _CHUNK)
            for image in np.ascontiguousarray(self.images[i : i + _CHUNK])
        )
        return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)

    @cached_property
    def channels(self) -> "ChannelStatistics":
        """The statistics of R, G and B over all pixels."""
        return channel_statistics(self.images)

    @cached_property
    def looks(self) -> NDArray[np.uint8]:
        """What each image looks like at any size, shape (N, 18): alike images differ in few bits.

        Source: the perceptual hash of Zauner, Implementation and Benchmarking of Perceptual Image
        Hash Functions, 2010; here of 12 by 12 frequencies.
        """
        return np.concatenate(
            [np.empty((0, _LOOK_BYTES), dtype=np.uint8)]
            + [_looks(self.images[i : i + _FEW]) for i in range(0, len(self), _FEW)]
        )

    def take(self, indices: NDArray[np.intp]) -> "LabeledImages":
        """The images at `indices`, in that order."""

        def chosen(values: Any) -> Any:
            if hasattr(values, "take"):
                return values.take(indices, axis=0)
            return values and tuple(values[i] for i in indices)

        return LabeledImages(*(chosen(getattr(self, one.name)) for one in fields(self)))


class StoredImages:
    """Images on disk, read when they are asked for, in place of an array (N, H, W, 3) of uint8.

    An index, a slice or an array of indices reads those; `take` only notes which ones.

    Args:
        stores: Arrays that are mapped from files, one after another.
        rows: Which of all their images these are; by default all.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self, stores: Sequence[NDArray[np.uint8]], rows: NDArray[np.intp] | None = None
    ) -> None:
        self.stores = stores
        self._ends = np.cumsum([len(store) for store in stores])
        self.rows = np.arange(self._ends[-1]) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3)."""
        return (len(self), *self.stores[0].shape[1:])

    def __getitem__(self, key: int | slice | NDArray[np.intp]) -> NDArray[np.uint8]:
        rows = np.atleast_1d(self.rows[key])
        images = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        numbers = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(numbers).tolist():
            here, store = np.flatnonzero(numbers == number), self.stores[number]
            images[here] = store[rows[here] - (self._ends[number] - len(store))]
        return images if np.ndim(self.rows[key]) else images[0]

    def take(self, indices: NDArray[np.intp], axis: Literal[0] = 0) -> "StoredImages":
        """Some of the images, of which none is read yet."""
        del axis
        return StoredImages(self.stores, self.rows[indices])

    @classmethod
    def joined(cls, parts: "Sequence[NDArray[np.uint8] | StoredImages]") -> "StoredImages":
        """The images of several parts in order; none is read, and those in memory stay there."""
        stores, rows = list[NDArray[np.uint8]](), list[NDArray[np.intp]]()
        for part in parts:
            one = part if isinstance(part, cls) else cls([cast("NDArray[np.uint8]", part)])
            rows.append(one.rows + sum(map(len, stores)))
            stores += one.stores
        return cls(stores, np.concatenate(rows))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: FBT001 - NumPy's
        return self[:].astype(dtype or self.dtype, copy=False)


def stored(stores: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """`StoredImages`, which pass for an array wherever images are read in parts."""
    return cast("NDArray[np.uint8]", StoredImages(stores))


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and standard deviation of R, G and B over pixels scaled to [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def channel_statistics(images: NDArray[np.uint8]) -> ChannelStatistics:
    """Exact channel statistics of (N, H, W, 3) images.

    Notes:
        Counts each of the 256 values and sums in float64. Summing millions of pixels in float32
        is off by up to two per cent, a mistake that stands in several public projects.
    """
    counts = np.zeros((3, 256))
    for first in range(0, len(images), _CHUNK):  # bincount makes eight bytes of each pixel
        for channel, pixels in enumerate(np.moveaxis(images[first : first + _CHUNK], -1, 0)):
            counts[channel] += np.bincount(pixels.ravel(), minlength=256)
    counts /= counts[0].sum()
    values = np.arange(256) / 255
    mean = counts @ values
    std = np.sqrt((counts * (values - mean[:, None]) ** 2).sum(axis=1))
    (r, g, b), (r_std, g_std, b_std) = mean.tolist(), std.tolist()
    return ChannelStatistics((r, g, b), (r_std, g_std, b_std))


@dataclass(frozen=True)
class BadFile:
    """A file that could not be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Dataset:
    """Splits of labeled images and everything a report must say of where they came from.

    Attributes:
        title: What every page, figure and log calls this data.
        splits: The images by split.
        classes: What the labels mean.
        source: Path or generator it came from.
        md5: Of the file, or of the pixels and labels where there is no single file.
        md5_of: Which of the two `md5` is.
        kind: Whether these are the images of the study's own test split ("official"), of ours
            ("rebuilt"), rendered cells, or anything else.
        notes: What was noticed or changed while reading, in sentences.
        spec: How a photograph becomes one of its images.
        collection: Key of the published collection it is of, if it is of one.
        is_split: Whether it has splits; if not, all images are in the test split.
        bad: Damaged files that were left out.
        frames: How its photographs were framed, where they decided that, for each laboratory.
    """

    title: str
    splits: Mapping[Split, LabeledImages]
    classes: ClassSet
    source: str
    md5: str
    md5_of: Literal["file", "pixels"] = "file"
    kind: Kind = "other"
    notes: tuple[str, ...] = ()
    spec: ImageSpec = field(default_factory=ImageSpec)
    collection: str = ""
    is_split: bool = True
    bad: tuple[BadFile, ...] = ()
    frames: tuple[Frame, ...] = ()

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return self.spec.size

    @property
    def channels(self) -> ChannelStatistics:
        """Channel statistics of the train split (of the first split where there is none)."""
        return (self.splits.get(Split.TRAIN) or next(iter(self.splits.values()))).channels

    def class_counts(self, split: Split) -> dict[str, int]:
        """How many images of each class a split has."""
        counts = np.bincount(self.splits[split].labels, minlength=len(self.classes))
        return dict(zip(self.classes.names, counts.tolist(), strict=True))

    def _count_groups(self) -> int | None:
        groups = [part.groups for _, part in self.splits.items()]
        known = [own for own in groups if own is not None]
        return len(set().union(*known)) if known and len(known) == len(groups) else None

    def describe(self) -> "DataDescription":
        """The provenance, for `fingerprint.json`, the cards and the pages."""
        return DataDescription(
            title=self.title,
            kind=self.kind,
            source=self.source,
            md5=self.md5,
            md5_of=self.md5_of,
            image=self.spec,
            image_size=self.image_size,
            collection=self.collection,
            bad=self.bad,
            class_names=self.classes.names,
            counts={split.value: len(images) for split, images in self.splits.items()},
            class_counts={split.value: self.class_counts(split) for split in self.splits},
            channel_mean=tuple(round(value, 6) for value in self.channels.mean),
            channel_std=tuple(round(value, 6) for value in self.channels.std),
            notes=self.notes,
            num_groups=self._count_groups(),
        )


@dataclass(frozen=True)
class DataDescription:
    """What every report says of the data; the attributes are those of `Dataset`.

    Attributes:
        counts: Number of images by split.
        class_counts: Number of images of each class by split.
        channel_mean: Mean of R, G and B over the train split, in [0, 1].
        channel_std: Their standard deviations.
        num_groups: How many groups the images come from; None if that is not known.
    """

    title: str
    kind: Kind
    source: str
    md5: str
    md5_of: Literal["file", "pixels"]
    image: ImageSpec
    image_size: int
    collection: str
    bad: tuple[BadFile, ...]
    class_names: tuple[str, ...]
    counts: Mapping[str, int]
    class_counts: Mapping[str, Mapping[str, int]]
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    notes: tuple[str, ...]
    num_groups: int | None = None

    def __post_init__(self) -> None:
        """Holds the counts to the splits and classes.

        Raises:
            ValueError: If they do not fit.
        """
        if self.counts.keys() != self.class_counts.keys() or any(
            set(counts) != set(self.class_names) for counts in self.class_counts.values()
        ):
            raise ValueError("its counts are not of its splits and classes")


def pixels_md5(splits: Mapping[Split, LabeledImages]) -> str:
    """An md5 of all pixels, labels and weights, naming data that has no single file."""
    digest = hashlib.md5(usedforsecurity=False)
    for images in splits.values():
        for i in range(0, len(images), _CHUNK):
            digest.update(np.ascontiguousarray(images.images[i : i + _CHUNK]).data)
        digest.update(np.ascontiguousarray(images.labels).data)
        if images.weights is not None:
            digest.update(np.ascontiguousarray(images.weights).data)
    return digest.hexdigest()


def concatenate(parts: Sequence[LabeledImages]) -> LabeledImages:
    """All images of several parts, in order; names and the like where all parts have them."""

    def joined(values: Sequence[Any]) -> Any:
        if any(own is None for own in values):
            return None
        if any(isinstance(own, StoredImages) for own in values):
            return StoredImages.joined(values)
        if isinstance(values[0], np.ndarray):
            return np.concatenate(values)
        return tuple(chain.from_iterable(values))

    if len(parts) == 1:
        return parts[0]
    names = [one.name for one in fields(LabeledImages)]
    return LabeledImages(*(joined([getattr(part, name) for part in parts]) for name in names))


def symmetry(images: NDArray[np.uint8], view: int) -> NDArray[np.uint8]:
    """One of the eight symmetries of square images (N, H, H, 3): 0 is the image itself."""
    if view & 1:
        images = images[:, ::-1]
    if view & 2:
        images = images[:, :, ::-1]
    if view & 4:
        images = images.swapaxes(1, 2)
    return np.ascontiguousarray(images)


def _looks(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size, count = _LOOK_SIZE, _LOOK_FREQUENCIES
    gray = (images @ np.array(_LUMA, dtype=np.float32)).astype(np.float32)
    if gray.shape[1] != size:
        how = Image.Resampling.BOX if gray.shape[1] > size else Image.Resampling.BILINEAR
        gray = np.stack(
            [np.asarray(Image.fromarray(one).resize((size, size), how)) for one in gray]
        )
    place = np.arange(size) + 0.5
    waves = np.cos(np.pi / size * np.arange(count)[:, None] * place)
    waves[0] /= np.sqrt(2)
    spectrum = (waves @ gray @ waves.T).reshape(len(gray), -1)[:, 1:]  # without the mean
    return np.packbits(spectrum > np.median(spectrum, axis=1, keepdims=True), axis=1)
