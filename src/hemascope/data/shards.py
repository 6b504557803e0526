"""Data larger than memory: Arrow files of a hundred megabytes or so, mapped instead of read.

See docs/decisions/0018.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from hemascope.core.classes import ClassSet, Split
from hemascope.core.errors import DataError, UsageError
from hemascope.core.image_spec import ImageSpec
from hemascope.core.images import BadFile, Dataset, Kind, LabeledImages, concatenate, stored
from hemascope.data.source import Request, Source, check_bad, with_bad
from hemascope.settings.base import Settings, explain
from hemascope.store.files import md5_of, write_json, written_whole

MANIFEST = "shards.json"
_SHARD_BYTES = 128_000_000


class Shard(Settings):
    """One file, and how it is known to be whole."""

    file: str
    split: Split
    count: int
    md5: str


class Manifest(Settings):
    """The file that is written last: what the shards beside it hold."""

    format_version: Literal[1] = 1
    title: str
    kind: Kind
    collection: str
    class_names: tuple[str, ...]
    image: ImageSpec
    notes: tuple[str, ...]
    shards: tuple[Shard, ...]


def write_shards(dataset: Dataset, out: Path, *, rows: int | None = None) -> Manifest:
    """Writes a data set as shards into an empty folder, holding one of them in memory at a time.

    Args:
        dataset: All its splits are written, each in files of its own.
        out: The folder.
        rows: Images in a shard; by default as many as make 128 MB.

    Raises:
        DataError: If pyarrow is not installed.
        OutputError: If a file cannot be written.
    """
    rows = rows or max(_SHARD_BYTES // (3 * dataset.image_size**2), 1)
    shards: list[Shard] = []
    for split, part in dataset.splits.items():
        for number, first in enumerate(range(0, len(part), rows)):
            path = out / f"{split}-{number:05}.arrow"
            own = part.take(np.arange(first, min(first + rows, len(part))))
            _write(own, path)
            shards.append(Shard(file=path.name, split=split, count=len(own), md5=md5_of(path)))
    manifest = Manifest(
        title=dataset.title,
        kind=dataset.kind,
        collection=dataset.collection,
        class_names=dataset.classes.names,
        image=dataset.spec,
        notes=dataset.notes,
        shards=tuple(shards),
    )
    write_json(out / MANIFEST, manifest)
    return manifest


def is_shards(folder: Path) -> bool:
    """Whether `write_shards` finished a data set in a folder."""
    return (folder / MANIFEST).is_file()


def read_shards(folder: Path, request: Request) -> Source:
    """Maps the images of all shards, and reads their labels, ids and the like.

    Raises:
        DataError: If a shard is missing or damaged, unless those are to be left out; or if the
            images are of another size than is wanted.
        UsageError: If an option is given that is for pictures.
    """
    path, asked = folder / MANIFEST, request.settings
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        reason = explain(error, Manifest)
        raise DataError(f"{path} cannot be read: {reason} Write the shards again.") from error
    if asked.crop or asked.frame or asked.group_from:
        raise UsageError(
            f"{folder} holds images that are made already; give `crop`, `frame` and `group_from` "
            "to 'hemascope data shard'."
        )
    spec = request.spec_for(manifest.image.size) if request.spec else manifest.image
    if (asked.image_size or spec.size) != manifest.image.size:
        raise DataError(
            f"{folder} holds images of {manifest.image.size} pixels, not of "
            f"{asked.image_size or spec.size}; write shards with another `image_size`."
        )
    found: dict[Split | None, list[LabeledImages]] = {}
    bad: list[BadFile] = []
    for shard in manifest.shards:
        file = folder / shard.file
        reason = "it is missing" if not file.is_file() else ""
        if file.is_file() and md5_of(file) != shard.md5:
            reason = f"it is damaged, as its md5 differs from that in {MANIFEST}"
        if reason:
            bad.append(BadFile(str(file), f"{shard.count:,} {shard.split} images: {reason}"))
        else:
            found.setdefault(shard.split, []).append(_map(file, manifest.image.size))
    check_bad(bad, request)
    if not found:
        raise DataError(f"{folder} has no shard that is whole; write the shards again.")
    md5 = md5_of(path)
    if bad:  # other data than the whole
        names = json.dumps([md5, *(Path(one.path).name for one in bad)])
        md5 = hashlib.md5(names.encode(), usedforsecurity=False).hexdigest()
    source = Source(
        manifest.title,
        str(folder),
        {split: _together(parts) for split, parts in found.items()},
        ClassSet(manifest.class_names),
        spec,
        md5,
        manifest.kind,
        manifest.collection,
        ordered=True,
        notes=manifest.notes,
    )
    return with_bad(source, bad)


def _write(part: LabeledImages, path: Path) -> None:
    pa = _arrow(path)
    pixels = np.ascontiguousarray(part.images[:])
    kind, buffers = pa.binary(pixels[0].size), [None, pa.py_buffer(pixels)]
    columns = {"images": pa.FixedSizeBinaryArray.from_buffers(kind, len(pixels), buffers)}
    for name in _columns():
        values = getattr(part, name)
        if values is not None:
            columns[name] = pa.array(list(values) if isinstance(values, tuple) else values.tolist())
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    with written_whole(path) as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def _map(path: Path, size: int) -> LabeledImages:
    """One shard; its pixels stay on disk, and the system keeps what it has room for."""
    pa = _arrow(path)
    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    pixels: NDArray[np.uint8] = np.frombuffer(batch.column("images").buffers()[1], dtype=np.uint8)
    values: dict[str, Any] = {}
    for name in _columns():
        if name in batch.schema.names:
            column = batch.column(name).to_pylist()
            is_array = name in ("labels", "sizes", "weights")
            values[name] = np.array(column) if is_array else tuple(column)
    return LabeledImages(images=pixels.reshape(-1, size, size, 3), **values)


def _together(parts: list[LabeledImages]) -> LabeledImages:
    """The shards of a split as one; no pixel is read."""
    others = [replace(part, images=part.images[:0]) for part in parts]
    return replace(concatenate(others), images=stored([part.images for part in parts]))


def _columns() -> Iterator[str]:
    return (one.name for one in fields(LabeledImages) if one.name != "images")


def _arrow(path: Path) -> Any:
    try:
        import pyarrow as pa
    except ModuleNotFoundError as error:
        raise DataError(
            f"{path}: shards need pyarrow; run pip install 'hemascope[scale]'."
        ) from error
    return pa
