"""A case as files: CSV, JSON, a page to print, and signed cells as a data set.

No file's name as the client gave it leaves the station: cells are called by their number.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hemascope.core.errors import RESEARCH_USE_ONLY, DataError
from hemascope.report.numbers import UNKNOWN
from hemascope.report.page import environment
from hemascope.review import schemas as told
from hemascope.review.cases import Sitting, cells_of
from hemascope.review.database import Case, Cell, Database, Event, Reading, now
from hemascope.review.images import ImageStore
from hemascope.review.problems import Refused
from hemascope.review.schemas import NOT_COUNTED
from hemascope.settings.output import Output
from hemascope.store import files

_OF_READING = ("named", "confirmed", "taken back", "commented", "seen")  # lines of the trail
_SHOWN = {
    *("predicted_class", "confidence", "abstain", "warning", "note", "error", "read", "comment")
}


def case_json(first: Sitting) -> dict[str, Any]:
    """A case as its first reader has it: model, readers, counts, and each cell by its number.

    Raises:
        Refused: While a second reader is to be blind.
    """
    if first.case.is_blind:
        raise Refused(409, "a second reader is at work, and does not see the first one's answers.")
    left_out = {"classes", "seen", "unseen"}
    compared = first.agreement() if first.case.second_finished else None
    return {
        "notice": RESEARCH_USE_ONLY,
        "exported_at": now(),
        **first.info().model_dump(mode="json", by_alias=True, exclude=left_out),
        "agreement": compared and compared.model_dump(mode="json", by_alias=True),
        "cells": [
            {"number": one.position + 1, "class": one.class_name, **one.model_dump(include=_SHOWN)}
            for one in first.cells()
        ],
    }


def case_csv(content: dict[str, Any]) -> str:
    """The cells of `case_json`, a row each, with what the whole stands for in every row."""
    model, cells = content["model"], content["cells"]
    whole = {
        "case": content["name"],
        "status": content["status"],
        "signed_at": content["signed_at"] or "",
        "first_reader": content["first"]["name"],
        "second_reader": (content["second"] or {}).get("name", ""),
        "model": model["name"],
        "model_sha256": model["sha256"],
        "version": model["version"],
        "notice": content["notice"],
    }
    columns = [*(cells[0] if cells else {"number": ""}), *whole]
    rows = ([_plain(value) for value in {**cell, **whole}.values()] for cell in cells)
    return files.csv_text([columns, *rows])


def _plain(value: object) -> object:
    """A value that a spreadsheet does not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value


def _one(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1f}"


def report_page(content: dict[str, Any]) -> str:
    """A case as a page to print."""
    pages = environment(autoescape=True)
    pages.filters["one"] = _one
    return pages.get_template("differential.html.jinja").render(case=content)


def trail(session: Session, case_id: str) -> list[told.EventInfo]:
    """The audit trail of a case, also of a deleted one; while readers are blind, without theirs."""
    case = session.get(Case, case_id)
    query = select(Event).where(Event.case_id == case_id).order_by(Event.id)
    if case and case.is_blind:
        query = query.where(Event.kind.not_in(_OF_READING))
    return [told.EventInfo.model_validate(one) for one in session.scalars(query)]


def as_dataset(
    database: Database,
    images: ImageStore,
    cases: Sequence[str],
    output: Output,
    *,
    only_read: bool = False,
) -> str:
    """Writes signed cases as a table that `train` and `adapt` take, with the case as group.

    Args:
        database: Of the station.
        images: Of the station.
        cases: Ids or names; none for all that are signed.
        output: A new folder.
        only_read: Whether to leave out cells that no reader named: signed as the model said.

    Raises:
        DataError: If there is no such case, it is not signed, or an image is gone.
        OutputError: If the folder cannot be written.
    """
    with database.read() as session:
        signed = session.scalars(select(Case).where(Case.signed_at.is_not(None)))
        named = dict.fromkeys(_chosen(session, name) for name in cases)  # each once
        chosen = list(named) or list(signed)
        if not chosen:
            raise DataError("no case is signed: only signed cells become data.", field="case")
        rows: list[tuple[str, str, str]] = []
        left_out = Counter[str]()
        with files.made_out(output) as folder:
            told_of = {"notice": RESEARCH_USE_ONLY, "cases": [one.id for one in chosen]}
            files.write_json(folder / files.MARK, told_of)
            files.make_folder(folder / "images")
            for case in chosen:
                query = cells_of(case, case.first_id, Cell, Reading.class_name)
                for cell, name in map(tuple, session.execute(query)):
                    if cell.image is None or cell.final_class in (None, NOT_COUNTED):
                        left_out["unreadable" if cell.image is None else NOT_COUNTED] += 1
                        continue
                    if only_read and name is None:
                        left_out["signed as the model said"] += 1
                        continue
                    file = Path("images") / f"{cell.id}.png"
                    if not images.path(cell.image).is_file():
                        raise DataError(
                            f"the image of cell {cell.position + 1} of '{case.name}' is gone."
                        )
                    with files.explained(folder / file):
                        shutil.copyfile(images.path(cell.image), folder / file)
                    rows.append((str(file), str(cell.final_class), case.id))
            table = files.csv_text([("path", "label", "group"), *rows])
            files.write_text(folder / "cells.csv", table)
    lines = [f"{len(rows):,} cells of {len(chosen)} case(s): {output.folder / 'cells.csv'}"]
    lines += [f"Left out: {n:,} {why}." for why, n in sorted(left_out.items())]
    return "\n".join([*lines, f"Next: hemascope adapt MODEL --data {output.folder / 'cells.csv'}"])


def _chosen(session: Session, name: str) -> Case:
    found = list(session.scalars(select(Case).where((Case.id == name) | (Case.name == name))))
    if len(found) != 1:
        what = "no case" if not found else f"{len(found)} cases (give an id)"
        raise DataError(f"there is {what} called '{name}' in this station.", field="case")
    if not found[0].signed_at:
        raise DataError(f"the case '{name}' is not signed: sign it first.", field="case")
    return found[0]
