"""Reads the MedMNIST file layout: `{train,val,test}_{images,labels}` in one .npz."""

import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hemascope.core.classes import BLOOD_CELLS, Split
from hemascope.core.errors import DataError
from hemascope.core.images import Dataset, LabeledImages
from hemascope.store.files import md5_of

OFFICIAL_MD5 = "7053d0359d879ad8a5505303e11de1dc"  # medmnist.INFO["bloodmnist"]["MD5"]
REBUILT_MD5 = "c0a772f8e159f0aa301c3ca29553bacc"

_OFFICIAL_TITLE = "BloodMNIST, official split (MedMNIST v2)"
_REBUILT_TITLE = "BloodMNIST pixels, rebuilt split (our own split, not the official one)"
_BAD_FILE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
    *(NotImplementedError, RuntimeError, UnicodeDecodeError),
)
_BAD_ARRAY = (
    *(ValueError, TypeError, SyntaxError, OverflowError, MemoryError),
    *(RecursionError, tokenize.TokenError),
)
_CHUNK_BYTES = 1 << 20
_MAX_ROW_BYTES = 75_000_000  # of one image
_MIN_SIZE = 8  # the study's CNN halves an image three times
_EXPECTED = "expected MedMNIST's layout, uint8 images (N, H, H, 3) and integer labels (N, 1)"


