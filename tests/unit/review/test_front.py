"""What the station answers while it is still put together."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from hemascope.core.errors import DataError
from hemascope.review.front import front
from hemascope.review.safety import Safety
from stations import assert_problem


@pytest.fixture
def opened() -> Future[ASGIApp]:
    return Future()


@pytest.fixture
def client(opened: Future[ASGIApp]) -> Iterator[TestClient]:
    app = front(opened, Safety(hosts=frozenset({"localhost"})), CollectorRegistry())
    with TestClient(app, base_url="http://localhost") as made:
        yield made


def test_it_lives_but_is_not_ready_before_its_model_is_there(client: TestClient) -> None:
    assert client.get("/api/v1/health").json() == {"status": "ok"}
    ready = client.get("/api/v1/ready")
    assert ready.status_code == 503
    assert ready.headers["Retry-After"]
    assert_problem(ready)


def test_the_page_is_there_at_once_and_is_guarded(client: TestClient) -> None:
    for path in ("/", "/static/app.js"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert client.get(path, headers={"Host": "evil.example"}).status_code == 421
    assert_problem(client.get("/static/none.js"))


def test_other_requests_wait_for_the_station(client: TestClient, opened: Future[ASGIApp]) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.get, "/api/v1/cases")
        time.sleep(0.1)
        assert not asked.done()
        opened.set_result(PlainTextResponse("all cases"))
        assert asked.result(5).text == "all cases"
    for path in ("/api/v1/ready", "/api/v1/health"):  # from now on the station's own
        assert client.get(path).text == "all cases"


def test_who_waits_for_a_station_that_cannot_start_is_told(
    client: TestClient, opened: Future[ASGIApp]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.get, "/api/v1/cases")
        opened.set_exception(DataError("there is no such model."))
        answer = asked.result(5)
    assert answer.status_code == 503
    assert_problem(answer)


def test_who_stops_waiting_takes_the_station_from_nobody_else(opened: Future[ASGIApp]) -> None:
    app = front(opened, Safety(), CollectorRegistry())
    scope = {"type": "http", "method": "GET", "path": "/api/v1/cases", "headers": []}

    async def nothing(*_: object) -> Any:
        return {"type": "http.disconnect"}

    async def leave() -> None:
        task = asyncio.ensure_future(app(scope, nothing, nothing))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with ThreadPoolExecutor(1) as pool:  # whose thread has no loop yet
        pool.submit(lambda: asyncio.run(leave())).result(5)
    opened.set_result(PlainTextResponse("all cases"))
    assert opened.result()
