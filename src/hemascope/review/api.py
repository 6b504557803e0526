"""The station's REST API, and the page."""

import base64
import json
import logging
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import asdict
from hashlib import blake2b
from itertools import chain
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, File, Form, Header, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, StreamingResponse
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, TimeoutError  # noqa: A004
from starlette.exceptions import HTTPException

from hemascope import __version__
from hemascope.core.errors import RESEARCH_USE_ONLY, HemascopeError
from hemascope.core.fit import LaboratoryFit
from hemascope.data.walk import PassedOver
from hemascope.inference.predictor import Predictor
from hemascope.inference.stream import answer_batch
from hemascope.report.page import png
from hemascope.review import cases, export, gallery, incoming, retention
from hemascope.review import schemas as told
from hemascope.review.cases import Sitting, changing, reading
from hemascope.review.database import Case, Cell, OwnClass, Quiz, Reader, added, find
from hemascope.review.differential import differential, kept_of
from hemascope.review.intake import item_of, uploaded
from hemascope.review.problems import FAILED, Refused, missing, problem
from hemascope.review.safety import COOKIE, Safety
from hemascope.review.station import MOST_OWN, Station
from hemascope.store.answers import row_of

_LOG = logging.getLogger("hemascope.review")
_PROBLEM = {"application/problem+json": {"schema": told.Problem.model_json_schema()}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"content": _PROBLEM, "description": "Refused, with the reason"},
    "5XX": {"content": _PROBLEM, "description": "The station cannot answer now"},
}
_OF_CLIENTS = (Refused, HemascopeError, RequestValidationError, HTTPException)
_HANDLED = (*_OF_CLIENTS, DBAPIError, TimeoutError, Exception)
T = TypeVar("T")
IfNoneMatch = Annotated[str | None, Header()]
FrameText = Annotated[str, Form(max_length=500_000)]  # with a last layer of many classes
Key = Annotated[str | None, Header(max_length=200)]
Files = Annotated[list[UploadFile], File()]
_LINES = "application/x-ndjson"
_IMAGE = re.compile(r"[0-9a-f]{64}\.(png|jpg)")
_MOST_QUESTIONS = 64  # images of one `predict` request that are asked about together


