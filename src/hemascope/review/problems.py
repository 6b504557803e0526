"""What the station refuses, as RFC 9457 says it: one sentence, and which field is wrong."""

import http
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

FAILED = "the station failed at this; its log says where."


class Refused(Exception):  # noqa: N818 - the server carries on: this is an answer
    """A request that is answered with a problem.

    Attributes:
        status: The HTTP status.
        detail: One sentence that can be shown.
        field: Which part of the request is wrong; "" where the sentence says it.
        more: Further members of the problem, such as conflicts.
    """

    def __init__(
        self, status: int, detail: str, *, field: str = "", more: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.field, self.more = status, detail, field, dict(more or {})


def missing(what: str) -> Refused:
    """The refusal of something that is not there."""
    return Refused(404, f"there is no such {what}.")


def problem(status: int, detail: str, field: str = "", **more: object) -> JSONResponse:
    """A refusal as a response."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
    }
    headers = {"Retry-After": "5"} if status in (429, 503) else None
    content |= {"detail": detail, **({"field": field} if field else {}), **more}
    return JSONResponse(content, status, headers, media_type="application/problem+json")
