"""What is asked of a reader of data, and what it gives back before labels and splits are set."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.core.classes import ClassSet, Split
from hemascope.core.errors import DataError
from hemascope.core.image_spec import DEFAULT_IMAGE_SIZE, ImageSpec
from hemascope.core.images import BadFile, LabeledImages
from hemascope.data.collections import Kind, collection
from hemascope.data.pictures import BadPictureError, read_picture
from hemascope.settings.data import DataSettings

OnDownload = Callable[[int, int], None]  # bytes so far, bytes in all (0 where not known)
_CHUNK = 128  # pictures that one thread decodes before it takes more
_SEED = 0  # the order of files is part of the data, not of a run
_NAMED = 20  # of damaged files, in a sentence


@dataclass(frozen=True)
class Request:
    """How data is wanted.

    Attributes:
        settings: The sources and the options beside them.
        spec: How a picture becomes an image, where a model decides that.
        classes: The classes that labels are to mean, where a model decides that.
        as_found: Whether data that is not split stays whole.
        wanted: The only split that is needed; data that has it is not split further.
        on_download: Told how far a download is.
    """

    settings: DataSettings = field(default_factory=DataSettings)
    spec: ImageSpec | None = None
    classes: ClassSet | None = None
    as_found: bool = False
    wanted: Split | None = None
    on_download: OnDownload = lambda _done, _total: None

    def spec_for(self, size: int | None = None) -> ImageSpec:
        """How a source's pictures become images; `size` is its own, where it has one."""
        if self.spec:
            return self.spec
        asked = self.settings
        size = asked.image_size or size or DEFAULT_IMAGE_SIZE
        spec = collection(asked.collection).spec(size) if asked.collection else ImageSpec(size=size)
        return spec.model_copy(update={"crop": asked.crop, "photo_size": 0}) if asked.crop else spec


@dataclass(frozen=True, eq=False)
class Source:
    """One source as it was found.

    Attributes:
        title: What pages call it.
        path: Where it is.
        parts: Its images by split; under None what has no split. Labels index `classes`.
        classes: The names of its own labels.
        spec: How its pictures became images.
        md5: Of its file; "" where it has no single one.
        kind: Whose split it is.
        collection: Key of the published collection it is of, if any.
        ordered: Whether the order of the classes is the source's own, not the alphabet's.
        notes: What was noticed or changed, in sentences.
        bad: Damaged files that were left out.
    """

    title: str
    path: str
    parts: Mapping[Split | None, LabeledImages]
    classes: ClassSet
    spec: ImageSpec
    md5: str = ""
    kind: Kind = "other"
    collection: str = ""
    ordered: bool = False
    notes: tuple[str, ...] = ()
    bad: tuple[BadFile, ...] = ()


@dataclass(frozen=True)
class Record:
    """One labeled picture in a file, and what its source says of it."""

    id: str
    path: Path
    label: str
    split: Split | None = None
    group: str | None = None
    laboratory: str | None = None
    weight: float | None = None


@dataclass(frozen=True, eq=False)
class _Decoded:
    """What became of pictures: pixels in place, and what was noticed."""

    images: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    is_good: NDArray[np.bool_]
    notes: Counter[str]
    bad: list[BadFile]


def read_records(
    records: Sequence[Record], request: Request, *, title: str, path: str, notes: Sequence[str] = ()
) -> Source:
    """Decodes labeled pictures on all cores and shuffles them once, always the same way.

    Raises:
        DataError: If pictures are damaged, all of which it names, unless they are to be left out;
            or if none is left.
    """
    spec = request.spec_for()
    try:
        decoded = _decode(records, spec)
    except MemoryError as error:
        raise DataError(
            f"{len(records):,} images of {spec.size}x{spec.size} pixels do not fit into memory; "
            "give a smaller `image_size`."
        ) from error
    if decoded.bad and not request.settings.skip_bad:
        raise DataError(unless_skipped(decoded.bad))
    kept = np.flatnonzero(decoded.is_good)
    if not len(kept):
        raise DataError(f"{path} has no image that can be read; {_listed(decoded.bad)}.")
    names = sorted({records[i].label for i in kept.tolist()})
    label_of = {name: label for label, name in enumerate(names)}
    together = LabeledImages(
        decoded.images,
        np.array([label_of.get(record.label, 0) for record in records], dtype=np.int64),
        tuple(record.id for record in records),
        groups=_texts([record.group for record in records]),
        sizes=decoded.sizes,
        laboratories=_texts([record.laboratory for record in records]),
        weights=_numbers([record.weight for record in records]),
    )
    parts: dict[Split | None, LabeledImages] = {}
    splits = [record.split for record in records]
    for split in [*Split, None]:
        rows = np.array([i for i in kept if splits[i] is split], dtype=np.intp)
        if len(rows):
            order = np.random.default_rng(_SEED).permutation(len(rows))
            parts[split] = together.take(rows[order])
    if not request.spec and not spec.photo_size:
        usual = int(np.median(decoded.sizes[kept].min(axis=1)))
        spec = spec.model_copy(update={"photo_size": usual})
    found = (*notes, *_counted(decoded.notes))
    source = Source(title, path, parts, ClassSet(tuple(names)), spec, notes=found)
    return with_bad(source, decoded.bad)


