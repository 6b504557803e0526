"""Cases as readers have them: cells are named, seen, counted, compared and signed.

What is changed in one session is kept whole with its lines in the audit trail, or not at all.
"""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import and_, case, func, select, tuple_, update
from sqlalchemy.orm import Session

from hemascope.review import schemas as told
from hemascope.review.database import Case, Cell, Event, Reader, Reading, Seen, added, find, now
from hemascope.review.differential import Counted, agreement, differential
from hemascope.review.problems import Refused
from hemascope.review.schemas import NOT_COUNTED
from hemascope.review.station import Station

Place = tuple[str, str]  # in the list of cases: when one was made, and its id
_BY_MODEL = case((Cell.abstain, ""), else_=func.coalesce(Cell.predicted_class, ""))
_READ = func.coalesce(Reading.class_name, _BY_MODEL)  # what a cell is to a reader
_NOW = func.coalesce(Cell.final_class, _READ)  # of a signed case, what was signed


def urls(digest: str | None) -> dict[str, str]:
    """Where the page finds an image, and its small copy; nothing where there is none."""
    kinds = {"image": "png", "thumbnail": "jpg"} if digest else {}
    return {name: f"/api/v1/images/{digest}.{kind}" for name, kind in kinds.items()}


def cells_of(case: Case, reader_id: str | None, *columns: Any) -> Any:
    """A query of the cells of a case in order, beside what a reader says of them."""
    own = and_(Reading.cell_id == Cell.id, Reading.reader_id == reader_id)
    query = select(*columns).select_from(Cell).outerjoin(Reading, own)
    return query.where(Cell.case_id == case.id).order_by(Cell.position)


