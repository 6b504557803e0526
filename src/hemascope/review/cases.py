"""Cases: cells come in, are answered, named by readers, counted, and signed.

Every function takes a session that reads, or one that writes: what it changes is kept whole with
its lines in the audit trail, or not at all.
"""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

import numpy as np
from sqlalchemy import and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hemascope.core.framing import Cell as Found
from hemascope.core.framing import Frame, spread
from hemascope.core.image_spec import Look
from hemascope.data.walk import PassedOver
from hemascope.inference.stream import Reply, answer_stream
from hemascope.report.answers import shift_sentence
from hemascope.review import schemas as told
from hemascope.review.database import (
    Case,
    Cell,
    Event,
    QuizCell,
    Reader,
    Reading,
    Seen,
    StoredImage,
    new_id,
    now,
)
from hemascope.review.differential import Counted, agreement, differential
from hemascope.review.images import Encoded, encoded
from hemascope.review.intake import Received, received, stored_item
from hemascope.review.problems import Refused, missing
from hemascope.review.schemas import NOT_COUNTED
from hemascope.review.station import Station

_ROUND = 6  # digits of probabilities, as in the files of `predict`
_AT_ONCE = 64  # pictures of an upload that are stored in one transaction
OF_READING = ("named", "confirmed", "taken back", "commented", "seen")  # lines of the trail
_LEAST_FOR_TEST = 20  # cells, to say of a laboratory that it is unlike the training ones


@dataclass(frozen=True)
class CellState:
    """A cell as a reader has it now: enough to count it."""

    id: str
    image: str | None
    is_waiting: bool
    error: str
    now: str
    predicted: str


# --- reading -------------------------------------------------------------------------------------


def find_case(session: Session, case_id: str, *, to_change: bool = False) -> Case:
    """A case; one that is to be changed is changed by nobody else meanwhile."""
    query = select(Case).where(Case.id == case_id)
    case = session.scalar(query.with_for_update() if to_change else query)
    if case is None:
        raise missing("case")
    return case


def find_reader(session: Session, reader_id: str) -> Reader:
    """A reader."""
    reader = session.get(Reader, reader_id)
    if reader is None:
        raise Refused(404, "there is no such reader.", field="reader")
    return reader


def role_in(case: Case, reader_id: str | None) -> str:
    """Which of the two readers somebody is; "" for neither."""
    return {case.first_id: "first", case.second_id: "second"}.get(reader_id, "")


def is_blind(case: Case) -> bool:
    """Whether a second reader is at work, who does not see the first one's answers."""
    return case.second_id is not None and not case.second_finished


def states(session: Session, case: Case, reader_id: str | None) -> list[CellState]:
    """All cells as a reader has them; as the model has them for nobody."""
    query = (
        select(
            Cell.id,
            Cell.image,
            Cell.error,
            Cell.answer.is_(None),
            Cell.predicted_class,
            Cell.abstain,
            Reading.class_name,
        )
        .outerjoin(Reading, and_(Reading.cell_id == Cell.id, Reading.reader_id == reader_id))
        .where(Cell.case_id == case.id)
        .order_by(Cell.position)
    )
    return [
        CellState(
            cell_id,
            image,
            bare and not error,
            error,
            _now(name, abstain, predicted),
            predicted or "",
        )
        for cell_id, image, error, bare, predicted, abstain, name in session.execute(query)
    ]


def _now(reading: str | None, abstain: bool, predicted: str | None) -> str:  # noqa: FBT001
    if reading is not None:
        return reading
    return "" if abstain else predicted or ""


def summaries(
    session: Session, limit: int, after: tuple[str, str] | None
) -> tuple[list[told.CaseSummary], tuple[str, str] | None]:
    """Cases, the newest first, and where the next page begins."""
    unidentified = (
        select(func.count())
        .select_from(Cell)
        .outerjoin(Reading, and_(Reading.cell_id == Cell.id, Reading.reader_id == Case.first_id))
        .where(
            Cell.case_id == Case.id,
            or_(
                Reading.class_name == "",
                and_(Reading.class_name.is_(None), Cell.abstain.is_(True)),
            ),
        )
        .correlate(Case)
        .scalar_subquery()
    )
    cells = select(func.count()).where(Cell.case_id == Case.id).correlate(Case).scalar_subquery()
    query = select(Case, cells, unidentified).order_by(Case.created_at.desc(), Case.id.desc())
    if after:
        at, case_id = after
        query = query.where(
            or_(Case.created_at < at, and_(Case.created_at == at, Case.id < case_id))
        )
    found = session.execute(query.limit(limit + 1)).all()
    lines = [
        told.CaseSummary.model_validate(
            {**case.values(), "status": _status(case), "num_cells": n, "num_unidentified": left}
        )
        for case, n, left in found[:limit]
    ]
    last = found[limit - 1][0] if len(found) > limit else None
    return lines, last and (last.created_at, last.id)


