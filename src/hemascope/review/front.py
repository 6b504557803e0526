"""What of the station answers from its first moment: the page; everything else waits for it.

Nothing heavy is imported here, so that the station can be put together behind it.
"""

import asyncio
from concurrent.futures import Future
from pathlib import Path

from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from hemascope.review.problems import problem
from hemascope.review.safety import Guarded, Safety

_STATIC = Path(__file__).parent / "static"


def front(station: Future[ASGIApp], safety: Safety, registry: CollectorRegistry) -> ASGIApp:
    """The page, and behind it a station that may still be put together.

    Until it is, `health` says that the process answers, and `ready` that the station does not.

    Args:
        station: The application that `api.build` makes.
        safety: What requests are held to.
        registry: Takes what is measured.
    """

    def page(_request: Request) -> FileResponse:
        return FileResponse(_STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp
        if not station.done() and scope["path"] == "/api/v1/health":
            answer = JSONResponse({"status": "ok"})
        elif not station.done() and scope["path"] == "/api/v1/ready":
            answer = problem(503, "the station is starting; try again in a few seconds.")
        else:
            try:
                if not station.done():  # who leaves meanwhile takes it from nobody else
                    await asyncio.shield(asyncio.wrap_future(station))
                answer = station.result()
            except Exception:  # which stops the server, and is said there
                answer = problem(503, "the station could not start.")
        await answer(scope, receive, send)

    files = Mount("/static", StaticFiles(directory=_STATIC))
    router = Router([Route("/", page), files], redirect_slashes=False, default=behind)
    return Guarded(router, safety, registry)