def build(station: Station, safety: Safety, registry: CollectorRegistry) -> FastAPI:
    """The application that serves a station, behind `front`."""
    app = FastAPI(
        title="hemascope review station",
        version=__version__,
        description=RESEARCH_USE_ONLY,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    for kind in _HANDLED:
        app.add_exception_handler(kind, _problem_of)
    groups = (_station_routes(station, safety), _case_routes(station), _gallery_routes(station))
    for routes in groups:
        app.include_router(routes, prefix="/api/v1", responses=_ERRORS)
    open_cases = Gauge("hemascope_open_cases", "Cases not signed", registry=registry)

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        with station.database.read() as session:
            query = select(func.count()).select_from(Case).where(Case.signed_at.is_(None))
            open_cases.set(session.scalar(query) or 0)
        return Response(generate_latest(registry), media_type="text/plain")

    return app


def _problem_of(request: Request, error: Exception) -> Response:
    """Every error leaves as one sentence, none as a traceback."""
    match error:
        case Refused():
            return problem(error.status, str(error), error.field, **error.more)
        case HemascopeError():
            status = 507 if isinstance(error.__cause__, OSError) else 422
            return problem(status, str(error), error.field)
        case RequestValidationError():
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"] if part not in ("body", "query"))
            return problem(422, f"{field or 'the request'}: {first['msg']}.", field)
        case HTTPException():
            answer = problem(error.status_code, str(error.detail))
            answer.headers.update(error.headers or {})
            if error.status_code == 405:  # of which Starlette names the first route's method alone
                path = getattr(request.scope.get("route"), "path", "")
                methods = request.app.openapi()["paths"].get(f"/api/v1{path}", {"get": 0})
                answer.headers["Allow"] = ", ".join(sorted(map(str.upper, methods)))
            return answer
        case DBAPIError() | TimeoutError():
            why = str(error.orig if isinstance(error, DBAPIError) else error).partition("\n")[0]
            _LOG.error("database: %s", why)
            if isinstance(error, IntegrityError):
                return problem(409, "somebody else was first; load the case again and repeat.")
            if "full" in why or "No space" in why:
                return problem(507, "the disk of the station is full; make room, and try again.")
            return problem(503, "the database is busy or cannot be reached; nothing was changed.")
        case _:  # which is raised on, and logged
            return problem(500, FAILED)


def _station_routes(station: Station, safety: Safety) -> APIRouter:
    api = APIRouter(tags=["station"])

    @api.get("/health")
    def health() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @api.get("/ready")
    def ready() -> dict[str, str]:
        """Whether the database can be reached and the model is loaded."""
        with station.database.read() as session:
            session.execute(text("SELECT 1"))
        return {"status": "ready", "model": station.model.name}

    @api.post("/session", status_code=204)
    def enter(token: told.Token, request: Request, response: Response) -> None:
        """Takes the station's token and keeps it as a cookie that no script can read."""
        if safety.token_sha256 and not safety.is_token(token.token):
            raise Refused(401, "this is not the station's token.", field="token")
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, token.token, httponly=True, samesite="strict", secure=secure)

    @api.get("/station")
    def about() -> dict[str, Any]:
        """What runs here."""
        return {
            "version": __version__,
            "research_use_only": RESEARCH_USE_ONLY,
            "model": station.model.model_dump(),
            "limits": asdict(station.limits),
        }

    @api.get("/models")
    def models() -> told.Items[told.ModelInfo]:
        """The model that answers."""
        return told.Items(items=[station.model])

    @api.get("/classes")
    def classes() -> told.Items[told.ClassInfo]:
        """What a cell can be called."""
        with station.database.read() as session:
            return told.Items(items=station.classes(session))

    @api.post("/classes", status_code=201)
    def add_class(new: told.NewClass) -> told.ClassInfo:
        """Adds a class of the station's own, which `adapt` can learn later."""
        with station.database.write() as session:
            known = station.classes(session)
            if new.name.casefold() in {one.name.casefold() for one in known}:
                raise Refused(409, f"there is a class '{new.name}' already.", field="name")
            if sum(one.own for one in known) >= MOST_OWN:
                raise Refused(409, f"a station has at most {MOST_OWN} classes of its own.")
            added(session, OwnClass(name=new.name, role=new.role))
            return next(one for one in station.classes(session) if one.name == new.name)

    @api.get("/readers")
    def readers() -> told.Items[told.ReaderInfo]:
        """Who reads here."""
        with station.database.read() as session:
            found = session.scalars(select(Reader).order_by(Reader.name))
            return told.Items(items=[told.ReaderInfo.model_validate(one) for one in found])

    @api.post("/readers", status_code=201, responses={200: {"model": told.ReaderInfo}})
    def add_reader(new: told.NewReader, response: Response) -> told.ReaderInfo:
        """Adds a reader; of a name that is known, gives that reader."""
        with station.database.write() as session:
            known = session.scalar(select(Reader).where(Reader.name == new.name))
            if known:
                response.status_code = 200
            return told.ReaderInfo.model_validate(known or added(session, Reader(name=new.name)))

    @api.get("/kept")
    def kept() -> told.KeptOverall:
        """How often readers kept what the model said, over all signed cases: drift shows here."""
        with station.database.read() as session:
            both = Cell.final_class.is_not(None) & Cell.predicted_class.is_not(None)
            same = func.count().filter(Cell.final_class == Cell.predicted_class)

            def kept_by(by: Any, called: str) -> list[dict[str, Any]]:
                query = select(by, func.count(), same).join(Case, Case.id == Cell.case_id)
                found = session.execute(query.where(both).group_by(by).order_by(by))
                return [{called: one, **kept_of(n, total).model_dump()} for one, total, n in found]

            months, rows = func.substr(Case.signed_at, 1, 7), Cell.predicted_class
            signed = select(func.count()).select_from(Case).where(Case.signed_at.is_not(None))
            tables = {"rows": kept_by(rows, "class_name"), "months": kept_by(months, "month")}
            return told.KeptOverall.model_validate({"cases": session.scalar(signed), **tables})

    @api.post("/predict", responses={200: {"content": {"application/json": {}, _LINES: {}}}})
    def predict(file: Files, request: Request, frame: FrameText = "") -> Response:
        """Answers images without keeping them, framed together, as the command `predict` does.

        With `Accept: application/x-ndjson` the answers are streamed, a line each. `frame` may be
        the `frame_file` of an earlier answer, so that images of a laboratory are framed alike.
        """
        passed = PassedOver()
        opened = [(one.filename or "", one.file) for one in file]
        found = [item_of(*one) for one in uploaded(opened, station.limits, passed)]
        if not found:
            notes = " ".join(passed.notes())
            raise Refused(422, f"there is no image in it. {notes}".strip(), field="file")
        predictor = station.predictor
        decided = _given(predictor, frame) if frame else None

        def answered() -> Iterator[dict[str, Any]]:
            nonlocal decided
            for start in range(0, len(found), _MOST_QUESTIONS):
                batch = list(enumerate(found[start : start + _MOST_QUESTIONS], start))
                with station.turn(in_line=len(found) == 1):  # first come, first answered
                    if not frame and not start:
                        decided = predictor.decide([one.read for one in found])
                    replies = answer_batch(predictor, batch, decided)
                for one in replies:
                    cells = row_of(one.path, one.answer, predictor.class_names).cells()
                    yield {"name": cells.pop("path"), **cells}

        if _LINES in request.headers.get("accept", ""):
            return _streamed(answered())
        content = {"passed_over": passed.notes(), "answers": list(answered())}
        said = predictor.describe(decided) if decided else ""
        framed = {"frame": said, "frame_file": decided and decided.model_dump_json()}
        return JSONResponse({**framed, **content})

    return api