def info(station: Station, session: Session, case: Case, reader_id: str | None) -> told.CaseInfo:
    """A case as a reader sees it."""
    classes = station.classes(session, case.model)
    cells = states(session, case, reader_id)
    seen = _seen(session, case, cells, reader_id)
    readers = {
        one.id: told.ReaderInfo.model_validate(one.values())
        for one in session.scalars(
            select(Reader).where(Reader.id.in_([case.first_id, case.second_id, case.signed_by]))
        )
    }
    signer, role = readers.get(case.signed_by or ""), role_in(case, reader_id)
    return told.CaseInfo.model_validate(
        {
            **case.values(),
            "status": _status(case),
            "signed_by": signer and signer.name,
            "frame": Frame.model_validate(case.frame).describe() if case.frame else "",
            "first": readers[case.first_id],
            "second": readers.get(case.second_id or ""),
            "role": role,
            "classes": classes,
            "counts": {
                "cells": len(cells),
                "waiting": sum(one.is_waiting for one in cells),
                "unreadable": sum(bool(one.error) for one in cells),
                "unidentified": sum(not one.now for one in cells),
            },
            "seen": seen.seen,
            "unseen": seen.unseen,
            "blockers": _blockers(case, cells, seen, for_second=role == "second"),
            "differential": count(classes, cells),
        }
    )


def _status(case: Case) -> str:
    return "signed" if case.signed_at else "open"


def count(classes: Sequence[told.ClassInfo], cells: Iterable[CellState]) -> told.Differential:
    """The differential of cells."""
    return differential(classes, [Counted(one.id, one.now, one.predicted) for one in cells])


def _seen(
    session: Session, case: Case, cells: Iterable[CellState], reader_id: str | None
) -> told.SeenInfo:
    marked = set(
        session.scalars(
            select(Seen.class_name).where(Seen.case_id == case.id, Seen.reader_id == reader_id)
        )
    )
    there = sorted({one.now for one in cells} - {"", NOT_COUNTED})
    return told.SeenInfo(
        seen=[one for one in there if one in marked],
        unseen=[one for one in there if one not in marked],
    )


def _blockers(
    case: Case, cells: Sequence[CellState], seen: told.SeenInfo, *, for_second: bool = False
) -> list[str]:
    """Why a reading is not done yet."""
    waiting = sum(one.is_waiting for one in cells)
    unidentified = sum(not one.now for one in cells) - waiting
    found: list[str] = []
    if not cells:
        found.append("There are no cells.")
    if waiting:
        found.append(f"{waiting} cells are not analyzed yet.")
    if unidentified:
        found.append(f"{unidentified} cells are unidentified.")
    if seen.unseen:
        found.append(f"Not looked through yet: {', '.join(seen.unseen)}.")
    if is_blind(case) and not for_second:
        found.append("The second reader has not finished.")
    return found


_READING = (Reading.class_name, Reading.comment)


def cell_infos(
    session: Session,
    case: Case,
    reader_id: str | None,
    *,
    ids: Sequence[str] | None = None,
    after: int = -1,
    limit: int | None = None,
) -> list[told.CellInfo]:
    """Cells of a case in order, as a reader sees them."""
    query = (
        select(Cell, *_READING)
        .outerjoin(Reading, and_(Reading.cell_id == Cell.id, Reading.reader_id == reader_id))
        .where(Cell.case_id == case.id, Cell.position > after)
        .order_by(Cell.position)
        .limit(limit)
    )
    if ids is not None:
        query = query.where(Cell.id.in_(ids))
    return [_cell_info(*row) for row in session.execute(query)]


def _cell_info(cell: Cell, name: str | None, comment: str | None) -> told.CellInfo:
    return told.CellInfo.model_validate(
        {
            **told.NO_ANSWER,
            **(cell.answer or {}),
            **cell.values(),
            "image": cell.image and image_url(cell.image),
            "thumbnail": cell.image and thumbnail_url(cell.image),
            "predicted_class": cell.predicted_class or "",
            "class_name": _now(name, cell.abstain, cell.predicted_class),
            "read": bool(name),
            "comment": comment or "",
        }
    )


