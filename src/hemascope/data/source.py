"""What is asked of a reader of data, and what it gives back before labels and splits are set."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.core.classes import ClassSet, Split
from hemascope.core.errors import DataError
from hemascope.core.framing import Frame, spread
from hemascope.core.image_spec import DEFAULT_IMAGE_SIZE, ImageSpec, Prepared
from hemascope.core.images import BadFile, Kind, LabeledImages, stored
from hemascope.data.collections import collection, with_aliases
from hemascope.data.pictures import BadPictureError, read_picture, readable
from hemascope.settings.data import DataSettings
from hemascope.store.frames import asked_spec

T = TypeVar("T")
OnDownload = Callable[[int, int], None]  # bytes so far, bytes in all (0 where not known)
_CHUNK = 128  # pictures that one thread decodes before it takes more
_SEED = 0  # the order of files is part of the data, not of a run
_NAMED = 20  # of damaged files, in a sentence
_FIELD = "a whole field or sheet: its middle is taken as a cell of its label"


@dataclass(frozen=True)
class Request:
    """How data is wanted.

    Attributes:
        settings: The sources and the options beside them.
        spec: How a photograph becomes an image, where a model decides that.
        classes: The classes that labels are to mean, where a model decides that.
        as_found: Whether data that is not split stays whole.
        wanted: The only split that is needed; data that has it is not split further.
        on_download: Told how far a download is.
        damaged: Photographs that were damaged before they could be read, and why.
        scratch: A folder for the pixels of decoded photographs, where they may not fit into memory.
    """

    settings: DataSettings = field(default_factory=DataSettings)
    spec: ImageSpec | None = None
    classes: ClassSet | None = None
    as_found: bool = False
    wanted: Split | None = None
    on_download: OnDownload = lambda _done, _total: None
    damaged: Mapping[Path, str] = field(default_factory=dict)
    scratch: Path | None = None

    @property
    def named(self) -> ClassSet | None:
        """The classes that the settings name, if they do."""
        asked = self.settings
        if asked.collection:
            return collection(asked.collection).class_set
        return with_aliases(asked.classes) if asked.classes else None

    def spec_for(self, size: int | None = None) -> ImageSpec:
        """How a source's photographs become images; `size` is its own, where it has one."""
        asked = self.settings
        if self.spec:
            return asked_spec(self.spec, crop=asked.crop, frame=asked.frame)
        size = asked.image_size or size or DEFAULT_IMAGE_SIZE
        spec = collection(asked.collection).spec(size) if asked.collection else ImageSpec(size=size)
        if asked.geometries:
            spec = spec.model_copy(update={"geometries": asked.geometries})
        return asked_spec(spec, crop=asked.crop, frame=asked.frame)


