"""Reads a folder of class folders of images, split or not."""

from collections.abc import Sequence
from pathlib import Path

from hemascope.core.classes import Split, split_named
from hemascope.core.errors import DataError
from hemascope.data.groups import FOLDER, grouped
from hemascope.data.source import Record, Request, Source, read_records
from hemascope.data.walk import PassedOver, is_hidden, walk

_EXPECTED = "expected CLASS/*.jpg or {train,val,test}/CLASS/*.jpg"


def read_folder(path: Path, request: Request, *, title: str = "") -> Source:
    """Reads `path/CLASS/**` or `path/{train,val,test}/CLASS/**`, split folders in any spelling.

    Raises:
        DataError: If there is no class folder with an image, or images are damaged.
        UsageError: If no group can be found in a file's name.
    """
    passed = PassedOver()
    notes: list[str] = []
    top = _inside(path)
    if top != path:
        notes.append(f"The class folders are in {top.relative_to(path)}.")
    folders = _subfolders(top)
    splits = {folder: split for folder in folders if (split := split_named(folder.name))}
    if splits and len(set(splits.values())) < len(splits):
        raise DataError(f"{top} has several folders for one split; keep one of each.")
    roots: Sequence[tuple[Path, Split | None]] = list(splits.items()) or [(top, None)]
    if splits and (others := [folder.name for folder in folders if folder not in splits]):
        notes.append(f"Folders beside the split folders were passed over: {', '.join(others)}.")
    records: list[Record] = []
    subfolders: list[str] = []
    for root, split in roots:
        for folder in _subfolders(root):
            found = [Path(one.path) for one in walk(str(folder), passed)]
            if not found:
                notes.append(f"The class folder {folder.relative_to(path)} has no image.")
            for file in found:
                name = file.relative_to(path).as_posix()
                records.append(Record(name, file, folder.name, split))
                between = file.relative_to(folder).parent.as_posix()
                subfolders.append("" if between == "." else between)
        loose = PassedOver()
        for file in sorted(root.iterdir()):
            if file.is_file() and not is_hidden(file.name):
                loose.add(str(file))
        if loose.count:
            notes.append(f"Beside the class folders: {loose.notes()[0]}")
    if not records:
        raise DataError(f"{path} has no class folders with images; {_EXPECTED}.")
    if request.settings.group_from:
        records = grouped(records, subfolders, request.settings.group_from)
    elif nested := [name for name in subfolders if name]:
        notes.append(
            f"{len(nested):,} image(s) are in folders inside their class folder, such as "
            f"{nested[0]}: if those are patients or slides, give `group_from` {FOLDER}."
        )
    title = title or f"{path.resolve().name} (folder of images)"
    notes += passed.notes()
    return read_records(records, request, title=title, path=str(path), notes=notes)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir() and not is_hidden(f.name))


def _inside(path: Path) -> Path:
    """The folder that holds class or split folders: `path`, or one that only wraps them."""
    top = path
    while len(folders := _subfolders(top)) == 1 and not split_named(folders[0].name):
        top = folders[0]
    return top if folders else path  # a single class may have a folder for its single patient
