"""Signed cells as a reference: the most similar ones, typical ones, and quizzes with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hemascope.data.pictures import read_picture
from hemascope.inference.guard import on_sphere
from hemascope.metrics.counts import agreement_table, kappa
from hemascope.report.overlays import heat_map
from hemascope.report.page import png
from hemascope.review import schemas as told
from hemascope.review.cases import urls
from hemascope.review.database import Case, Cell, Quiz, QuizCell, Reader, added, find
from hemascope.review.differential import by_class, share
from hemascope.review.problems import Refused, missing
from hemascope.review.schemas import NOT_COUNTED
from hemascope.review.station import Station

Near = list[told.ReferenceCell]
_MOST_COMPARED = 50_000  # signed cells, of the cases that were signed last


def find_cell(session: Session, case_id: str, cell_id: str) -> tuple[Case, Cell]:
    """A cell and its case."""
    cell = find(session, Cell, cell_id)
    if cell.case_id != case_id:
        raise missing("cell")
    return find(session, Case, case_id), cell


@dataclass(frozen=True, eq=False)
class _Signed:
    """Signed cells of these cases: their ids and classes, and their features on the unit sphere."""

    cases: list[tuple[str, str | None]]
    ids: NDArray[np.str_]
    names: NDArray[np.str_]
    features: NDArray[np.float32]

    def nearest(
        self, session: Session, fits: NDArray[np.bool_], to: NDArray[np.float32], limit: int
    ) -> Near:
        """The cells that fit whose features have the largest cosines with some."""
        if not fits.any():
            return []
        cosines = np.where(fits, self.features @ to, -np.inf)
        order = [i for i in np.argsort(-cosines, kind="stable")[:limit] if np.isfinite(cosines[i])]
        near = {str(self.ids[i]): round(float(cosines[i]), 3) for i in order}
        of_cell = (Cell.id.label("cell"), Cell.image, Cell.final_class.label("class_name"))
        query = select(*of_cell, Case.id.label("case"), Case.name.label("case_name"))
        query = query.join(Case, Case.id == Cell.case_id).where(Cell.id.in_(near))
        rows = session.execute(query).mappings()
        found = {row["cell"]: {**row, **urls(row["image"])} for row in rows}
        shown = [{**found[key], "similarity": near[key]} for key in near if key in found]
        return [told.ReferenceCell.model_validate(one) for one in shown]


class References:
    """Signed cells to compare with, read again only when a case was signed, opened or deleted."""

    def __init__(self) -> None:
        self._known: dict[str, _Signed] = {}

    def similar(self, session: Session, case: Case, cell: Cell, limit: int) -> Near:
        """The signed cells whose features are nearest to a cell's."""
        if cell.features is None:
            return []
        signed = self._of(session, _graph_of(case.model))
        fits = (signed.names != NOT_COUNTED) & (signed.ids != cell.id)
        return signed.nearest(session, fits, _features([cell.features])[0], limit)

    def typical(self, session: Session, graph: str, name: str, limit: int) -> Near:
        """The signed cells of a class that are nearest to its mean."""
        signed = self._of(session, graph)
        fits = signed.names == name
        found = signed.nearest(session, fits, signed.features[fits].sum(axis=0), limit)
        return [one.model_copy(update={"similarity": None}) for one in found]

    def _of(self, session: Session, graph: str) -> _Signed:
        """Those whose features a graph gave, whatever last layer was adapted on top of it."""
        query = select(Case.id, Case.signed_at, Case.model).where(Case.signed_at.is_not(None))
        found = session.execute(query.order_by(Case.signed_at.desc()))
        cases = [(key, at) for key, at, by in found if _graph_of(by) == graph][:_MOST_COMPARED]
        if graph not in self._known or self._known[graph].cases != cases:
            query = select(Cell.id, Cell.final_class, Cell.features)
            query = query.join(Case, Case.id == Cell.case_id).where(Cell.features.is_not(None))
            query = query.where(Cell.case_id.in_([key for key, _ in cases]))
            query = query.order_by(Case.signed_at.desc(), Cell.position).limit(_MOST_COMPARED)
            rows = session.execute(query).all()
            ids = np.array([row.id for row in rows], dtype=np.str_)
            names = np.array([row.final_class for row in rows], dtype=np.str_)
            features = _features([row.features for row in rows])
            self._known[graph] = _Signed(cases, ids, names, features)
        return self._known[graph]


def _graph_of(model: Mapping[str, Any]) -> str:
    """Of a case's model; older cases remember the whole model alone."""
    return str(model.get("graph_sha256", model["sha256"]))


