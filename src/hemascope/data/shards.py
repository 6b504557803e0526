"""Data larger than memory: Arrow files of 128 MB, which are mapped instead of read.

See docs/decisions/0018.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from hemascope.core.classes import ClassSet, Split
from hemascope.core.errors import DataError
from hemascope.core.image_spec import ImageSpec
from hemascope.core.images import (
    BadFile,
    DataDescription,
    Dataset,
    LabeledImages,
    concatenate,
    stored,
)
from hemascope.data.source import Request, Source, check_bad, with_bad
from hemascope.settings.base import Settings, explain
from hemascope.store.files import md5_of, write_json, written_whole

MANIFEST = "shards.json"
_SHARD_BYTES = 128_000_000
_COLUMNS = [one.name for one in fields(LabeledImages) if one.name != "images"]
_ARRAYS = ("labels", "sizes", "weights")


class Shard(NamedTuple):
    """One file: its split, its number of images, and how it is known to be whole."""

    split: Split
    num_images: int
    md5: str


class Manifest(Settings):
    """The file that is written last: what the data is, and the shards by name."""

    format_version: Literal[1] = 1
    data: DataDescription
    shards: Mapping[str, Shard]


def write_shards(dataset: Dataset, out: Path, *, rows: int | None = None) -> Manifest:
    """Writes a data set as shards into a folder, holding one of them in memory at a time.

    Args:
        dataset: All its splits are written, each in files of its own.
        out: The folder, without shards.
        rows: Images in a shard; by default as many as make 128 MB.

    Raises:
        OutputError: If a file cannot be written.
    """
    rows = rows or max(_SHARD_BYTES // (3 * dataset.image_size**2), 1)
    shards: dict[str, Shard] = {}
    for split, part in dataset.splits.items():
        for number, first in enumerate(range(0, len(part), rows)):
            path = out / f"{split}-{number:05}.arrow"
            own = part.take(np.arange(first, min(first + rows, len(part))))
            _write(own, path)
            shards[path.name] = Shard(split, len(own), md5_of(path))
    manifest = Manifest(data=dataset.describe(), shards=shards)
    write_json(out / MANIFEST, manifest)
    return manifest


def read_shards(folder: Path, request: Request) -> Source:
    """Maps the images of all shards, and reads their labels, ids and the like.

    Raises:
        DataError: If a shard is missing or damaged, unless those are to be left out; or if the
            images are not as they are wanted.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except ValidationError as error:
        raise DataError(f"{folder / MANIFEST}: {explain(error, Manifest)}") from error
    data, asked = manifest.data, request.settings
    spec = request.spec_for(data.image_size) if request.spec else data.image
    size = asked.image_size or spec.size
    if size != data.image_size or asked.crop or asked.frame or asked.group_from:
        raise DataError(
            f"{folder} holds finished images of {data.image_size} pixels; for others, give "
            "`image_size`, `crop`, `frame` and `group_from` to 'hemascope data shard'."
        )
    found: dict[Split | None, list[LabeledImages]] = {}
    bad: list[BadFile] = []
    md5 = hashlib.md5(usedforsecurity=False)  # of those of the shards
    for name, shard in manifest.shards.items():
        file = folder / name
        if file.is_file() and md5_of(file) == shard.md5:
            md5.update(shard.md5.encode())
            found.setdefault(shard.split, []).append(_map(file, size))
        else:
            reason = "damaged: its md5 is another" if file.is_file() else "missing"
            bad.append(BadFile(str(file), f"{reason}; {shard.num_images:,} {shard.split} images"))
    check_bad(bad, request)
    if not found:
        raise DataError(f"{folder} has no shard that is whole; write the shards again.")
    parts = {split: _together(own) for split, own in found.items()}
    if _is_made_otherwise(data.image, spec, parts.values()):
        raise DataError(
            f"{folder} holds images that were cropped, framed or resized otherwise than the "
            "model's are; give the photographs that they were made of."
        )
    source = Source(
        *(data.title, str(folder), parts, ClassSet(data.class_names), spec, md5.hexdigest()),
        *(data.kind, data.collection),
        ordered=True,
        notes=data.notes,
    )
    return with_bad(source, bad)


def _is_made_otherwise(made: ImageSpec, wanted: ImageSpec, parts: Iterable[LabeledImages]) -> bool:
    """Whether photographs would become other images; those of the images' own size never do."""
    names = ("crop", "jpeg_quality", "frame", "geometries")
    if all(getattr(made, name) == getattr(wanted, name) for name in names):
        return False
    return any(one.sizes is not None and (one.sizes != made.size).any() for one in parts)


def _write(part: LabeledImages, path: Path) -> None:
    import pyarrow as pa

    pixels = np.ascontiguousarray(part.images[:])
    kind, buffers = pa.binary(pixels[0].size), [None, pa.py_buffer(pixels)]
    columns = {"images": pa.FixedSizeBinaryArray.from_buffers(kind, len(pixels), buffers)}
    for name in _COLUMNS:
        if (values := getattr(part, name)) is not None:
            columns[name] = pa.array(values.tolist() if name in _ARRAYS else values)
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    with written_whole(path) as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def _map(path: Path, size: int) -> LabeledImages:
    """One shard; its pixels stay on disk, and the system keeps those it has room for."""
    import pyarrow as pa

    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    pixels: NDArray[np.uint8] = np.frombuffer(batch.column("images").buffers()[1], dtype=np.uint8)
    columns = {n: batch.column(n).to_pylist() for n in _COLUMNS if n in batch.schema.names}
    values: Any = {n: np.array(c) if n in _ARRAYS else tuple(c) for n, c in columns.items()}
    return LabeledImages(images=pixels.reshape(-1, size, size, 3), **values)


def _together(parts: list[LabeledImages]) -> LabeledImages:
    """The shards of a split as one; no pixel is read."""
    others = [replace(part, images=part.images[:0]) for part in parts]
    return replace(concatenate(others), images=stored([part.images for part in parts]))