def prepared(images: NDArray[np.uint8], spec: ImageSpec) -> tuple[NDArray[np.uint8], list[str]]:
    """Arrays of pixels (N, H, W, 3) as images of a spec, and what was changed, in sentences."""
    from PIL import Image

    if images.shape[1:3] == (spec.size, spec.size):
        return images, []
    made = spec.prepare(map(Image.fromarray, images))
    counts = Counter(note for note in made.notes if note)
    counts[f"resized to {spec.size}x{spec.size}"] = len(images)
    return made.images, list(_counted(counts))


def _decode(records: Sequence[Record], spec: ImageSpec) -> _Decoded:
    count = len(records)
    images = np.zeros((count, spec.size, spec.size, 3), dtype=np.uint8)
    sizes = np.zeros((count, 2), dtype=np.int64)
    is_good = np.zeros(count, dtype=np.bool_)

    def decode(first: int) -> tuple[Counter[str], list[BadFile]]:
        noted, bad = Counter[str](), list[BadFile]()  # the thread's own: to add is not atomic
        for i in range(first, min(first + _CHUNK, count)):
            try:
                picture = read_picture(records[i].path)
            except (BadPictureError, OSError) as error:
                bad.append(BadFile(str(records[i].path), _reason(error)))
                continue
            made = spec.prepare([picture.image])
            images[i], sizes[i], is_good[i] = made.images[0], picture.image.size, True
            noted.update([*picture.notes, *filter(None, made.notes)])
            if picture.image.size != (spec.size, spec.size):
                noted[_resized(spec)] += 1
        return noted, bad

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        chunks = list(pool.map(decode, range(0, count, _CHUNK)))
    notes = sum((noted for noted, _ in chunks), Counter[str]())
    bad = sorted((one for _, part in chunks for one in part), key=lambda one: one.path)
    return _Decoded(images, sizes, is_good, notes, bad)


def _resized(spec: ImageSpec) -> str:
    crop = "" if spec.crop == 1 else f"cropped to {100 * spec.crop:.3g} % of the middle and "
    return f"{crop}resized to {spec.size}x{spec.size}"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _counted(notes: Counter[str]) -> tuple[str, ...]:
    return tuple(f"{count:,} image(s): {note}." for note, count in sorted(notes.items()))


def unless_skipped(bad: Sequence[BadFile]) -> str:
    """Why data with damaged files is refused where they are not to be left out."""
    return f"{_listed(bad)}; repair or remove them, or leave them out by `skip_bad`."


def _listed(bad: Sequence[BadFile]) -> str:
    named = ", ".join(f"{one.path} ({one.reason})" for one in bad[:_NAMED])
    more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    return f"{len(bad):,} damaged file(s): {named}{more}"


def _texts(values: Sequence[str | None]) -> tuple[str, ...] | None:
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


def _numbers(values: Sequence[float | None]) -> NDArray[np.float64] | None:
    known = [value for value in values if value is not None]
    return np.array(known, dtype=np.float64) if len(known) == len(values) else None


def with_bad(source: Source, bad: Sequence[BadFile]) -> Source:
    """The same with more files that were left out."""
    if not bad:
        return source
    note = f"{_listed(bad)}: left out."
    return replace(source, bad=(*bad, *source.bad), notes=(*source.notes, note))
