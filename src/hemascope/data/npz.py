"""Reads .npz files: MedMNIST's layout `{train,val,test}_{images,labels}`, or `images`, `labels`."""

import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from hemascope.core.classes import ClassSet, Split, split_named
from hemascope.core.errors import DataError
from hemascope.core.framing import spread
from hemascope.core.image_spec import ImageSpec
from hemascope.core.images import LabeledImages
from hemascope.data.collections import collection, collections, recognized, with_aliases
from hemascope.data.source import Request, Source, check_labels, no_zero, prepared
from hemascope.store.files import md5_of

_BAD_FILE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
    *(NotImplementedError, RuntimeError, UnicodeDecodeError),
)
_BAD_ARRAY = (
    *(ValueError, TypeError, SyntaxError, OverflowError, MemoryError),
    *(RecursionError, tokenize.TokenError),
)
_MAX_ROW_BYTES = 75_000_000  # of one image
_MIN_SIZE = 8  # the study's CNN halves an image three times
_CHANNELS = {1, 3, 4}
_EXPECTED = (
    "expected uint8 images (N, H, W, 3), (N, 3, H, W) or (N, H, W) and a label for each, in "
    "MedMNIST's arrays train_images, train_labels, ..."
)


def read_npz(path: Path, request: Request) -> Source:
    """Reads all splits of an .npz file.

    What its labels mean is said by an array `class_names`, by the file's md5 where it is a
    published collection's, or by the request.

    Raises:
        DataError: If the file is missing, truncated or not an .npz; an array in it is missing,
            empty, or of the wrong shape, type or range; or nothing says what its labels mean.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}; give the path of an .npz file.")
    with _opened(path) as archive:
        stems = _stems(archive, path)
        parts = {split: _read_part(archive, stem, path) for split, stem in stems.items()}
        names = _read_texts(archive, "class_names", path)
        unused = [
            key
            for key in _keys(archive)
            if key.endswith("images") and key.removesuffix("images") not in stems.values()
        ]
    md5 = md5_of(path)
    if known := recognized(md5):
        key, kind = known
        title, classes = collection(key).title_of(kind), collection(key).class_set
    else:
        key, kind, title = "", "other", f"{path.name} (.npz file)"
        classes = _classes(names, request, path)
    labels = np.concatenate([part.labels for part in parts.values()])
    check_labels(labels, len(classes), path)
    spec, notes = _spec(parts, request, key), list[str]()
    if unused:
        notes.append(f"Arrays that were not used: {', '.join(unused)}.")
    notes += [] if known else no_zero(labels, classes.names)
    if num_clear := sum(
        int((part.images[..., 3] < 255).any(axis=(1, 2)).sum())
        for part in parts.values()
        if part.images.shape[3] == 4
    ):
        notes.append(f"{num_clear:,} image(s): transparent parts are shown on white.")
    if any(part.images.shape[3] == 1 for part in parts.values()):
        notes.append("The images are grayscale; R, G and B are equal.")
    if request.settings.group_from:
        notes.append(
            "`group_from` is not used: an .npz file holds no files; what images come from is said "
            "by its arrays train_groups, ..., if there are any."
        )
    first = next(iter(parts.values())).images  # decides for all splits
    frame = spec.decide(Image.fromarray(one) for one in _as_rgb(np.stack(spread([*first]))))
    framed = spec.framed(frame) if frame else spec
    notes += [frame.describe()] if frame else []
    read: dict[Split | None, LabeledImages] = {}
    for split, part in parts.items():
        images, changed = prepared(_as_rgb(part.images), framed)
        notes += [f"{split or 'images'}: {note}" for note in changed]
        read[split] = LabeledImages(images, part.labels, part.ids, part.names, part.groups)
    return Source(
        title,
        str(path),
        read,
        classes,
        spec,
        md5,
        kind,
        key,
        ordered=True,
        notes=tuple(notes),
        frames=(frame,) if frame else (),
    )


def rows_of(path: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Every image of an .npz file, one at a time: `test/12` of `test_images`, `12` of `images`.

    Yields:
        Its id and its pixels, shape (H, W), (H, W, 3) or (H, W, 4).

    Raises:
        DataError: If the file is not whole, or an array in it is of another shape or type.
    """
    with _opened(path) as archive:
        found = [key for key in _keys(archive) if key == "images" or key.endswith("_images")]
        if not found:
            raise DataError(f"{path} has no array 'images' or '..._images'; {_EXPECTED}.")
        for key in found:
            split = key.removesuffix("images").replace("_", "/")
            for i, image in enumerate(_read_rows(archive, key, path)):
                yield f"{split}{i}", image