@dataclass
class Sitting:
    """A case as somebody sits before it, in one session.

    Attributes:
        station: Where.
        session: That reads, or that writes.
        case: Which.
        reader_id: Who; None for nobody, who sees what the model says.
    """

    station: Station
    session: Session
    case: Case
    reader_id: str | None = None

    @cached_property
    def reader(self) -> Reader:
        """The reader.

        Raises:
            Refused: If there is none.
        """
        return find(self.session, Reader, self.reader_id or "", field="reader")

    @cached_property
    def classes(self) -> list[told.ClassInfo]:
        """What a cell can be called."""
        return self.station.classes(self.session, self.case.model)

    @property
    def role(self) -> str:
        """Which of the two readers somebody is; "" for neither."""
        roles = {self.case.first_id: "first", self.case.second_id: "second"}
        return roles.get(self.reader_id, "")

    def of(self, reader_id: str | None) -> "Sitting":
        """Another reader before the same case."""
        return Sitting(self.station, self.session, self.case, reader_id)

    def changer(self, role: str = "", only: str = "") -> Reader:
        """The reader, who can change the case.

        Args:
            role: That only may do so; "" for either.
            only: Says so.

        Raises:
            Refused: If the case is signed, or the reader is none, or has another role.
        """
        if self.case.signed_at:
            raise Refused(409, "this case is signed; open it again to change it.")
        reader = self.reader
        if role and self.role != role:
            raise Refused(403, only, field="reader")
        return reader

    def record(self, kind: str, **more: str) -> None:
        """Adds a line to the audit trail, and counts the change."""
        self.case.version += 1
        self.session.add(Event(case_id=self.case.id, reader=self.reader.name, kind=kind, **more))

    # --- what it shows ---------------------------------------------------------------------------

    def _cells(self, *columns: Any) -> Any:
        return cells_of(self.case, self.reader_id, *columns)

    def counted(self, name: Any = _NOW) -> list[Counted]:
        """All cells as the reader has them: enough to count them."""
        bare = and_(Cell.answer.is_(None), Cell.error == "")
        predicted = func.coalesce(Cell.predicted_class, "")
        is_read = Reading.class_name.is_not(None)
        columns = (Cell.id, name, predicted, is_read, Cell.image, bare, Cell.error != "")
        return [Counted(*row) for row in self.session.execute(self._cells(*columns))]

    def cells(
        self, ids: Sequence[str] | None = None, *, after: int = -1, limit: int | None = None
    ) -> list[told.CellInfo]:
        """Cells in order."""
        query = self._cells(Cell, _NOW, Reading.class_name, Reading.comment)
        query = query.where(Cell.position > after).limit(limit)
        if ids is not None:
            query = query.where(Cell.id.in_(ids))
        return [_shown(*row) for row in self.session.execute(query)]

    def seen(self, cells: Iterable[Counted]) -> told.SeenInfo:
        """The classes that there are, looked through or not; all, once the case is signed."""
        query = select(Seen.class_name).where(Seen.case_id == self.case.id)
        marked = set(self.session.scalars(query.where(Seen.reader_id == self.reader_id)))
        there = {one.now for one in cells} - {"", NOT_COUNTED}
        marked |= there if self.case.signed_at else set()
        return told.SeenInfo(seen=sorted(there & marked), unseen=sorted(there - marked))

    def info(self) -> told.CaseInfo:
        """The case as a whole."""
        case, cells = self.case, self.counted()
        ids = (case.first_id, case.second_id, case.signed_by)
        first, second, signer = (self.session.get(Reader, one) if one else None for one in ids)
        shown = {
            **case.values(),
            "first": first,
            "second": second,
            **self.seen(cells).model_dump(),
            "signed_by": signer and signer.name,
            "frame": self.station.predictor.describe(case.fit),
            "has_maps": self.station.has_maps(case),
            "role": self.role,
            "classes": self.classes,
            "counts": _counts(cells),
            "blockers": self._blockers(cells),
            "differential": differential(self.classes, cells),
        }
        return told.CaseInfo.model_validate(shown)

    def _blockers(self, cells: Sequence[Counted]) -> list[str]:
        """Why the reading is not done yet."""
        counts, unseen = _counts(cells), self.seen(cells).unseen
        unidentified = counts.unidentified - counts.waiting
        blind = self.case.is_blind and self.role != "second"
        found = {
            "There are no cells.": not cells,
            f"Cells not analyzed yet: {counts.waiting}.": counts.waiting,
            f"Cells unidentified: {unidentified}. Name those under Look first.": unidentified,
            f"Not looked through yet: {', '.join(unseen)}.": unseen,
            "The second reader has not finished.": blind,
        }
        return [why for why, is_so in found.items() if is_so]

    def agreement(self) -> told.Agreement:
        """The two readings side by side, once the second is finished."""
        if not self.case.second_finished:
            raise Refused(409, "the second reader has not finished; until then, readers are blind.")
        readers = (self.case.first_id, self.case.second_id)
        first, second = (self.of(one).counted(_READ) for one in readers)
        pairs = [pair for pair in zip(first, second, strict=True) if not pair[0].is_unreadable]
        named = [(a.id, a.now, b.now) for a, b in pairs if a.now and b.now]
        return agreement(self.classes, named, num_changed=self._num_changed_since())

    def _num_changed_since(self) -> int:
        """How many cells the first reader changed after the second had finished."""
        of_case = Event.case_id == self.case.id
        last = select(func.max(Event.id)).where(of_case, Event.kind == "finished").scalar_subquery()
        kinds = Event.kind.in_(("named", "taken back")), Event.before != Event.after
        query = select(func.count(Event.cell_id.distinct())).where(of_case, Event.id > last, *kinds)
        return self.session.scalar(query) or 0

    # --- what readers do -------------------------------------------------------------------------

    def correct(self, changes: Sequence[told.Change]) -> told.Corrected:
        """Keeps what the reader says of some cells: all of it, or nothing.

        Raises:
            Refused: If the case is signed, the reader is none of it, a class is unknown, or a cell
                is no longer what the page showed.
        """
        reader = self.changer()
        if not self.role:
            why = f"{reader.name} is not a reader of this case; join as second."
            raise Refused(403, why, field="reader")
        if self.role == "second" and self.case.second_finished:
            raise Refused(409, "the second reading is finished and is no longer changed.")
        names = {one.name for one in self.classes} | {"", None}
        ids = [change.cell for change in changes]
        query = self._cells(Cell, Reading, _BY_MODEL).where(Cell.id.in_(ids))
        found = {row[0].id: tuple(row) for row in self.session.execute(query)}
        conflicts = list[dict[str, str]]()
        for i, change in enumerate(changes):
            if change.to not in names:
                why = f"'{change.to}' is not a class of this case; add it to the station first."
                raise Refused(422, why, field=f"changes[{i}].to")
            if change.cell not in found:
                why = "there is no such cell in this case."
                raise Refused(404, why, field=f"changes[{i}].cell")
            cell, reading, by_model = found[change.cell]
            before = by_model if reading is None else _either(reading.class_name, by_model)
            if before != change.was:
                by_at = {"by": reader.name, "at": reading.at} if reading else {"by": "", "at": ""}
                conflicts.append({"cell": cell.id, "class": before, **by_at})
                continue
            if cell.error and change.to not in ("", NOT_COUNTED, None):
                why = "an unreadable image can only be not counted."
                raise Refused(422, why, field=f"changes[{i}].to")
            if reading is None:
                reading = Reading(cell_id=cell.id, reader_id=reader.id, comment="")
                self.session.add(reading)
                found[cell.id] = cell, reading, by_model
            self._change(reading, change, before, _either(change.to, by_model))
        if conflicts:
            why = "cells were changed meanwhile in another window; they are shown as they are now."
            raise Refused(409, f"{len(conflicts)} {why}", conflicts=conflicts)
        count = differential(self.classes, self.counted())
        return told.Corrected(cells=self.cells(ids), version=self.case.version, differential=count)

    def _change(self, reading: Reading, change: told.Change, before: str, after: str) -> None:
        if change.comment is not None and change.comment != reading.comment:
            said = {"before": reading.comment, "after": change.comment}
            self.record("commented", cell_id=change.cell, **said)
            reading.comment = change.comment
        kind = "confirmed" if before == after else "named"
        if change.to is None:
            kind = "taken back"
        if change.to is not None or reading.class_name is not None:  # else only a comment
            self.record(kind, cell_id=change.cell, before=before, after=after)
        reading.class_name, reading.at = change.to, now()

    def see(self, names: Iterable[str]) -> told.SeenInfo:
        """Keeps that the reader has looked through classes."""
        reader, cells = self.changer(), self.counted()
        there = {one.now for one in cells} - {""}
        new = sorted(set(names) & there - set(self.seen(cells).seen))
        for name in new:
            self.session.add(Seen(case_id=self.case.id, reader_id=reader.id, class_name=name))
        if new:
            self.record("seen", detail=", ".join(new))
        return self.seen(cells)

    def rename(self, name: str) -> None:
        """Gives the case another name."""
        self.changer()
        if not self.role:
            raise Refused(403, "only its readers can rename a case.", field="reader")
        if name != self.case.name:
            self.record("renamed", before=self.case.name, after=name)
            self.case.name = name

    def join(self) -> None:
        """Makes the reader the second one, who does not see what the first one says."""
        reader = self.changer()
        if reader.id == self.case.first_id:
            raise Refused(409, "the second reader must be another than the first.", field="reader")
        if self.case.second_id not in (None, reader.id):
            raise Refused(409, "this case has a second reader already.", field="reader")
        if self.case.second_id is None:
            self.case.second_id = reader.id
            self.record("joined")

    def finish(self) -> None:
        """Ends the second reading; from then on both can be compared."""
        self.changer("second", "only the second reader of this case can finish.")
        self._done()
        if not self.case.second_finished:
            self.case.second_finished = True
            self.record("finished")

    def sign(self) -> None:
        """Freezes a case: each cell's class is the first reader's."""
        reader = self.changer("first", "only the first reader of this case can sign it.")
        cells = self._done()
        final = [{"id": one.id, "final_class": one.now} for one in cells]
        self.session.execute(update(Cell), final)
        self.case.signed_at, self.case.signed_by = now(), reader.id
        self.record("signed", detail=f"{len(cells)} cells")

    def _done(self) -> list[Counted]:
        """The cells of a reading that can be ended."""
        cells = self.counted()
        if blockers := self._blockers(cells):
            raise Refused(409, " ".join(blockers), blockers=blockers)
        return cells

    def reopen(self, reason: str) -> None:
        """Opens a signed case again, for a reason that is recorded."""
        if self.reader and not self.role:
            raise Refused(403, "only its readers can open a case again.", field="reader")
        if not self.case.signed_at:
            raise Refused(409, "this case is not signed.")
        of_case = Cell.case_id == self.case.id
        self.session.execute(update(Cell).where(of_case).values(final_class=None))
        self.case.signed_at = self.case.signed_by = None
        self.record("reopened", detail=reason)