def image_url(digest: str) -> str:
    """Where the page finds an image."""
    return f"/api/v1/images/{digest}.png"


def thumbnail_url(digest: str) -> str:
    """Where the page finds its small copy."""
    return f"/api/v1/images/{digest}.jpg"


# --- cells come in -------------------------------------------------------------------------------


def create(station: Station, session: Session, new: told.NewCase, key: str | None) -> Case:
    """A new case; the one that was made with the same key, if there is one."""
    find_reader(session, new.reader)
    if key and (known := session.scalar(select(Case).where(Case.creation_key == key))):
        if (known.name, known.first_id) != (new.name, new.reader):
            raise Refused(
                409, "this Idempotency-Key made another case; use a new one for a new case."
            )
        return known
    case = Case(
        id=new_id(),
        name=new.name,
        model=station.described_model(),
        first_id=new.reader,
        creation_key=key,
    )
    session.add(case)
    session.flush()
    _record(session, case, "created", new.reader)
    return case


def add_files(
    station: Station, case_id: str, reader_id: str, files: list[tuple[str, BinaryIO]]
) -> told.Added:
    """Takes in uploaded files; what the case holds already is not taken twice.

    Raises:
        Refused: If the case is signed or full, or the files are more than may come at once.
    """
    with station.database.read() as session:
        case = find_case(session, case_id)
        find_reader(session, reader_id)
        _check_open(case)
    passed, ids, known = PassedOver(), list[str](), 0
    batch: list[tuple[Received, Encoded | None, Look | None]] = []

    def keep() -> None:
        nonlocal known
        added, again = _store(station, case_id, reader_id, batch)
        ids.extend(added)
        known += again
        batch.clear()

    for one in received(files, station.limits, passed):
        picture = one.picture
        with station.turn():
            made = encoded(picture.image) if picture else None
            look = station.predictor.spec.look(picture.image) if picture else None
        if made:
            station.images.add(made)
        batch.append((one, made, look))
        if len(batch) == _AT_ONCE:
            keep()
    keep()
    with station.database.read() as session:
        case = find_case(session, case_id)
        cells = cell_infos(session, case, reader_id, ids=ids)
    return told.Added(added=len(ids), known=known, passed_over=list(passed.notes()), cells=cells)


def _store(
    station: Station,
    case_id: str,
    reader_id: str,
    batch: Sequence[tuple[Received, Encoded | None, Look | None]],
) -> tuple[list[str], int]:
    """Adds images to a case in one transaction: the ids of new ones, the number of known ones."""
    if not batch:
        return [], 0
    with station.database.write() as session:
        case = find_case(session, case_id, to_change=True)
        _check_open(case)
        keys = set(
            session.scalars(
                select(Cell.key).where(
                    Cell.case_id == case_id, Cell.key.in_([one.key for one, _, _ in batch])
                )
            )
        )
        highest = session.scalar(select(func.max(Cell.position)).where(Cell.case_id == case_id))
        position = -1 if highest is None else highest
        ids: list[str] = []
        for one, made, look in batch:
            if one.key in keys:
                continue
            keys.add(one.key)
            position += 1
            if position >= station.limits.max_cells:
                most = station.limits.max_cells
                raise Refused(413, f"a case may hold {most:,} cells; begin another.", field="file")
            if made:
                _note_image(station, session, made)
            cell = Cell(
                id=new_id(),
                case_id=case_id,
                position=position,
                key=one.key,
                name=one.name,
                image=made and made.sha256,
                error=one.error,
                note="; ".join(one.picture.notes) if one.picture else "",
                look=look and asdict(look),
            )
            session.add(cell)
            ids.append(cell.id)
        if ids:
            _record(session, case, "added", reader_id, detail=f"{len(ids)} images")
    return ids, len(batch) - len(ids)


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
    with station.database.read() as session:
        case = find_case(session, case_id)
        find_reader(session, reader_id)
        if case.model["sha256"] != station.model.sha256 and not case.signed_at:
            raise Refused(
                409,
                f"this case is read with {case.model['name']}, the station runs "
                f"{station.model.name}; start it with that model, or begin another case.",
            )
    spec = station.predictor.spec
    frame = _decide(station, case_id) if spec.is_undecided else None
    with station.database.read() as session:
        rows = session.execute(
            select(Cell.position, Cell.name, Cell.image)
            .where(Cell.case_id == case_id, Cell.answer.is_(None), Cell.image.is_not(None))
            .order_by(Cell.position)
        ).all()
        total = session.scalar(select(func.count()).where(Cell.case_id == case_id)) or 0
    items = [(place, stored_item(name, station.images.path(str(sha)))) for place, name, sha in rows]
    done = total - len(items)
    stream = answer_stream(station.predictor, items, threads=station.threads, frame=frame)
    with closing(stream) as replies:
        for batch in replies:
            cells = _keep_answers(station, case_id, reader_id, batch)
            done += len(batch)
            yield {"cells": [_dumped(one) for one in cells], "done": done, "total": total}
    with station.database.write() as session:
        case = find_case(session, case_id, to_change=True)
        if items:
            case.shift = _shift(station, session, case)
            case.version += 1
        shift = case.shift
    said = frame.describe() if frame else ""
    yield {"complete": True, "done": done, "total": total, "frame": said, "shift": shift}