def _given(predictor: Predictor, text: str) -> LaboratoryFit:
    """A frame that the station gave before."""
    with suppress(ValidationError):
        fit = LaboratoryFit.model_validate_json(text)
        if predictor.fits(fit):
            return fit
    raise Refused(422, "this is not a frame that this station's model gave.", field="frame")


def _case_routes(station: Station) -> APIRouter:
    api = APIRouter(tags=["cases"])
    database = station.database

    @api.get("/cases")
    def list_cases(limit: told.Limit = 50, cursor: str = "") -> told.Page[told.CaseSummary]:
        """Cases, the newest first."""
        with database.read() as session:
            found = cases.summaries(session, _after(cursor, told.CASE_PLACE), limit + 1)
        return _page(found, limit, lambda last: [last.created_at, last.id])

    @api.post("/cases", status_code=201)
    def create(new: told.NewCase, response: Response, idempotency_key: Key = None) -> told.CaseInfo:
        """Begins a case; sent again with the same Idempotency-Key, it gives the same case."""
        with database.write() as session:
            made = cases.create(station, session, new, idempotency_key)
            response.headers["Location"] = f"/api/v1/cases/{made.case.id}"
            return made.info()

    @api.get("/cases/{case_id}", response_model=told.CaseInfo)
    def show(
        case_id: told.Id, reader: told.Id | None = None, if_none_match: IfNoneMatch = None
    ) -> Response:
        """A case as a reader sees it, with an ETag."""
        with reading(station, case_id, reader) as at:
            content = at.info().model_dump_json(by_alias=True)
        etag = f'"{blake2b(content.encode(), digest_size=16).hexdigest()}"'
        if if_none_match == etag:
            return Response(status_code=304, headers={"ETag": etag})
        return Response(content, media_type="application/json", headers={"ETag": etag})

    @api.delete("/cases/{case_id}", status_code=204)
    def delete(case_id: told.Id) -> None:
        """Deletes a case and its images; the trail keeps only that it happened."""
        retention.remove(station, case_id)

    @api.post("/cases/{case_id}/files")
    def add_files(case_id: told.Id, reader: told.Id, file: Files) -> told.Added:
        """Takes in images and .zip archives; what the case holds already is not taken twice."""
        opened = [(one.filename or "", one.file) for one in file]
        return incoming.add_files(station, case_id, reader, opened)

    @api.post("/cases/{case_id}/analysis", response_class=Response, responses=_only(_LINES))
    def analyze(case_id: told.Id, by: told.ByReader) -> Response:
        """Answers the cells that have no answer yet: a line of JSON for each batch."""
        lines = incoming.analyze(station, case_id, by.reader)
        first = next(lines)  # what is refused is refused with its status

        def every() -> Generator[dict[str, Any]]:
            yield first
            try:
                yield from lines
            except Exception as error:
                _LOG.exception("analysis")
                detail = f"the analysis stopped ({type(error).__name__}); send it again."
                yield {"problem": {"title": "Stopped", "status": 500, "detail": detail}}

        return _streamed(every())

    @api.get("/cases/{case_id}/cells")
    def list_cells(
        case_id: told.Id, reader: told.Id | None = None, limit: told.Limit = 500, cursor: str = ""
    ) -> told.Page[told.CellInfo]:
        """Cells of a case in order, as a reader sees them."""
        [start] = _after(cursor, told.CELL_PLACE) or [-1]
        start = max(-1, min(start, station.limits.max_cells))
        with reading(station, case_id, reader) as at:
            found = at.cells(after=start, limit=limit + 1)
        return _page(found, limit, lambda last: [last.position])

    @api.post("/cases/{case_id}/corrections")
    def correct(case_id: told.Id, sent: told.Corrections) -> told.Corrected:
        """Keeps what a reader says of some cells: all of it, or nothing."""
        with changing(station, case_id, sent.reader) as at:
            return at.correct(sent.changes)

    @api.put("/cases/{case_id}/seen")
    def see(case_id: told.Id, sent: told.SeenClasses) -> told.SeenInfo:
        """Keeps that a reader has looked through classes."""
        with changing(station, case_id, sent.reader) as at:
            return at.see(sent.classes)

    @api.get("/cases/{case_id}/differential")
    def show_differential(case_id: told.Id, reader: told.Id | None = None) -> told.Differential:
        """The count as a reader has it."""
        with reading(station, case_id, reader) as at:
            return differential(at.classes, at.counted())

    @api.get("/cases/{case_id}/trail")
    def show_trail(case_id: told.Id) -> told.Items[told.EventInfo]:
        """Everything that happened to a case."""
        with database.read() as session:
            return told.Items(items=export.trail(session, case_id))

    def acted(case_id: str, reader_id: str, act: Callable[[Sitting], object]) -> told.CaseInfo:
        with changing(station, case_id, reader_id) as at:
            act(at)
            return at.info()

    @api.put("/cases/{case_id}/name")
    def rename(case_id: told.Id, sent: told.Renaming) -> told.CaseInfo:
        """Gives a case another name."""
        return acted(case_id, sent.reader, lambda at: at.rename(sent.name))

    @api.post("/cases/{case_id}/second")
    def join(case_id: told.Id, by: told.ByReader) -> told.CaseInfo:
        """Joins as second reader, blind."""
        return acted(case_id, by.reader, Sitting.join)

    @api.post("/cases/{case_id}/finish")
    def finish(case_id: told.Id, by: told.ByReader) -> told.CaseInfo:
        """Ends the second reading."""
        return acted(case_id, by.reader, Sitting.finish)

    @api.get("/cases/{case_id}/agreement")
    def show_agreement(case_id: told.Id) -> told.Agreement:
        """The two readings side by side, once the second is finished."""
        with reading(station, case_id) as at:
            return at.agreement()

    @api.post("/cases/{case_id}/sign")
    def sign(case_id: told.Id, by: told.ByReader) -> told.CaseInfo:
        """Signs and freezes a case."""
        return acted(case_id, by.reader, Sitting.sign)

    @api.post("/cases/{case_id}/reopen")
    def reopen(case_id: told.Id, by: told.Reopening) -> told.CaseInfo:
        """Opens a signed case again, for a reason that is recorded."""
        return acted(case_id, by.reader, lambda at: at.reopen(by.reason))

    def exported(case_id: str) -> dict[str, Any]:
        with reading(station, case_id) as at:
            return export.case_json(at.of(at.case.first_id))

    @api.get("/cases/{case_id}/export.json")
    def as_json(case_id: told.Id) -> Response:
        """The case with all its cells."""
        content = exported(case_id)
        return JSONResponse(content, headers=_as_file(content["name"], "json"))

    @api.get("/cases/{case_id}/export.csv", response_class=Response, responses=_only("text/csv"))
    def as_csv(case_id: told.Id) -> Response:
        """Its cells, a row each."""
        content = exported(case_id)
        headers = _as_file(content["name"], "csv")
        return Response(export.case_csv(content), media_type="text/csv", headers=headers)

    @api.get("/cases/{case_id}/report", response_class=HTMLResponse)
    def as_page(case_id: told.Id) -> Response:
        """A page to print."""
        return HTMLResponse(export.report_page(exported(case_id)))

    return api


