"""Signed cells as a reference: the most similar ones, typical ones, and quizzes with them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hemascope.core.framing import Frame
from hemascope.data.pictures import read_picture
from hemascope.inference.guard import on_sphere
from hemascope.metrics.counts import agreement_table, kappa
from hemascope.report.overlays import heat_map
from hemascope.report.page import png
from hemascope.review import schemas as told
from hemascope.review.cases import find_reader, image_url, thumbnail_url
from hemascope.review.database import Case, Cell, Quiz, QuizCell, new_id
from hemascope.review.differential import per_class_agreement, share
from hemascope.review.problems import Refused, missing
from hemascope.review.schemas import NOT_COUNTED
from hemascope.review.station import Station

_MOST_COMPARED = 20_000  # signed cells, the latest of them


def find_cell(session: Session, case_id: str, cell_id: str) -> tuple[Case, Cell]:
    """A cell and its case."""
    cell = session.get(Cell, cell_id)
    case = session.get(Case, case_id)
    if cell is None or case is None or cell.case_id != case_id:
        raise missing("cell")
    return case, cell


def _signed(
    session: Session, model: str, class_name: str | None = None, but: str = ""
) -> tuple[list[tuple[Cell, Case]], NDArray[np.float32]]:
    """Signed cells that the same model answered, and their features on the unit sphere."""
    query = (
        select(Cell, Case)
        .join(Case, Case.id == Cell.case_id)
        .where(Cell.final_class.is_not(None), Cell.features.is_not(None), Cell.id != but)
        .where(Cell.final_class == class_name if class_name else Cell.final_class != NOT_COUNTED)
        .order_by(Case.signed_at.desc(), Cell.position)
        .limit(_MOST_COMPARED)
    )
    rows = [(r[0], r[1]) for r in session.execute(query) if r[1].model["sha256"] == model]
    return rows, on_sphere(np.stack([_features(cell) for cell, _ in rows])) if rows else _NONE


_NONE: NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)


def _features(cell: Cell) -> NDArray[np.float32]:
    return np.frombuffer(cell.features or b"", dtype=np.float16).astype(np.float32)


def _reference(cell: Cell, case: Case, similarity: float | None = None) -> told.ReferenceCell:
    digest = str(cell.image)
    return told.ReferenceCell(
        case=case.id,
        case_name=case.name,
        cell=cell.id,
        class_name=str(cell.final_class),
        image=image_url(digest),
        thumbnail=thumbnail_url(digest),
        similarity=similarity,
    )


def similar(session: Session, case: Case, cell: Cell, limit: int) -> list[told.ReferenceCell]:
    """The signed cells whose features are nearest to a cell's."""
    if cell.features is None:
        return []
    rows, features = _signed(session, case.model["sha256"], but=cell.id)
    if not rows:
        return []
    cosines = (features @ on_sphere(_features(cell)[None])[0]).tolist()
    order = np.argsort(-np.array(cosines), kind="stable")[:limit]
    return [_reference(*rows[i], similarity=round(cosines[i], 3)) for i in order]


def typical(station: Station, session: Session, name: str, limit: int) -> list[told.ReferenceCell]:
    """The signed cells of a class that are nearest to its mean."""
    rows, features = _signed(session, station.model.sha256, name)
    if not rows:
        return []
    order = np.argsort(-(features @ features.mean(axis=0)), kind="stable")[:limit]
    return [_reference(*rows[i]) for i in order]


def seen_image(station: Station, case: Case, cell: Cell) -> NDArray[np.uint8]:
    """What the network saw of a cell, shape (H, H, 3)."""
    if cell.image is None:
        raise missing("image")
    spec = station.predictor.spec
    if case.frame:
        spec = spec.framed(Frame.model_validate(case.frame))
    picture = read_picture(station.images.path(cell.image)).image
    return spec.prepare([picture]).images[0]


def map_png(station: Station, case: Case, cell: Cell, name: str) -> bytes:
    """What speaks for a class, as a PNG with alpha to lay over `seen_image`.

    Raises:
        Refused: If the model has no maps, is another, or has no such class.
    """
    names = station.predictor.class_names
    if not station.predictor.graph.has_maps or case.model["sha256"] != station.model.sha256:
        raise Refused(404, "this case's model has no activation maps here.")
    if name not in names:
        raise Refused(404, "the model has no such class.", field="of")
    image = seen_image(station, case, cell)
    with station.turn():
        maps = station.predictor.maps(image[None])
    return png(np.asarray(heat_map(maps[0, names.index(name)])))


