"""What an image comes from, such as a patient, found in its file's name."""

import re
from collections.abc import Sequence
from dataclasses import replace

from hemascope.core.errors import UsageError
from hemascope.data.source import Record

FOLDER = "folder"  # what lies between the class folder and the file


def grouped(
    records: Sequence[Record], subfolders: Sequence[str], pattern: str
) -> tuple[list[Record], list[str]]:
    """Records with the group that a pattern finds in each file's name.

    Args:
        records: The records.
        subfolders: The folder inside the class folder that each file lies in, "" for none.
        pattern: A regular expression, whose first pair of parentheses (or all of it) is the group;
            or `FOLDER`.

    Returns:
        The records, and how many of them have no folder and are groups of their own.

    Raises:
        UsageError: If it is not a regular expression, or finds nothing in some names; or if no
            file lies in a folder.
    """
    if pattern == FOLDER:
        if not any(subfolders):
            raise UsageError(
                f"'{FOLDER}' finds no folder for any of {len(records):,} images; put each into one "
                "of its patient or slide, as CLASS/PATIENT/image.png, or give a pattern that finds "
                "the group in the file names.",
                field="group_from",
            )
        own = zip(records, subfolders, strict=True)
        alone = subfolders.count("")
        notes = (
            [f"{alone:,} image(s) lie in no folder of a group: each is its own."] if alone else []
        )
        return [replace(record, group=folder or record.id) for record, folder in own], notes
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"{pattern!r} is not a regular expression ({error}); give one such as '^([^_]+)_'.",
            field="group_from",
        ) from error
    found: list[Record] = []
    without: list[str] = []
    for record in records:
        match = expression.search(record.path.name)
        if match and (group := match[1 if expression.groups else 0]):
            found.append(replace(record, group=group))
        else:
            without.append(record.path.name)
    if without:
        raise UsageError(
            f"{pattern!r} finds nothing in {len(without):,} of {len(records):,} file names, such "
            f"as {without[0]}; every image needs a group.",
            field="group_from",
        )
    return found, []
