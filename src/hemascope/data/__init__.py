"""Data sources: what `data` names, each read into a `Dataset`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hemascope.core.errors import DataError, HemascopeError, did_you_mean

if TYPE_CHECKING:
    from hemascope.core.classes import ClassSet, Split
    from hemascope.core.image_spec import ImageSpec
    from hemascope.core.images import Dataset, LabeledImages
    from hemascope.data.source import Request, Source


# The readers are imported where they are used, so that a wrong name is refused at once.
def _bloodmnist(request: Request) -> Source:
    from hemascope.data.bloodmnist import load_bloodmnist

    return load_bloodmnist(request, retries=4)


def _synthetic(request: Request) -> Source:
    from hemascope.data.synthetic import rendered_source

    return rendered_source(request)


def _auto(request: Request) -> Source:
    """BloodMNIST if it is cached or can be downloaded at once, otherwise rendered cells.

    A damaged cache or a home that cannot be written to is a reason like any other; a wrong
    $HEMASCOPE_BLOODMNIST is not: whoever sets it wants that file.
    """
    from hemascope.data.bloodmnist import VARIABLE, load_bloodmnist

    try:
        return load_bloodmnist(request, retries=0)
    except HemascopeError as error:
        if os.environ.get(VARIABLE):
            raise
        return replace(_synthetic(request), notes=(str(error),))


# To add a data source: its file, and its row here.
DATASETS: dict[str, Callable[[Request], Source]] = {
    "auto": _auto,
    "bloodmnist": _bloodmnist,
    "synthetic": _synthetic,
}


def check_sources(sources: Sequence[str]) -> None:
    """Refuses early, before any work, sources that cannot be read.

    Raises:
        DataError: If one is not a name in `DATASETS`, a file or a folder, or is named twice.
    """
    for source in sources:
        path = Path(source)
        if not source:
            raise DataError("it is empty; name a data set, a file or a folder.", field="data")
        if source in DATASETS or path.is_dir() or path.is_file():
            continue
        if path.suffix or path.parent != Path():
            raise DataError(f"there is no file or folder {source}.", field="data")
        hint = did_you_mean(source, DATASETS)
        raise DataError(f"{source} is not a data set, a file or a folder; {hint}", field="data")
    places = list(map(located, sources))
    folders = {place for place in places if Path(place).is_dir()}
    for source, place in zip(sources, places, strict=True):
        if place in folders and (around := folders & {str(one) for one in Path(place).parents}):
            raise DataError(
                f"{source} lies inside {min(around)}, so its images would count twice; leave one "
                "of them out.",
                field="data",
            )
    if again := [source for i, source in enumerate(sources) if places[i] in places[:i]]:
        raise DataError(f"{again[0]} is named twice; name each source once.", field="data")


def located(source: str) -> str:
    """A source by its whole path, so that it is found from anywhere; a data set by its name."""
    return source if source in DATASETS else str(Path(source).resolve())


def files_of(sources: Sequence[str]) -> list[Path]:
    """The files and folders that sources are read from, whether they are there or not."""
    from hemascope.data.bloodmnist import find_bloodmnist

    return [
        (find_bloodmnist() or Path(source)) if source in ("auto", "bloodmnist") else Path(source)
        for source in sources
    ]


def load(request: Request) -> Dataset:
    """Reads and joins what a request names, gives all labels one meaning, and splits what has none.

    Raises:
        DataError: If a source is not there or not what it should be, or sources do not fit.
        UnreachableError: If one must be downloaded and cannot be.
    """
    from hemascope.data.labels import reconciled

    check_sources(request.settings.sources)
    found = [_read(source, request) for source in request.settings.sources]
    sources, classes = reconciled(found, request)
    if len({source.spec.size for source in sources}) > 1:
        sizes = ", ".join(f"{s.path}: {s.spec.size}" for s in sources)
        raise DataError(
            f"the sources have images of different sizes ({sizes}); give `image_size`.",
            field="data",
        )
    return _joined(sources, classes, request)


def _read(source: str, request: Request) -> Source:
    if source in DATASETS:
        return DATASETS[source](request)
    from hemascope.data.archive import is_archive, read_archive
    from hemascope.data.folder import read_folder
    from hemascope.data.npz import read_npz
    from hemascope.data.shards import MANIFEST, read_shards
    from hemascope.data.table import is_table, read_table

    path = Path(source)
    if path.is_dir():
        return (read_shards if (path / MANIFEST).is_file() else read_folder)(path, request)
    if is_archive(path):
        return read_archive(path, request)
    if is_table(path):
        return read_table(path, request)
    if path.suffix.lower() != ".npz":
        raise DataError(
            f"{source} is not a kind of file that holds labeled images; give an .npz file, class "
            "folders, a table (.csv, .tsv, .parquet), or a .zip or .tar archive.",
            field="data",
        )
    return read_npz(path, request)


def _joined(sources: Sequence[Source], classes: ClassSet, request: Request) -> Dataset:
    from hemascope.core.classes import Split
    from hemascope.core.images import Dataset, concatenate, pixels_md5
    from hemascope.data.splits import split_all

    first, is_one = sources[0], len(sources) == 1
    if not is_one:
        sources = _told_apart(sources)
    parts = {
        split: concatenate(own)
        for split in (*Split, None)
        if (own := [source.parts[split] for source in sources if split in source.parts])
    }
    is_split = None not in parts
    spec, notes = _common_spec(sources)
    notes = [*(note for source in sources for note in source.notes), *notes]
    asked = request.settings
    if request.as_found or (request.wanted and request.wanted in parts):
        if (whole := parts.pop(None, None)) is not None:
            if parts:
                unsplit = ", ".join(source.title for source in sources if None in source.parts)
                notes.append(
                    f"The {len(whole):,} images of {unsplit} have no split: here they are test."
                )
            parts[Split.TEST] = concatenate([*filter(None, [parts.get(Split.TEST)]), whole])
        splits = {split: part for split, part in parts.items() if split is not None}
    else:
        splits, more = split_all(parts, classes, skip_rare=asked.skip_rare)
        notes += more
        if asked.skip_rare and not (request.classes or asked.collection or asked.classes):
            splits, classes = _without_absent(splits, classes)
    md5 = first.md5 if is_one else ""
    return Dataset(
        " + ".join(source.title for source in sources),
        splits,
        classes,
        first.path if is_one else asked.title,
        md5 or pixels_md5(splits),
        md5_of="file" if md5 else "pixels",
        kind=first.kind if len({source.kind for source in sources}) == 1 else "other",
        notes=tuple(notes),
        spec=spec,
        collection=first.collection if is_one else "",
        is_split=is_split,
        bad=tuple(bad for source in sources for bad in source.bad),
        frames=tuple(frame for source in sources for frame in source.frames),
    )


def _common_spec(sources: Sequence[Source]) -> tuple[ImageSpec, list[str]]:
    """How photographs become images where sources are joined, and what is to be said of it."""
    from hemascope.core.image_spec import SAME_SIZE

    specs, notes = [source.spec for source in sources], list[str]()
    spec, sizes = specs[0], [spec.photo_size for spec in specs]
    if len({(spec.crop, spec.jpeg_quality) for spec in specs}) > 1:
        notes.append(
            "The sources were cropped or compressed differently; a model of them takes images as "
            f"those of {sources[0].title}."
        )
    if max(sizes) > (1 + SAME_SIZE) * min(sizes):
        spec = spec.model_copy(update={"photo_size": 0})
        notes.append(
            f"The photographs of the sources are of different sizes ({', '.join(map(str, sizes))} "
            "pixels, 0 where unknown); a model trained on them infers nothing from an image's size."
        )
    return spec, notes


def _told_apart(sources: Sequence[Source]) -> list[Source]:
    """Sources to be joined: unique ids, and what only some of them say filled in and noted."""

    def says(what: str, source: Source) -> bool:
        return any(getattr(part, what) is not None for part in source.parts.values())

    has_groups, has_weights = (
        any(says(what, source) for source in sources) for what in ("groups", "weights")
    )
    names = [Path(source.path).name for source in sources]
    if len(set(names)) < len(names):
        names = [source.path for source in sources]  # else two laboratories would count as one
    apart: list[Source] = []
    for source, name in zip(sources, names, strict=True):
        notes = source.notes
        if has_groups and not says("groups", source):
            notes = (*notes, f"{name} has no groups: each of its images counts as its own.")
        parts = {
            split: replace(
                part,
                ids=tuple(f"{source.path}/{image_id}" for image_id in part.ids),
                groups=part.groups or (part.ids if has_groups else None),
                laboratories=part.laboratories or (name,) * len(part),
                weights=part.filled_weights if has_weights else None,
            )
            for split, part in source.parts.items()
        }
        apart.append(replace(source, parts=parts, notes=notes))
    return apart


def _without_absent(
    splits: dict[Split, LabeledImages], classes: ClassSet
) -> tuple[dict[Split, LabeledImages], ClassSet]:
    """The same for the classes that occur."""
    import numpy as np

    occurring = np.unique(np.concatenate([part.labels for part in splits.values()]))
    fewer = {
        split: replace(part, labels=np.searchsorted(occurring, part.labels))
        for split, part in splits.items()
    }
    return fewer, classes.only(set(occurring.tolist()))
