"""Reads a folder of class folders of images, split or not, into labeled images."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.core.classes import BLOOD_CELLS, ClassSet, Split
from hemascope.core.errors import DataError
from hemascope.core.images import Dataset, LabeledImages, concatenate, pixels_md5
from hemascope.data import SplitHow
from hemascope.data.pictures import SUFFIXES, BadPictureError, middle, read_rgb

_ALIASES = {"ig": "immature granulocyte", "immature_granulocyte": "immature granulocyte"}
_SEED = 0  # order and split of a folder are part of the data, not of a run
_SHARES = {Split.VAL: 0.1, Split.TEST: 0.2}  # BloodMNIST's own 7 : 1 : 2


def read_folder(
    path: Path, *, image_size: int, split: SplitHow = "three", crop: float = 1.0
) -> Dataset:
    """Reads `path/CLASS/*` (split 7:1:2 within each class) or `path/{train,val,test}/CLASS/*`.

    The images are in an order that is shuffled once and always the same, so that training without
    shuffling does not see one class after another. With `split` "one" all images are one test
    split; "as found" keeps split folders, and else does the same.

    Every image becomes RGB, is cropped to the share `crop` of its central square and resized
    (bilinear) to `image_size`; how many needed it is said in the notes. If all class names are
    BloodMNIST's (`ig` counts as immature granulocyte), labels are BloodMNIST's; else the sorted
    names are.

    Raises:
        DataError: If a class folder has no image, an image cannot be read, or a class is too
            small to split.
    """
    if not path.is_dir():
        raise DataError(f"there is no folder {path}; give a folder of class folders of images.")
    split_folders = {split: path / split for split in Split if (path / split).is_dir()}
    if split_folders and len(split_folders) < len(Split):
        missing = ", ".join(split for split in Split if split not in split_folders)
        raise DataError(f"{path} has split folders but no {missing}; all three are needed.")
    roots = list(split_folders.values()) or [path]
    classes, folder_class = _class_set(roots)
    reader = _Reader(path, image_size, crop)
    parts = [reader.read(root, classes, folder_class) for root in roots]
    if split == "one" or (split == "as found" and not split_folders):
        splits = {Split.TEST: concatenate(parts)}
        notes = reader.notes()
    elif split_folders:
        splits = dict(zip(split_folders, parts, strict=True))
        notes = reader.notes()
    else:
        splits = split_stratified(parts[0], classes)
        notes = (*reader.notes(), "The folder has no train/val/test folders: split 7:1:2 by class.")
    title = f"{path.resolve().name} (folder of images)"
    md5 = pixels_md5(splits)
    return Dataset(title, splits, classes, str(path), md5, md5_of="pixels", notes=notes)


def split_stratified(images: LabeledImages, classes: ClassSet) -> dict[Split, LabeledImages]:
    """Splits 7:1:2 within each class, the same way every time.

    Raises:
        DataError: If a class has fewer than three images.
    """
    rng = np.random.default_rng(_SEED)
    chosen: dict[Split, list[NDArray[np.intp]]] = {split: [] for split in Split}
    for label, name in enumerate(classes.names):
        members = rng.permutation(np.flatnonzero(images.labels == label))
        if len(members) == 0:
            continue  # one of BloodMNIST's classes that this folder does not have
        if len(members) < len(Split):
            raise DataError(
                f"class '{name}' has {len(members)} image(s); a class needs at least 3 to be split."
            )
        num_val, num_test = (max(1, round(len(members) * share)) for share in _SHARES.values())
        chosen[Split.VAL].append(members[:num_val])
        chosen[Split.TEST].append(members[num_val : num_val + num_test])
        chosen[Split.TRAIN].append(members[num_val + num_test :])
    return {split: images.take(np.sort(np.concatenate(chosen[split]))) for split in Split}


def _class_set(roots: list[Path]) -> tuple[ClassSet, dict[str, str]]:
    """The classes of the folders, and which class each folder name is."""
    names = {e.name for root in roots for e in root.iterdir() if e.is_dir() and e.name[0] != "."}
    if not names:
        raise DataError(f"{roots[0]} has no class folders; expected one folder of images a class.")
    blood = {name: _ALIASES.get(name.lower(), name.lower()) for name in names}
    if set(blood.values()) <= set(BLOOD_CELLS.names):
        return BLOOD_CELLS, blood
    return ClassSet(tuple(sorted(names))), {name: name for name in names}


class _Reader:
    """Reads images to one size and mode, and counts what it had to change."""

    def __init__(self, base: Path, image_size: int, crop: float) -> None:
        self._base = base
        self._size = image_size
        self._crop = crop
        self._resized = self._converted = self._passed_over = 0

    def read(self, root: Path, classes: ClassSet, folder_class: dict[str, str]) -> LabeledImages:
        files: list[Path] = []
        labels: list[int] = []
        for folder in sorted(root / name for name in folder_class):
            entries = sorted(folder.iterdir()) if folder.is_dir() else []
            found = [e for e in entries if e.suffix.lower() in SUFFIXES and e.is_file()]
            if not found:
                raise DataError(f"the class folder {folder} has no image; add some or remove it.")
            self._passed_over += len(entries) - len(found)
            files += found
            labels += [classes.names.index(folder_class[folder.name])] * len(found)
        with ThreadPoolExecutor() as pool:
            read = list(pool.map(self._read_image, files))
        self._converted += sum(converted for _, converted, _ in read)
        sizes = np.array([size for _, _, size in read])
        self._resized += int((sizes != self._size).any(axis=1).sum())
        ids = tuple(file.relative_to(self._base).as_posix() for file in files)
        pixels = np.stack([image for image, _, _ in read])
        order = np.random.default_rng(_SEED).permutation(len(files))
        return LabeledImages(pixels, np.array(labels, dtype=np.int64), ids, sizes=sizes).take(order)

    def _read_image(self, file: Path) -> tuple[NDArray[np.uint8], bool, tuple[int, int]]:
        """The pixels, whether they were converted, and width and height in the file."""
        try:
            image, converted = read_rgb(file)
        except BadPictureError as error:
            raise DataError(
                f"the image {file} cannot be read ({error}); repair or remove it."
            ) from error
        side = max(round(min(image.size) * self._crop), 1)
        return middle(image, self._size, side), converted, image.size

    def notes(self) -> tuple[str, ...]:
        size = f"{self._size}x{self._size}"
        square, hint = f"{100 * self._crop:g} % of the central square", ""
        if self._crop == 1:
            square = "a square"
            hint = (
                " BloodMNIST's own were made from the central 200 of 360 pixels: its cells look "
                "larger, and a network trained on them fails on these."
            )
        facts = (
            (
                self._resized,
                f"image(s) were cropped to {square} and resized to {size}.{hint}",
            ),
            (self._converted, "image(s) were converted to RGB."),
            (self._passed_over, "file(s) that are not images were passed over."),
        )
        return tuple(f"{count} {text}" for count, text in facts if count)