def _dumped(cell: told.CellInfo) -> dict[str, Any]:
    return cell.model_dump(by_alias=True)


def _decide(station: Station, case_id: str) -> Frame | None:
    """How the images of a case are framed: decided once, kept with the case."""
    with station.database.write() as session:
        case = find_case(session, case_id, to_change=True)
        if case.frame is None:
            looks = session.scalars(
                select(Cell.look)
                .where(Cell.case_id == case_id, Cell.image.is_not(None))
                .order_by(Cell.name)
            ).all()
            found = [
                Look(Found(**look["cell"]), look["is_known"]) for look in spread(looks) if look
            ]
            frame = station.predictor.spec.decide_by(found)
            case.frame = frame and frame.model_dump()
        return Frame.model_validate(case.frame) if case.frame else None


def _keep_answers(
    station: Station, case_id: str, reader_id: str, batch: Sequence[Reply]
) -> list[told.CellInfo]:
    names = station.predictor.class_names
    with station.database.write() as session:
        case = find_case(session, case_id, to_change=True)
        places = {reply.number: reply for reply in batch}
        cells = session.scalars(
            select(Cell).where(
                Cell.case_id == case_id, Cell.position.in_(places), Cell.answer.is_(None)
            )
        )
        for cell in cells:
            reply = places[cell.position]
            answer = reply.answer
            cell.note = "; ".join(filter(None, [cell.note, answer.note]))
            cell.error, cell.abstain = answer.error, answer.abstain
            cell.predicted_class = answer.predicted_class or None
            cell.answer = {
                "confidence": round(answer.confidence, _ROUND),
                "prediction_set": list(answer.prediction_set),
                "probs": {
                    name: round(prob, _ROUND)
                    for name, prob in zip(names, answer.probs, strict=bool(answer.probs))
                },
                "warning": answer.warning,
                "distance": answer.distance,
            }
            if reply.features is not None:
                cell.features = reply.features.astype(np.float16).tobytes()
        session.flush()
        ids = list(
            session.scalars(
                select(Cell.id).where(Cell.case_id == case_id, Cell.position.in_(places))
            )
        )
        return cell_infos(session, case, reader_id, ids=ids)


def _shift(station: Station, session: Session, case: Case) -> str:
    """A sentence where the laboratory is unlike those of training."""
    guard, names = station.predictor.guard, station.predictor.class_names
    cells = session.execute(
        select(Cell.predicted_class, Cell.answer).where(
            Cell.case_id == case.id, Cell.predicted_class.is_not(None)
        )
    ).all()
    found = [(name, answer["distance"]) for name, answer in cells if answer]
    if guard is None or len(found) < _LEAST_FOR_TEST:
        return ""
    shift = guard.shift([far for _, far in found], [names.index(name) for name, _ in found])
    unlike = shift_sentence(shift)
    return unlike and f"{unlike}: fit the model to it with labeled cells, such as those you sign."


# --- readers name them ---------------------------------------------------------------------------


