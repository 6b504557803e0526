"""The station's REST API is as it describes itself, whatever it is asked."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from hemascope.inference.predictor import Predictor
from stations import Desk, assert_problem

FUZZ = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "review_fuzz.py"))


def test_requests_of_every_kind_are_answered_as_described(
    packaged: Predictor, tmp_path: Path
) -> None:
    """A small share of `benchmarks/review_fuzz.py`."""
    with FUZZ["filled_station"](tmp_path / "station", packaged) as desk:
        found = FUZZ["fuzz"](desk, seed=1, examples=1)
    assert found.findings == {}
    assert found.num_requests > 500
    assert {200, 201, 204, 404, 409, 422} <= set(found.statuses)
    assert not any(status >= 500 for status in found.statuses)
    assert len(found.operations) >= 35


def test_the_description_is_whole(local_desk: Desk) -> None:
    content = local_desk.get("/openapi.json")
    assert content["info"]["title"] == "hemascope review station"
    assert "Research use only" in content["info"]["description"]
    for path, operations in content["paths"].items():
        assert path.startswith("/api/v1/")
        for method, one in operations.items():
            assert one.get("description") or one.get("summary"), (method, path)
            assert set(one["responses"]) >= {"4XX", "5XX"}
            problem = one["responses"]["4XX"]["content"]["application/problem+json"]["schema"]
            assert set(problem["required"]) == {"title", "status", "detail"}


@pytest.mark.parametrize(
    ("method", "path", "content", "field"),
    [
        ("POST", "/readers", {}, "name"),
        ("POST", "/readers", {"name": 1}, "name"),
        ("POST", "/readers", {"name": "x", "age": 1}, "age"),
        ("POST", "/cases", {"name": "x"}, "reader"),
        ("POST", "/cases", {"name": "x", "reader": "0" * 32}, "reader"),
        ("POST", "/quizzes", {"reader": "0" * 32, "size": 0}, "size"),
        ("POST", f"/cases/{'0' * 32}/corrections", {"reader": "x", "changes": []}, "reader"),
        ("GET", "/cases?limit=0", None, "limit"),
        ("GET", "/cases?cursor=x", None, "cursor"),
        ("GET", "/reference", None, "of"),
        ("POST", f"/cases/{'0' * 32}/files", None, "reader"),
    ],
)
def test_a_problem_names_the_field_at_fault(
    local_desk: Desk, method: str, path: str, content: Any, field: str
) -> None:
    answer = local_desk.ask(method, path, json=content)
    assert 400 <= answer.status_code < 500
    assert answer.json()["field"] == field


def test_what_is_not_there_is_a_problem_too(local_desk: Desk) -> None:
    for path in (
        "/nothing",
        "/cases/x/y/z",
        "/a%0Ab",
        "/images/x.png",
        f"/images/{'0' * 64}.png",
    ):
        local_desk.ask("GET", path, status=404)
    none = "0" * 32
    for path in (f"/cases/{none}", f"/cases/{none}/cells", f"/quizzes/{none}"):
        local_desk.ask("GET", path, status=404)
    answer = local_desk.ask("PATCH", "/cases", status=405)
    assert answer.headers["Allow"] == "GET, POST"
    for traversal in ("/static/../api.py", "/static/%2e%2e/api.py", "/static//etc/passwd"):
        assert_problem(local_desk.client.get(f"http://localhost{traversal}"))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"name": NaN}', b"{}" * 2],
)
def test_what_is_no_json_object_is_a_problem(local_desk: Desk, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = local_desk.ask("POST", "/readers", content=content, headers=headers)
    assert answer.status_code in (400, 422)
