"""What the station refuses, as RFC 9457 says it: one sentence, and which field is wrong."""

import http

from starlette.responses import JSONResponse

FAILED = "the station failed at this; its log says where."


class Refused(Exception):  # noqa: N818 - the server carries on: this is an answer
    """A request that is answered with a problem.

    Its text is one sentence that can be shown.

    Attributes:
        status: The HTTP status.
        field: Which part of the request is wrong; "" where the sentence says it.
        more: Further members of the problem, such as conflicts.
    """

    def __init__(self, status: int, detail: str, *, field: str = "", **more: object) -> None:
        super().__init__(detail)
        self.status, self.field, self.more = status, field, more


def missing(what: str, field: str = "") -> Refused:
    """The refusal of something that is not there."""
    return Refused(404, f"there is no such {what}.", field=field)


def problem(status: int, detail: str, field: str = "", **more: object) -> JSONResponse:
    """A refusal as a response."""
    content: dict[str, object] = {"type": "about:blank", "title": http.HTTPStatus(status).phrase}
    content |= {"status": status, "detail": detail, **({"field": field} if field else {}), **more}
    headers = {"Retry-After": "5"} if status in (429, 503) else None
    return JSONResponse(content, status, headers, media_type="application/problem+json")