def _gallery_routes(station: Station) -> APIRouter:
    api = APIRouter(tags=["gallery"])
    database = station.database
    references = gallery.References()
    as_png = _only("image/png")

    @api.get("/images/{name}", response_class=FileResponse, responses=as_png)
    def image(name: str) -> FileResponse:
        """A stored image (`SHA256.png`), or its small copy (`SHA256.jpg`)."""
        path = station.images.path(name[:64], name[64:])
        if not _IMAGE.fullmatch(name) or not path.is_file():
            raise missing("image")
        return FileResponse(path, headers={"Cache-Control": "private, max-age=86400, immutable"})

    def cell_of(case_id: str, cell_id: str) -> tuple[Case, Cell]:
        with database.read() as session:
            return gallery.find_cell(session, case_id, cell_id)

    @api.get("/cases/{case_id}/cells/{cell_id}/seen-image", responses=as_png)
    def seen_image(case_id: told.Id, cell_id: told.Id) -> Response:
        """What the network saw."""
        pixels = gallery.seen_image(station, *cell_of(case_id, cell_id))
        return Response(png(pixels), media_type="image/png")

    @api.get("/cases/{case_id}/cells/{cell_id}/map", responses=as_png)
    def show_map(case_id: told.Id, cell_id: told.Id, of: told.ClassName) -> Response:
        """What speaks for a class, to lay over the image that the network saw."""
        content = gallery.map_png(station, *cell_of(case_id, cell_id), of)
        return Response(content, media_type="image/png")

    @api.get("/cases/{case_id}/cells/{cell_id}/similar")
    def similar(
        case_id: told.Id, cell_id: told.Id, limit: told.Limit = 8
    ) -> told.Items[told.ReferenceCell]:
        """The most similar signed cells of the station."""
        with database.read() as session:
            case, cell = gallery.find_cell(session, case_id, cell_id)
            return told.Items(items=references.similar(session, case, cell, limit))

    @api.get("/reference")
    def reference(of: told.ClassName, limit: told.Limit = 12) -> told.Items[told.ReferenceCell]:
        """Typical signed cells of a class."""
        with database.read() as session:
            graph = station.predictor.graph.sha256
            found = references.typical(session, graph, of, limit)
        return told.Items(items=found)

    @api.post("/quizzes", status_code=201)
    def new_quiz(new: told.NewQuiz) -> told.QuizInfo:
        """Signed cells to be named again, blind."""
        with database.write() as session:
            return gallery.new_quiz(session, new)

    @api.get("/quizzes/{quiz_id}")
    def show_quiz(quiz_id: told.Id) -> told.QuizInfo:
        """A quiz, with its result when all cells are answered."""
        with database.read() as session:
            return gallery.quiz_info(find(session, Quiz, quiz_id))

    @api.post("/quizzes/{quiz_id}/answers")
    def answer(quiz_id: told.Id, sent: told.QuizAnswer) -> told.QuizInfo:
        """What the reader says of one cell."""
        return gallery.answer_quiz(station, quiz_id, sent)

    @api.get("/readers/{reader_id}/quizzes")
    def quizzes(reader_id: told.Id) -> told.Items[told.QuizLine]:
        """A reader's finished quizzes, the newest first."""
        with database.read() as session:
            return told.Items(items=gallery.quizzes_of(session, reader_id))

    return api