def _classes(names: tuple[str, ...], request: Request, path: Path) -> ClassSet:
    """What the labels of a file mean that is not a published collection's.

    Raises:
        DataError: If nothing says it.
    """
    asked = request.named
    if names and asked and all(name.isdecimal() for name in names):
        names = ()  # numbers of classes, which are asked for by name
    if names and request.settings.classes and asked:
        meant, labels = [asked.index(name) for name in names], [*range(len(asked))]
        if meant != labels and {*meant} == {*labels}:
            raise DataError(
                f"{path} says by its class_names that its labels mean {', '.join(names)}, and "
                f"`classes` says {', '.join(asked.names)}: leave `classes` out, or correct the "
                "array."
            )
    # The file's own come before a collection's, whose order may be another.
    if known := with_aliases(names) if names else asked:
        if twice := known.repeated():
            raise DataError(f"{path}: class_names names one class twice: {', '.join(twice)}.")
        return known
    raise DataError(
        f"nothing says what the labels of {path} mean: add an array 'class_names' to it, or give "
        "`classes` (a,b,c in the order of the labels) or `collection` (one of "
        f"{', '.join(collections())})."
    )


def _spec(parts: dict[Split | None, LabeledImages], request: Request, key: str) -> ImageSpec:
    """How photos become images like these: of a collection by its recipe, else by their size."""
    shapes = {part.images.shape[1:3] for part in parts.values()}
    height, width = next(iter(shapes))
    own = height if len(shapes) == 1 and height == width <= 1024 else None
    spec = request.spec_for(own)
    if request.spec or request.settings.crop or request.settings.collection:
        return spec
    if key:
        return collection(key).spec(spec.size)
    return spec.model_copy(update={"photo_size": min(height, width)})


def _keys(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist()]


def _stems(archive: zipfile.ZipFile, path: Path) -> dict[Split | None, str]:
    """How the names of each split's arrays begin."""
    keys = _keys(archive)
    found: dict[Split | None, str] = {}
    for key in keys:
        stem, _, what = key.rpartition("_")
        split = split_named(stem)
        if what == "images" and (split or not stem):
            if split in found:
                raise DataError(f"{path} has several arrays for {split}; keep one of each.")
            found[split] = f"{stem}_" if stem else ""
    if not found:
        raise DataError(f"{path} has no array of images ({', '.join(keys[:9])}); {_EXPECTED}.")
    return {split: found[split] for split in (*Split, None) if split in found}


def _read_part(archive: zipfile.ZipFile, stem: str, path: Path) -> LabeledImages:
    """The images of one split with the channels last, which may be one."""
    images = _read_array(archive, f"{stem}images", path)
    where = f"{path}: {stem}images"
    _check_images(images.shape, images.dtype, where)
    images = np.ascontiguousarray(_channels_last(images))
    if len(images) == 0:
        raise DataError(f"{where} is empty; every split needs at least one image.")
    if min(images.shape[1:3]) < _MIN_SIZE:
        raise DataError(f"{where} are {min(images.shape[1:3])} pixels wide; at least 8 are needed.")
    count = len(images)
    labels = _labels(_read_array(archive, f"{stem}labels", path), count, f"{path}: {stem}labels")
    ids = tuple(f"{stem.replace('_', '/')}{i}" for i in range(count))
    names, groups = (
        _read_texts(archive, f"{stem}{what}", path, count) for what in ("names", "groups")
    )
    return LabeledImages(images, labels, ids, names or None, groups or None)