def _either(name: str | None, by_model: str) -> str:
    return by_model if name is None else name


def _shown(cell: Cell, name: str, own: str | None, comment: str | None) -> told.CellInfo:
    said = {"class_name": name, "read": bool(own), "comment": comment or ""}
    shown = {**(cell.answer or {}), **cell.values(), **urls(cell.image), **said}
    return told.CellInfo.model_validate({**shown, "predicted_class": cell.predicted_class or ""})


def _counts(cells: Sequence[Counted]) -> told.Counts:
    return told.Counts(
        cells=len(cells),
        waiting=sum(one.is_waiting for one in cells),
        unreadable=sum(one.is_unreadable for one in cells),
        unidentified=sum(not one.now for one in cells),
    )


@contextmanager
def reading(station: Station, case_id: str, reader_id: str | None = None) -> Generator[Sitting]:
    """A case to look at."""
    with station.database.read() as session:
        yield Sitting(station, session, find(session, Case, case_id), reader_id)


@contextmanager
def changing(station: Station, case_id: str, reader_id: str | None = None) -> Generator[Sitting]:
    """A case that nobody else changes meanwhile."""
    with station.database.write() as session:
        case = find(session, Case, case_id, with_for_update=True)
        yield Sitting(station, session, case, reader_id)


def create(station: Station, session: Session, new: told.NewCase, key: str | None) -> Sitting:
    """A new case; the one that was made with the same key, if there is one."""
    find(session, Reader, new.reader, field="reader")
    key = key or None  # an empty one is none
    if key and (known := session.scalar(select(Case).where(Case.creation_key == key))):
        of_case = (Event.case_id == known.id, Event.kind == "renamed")
        earlier = session.scalar(select(Event.before).where(*of_case).order_by(Event.id).limit(1))
        if (earlier or known.name, known.first_id) != (new.name, new.reader):
            why = "this Idempotency-Key made another case; use a new one for a new case."
            raise Refused(409, why)
        return Sitting(station, session, known, new.reader)
    model = station.described_model()
    made = Case(name=new.name, model=model, first_id=new.reader, creation_key=key)
    at = Sitting(station, session, added(session, made), new.reader)
    at.record("created")
    return at


def summaries(session: Session, after: Place | None, limit: int) -> list[told.CaseSummary]:
    """Cases, the newest first."""
    of_case = select(func.count()).select_from(Cell).where(Cell.case_id == Case.id)
    by_first = and_(Reading.cell_id == Cell.id, Reading.reader_id == Case.first_id)
    unidentified = of_case.outerjoin(Reading, by_first).where(_NOW == "")
    num_cells = of_case.correlate(Case).scalar_subquery()
    num_unidentified = unidentified.correlate(Case).scalar_subquery()
    query = select(Case, num_cells, num_unidentified)
    query = query.order_by(Case.created_at.desc(), Case.id.desc()).limit(limit)
    if after:
        query = query.where(tuple_(Case.created_at, Case.id) < tuple_(*after))
    return [
        told.CaseSummary.model_validate({**one.values(), "num_cells": n, "num_unidentified": left})
        for one, n, left in session.execute(query)
    ]