def _only(kind: str) -> dict[int | str, dict[str, Any]]:
    """That an answer is of this kind."""
    return {200: {"content": {kind: {}}}}


def _as_file(name: str, kind: str) -> dict[str, str]:
    """That an answer is a file; its name after RFC 6266, in ASCII as well."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "case"
    called = quote(f"{name}.{kind}", safe="")
    said = f"attachment; filename=\"{plain}.{kind}\"; filename*=UTF-8''{called}"
    return {"Content-Disposition": said}


def _streamed(lines: Iterator[dict[str, Any]]) -> StreamingResponse:
    """Lines as they come; what is refused at the first is refused with its status."""
    made = (json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return StreamingResponse(chain([next(made)], made), media_type=_LINES)


def _page(found: list[T], limit: int, place: Callable[[T], list[Any]]) -> told.Page[T]:
    """The first of what was found, and where the next page begins if there are more."""
    last = json.dumps(place(found[limit - 1])).encode() if len(found) > limit else b""
    more = base64.urlsafe_b64encode(last).decode() or None
    return told.Page(items=found[:limit], next_cursor=more)


def _after(cursor: str, kind: TypeAdapter[T]) -> T | None:
    """Where a page begins; None at the first."""
    try:
        return kind.validate_json(base64.urlsafe_b64decode(cursor), strict=True) if cursor else None
    except ValueError as error:
        why = "this cursor is not one that the station gave."
        raise Refused(422, why, field="cursor") from error