def _check_images(shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> None:
    if dtype != np.uint8:
        raise DataError(
            f"{where} has type {dtype}; {_EXPECTED}. "
            "Scale brightness to 0 to 255 and convert it by .astype('uint8')."
        )
    if len(shape) == 3 and shape[2] in (3, 4):
        raise DataError(f"{where} has shape {shape}, as one image has; write it as (1, H, W, 3).")
    if len(shape) != 3 and not (len(shape) == 4 and {shape[1], shape[3]} & _CHANNELS):
        raise DataError(f"{where} has shape {shape}; {_EXPECTED}.")


def _channels_last(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images (N, H, W), (N, H, W, C) or (N, C, H, W) as (N, H, W, C)."""
    if images.ndim == 3:
        return images[..., None]
    return images if images.shape[3] in _CHANNELS else images.transpose(0, 2, 3, 1)


def _labels(labels: NDArray[Any], count: int, where: str) -> NDArray[np.int64]:
    """Whole numbers (N,) from labels (N,), (N, 1), or one-hot (N, C)."""
    if labels.dtype.kind in "US":
        raise DataError(
            f"{where} are texts, such as {labels.ravel()[:1].astype(str).tolist()}; write whole "
            "numbers, and what they mean as the array 'class_names'."
        )
    if labels.dtype.kind not in "iubf" or labels.shape[:1] != (count,) or labels.ndim > 2:
        raise DataError(
            f"{where} has shape {labels.shape} and type {labels.dtype}, but there are {count} "
            "images; expected a whole number for each, or one-hot rows."
        )
    if labels.ndim == 2 and labels.shape[1] > 1:
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise DataError(
                f"{where} has shape {labels.shape}, and not every row is one-hot; images with "
                "several labels, or none, cannot be read."
            )
        return labels.argmax(axis=1).astype(np.int64)
    flat = labels.reshape(count)
    whole = np.isfinite(flat) & (flat == np.trunc(flat))
    if not whole.all():
        raise DataError(f"{where} holds {flat[~whole][0]}; expected integers.")
    return flat.astype(np.int64)


def _as_rgb(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images (N, H, W, C) with three channels; what is transparent is shown on white."""
    if images.shape[3] == 1:
        return images.repeat(3, axis=3)
    if images.shape[3] == 4:
        alpha = images[..., 3:].astype(np.float32) / 255
        return np.rint(255 - alpha * (255 - images[..., :3].astype(np.float32))).astype(np.uint8)
    return images


def _read_texts(
    archive: zipfile.ZipFile, key: str, path: Path, count: int | None = None
) -> tuple[str, ...]:
    """An array of texts, one for each of `count` images; empty where there is none."""
    if f"{key}.npy" not in archive.namelist():
        return ()
    array = _read_array(archive, key, path)
    if array.dtype.kind not in "UiuS":
        raise DataError(f"{path}: {key} has type {array.dtype}; expected texts or integers.")
    if array.ndim == 0 or array.size != array.shape[0]:
        raise DataError(f"{path}: {key} has shape {array.shape}; expected one text for each.")
    array = array.ravel()
    if count not in (None, len(array)):
        raise DataError(f"{path}: {key} has {len(array)} entries; expected {count}, one each.")
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: {key} holds bytes that are not UTF-8: {error}.") from error
    return tuple(array.astype(str).tolist())


@contextmanager
def _opened(path: Path) -> Generator[zipfile.ZipFile]:
    """The file, whose damages are said in one sentence."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _BAD_FILE as error:
        raise DataError(
            f"{path} is not a whole .npz file ({error}); it may be truncated: fetch it again."
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from error


@contextmanager
def _member(
    archive: zipfile.ZipFile, key: str, path: Path
) -> Generator[tuple[IO[bytes], tuple[int, ...], bool, np.dtype[Any]]]:
    """One array after its header: shape, whether in Fortran's order, and type, which fit it."""
    try:
        member = archive.getinfo(f"{key}.npy")
        with archive.open(member) as file:
            is_first = npy.read_magic(file) == (1, 0)
            read_header = npy.read_array_header_1_0 if is_first else npy.read_array_header_2_0
            shape, fortran_order, dtype = read_header(file)
            nbytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if dtype.hasobject:
                raise ValueError("it holds Python objects")
            if file.tell() + nbytes != member.file_size:
                raise ValueError("its header does not fit its size")
            yield file, shape, fortran_order, dtype
    except KeyError:
        raise DataError(f"{path} has no array '{key}'; {_EXPECTED}.") from None
    except _BAD_ARRAY as error:
        raise DataError(
            f"{path}: the array '{key}' cannot be read ({error}); write the file again."
        ) from error


def _read_array(archive: zipfile.ZipFile, key: str, path: Path) -> NDArray[Any]:
    """One array; its header is checked against its size before any pixel is read."""
    with _member(archive, key, path), archive.open(f"{key}.npy") as file:
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)  # with no second copy
        file.read(1)  # reaching the end makes zipfile compare the checksum
        return array


def _read_rows(archive: zipfile.ZipFile, key: str, path: Path) -> Iterator[NDArray[np.uint8]]:
    with _member(archive, key, path) as (file, shape, fortran_order, dtype):
        _check_images(shape, dtype, f"{path}: {key}")
        nbytes = int(np.prod(shape[1:], dtype=object))
        if fortran_order:  # the bytes of an image do not lie together
            whole = _channels_last(_read_array(archive, key, path))
            yield from (one[..., 0] if one.shape[2] == 1 else one.copy() for one in whole)
            return
        if not 0 < nbytes <= _MAX_ROW_BYTES:
            raise ValueError("its images cannot be read one by one")
        for _ in range(shape[0]):
            row = np.frombuffer(file.read(nbytes), dtype=np.uint8)
            image = np.ascontiguousarray(_channels_last(row.reshape(1, *shape[1:]))[0])
            yield image[..., 0] if image.shape[2] == 1 else image
