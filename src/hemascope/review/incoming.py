"""Cells come into a case, and are answered."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hemascope.core.fit import LaboratoryFit
from hemascope.core.framing import Cell as Found
from hemascope.core.framing import spread
from hemascope.core.image_spec import Look
from hemascope.data.walk import PassedOver
from hemascope.inference.last_layer import LEAST_TO_MOVE
from hemascope.inference.stream import Reply, answer_stream
from hemascope.report.answers import shift_sentence
from hemascope.review import schemas as told
from hemascope.review.cases import Sitting, changing, reading
from hemascope.review.database import Case, Cell, Reading, Seen, StoredImage
from hemascope.review.images import Encoded, encoded
from hemascope.review.intake import Files, received, stored_item
from hemascope.review.problems import Refused
from hemascope.review.station import Station
from hemascope.store.answers import row_of

_AT_ONCE = 64  # pictures of an upload that are stored in one transaction
_OF_ANSWER = ("confidence", "prediction_set", "probs", "warning", "distance", "note")


def add_files(station: Station, case_id: str, reader_id: str, files: Files) -> told.Added:
    """Takes in uploaded files; what the case holds already is not taken twice.

    Raises:
        Refused: If the case is signed or full, or the files are more than may come at once.
    """
    with reading(station, case_id, reader_id) as at:
        at.changer()
    passed, ids, count = PassedOver(), list[str](), 0

    def prepared() -> Iterator[tuple[Cell, Encoded | None]]:
        for one in received(files, station.limits, passed):
            cell, made = Cell(case_id=case_id, key=one.key, name=one.name, error=one.error), None
            if one.picture:
                with station.turn():
                    made = encoded(one.picture.image)
                    look = station.predictor.spec.look(one.picture.image)
                station.images.add(made)
                cell.image, cell.look = made.sha256, asdict(look)
                cell.note = "; ".join(one.picture.notes)
            yield cell, made

    coming = prepared()
    while batch := list(islice(coming, _AT_ONCE)):
        count += len(batch)
        with changing(station, case_id, reader_id) as at:
            ids += _store(at, batch)
    with reading(station, case_id, reader_id) as at:
        cells = at.cells(ids)
    known, notes = count - len(ids), list(passed.notes())
    return told.Added(added=len(ids), known=known, passed_over=notes, cells=cells)


def _store(at: Sitting, batch: Sequence[tuple[Cell, Encoded | None]]) -> list[str]:
    """Adds images to a case: the ids of those that it did not hold."""
    at.changer()
    mine, most = Cell.case_id == at.case.id, at.station.limits.max_cells
    sent = [cell.key for cell, _ in batch]
    keys = set(at.session.scalars(select(Cell.key).where(mine, Cell.key.in_(sent))))
    last = at.session.scalar(select(func.max(Cell.position)).where(mine))
    place = 0 if last is None else last + 1
    new = list[Cell]()
    for cell, made in batch:
        if cell.key in keys:
            continue
        keys.add(cell.key)
        cell.position = place + len(new)
        if cell.position >= most:
            raise Refused(413, f"a case may hold {most:,} cells; begin another.", field="file")
        if made:
            _note_image(at.station, at.session, made)
        at.session.add(cell)
        new.append(cell)
    if new:
        at.record("added", detail=f"{len(new)} images")
        at.case.second_finished = False  # who has not seen these
    at.session.flush()
    return [cell.id for cell in new]


def _note_image(station: Station, session: Session, made: Encoded) -> None:
    """Makes an image known, and sees that its file is there: a case being deleted may take it."""
    if session.get(StoredImage, made.sha256) is None:
        try:
            with session.begin_nested():
                session.add(StoredImage(sha256=made.sha256, num_bytes=len(made.content)))
        except IntegrityError:  # another process was first
            session.get(StoredImage, made.sha256)
    station.images.add(made)


def analyze(station: Station, case_id: str, reader_id: str) -> Generator[dict[str, Any]]:
    """Answers the cells of a case that have none yet: a message for each batch, one at the end."""
    with reading(station, case_id, reader_id) as at:
        model = at.case.model
        if at.reader and model["sha256"] != station.model.sha256 and not at.case.signed_at:
            why = f"this case is read with {model['name']}, the station runs {station.model.name}"
            raise Refused(409, f"{why}; start it with that model, or begin another case.")
        framing = station.predictor.spec.digest
        if at.reader and model.get("framing", framing) != framing and not at.case.signed_at:
            why = "this case was begun with another `frame` than the station was started with"
            raise Refused(409, f"{why}; start it with that one, or begin another case.")
    fit = None
    if station.predictor.spec.is_undecided:
        _begin_again(station, case_id, reader_id)
        fit = _decide(station, case_id)
    mine = Cell.case_id == case_id
    with station.database.read() as session:
        query = select(Cell.position, Cell.name, Cell.image).where(mine, Cell.answer.is_(None))
        query = query.where(Cell.image.is_not(None)).order_by(Cell.position)
        rows = session.execute(query).all()
        total = session.scalar(select(func.count()).where(mine)) or 0
    items = [(place, stored_item(name, station.images.path(str(sha)))) for place, name, sha in rows]
    done = total - len(items)
    stream = answer_stream(station.predictor, items, threads=station.threads, fit=fit)
    with closing(stream) as replies:
        for batch in replies:
            with changing(station, case_id, reader_id) as at:
                is_so = fit is None or at.case.fit == fit  # or another process began again
                cells = _keep(at, {reply.number: reply for reply in batch if is_so})
            done += len(batch)
            said = [one.model_dump(by_alias=True) for one in cells]
            yield {"cells": said, "done": done, "total": total}
    with changing(station, case_id) as at:
        if items:
            at.case.shift = _shift(at)
            at.case.version += 1
        shift = at.case.shift
    said = station.predictor.describe(fit) if fit else ""
    yield {"complete": True, "done": done, "total": total, "frame": said, "shift": shift}


def _begin_again(station: Station, case_id: str, reader_id: str) -> None:
    """Forgets what too few images decided, and answers by it, where more came and nobody read."""
    with changing(station, case_id, reader_id) as at:
        of_case = Cell.case_id == case_id
        query = select(Cell).where(of_case, Cell.answer.is_not(None)).limit(LEAST_TO_MOVE)
        answered = at.session.scalars(query).all()
        waiting = select(Cell.id).where(of_case, Cell.answer.is_(None), Cell.image.is_not(None))
        if not 0 < len(answered) < LEAST_TO_MOVE or not at.session.scalar(waiting.limit(1)):
            return
        read = select(Reading.cell_id).join(Cell, Cell.id == Reading.cell_id).where(of_case)
        seen = select(Seen.case_id).where(Seen.case_id == case_id)
        touched = any(at.session.scalar(query.limit(1)) for query in (read, seen))
        if touched or at.case.signed_at:
            return
        at.case.frame = None
        at.record("answered again", detail=f"{len(answered)} images, with those that came since")
        for cell in answered:
            cell.note = cell.note.removesuffix((cell.answer or {}).get("note", "")).rstrip("; ")
            cell.answer, cell.features, cell.predicted_class = None, None, None
            cell.error, cell.abstain = "", True


def _decide(station: Station, case_id: str) -> LaboratoryFit:
    """How the images of a case are framed and answered: decided once, kept with the case.

    Of fewer than `LEAST_TO_MOVE` images it is decided again when more come; see `_begin_again`.
    """
    with station.database.read() as session:
        query = select(Cell.name, Cell.image, Cell.look).where(Cell.case_id == case_id)
        rows = session.execute(query.where(Cell.image.is_not(None)).order_by(Cell.name)).all()
        kept = session.scalar(select(Case.frame).where(Case.id == case_id))
    if kept:
        return LaboratoryFit.model_validate(kept)
    predictor = station.predictor
    looks = [Look(Found(**look["cell"]), look["known"]) for *_, look in spread(rows) if look]
    stored = [stored_item(name, station.images.path(str(sha))) for name, sha, _ in rows]
    frame = predictor.spec.decide_by(looks)
    fit = predictor.fit([item.read for item in stored], frame) or LaboratoryFit()
    with changing(station, case_id) as at:
        at.case.frame = at.case.frame or fit.model_dump(mode="json")
        return at.case.fit


def _keep(at: Sitting, replies: dict[int, Reply]) -> list[told.CellInfo]:
    """Keeps answers to cells that have none yet; all of these cells as they are now."""
    query = select(Cell).where(Cell.case_id == at.case.id, Cell.position.in_(replies))
    cells = at.session.scalars(query).all()
    came = set[str]()
    for cell in cells:
        if cell.answer is not None:
            continue
        reply = replies[cell.position]
        row = row_of(cell.name, reply.answer, at.station.predictor.class_names)
        cell.note = "; ".join(filter(None, [cell.note, row.note]))
        cell.error, cell.abstain = row.error, row.abstain
        cell.predicted_class = row.predicted_class or None
        cell.answer = {name: getattr(row, name) for name in _OF_ANSWER if not row.error}
        if not row.abstain:  # or a reader names it, and sees it then
            came.add(row.predicted_class)
        if reply.features is not None:
            cell.features = reply.features.astype(np.float16).tobytes()
    of_case = Seen.case_id == at.case.id  # nobody has looked through the classes of new cells
    at.session.execute(delete(Seen).where(of_case, Seen.class_name.in_(came)))
    return at.cells([cell.id for cell in cells])


def _shift(at: Sitting) -> str:
    """A sentence where the laboratory is unlike those of training."""
    query = select(Cell.predicted_class, Cell.answer).where(Cell.case_id == at.case.id)
    cells = at.session.execute(query.where(Cell.predicted_class.is_not(None)))
    found = [(str(name), answer["distance"]) for name, answer in cells if answer]
    shift = at.station.predictor.shift([far for _, far in found], [name for name, _ in found])
    unlike = shift and shift_sentence(shift)
    remedy = "fit the model to it with labeled cells, such as those you sign."
    return f"{unlike}: {remedy}" if unlike else ""