def correct(
    station: Station, session: Session, case: Case, reader_id: str, changes: Sequence[told.Change]
) -> told.Corrected:
    """Keeps what a reader says of some cells: all of it, or nothing.

    Raises:
        Refused: If the case is signed, the reader is none of it, a class is unknown, or a cell is
            no longer what the page showed.
    """
    _check_open(case)
    reader = find_reader(session, reader_id)
    role = role_in(case, reader_id)
    if not role:
        raise Refused(
            403, f"{reader.name} is not a reader of this case; join as second.", field="reader"
        )
    if role == "second" and case.second_finished:
        raise Refused(409, "the second reading is finished and is no longer changed.")
    classes = station.classes(session, case.model)
    names = {one.name for one in classes} | {"", None}
    for i, change in enumerate(changes):
        if change.to not in names:
            raise Refused(
                422,
                f"'{change.to}' is not a class of this case; add it to the station first.",
                field=f"changes[{i}].to",
            )
    ids = [change.cell for change in changes]
    found = session.scalars(select(Cell).where(Cell.case_id == case.id, Cell.id.in_(ids)))
    cells = {one.id: one for one in found}
    readings = {
        one.cell_id: one
        for one in session.scalars(
            select(Reading).where(Reading.reader_id == reader_id, Reading.cell_id.in_(ids))
        )
    }
    at, conflicts = now(), list[dict[str, str]]()
    for i, change in enumerate(changes):
        cell, reading = cells.get(change.cell), readings.get(change.cell)
        if cell is None:
            raise Refused(404, "there is no such cell in this case.", field=f"changes[{i}].cell")
        name = reading and reading.class_name
        before = _now(name, cell.abstain, cell.predicted_class)
        if before != change.was:
            by_at = {"by": reader.name, "at": reading.at} if reading else {"by": "", "at": ""}
            conflicts.append({"cell": cell.id, "class": before, **by_at})
            continue
        if cell.error and change.to not in ("", NOT_COUNTED, None):
            raise Refused(
                422, "an unreadable image can only be not counted.", field=f"changes[{i}].to"
            )
        if reading is None:
            reading = Reading(cell_id=cell.id, reader_id=reader_id)
            readings[cell.id] = reading
            session.add(reading)
        reading.class_name, reading.at = change.to, at
        if change.comment is not None and change.comment != (reading.comment or ""):
            _record(
                session,
                case,
                "commented",
                reader,
                cell=cell.id,
                before=reading.comment or "",
                after=change.comment,
            )
            reading.comment = change.comment
        after = _now(change.to, cell.abstain, cell.predicted_class)
        kind = "confirmed" if before == after else "named"
        if change.to is None:
            kind = "taken back"
        if change.to is not None or name is not None:  # else there is only a comment
            _record(session, case, kind, reader, cell=cell.id, before=before, after=after)
    if conflicts:
        raise Refused(
            409,
            f"{len(conflicts)} cells were changed meanwhile in another window; they are shown as "
            "they are now.",
            more={"conflicts": conflicts},
        )
    session.flush()
    return told.Corrected(
        cells=cell_infos(session, case, reader_id, ids=ids),
        version=case.version,
        differential=count(classes, states(session, case, reader_id)),
    )


def see(session: Session, case: Case, reader_id: str, names: Iterable[str]) -> told.SeenInfo:
    """Keeps that a reader has looked through classes."""
    _check_open(case)
    find_reader(session, reader_id)
    cells = states(session, case, reader_id)
    there = {one.now for one in cells}
    known = set(_seen(session, case, cells, reader_id).seen)
    new = sorted(set(names) & there - known - {""})
    session.add_all(Seen(case_id=case.id, reader_id=reader_id, class_name=name) for name in new)
    if new:
        _record(session, case, "seen", reader_id, detail=", ".join(new))
    session.flush()
    return _seen(session, case, cells, reader_id)


def join(session: Session, case: Case, reader_id: str) -> None:
    """Makes somebody the second reader, who does not see what the first one says."""
    _check_open(case)
    reader = find_reader(session, reader_id)
    if reader_id == case.first_id:
        raise Refused(409, "the second reader must be another than the first.", field="reader")
    if case.second_id not in (None, reader_id):
        raise Refused(409, "this case has a second reader already.", field="reader")
    if case.second_id is None:
        case.second_id = reader_id
        _record(session, case, "joined", reader)


def finish(session: Session, case: Case, reader_id: str) -> None:
    """Ends the second reading; from then on both can be compared."""
    _check_open(case)
    if reader_id != case.second_id:
        raise Refused(403, "only the second reader of this case can finish.", field="reader")
    cells = states(session, case, reader_id)
    seen = _seen(session, case, cells, reader_id)
    if blockers := _blockers(case, cells, seen, for_second=True):
        raise Refused(409, " ".join(blockers), more={"blockers": blockers})
    if not case.second_finished:
        case.second_finished = True
        _record(session, case, "finished", reader_id)


def compare_readers(station: Station, session: Session, case: Case) -> told.Agreement:
    """The two readings side by side, once the second is finished."""
    if not case.second_finished:
        raise Refused(409, "the second reader has not finished; until then, readers are blind.")
    first, second = (states(session, case, one) for one in (case.first_id, case.second_id))
    cells = [(a.id, a.now, b.now) for a, b in zip(first, second, strict=True) if a.now and b.now]
    return agreement(station.classes(session, case.model), cells)


