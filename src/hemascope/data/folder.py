"""Reads a folder of class folders of images, split or not."""

from dataclasses import replace
from pathlib import Path

from hemascope.core.classes import Split, split_named
from hemascope.core.errors import DataError
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.groups import FOLDER, grouped
from hemascope.data.source import Record, Request, Source, read_records
from hemascope.data.table import is_table, labels_of
from hemascope.data.walk import PassedOver, is_hidden, walk

_NO_CLASSES = {  # what folders are called that hold images of all classes, or what belongs to them
    *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "jpegimages"),
    *("mask", "masks", "annotation", "annotations", "data", "raw"),
}
_EXPECTED = "expected CLASS/*.jpg or {train,val,test}/CLASS/*.jpg"


def read_folder(path: Path, request: Request) -> Source:
    """Reads `path/CLASS/**`, split by folders in any spelling above or inside the class folders.

    Raises:
        DataError: If there is no class folder with an image, or images are damaged.
        UsageError: If no group can be found in a file's name.
    """
    passed, notes = PassedOver(), list[str]()
    top = _inside(path)
    if top != path:
        notes.append(f"The class folders are in {top.relative_to(path)}.")
    folders = _subfolders(top)
    splits = {folder: split for folder in folders if (split := split_named(folder.name))}
    if len(set(splits.values())) < len(splits):
        raise DataError(f"{top} has several folders for one split; keep one of each.")
    if splits and (others := [folder.name for folder in folders if folder not in splits]):
        notes.append(f"Folders beside the split folders were passed over: {', '.join(others)}.")
    records: list[Record] = []
    subfolders: list[str] = []
    places: dict[Path, Path] = {}
    damaged = dict(request.damaged)
    for root, split in splits.items() or [(top, None)]:
        own = _subfolders(root)
        _check_table(path, root, {folder.name for folder in own})
        for folder in own:
            place = folder.resolve()
            if (earlier := places.setdefault(place, folder)) != folder:
                raise DataError(
                    f"{path}: {earlier.relative_to(path)} and {folder.relative_to(path)} are one "
                    "folder, by a link; keep one of them."
                )
            found = list(walk(str(folder), passed))
            if not found:
                notes.append(f"The class folder {folder.relative_to(path)} has no image.")
            for name, error in found:
                file = Path(name)
                if error:
                    damaged[file] = error
                records.append(
                    Record(file.relative_to(path).as_posix(), file, folder.name.strip(), split)
                )
                subfolders.append(file.relative_to(folder).parent.as_posix().removeprefix("."))
        loose = PassedOver(wanted="in a class folder")
        for file in sorted(root.iterdir()):
            if file.is_file() and not is_hidden(file.name):
                loose.add(str(file))
        notes += loose.notes()
    if not records:
        raise DataError(f"{path} has no class folders with images; {_EXPECTED}.")
    inner = [split_named(name.partition("/")[0]) for name in subfolders]
    if not splits and any(inner) and (all(inner) or not request.settings.group_from):
        _check_inner(path, records, inner)
        notes.append("The splits are folders inside the class folders.")
        records = [replace(one, split=split) for one, split in zip(records, inner, strict=True)]
        subfolders = [name.partition("/")[2] for name in subfolders]
    _check_classes(path, records, subfolders)
    if request.settings.group_from:
        records, more = grouped(records, subfolders, request.settings.group_from)
        notes += more
    elif nested := [name for name in subfolders if name]:
        notes.append(
            f"{len(nested):,} image(s) are in folders inside their class folder, such as "
            f"{nested[0]}: if those are patients or slides, give `group_from` {FOLDER}."
        )
    title = f"{path.resolve().name} (folder of images)"
    notes += passed.notes()
    request = replace(request, damaged=damaged)
    return read_records(records, request, title=title, path=str(path), notes=notes)


def _check_inner(path: Path, records: list[Record], inner: list[Split | None]) -> None:
    """Refuses images beside the split folders of their class.

    Raises:
        DataError: If there are any.
    """
    if outside := [one.id for one, split in zip(records, inner, strict=True) if split is None]:
        raise DataError(
            f"class folders of {path} hold split folders, and {len(outside):,} image(s) are in "
            f"none of these, such as {outside[0]}: move them into one, or give `group_from` "
            f"{FOLDER} if the folders are patients or slides."
        )


def _check_table(path: Path, folder: Path, classes: set[str]) -> None:
    """Refuses images whose classes a table beside their folders knows better.

    Raises:
        DataError: If there is a table with more labels than folders, or folders that name no
            class.
    """
    for table in sorted(filter(is_table, folder.iterdir())):
        labels = labels_of(table)
        if not labels and {name.casefold() for name in classes} <= _NO_CLASSES:
            raise DataError(
                f"{path} has the folder(s) {', '.join(sorted(classes))}, which name no class, and "
                f"beside them {table.relative_to(path)}: call its columns path and label, and give "
                "the table."
            )
        if len(labels) > len(classes) and labels.isdisjoint(classes):
            raise DataError(
                f"{path} holds the table {table.relative_to(path)}, whose labels are not the names "
                f"of its folders ({', '.join(sorted(classes)[:5])}): give the table, or move it "
                "away."
            )


def _check_classes(path: Path, records: list[Record], subfolders: list[str]) -> None:
    """Refuses folders of class folders that are not splits: each would be taken for a class.

    Raises:
        DataError: If most images lie in folders that are called as cells are, inside others.
    """
    names = [name.partition("/")[0] for name in subfolders]
    is_cell = [BLOOD_CELLS.index(name) is not None for name in names]
    outer = sorted({record.label for record in records})
    if 2 * sum(is_cell) > len(records) and all(BLOOD_CELLS.index(n) is None for n in outer):
        inside = sorted({name for name, known in zip(names, is_cell, strict=True) if known})
        raise DataError(
            f"the folders {', '.join(outer[:5])} of {path} would each be a class, and hold folders "
            f"that are called as cells are ({', '.join(inside[:5])}): name one of them, call them "
            "train, val and test if they are splits, or write a table with a column 'group'."
        )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir() and not is_hidden(f.name))


def _inside(path: Path) -> Path:
    """The folder that holds class or split folders: `path`, or one that only wraps them."""
    top = path
    while len(folders := _subfolders(top)) == 1 and not split_named(folders[0].name):
        top = folders[0]
    return top if folders else path  # a single class may have a folder for its single patient