@dataclass(frozen=True, eq=False)
class Source:
    """One source as it was found.

    Attributes:
        title: What pages call it.
        path: Where it is.
        parts: Its images by split; under None what has no split. Labels index `classes`.
        classes: The names of its own labels.
        spec: How its photographs became images.
        md5: Of its file; "" where it has no single one.
        kind: Whose split it is.
        collection: Key of the published collection it is of, if any.
        ordered: Whether the order of the classes is the source's own, not the alphabet's.
        notes: What was noticed or changed, in sentences.
        bad: Damaged files that were left out.
        frames: How its photographs were framed, where they decided that, for each laboratory.
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
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True)
class Record:
    """One labeled photograph in a file, and what its source says of it."""

    id: str
    path: Path
    label: str
    split: Split | None = None
    group: str | None = None
    laboratory: str | None = None
    weight: float | None = None


def read_records(
    records: Sequence[Record], request: Request, *, title: str, path: str, notes: Sequence[str] = ()
) -> Source:
    """Decodes labeled photographs on all cores and shuffles them once, always the same way.

    Raises:
        DataError: If photographs are damaged, all of which it names, unless they are to be left
            out; or if none is left.
    """
    spec = request.spec_for()
    specs, frames = _framed(records, spec, request.damaged)
    try:
        images, sizes, changes, bad = _decode(records, specs, request)
    except MemoryError as error:
        raise DataError(
            f"{len(records):,} images of {spec.size}x{spec.size} pixels do not fit into memory; "
            "give a smaller `image_size`."
        ) from error
    check_bad(bad, request)
    if bad:
        kept = np.flatnonzero(sizes[:, 0])
        records = [records[i] for i in kept.tolist()]
        images, sizes = images.take(kept, axis=0), sizes[kept]
    if not records:
        raise DataError(f"{path} has no image that can be read; {_listed(bad)}.")
    names, labels = np.unique([record.label for record in records], return_inverse=True)
    weights = _if_all([record.weight for record in records])
    together = LabeledImages(
        images,
        labels,
        tuple(record.id for record in records),
        groups=_if_all([record.group for record in records]),
        sizes=sizes,
        laboratories=_if_all([record.laboratory for record in records]),
        weights=None if weights is None else np.array(weights),
    )
    parts: dict[Split | None, LabeledImages] = {}
    for split in (*Split, None):
        rows = np.flatnonzero([record.split is split for record in records])
        if len(rows):
            parts[split] = together.take(np.random.default_rng(_SEED).permutation(rows))
    if not request.spec and not spec.photo_size and spec.frame == "whole":
        usual = int(np.median(sizes.min(axis=1)))
        spec = spec.model_copy(update={"photo_size": usual})
    classes = ClassSet(tuple(names.tolist()))
    said = [f"{lab}: {one.describe()}" if lab else one.describe() for lab, one in frames.items()]
    all_notes = (*notes, *said, *_counted(changes))
    source = Source(
        title, path, parts, classes, spec, notes=all_notes, frames=tuple(frames.values())
    )
    return with_bad(source, bad)


def prepared(images: NDArray[np.uint8], spec: ImageSpec) -> tuple[NDArray[np.uint8], list[str]]:
    """Arrays of pixels (N, H, W, 3) as images of a spec, and what was changed, in sentences."""
    if images.shape[1:3] == (spec.size, spec.size):
        return images, []
    made = spec.prepare(map(Image.fromarray, images))
    counts = Counter(_noted(made))
    counts[f"resized to {spec.size}x{spec.size}"] = len(images)
    return made.images, list(_counted(counts))


def _noted(made: Prepared) -> list[str]:
    """What is to be said of images; unlike `predict`, labels take whole fields for cells."""
    return [*filter(None, made.notes), *[_FIELD] * sum(made.fields)]


def _framed(
    records: Sequence[Record], spec: ImageSpec, damaged: Mapping[Path, str]
) -> tuple[Mapping[str | None, ImageSpec], Mapping[str | None, Frame]]:
    """For each laboratory how its photos become images, and how that was decided, if it was."""
    specs: dict[str | None, ImageSpec] = {}
    frames: dict[str | None, Frame] = {}
    for laboratory in dict.fromkeys(record.laboratory for record in records):
        own = sorted(
            r.path for r in records if r.laboratory == laboratory and r.path not in damaged
        )
        specs[laboratory] = spec
        if frame := spec.decide(readable(partial(read_picture, path) for path in spread(own))):
            specs[laboratory], frames[laboratory] = spec.framed(frame), frame
    return specs, frames


def _decode(
    records: Sequence[Record],
    specs: Mapping[str | None, ImageSpec],
    request: Request,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], Counter[str], list[BadFile]]:
    """The images; the photos' sizes (N, 2), 0 where one is damaged; what to note; the damaged."""
    count, damaged = len(records), request.damaged
    spec = next(iter(specs.values()))
    shape = (count, spec.size, spec.size, 3)
    if request.scratch is None:
        images = np.zeros(shape, dtype=np.uint8)
    else:
        with TemporaryFile(dir=request.scratch) as file:
            images = np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)
    sizes = np.zeros((count, 2), dtype=np.int64)
    crop = "" if spec.crop == 1 else f"cropped to {100 * spec.crop:.3g} % of the middle and "
    resized = f"{crop}resized to {spec.size}x{spec.size}"

    def decode(first: int) -> tuple[Counter[str], list[BadFile]]:
        noted, bad = Counter[str](), list[BadFile]()  # the thread's own: to add is not atomic
        for i in range(first, min(first + _CHUNK, count)):
            path = records[i].path
            try:
                if path in damaged:
                    raise BadPictureError(damaged[path])
                picture = read_picture(path)
            except (BadPictureError, OSError) as error:
                bad.append(BadFile(str(path), getattr(error, "strerror", None) or str(error)))
                continue
            made = specs[records[i].laboratory].prepare([picture.image])
            images[i], sizes[i] = made.images[0], picture.image.size
            noted.update([*picture.notes, *_noted(made)])
            if picture.image.size != (spec.size, spec.size):
                noted[resized] += 1
        return noted, bad

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        chunks = list(pool.map(decode, range(0, count, _CHUNK)))
    notes = sum((noted for noted, _ in chunks), Counter[str]())
    bad = sorted((one for _, part in chunks for one in part), key=lambda one: one.path)
    return images if request.scratch is None else stored([images]), sizes, notes, bad


def _counted(notes: Counter[str]) -> tuple[str, ...]:
    return tuple(f"{count:,} image(s): {note}." for note, count in sorted(notes.items()))


def _listed(bad: Sequence[BadFile]) -> str:
    named = ", ".join(f"{one.path} ({one.reason})" for one in bad[:_NAMED])
    more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    return f"{len(bad):,} damaged file(s): {named}{more}"


def _if_all(values: Sequence[T | None]) -> tuple[T, ...] | None:
    """The values; None where one is missing."""
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


def check_labels(labels: Sequence[float] | NDArray[np.int64], count: int, path: Path) -> None:
    """Refuses labels that `count` names are too few for, or that are negative.

    Raises:
        DataError: If there are such.
    """
    lowest, highest = np.min(labels), np.max(labels)
    if lowest < 0 or highest >= count:
        raise DataError(
            f"{path} holds the label {lowest if lowest < 0 else highest:.0f}, but there are "
            f"{count} class names, for the labels 0 to {count - 1}."
        )


def no_zero(labels: Sequence[float] | NDArray[np.int64], names: Sequence[str]) -> list[str]:
    """A note where no label is 0, as where they were counted from 1."""
    if np.min(labels) == 0:
        return []
    return [
        f"No image has the label 0 ({names[0]}): if the labels begin at 1, each image has the name "
        "of the class after its own."
    ]


def check_bad(bad: Sequence[BadFile], request: Request) -> None:
    """Refuses damaged files, unless they are to be left out.

    Raises:
        DataError: If there are such.
    """
    if bad and not request.settings.skip_bad:
        raise DataError(f"{_listed(bad)}; repair or remove them, or leave them out by `skip_bad`.")


def with_bad(source: Source, bad: Sequence[BadFile]) -> Source:
    """The same with more files that were left out."""
    if not bad:
        return source
    note = f"{_listed(bad)}: left out."
    return replace(source, bad=(*bad, *source.bad), notes=(*source.notes, note))