def _features(contents: Sequence[bytes]) -> NDArray[np.float32]:
    """Features that were stored, on the unit sphere."""
    found = [np.frombuffer(one, dtype=np.float16).astype(np.float32) for one in contents]
    return on_sphere(np.stack(found)) if found else np.empty((0, 0), np.float32)


def seen_image(station: Station, case: Case, cell: Cell) -> NDArray[np.uint8]:
    """What the network saw of a cell, shape (H, H, 3)."""
    if cell.image is None:
        raise missing("image")
    spec = station.predictor.spec
    if frame := case.fit.frame:
        spec = spec.framed(frame)
    picture = read_picture(station.images.path(cell.image)).image
    return spec.prepare([picture]).images[0]


def map_png(station: Station, case: Case, cell: Cell, name: str) -> bytes:
    """What speaks for a class, as a PNG with alpha to lay over `seen_image`.

    Raises:
        Refused: If the model has no maps, is another, or has no such class.
    """
    names = station.predictor.class_names
    if not station.has_maps(case):
        raise Refused(404, "this case's model has no activation maps here.")
    if name not in names:
        raise Refused(404, "the model has no such class.", field="of")
    image = seen_image(station, case, cell)
    with station.turn():
        maps = station.predictor.maps(image[None])
    return png(np.asarray(heat_map(maps[0, names.index(name)])))


# --- quizzes -------------------------------------------------------------------------------------


def new_quiz(session: Session, sent: told.NewQuiz) -> told.QuizInfo:
    """Signed cells at random, for a reader to name again."""
    find(session, Reader, sent.reader, field="reader")
    query = select(Cell).where(Cell.final_class != NOT_COUNTED, Cell.image.is_not(None))
    cells = session.scalars(query.order_by(func.random()).limit(sent.size)).all()
    if not cells:
        raise Refused(409, "no cell is signed yet: a quiz is made of signed cells.")
    signed = [
        QuizCell(number=number, cell_id=cell.id, signed=cell.final_class)
        for number, cell in enumerate(cells, 1)
    ]
    return quiz_info(added(session, Quiz(reader_id=sent.reader, cells=signed)))


def answer_quiz(station: Station, quiz_id: str, sent: told.QuizAnswer) -> told.QuizInfo:
    """Keeps what the reader says of a cell, once."""
    with station.database.write() as session:
        quiz = find(session, Quiz, quiz_id)
        cell = session.get(QuizCell, (quiz_id, sent.number), with_for_update=True)
        if cell is None:
            raise Refused(404, "this quiz has no such cell.", field="number")
        if sent.class_name not in {one.name for one in station.classes(session)}:
            raise Refused(422, f"'{sent.class_name}' is not a class of the station.", field="class")
        if cell.answer not in ("", sent.class_name):
            raise Refused(409, "this cell is answered; a quiz is not corrected.", field="number")
        cell.answer = sent.class_name
        return quiz_info(quiz)


def quiz_info(quiz: Quiz) -> told.QuizInfo:
    """A quiz: what was signed is shown when all cells are answered."""
    items = [
        told.QuizItem(number=one.number, answer=one.answer, **urls(one.cell.image))
        for one in quiz.cells
    ]
    kept, cells = quiz.result, quiz.cells
    result = told.QuizResult.model_validate(kept) if kept else _result(cells)
    more = {"size": result.n if result else len(items), "items": items, "result": result}
    return told.QuizInfo.model_validate({**quiz.values(), **more})


def keep_results(session: Session, case_id: str) -> None:
    """Keeps the results of quizzes that hold cells of a case, which is about to be deleted."""
    of_case = select(QuizCell.quiz_id).join(Cell).where(Cell.case_id == case_id)
    query = select(Quiz).where(Quiz.result.is_(None), Quiz.id.in_(of_case))
    for quiz in session.scalars(query):
        result = _result(quiz.cells)
        quiz.result = result and result.model_dump(mode="json")
    session.flush()


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
        per_class=by_class(names, table),
        items=[
            told.QuizOutcome(number=one.number, class_name=one.signed, answer=one.answer)
            for one in cells
        ],
    )


def quizzes_of(session: Session, reader_id: str) -> list[told.QuizLine]:
    """A reader's finished quizzes, the newest first."""
    find(session, Reader, reader_id, field="reader")
    query = select(Quiz).where(Quiz.reader_id == reader_id).order_by(Quiz.created_at.desc())
    scored = [(quiz.values(), quiz_info(quiz).result) for quiz in session.scalars(query)]
    lines = [{**quiz, **result.model_dump()} for quiz, result in scored if result]
    return [told.QuizLine.model_validate(line) for line in lines]