# --- quizzes -------------------------------------------------------------------------------------


def new_quiz(session: Session, reader_id: str, size: int) -> Quiz:
    """Signed cells at random, for a reader to name again."""
    find_reader(session, reader_id)
    cells = session.scalars(
        select(Cell)
        .where(Cell.final_class.is_not(None), Cell.final_class != NOT_COUNTED)
        .where(Cell.image.is_not(None))
        .order_by(func.random())
        .limit(size)
    ).all()
    if not cells:
        raise Refused(409, "no cell is signed yet: a quiz is made of signed cells.")
    quiz = Quiz(id=new_id(), reader_id=reader_id)
    session.add(quiz)
    session.flush()
    for number, cell in enumerate(cells, 1):
        signed = str(cell.final_class)
        session.add(QuizCell(quiz_id=quiz.id, number=number, cell_id=cell.id, signed=signed))
    session.flush()
    return quiz


def find_quiz(session: Session, quiz_id: str) -> Quiz:
    """A quiz."""
    quiz = session.get(Quiz, quiz_id)
    if quiz is None:
        raise missing("quiz")
    return quiz


def answer_quiz(
    station: Station, session: Session, quiz: Quiz, number: int, class_name: str
) -> None:
    """Keeps what the reader says of a cell, once."""
    cell = session.get(QuizCell, (quiz.id, number), with_for_update=True)
    if cell is None:
        raise Refused(404, "this quiz has no such cell.", field="number")
    if class_name not in {one.name for one in station.classes(session)}:
        raise Refused(422, f"'{class_name}' is not a class of the station.", field="class")
    if cell.answer and cell.answer != class_name:
        raise Refused(409, "this cell is answered; a quiz is not corrected.", field="number")
    cell.answer = class_name
    session.flush()


def _cells_of(session: Session, quiz: Quiz) -> list[tuple[QuizCell, str]]:
    query = (
        select(QuizCell, Cell.image)
        .join(Cell, Cell.id == QuizCell.cell_id)
        .where(QuizCell.quiz_id == quiz.id)
        .order_by(QuizCell.number)
    )
    return [(one, str(image)) for one, image in session.execute(query)]


def quiz_info(session: Session, quiz: Quiz) -> told.QuizInfo:
    """A quiz: what was signed is shown when all cells are answered."""
    cells = _cells_of(session, quiz)
    return told.QuizInfo(
        id=quiz.id,
        size=len(cells),
        created_at=quiz.created_at,
        items=[
            told.QuizItem(
                number=one.number,
                image=image_url(image),
                thumbnail=thumbnail_url(image),
                answer=one.answer,
            )
            for one, image in cells
        ],
        result=_result([one for one, _ in cells]),
    )


def _result(cells: Sequence[QuizCell]) -> told.QuizResult | None:
    if not cells or not all(one.answer for one in cells):
        return None
    signed, answers = [one.signed for one in cells], [one.answer for one in cells]
    names = sorted({*signed, *answers})
    table = agreement_table(signed, answers, names)
    found = share(int(table.trace()), len(cells))
    return told.QuizResult(
        n=len(cells),
        agree_percent=found.percent or 0.0,
        low=found.low,
        high=found.high,
        kappa=kappa(table).value,
        per_class=per_class_agreement(names, table),
        items=[
            told.QuizOutcome(number=one.number, class_name=one.signed, answer=one.answer)
            for one in cells
        ],
    )


def quizzes_of(session: Session, reader_id: str) -> list[told.QuizLine]:
    """A reader's finished quizzes, the newest first."""
    find_reader(session, reader_id)
    query = select(Quiz).where(Quiz.reader_id == reader_id).order_by(Quiz.created_at.desc())
    lines: list[told.QuizLine] = []
    for quiz in session.scalars(query):
        if found := _result([one for one, _ in _cells_of(session, quiz)]):
            lines.append(
                told.QuizLine(
                    id=quiz.id,
                    created_at=quiz.created_at,
                    n=found.n,
                    agree_percent=found.agree_percent,
                    low=found.low,
                    high=found.high,
                )
            )
    return lines