def sign(session: Session, case: Case, reader_id: str) -> None:
    """Freezes a case: each cell's class is the first reader's."""
    _check_open(case)
    reader = find_reader(session, reader_id)
    if reader_id != case.first_id:
        raise Refused(403, "only the first reader of this case can sign it.", field="reader")
    cells = states(session, case, reader_id)
    seen = _seen(session, case, cells, reader_id)
    if blockers := _blockers(case, cells, seen):
        raise Refused(409, " ".join(blockers), more={"blockers": blockers})
    finals = [{"id": one.id, "final_class": one.now} for one in cells]
    session.execute(update(Cell), finals)
    case.signed_at, case.signed_by = now(), reader.id
    _record(session, case, "signed", reader, detail=f"{len(cells)} cells")


def reopen(session: Session, case: Case, reader_id: str, reason: str) -> None:
    """Opens a signed case again, for a reason that is recorded."""
    reader = find_reader(session, reader_id)
    if not role_in(case, reader_id):
        raise Refused(403, "only its readers can open a case again.", field="reader")
    if not case.signed_at:
        raise Refused(409, "this case is not signed.")
    session.execute(update(Cell).where(Cell.case_id == case.id).values(final_class=None))
    case.signed_at = case.signed_by = None
    _record(session, case, "reopened", reader, detail=reason)


def remove(station: Station, case_id: str, *, signed_before: str | None = None) -> None:
    """Deletes a case, then every image that no other holds; that it happened is kept."""
    with station.database.write() as session:
        case = find_case(session, case_id, to_change=True)
        if signed_before and (case.signed_at or signed_before) >= signed_before:
            return
        of_case = select(Cell.id).where(Cell.case_id == case_id)
        held = set(session.scalars(select(Cell.image).where(Cell.case_id == case_id)))
        for table, column in ((QuizCell, QuizCell.cell_id), (Reading, Reading.cell_id)):
            session.execute(delete(table).where(column.in_(of_case)))
        session.execute(delete(Seen).where(Seen.case_id == case_id))
        session.execute(delete(Cell).where(Cell.case_id == case_id))
        session.execute(delete(Case).where(Case.id == case_id))
        session.execute(delete(Event).where(Event.case_id == case_id))  # refused before that
        session.add(Event(case_id=case_id, kind="deleted"))
        others = select(Cell.image).where(Cell.image.in_(held))
        gone = {one for one in held - set(session.scalars(others)) if one}
        session.execute(delete(StoredImage).where(StoredImage.sha256.in_(gone)))
    drop_files(station, gone)


def drop_files(station: Station, digests: Iterable[str]) -> None:
    """Takes away files of images that no case holds; who adds one meanwhile waits for it."""
    with station.database.write() as session:
        for digest in sorted(digests):
            with suppress(IntegrityError), session.begin_nested():  # another case holds it
                session.execute(insert(StoredImage).values(sha256=digest, num_bytes=0))
                station.images.remove(digest)
                session.execute(delete(StoredImage).where(StoredImage.sha256 == digest))


def delete_strays(station: Station) -> None:
    """Deletes images that no case holds: of uploads and deletions that were cut short."""
    there = station.images.digests()
    with station.database.read() as session:
        there -= set(session.scalars(select(StoredImage.sha256)))
    if there:
        drop_files(station, there)


def delete_older(station: Station, days: int) -> int:
    """Deletes cases that were signed more than so many days ago, and says how many."""
    before = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    with station.database.read() as session:
        old = session.scalars(select(Case.id).where(Case.signed_at < before)).all()
    for case_id in old:
        remove(station, case_id, signed_before=before)
    return len(old)


def _check_open(case: Case) -> None:
    if case.signed_at:
        raise Refused(409, "this case is signed; open it again to change it.")


def _record(
    session: Session,
    case: Case,
    kind: str,
    reader: Reader | str,
    *,
    cell: str = "",
    before: str = "",
    after: str = "",
    detail: str = "",
) -> None:
    """Adds a line to the audit trail, and counts the change."""
    name = find_reader(session, reader).name if isinstance(reader, str) else reader.name
    case.version += 1
    session.add(
        Event(
            case_id=case.id,
            reader=name,
            kind=kind,
            cell_id=cell,
            before=before,
            after=after,
            detail=detail,
        )
    )