def read_npz(path: Path) -> Dataset:
    """Reads all three splits of a MedMNIST-layout file with BloodMNIST's eight classes.

    Raises:
        DataError: If the file is missing, truncated or not an .npz, or an array in it is missing,
            empty, or of the wrong shape, type or range.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}; give the path of a MedMNIST-layout .npz.")
    try:
        with zipfile.ZipFile(path) as archive:
            splits = {split: _read_split(archive, split, path) for split in Split}
    except _BAD_FILE as error:
        raise DataError(
            f"{path} is not a whole .npz file ({error}); it may be truncated: fetch it again."
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from error
    sizes = {images.images.shape[1] for images in splits.values()}
    if len(sizes) > 1:
        raise DataError(f"{path}: the splits have images of different sizes, {sorted(sizes)}.")
    md5 = md5_of(path)
    dataset = Dataset(f"{path.name} (MedMNIST layout)", splits, BLOOD_CELLS, str(path), md5)
    if md5 == OFFICIAL_MD5:
        return replace(dataset, title=_OFFICIAL_TITLE, kind="official")
    if md5 == REBUILT_MD5:
        return replace(dataset, title=_REBUILT_TITLE, kind="rebuilt")
    return dataset


def rows_of(path: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Every image of an .npz file, one at a time: `test/12` of `test_images`, `12` of `images`.

    Yields:
        Its id and its RGB pixels, shape (H, W, 3).

    Raises:
        DataError: If the file is not whole, or an array in it is of another shape or type.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            keys = [name.removesuffix(".npy") for name in archive.namelist()]
            found = [key for key in keys if key == "images" or key.endswith("_images")]
            if not found:
                raise DataError(f"{path} has no array 'images' or '..._images'; {_EXPECTED}.")
            for key in found:
                split = key.removesuffix("images").replace("_", "/")
                for i, image in enumerate(_read_rows(archive.getinfo(f"{key}.npy"), archive, path)):
                    yield f"{split}{i}", image
    except _BAD_FILE as error:
        raise DataError(f"{path} is not a whole .npz file ({error}).") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from error


def _read_rows(
    member: zipfile.ZipInfo, archive: zipfile.ZipFile, path: Path
) -> Iterator[NDArray[np.uint8]]:
    with archive.open(member) as file:
        try:
            shape, fortran_order, dtype = _read_header(file)
        except _BAD_ARRAY as error:
            raise DataError(f"{path}: '{member.filename}' cannot be read ({error}).") from error
        if len(shape) != 4 or shape[3] != 3 or fortran_order or dtype != np.uint8:
            raise DataError(
                f"{path}: '{member.filename}' has shape {shape} and type {dtype}; {_EXPECTED}."
            )
        nbytes = shape[1] * shape[2] * 3
        if not 0 < nbytes <= _MAX_ROW_BYTES or file.tell() + shape[0] * nbytes != member.file_size:
            raise DataError(f"{path}: the header of '{member.filename}' does not fit its size.")
        for _ in range(shape[0]):
            if len(row := file.read(nbytes)) < nbytes:
                raise DataError(f"{path}: '{member.filename}' ends early; write the file again.")
            yield np.frombuffer(row, dtype=np.uint8).reshape(shape[1:])


def _read_split(archive: zipfile.ZipFile, split: Split, path: Path) -> LabeledImages:
    images = _read_array(archive, f"{split}_images", path)
    labels = _read_array(archive, f"{split}_labels", path)
    where = f"{path}: {split}"
    if images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
        raise DataError(f"{where}_images has shape {images.shape}; {_EXPECTED}.")
    if images.dtype != np.uint8:
        raise DataError(f"{where}_images has type {images.dtype}; {_EXPECTED}.")
    if len(images) == 0:
        raise DataError(f"{where}_images is empty; every split needs at least one image.")
    if images.shape[1] < _MIN_SIZE:
        raise DataError(f"{where}_images are {images.shape[1]} pixels wide; at least 8 are needed.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{where}_labels has type {labels.dtype}; {_EXPECTED}.")
    if labels.shape not in ((len(images),), (len(images), 1)):
        raise DataError(
            f"{where}_labels has shape {labels.shape}, but there are {len(images)} images; "
            f"expected ({len(images)}, 1)."
        )
    labels = labels.ravel()
    if labels.min() < 0 or labels.max() >= len(BLOOD_CELLS):
        bad = labels[(labels < 0) | (labels >= len(BLOOD_CELLS))][0]
        raise DataError(f"{where}_labels holds the label {bad}; BloodMNIST's labels are 0 to 7.")
    ids = tuple(f"{split}/{i}" for i in range(len(images)))
    names, groups = (_read_texts(archive, f"{split}_{w}", ids, path) for w in ("names", "groups"))
    return LabeledImages(images, labels.astype(np.int64), ids, names, groups)


def _read_texts(
    archive: zipfile.ZipFile, key: str, ids: tuple[str, ...], path: Path
) -> tuple[str, ...] | None:
    """What the file says of each image beside its class; None where it says nothing."""
    if f"{key}.npy" not in archive.namelist():
        return None
    texts = _read_array(archive, key, path)
    if texts.size != len(ids) or texts.dtype.kind not in "UiuS":
        raise DataError(
            f"{path}: {key} has shape {texts.shape} and type {texts.dtype}; expected a text or a "
            f"whole number for each of the {len(ids)} images."
        )
    texts = texts.ravel()
    return tuple(
        (
            np.char.decode(texts, "utf-8", "replace")
            if texts.dtype.kind == "S"
            else texts.astype(str)
        ).tolist()
    )


def _read_array(archive: zipfile.ZipFile, key: str, path: Path) -> NDArray[Any]:
    """One array; its header is checked against its size before any pixel is read."""
    try:
        member = archive.getinfo(f"{key}.npy")
    except KeyError:
        raise DataError(f"{path} has no array '{key}'; {_EXPECTED}.") from None
    try:
        with archive.open(member) as file:
            shape, fortran_order, dtype = _read_header(file)
            nbytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if dtype.hasobject or file.tell() + nbytes != member.file_size:
                raise ValueError("its header does not fit its size")
            flat = np.empty(nbytes, dtype=np.uint8)
            view, start = memoryview(flat.data), 0
            while start < nbytes:  # straight into place: no second copy of the pixels
                count = file.readinto(view[start : start + _CHUNK_BYTES])  # type: ignore[attr-defined]
                if not count:
                    raise EOFError("it ends early")
                start += count
            file.read(1)  # reaching the end makes zipfile compare the checksum
            return flat.view(dtype).reshape(shape, order="F" if fortran_order else "C")
    except _BAD_ARRAY as error:
        raise DataError(
            f"{path}: the array '{key}' cannot be read ({error}); write the file again."
        ) from error


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file)
    return npy.read_array_header_2_0(file)
