"""How cases and images are taken away."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from hemascope.review.cases import changing
from hemascope.review.database import Case, Cell, Event, QuizCell, Reading, Seen, StoredImage
from hemascope.review.gallery import keep_results
from hemascope.review.station import Station


def remove(station: Station, case_id: str, *, signed_before: str | None = None) -> None:
    """Deletes a case, then every image that no other holds; that it happened is kept."""
    with changing(station, case_id) as at:
        if signed_before and (at.case.signed_at or signed_before) >= signed_before:
            return
        session, of_case = at.session, select(Cell.id).where(Cell.case_id == case_id)
        keep_results(session, case_id)
        held = set(session.scalars(select(Cell.image).where(Cell.case_id == case_id)))
        for statement in (
            delete(QuizCell).where(QuizCell.cell_id.in_(of_case)),
            delete(Reading).where(Reading.cell_id.in_(of_case)),
            delete(Seen).where(Seen.case_id == case_id),
            delete(Cell).where(Cell.case_id == case_id),
            delete(Case).where(Case.id == case_id),
            delete(Event).where(Event.case_id == case_id),  # refused before that
        ):
            session.execute(statement)
        session.add(Event(case_id=case_id, kind="deleted"))
        others = set(session.scalars(select(Cell.image).where(Cell.image.in_(held))))
        gone = {one for one in held - others if one}
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
