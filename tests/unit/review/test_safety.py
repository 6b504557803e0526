"""Who may ask what: tokens, names, origins, sizes and rates, before any of it is read."""

import hmac
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from hemascope.inference.predictor import Predictor
from hemascope.review.safety import Safety, hash_token
from stations import Desk, assert_problem, cell_files, desk_at

_TOKEN = "a token that nobody guesses"  # noqa: S105 - of these tests alone


@pytest.fixture
def guarded(packaged: Predictor, tmp_path: Path) -> Iterator[Desk]:
    """A station that asks for a token."""
    safety = Safety(token_sha256=hash_token(_TOKEN), tries_per_minute=5)
    with desk_at(tmp_path / "station", packaged, safety=safety) as desk:
        yield desk


@pytest.fixture(scope="module")
def loopback(packaged: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A station as it runs on one's own machine, for tests that leave nothing in it."""
    safety = Safety(hosts=frozenset({"localhost", "127.0.0.1", "::1"}))
    with desk_at(tmp_path_factory.mktemp("station"), packaged, safety=safety) as desk:
        yield desk


def test_everything_but_health_and_the_page_asks_for_the_token(guarded: Desk) -> None:
    content = guarded.client.get("/openapi.json", headers=bearer()).json()
    open_ones = {"/health", "/ready", "/session"}
    for path, operations in content["paths"].items():
        path = path.removeprefix("/api/v1").replace("{", "").replace("}", "")
        for method in operations:
            answer = guarded.client.request(method, path)
            assert (answer.status_code == 401) is (path not in open_ones), (method, path)
    for path in ("/metrics", "/api/v1/openapi.json", "/api/v2", "/api/v1/cases/../health"):
        assert guarded.client.get(f"http://localhost{path}").status_code in (401, 200)
    assert guarded.client.get("http://localhost/metrics").status_code == 401
    assert_problem(guarded.client.get("/cases"))


def bearer(token: str = _TOKEN) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer("another"),
        bearer(_TOKEN + " "),
        bearer(hash_token(_TOKEN)),
        {"Authorization": f"Basic {_TOKEN}"},
        {"Authorization": "Bearer"},
        {"Cookie": f"hemascope_token={hash_token(_TOKEN)}"},
        {"Cookie": "hemascope_token"},
    ],
)
def test_another_token_is_none(guarded: Desk, headers: dict[str, str]) -> None:
    assert guarded.client.get("/cases", headers=headers).status_code == 401


def test_the_token_opens_by_header_and_by_a_cookie_that_no_script_reads(guarded: Desk) -> None:
    assert guarded.client.get("/cases", headers=bearer()).status_code == 200
    refused = guarded.ask("POST", "/session", json={"token": "another"}, status=401)
    assert refused.json()["field"] == "token"
    given = guarded.ask("POST", "/session", json={"token": _TOKEN}, status=204)
    cookie = given.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie  # over http, where no browser would send it back
    assert guarded.client.get("/cases").status_code == 200


def test_over_tls_the_cookie_is_for_tls_alone(guarded: Desk) -> None:
    answer = guarded.client.post(
        "https://localhost/api/v1/session",
        json={"token": _TOKEN},
        headers={"Origin": "https://localhost"},
    )
    assert "secure" in answer.headers["set-cookie"].lower()


def test_tokens_are_tried_a_few_times_a_minute(guarded: Desk) -> None:
    codes = [guarded.ask("POST", "/session", json={"token": f"{i}"}).status_code for i in range(7)]
    assert codes == [401] * 5 + [429] * 2
    answer = guarded.ask("POST", "/session", json={"token": _TOKEN}, status=429)
    assert int(answer.headers["Retry-After"]) > 0


def test_tokens_are_compared_in_constant_time(
    guarded: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[str, str]] = []
    plain = hmac.compare_digest

    def spy(given: str, known: str) -> bool:
        compared.append((given, known))
        return plain(given, known)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    guarded.client.get("/cases", headers=bearer("x"))
    assert compared == [(hash_token("x"), hash_token(_TOKEN))]


@pytest.mark.parametrize("host", ["localhost", "localhost:8765", "127.0.0.1:1", "[::1]:8765"])
def test_its_own_names(loopback: Desk, host: str) -> None:
    loopback.ask("GET", "/health", headers={"Host": host}, status=200)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "evil.example:8765", "[", ""]
)
def test_another_name_is_refused_so_that_no_foreign_page_is_rebound(
    loopback: Desk, host: str
) -> None:
    loopback.ask("GET", "/health", headers={"Host": host}, status=421)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://localhost.evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_another_site_changes_nothing(loopback: Desk, headers: dict[str, str]) -> None:
    for method, path in (("POST", "/readers"), ("DELETE", f"/cases/{'0' * 32}")):
        loopback.ask(method, path, json={"name": "Eve"}, headers=headers, status=403)
    assert "Eve" not in {one["name"] for one in loopback.get("/readers")["items"]}


def test_the_same_origin_changes_things(loopback: Desk) -> None:
    headers = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    sent = {"name": "Ann"}
    loopback.ask("POST", "/readers", json=sent, headers=headers, status=201)
    loopback.ask("POST", "/readers", json=sent, headers=headers, status=200)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_form_of_another_site_is_no_json(loopback: Desk, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    content = json.dumps({"name": "Eve"}).encode()
    loopback.ask("POST", "/readers", content=content, headers=headers, status=422)
    assert "Eve" not in {one["name"] for one in loopback.get("/readers")["items"]}


@pytest.mark.parametrize("path", ["/health", "/cases/none", "http://localhost/api/v1/x"])
def test_every_answer_has_the_headers(loopback: Desk, path: str) -> None:
    headers = loopback.client.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "object-src 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers


def test_a_failure_of_the_station_is_a_problem_too(
    loopback: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        loopback.station, "classes", lambda *_: (_ for _ in ()).throw(KeyError("hidden"))
    )
    answer = loopback.ask("GET", "/classes", status=500)
    assert "hidden" not in answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "hidden" in caplog.text


@pytest.fixture
def small(packaged: Predictor, tmp_path: Path) -> Iterator[Desk]:
    with desk_at(
        tmp_path / "station", packaged, safety=Safety(max_request_bytes=20_000, per_minute=20)
    ) as desk:
        yield desk


@pytest.mark.parametrize("says_its_length", [True, False])
def test_too_long_a_body_is_refused(small: Desk, says_its_length: bool) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    case = small.case()
    content = b"x" * 100_000 if says_its_length else parts()
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    path = f"/cases/{case}/files?reader={small.reader('Ann')}"
    answer = small.ask("POST", path, content=content, headers=headers, status=413)
    assert "a request may hold" in answer.json()["detail"]
    small.ask("POST", "/readers", content=content if says_its_length else parts(), status=413)


def test_too_many_requests_are_refused_for_a_while(small: Desk) -> None:
    codes = [small.client.get("/health").status_code for _ in range(22)]
    assert codes == [200] * 20 + [429] * 2


def test_logs_hold_neither_names_nor_images(
    local_desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "hemascope.review")
    case = local_desk.case(name="Case of Mr. Smith")
    local_desk.upload(case, {"smith.png": cell_files(1)["cell-000.png"], "smith.svg": b"<svg>"})
    local_desk.analyze(case)
    local_desk.ask("GET", f"/cases/{case}/cells/{'0' * 32}/seen-image", status=404)
    lines = [json.loads(one.message) for one in caplog.records if one.name == "hemascope.review"]
    assert {"method", "route", "status", "ms"} == set(lines[0])
    assert {line["route"] for line in lines} >= {"/cases/{case_id}/files"}
    assert not any("mith" in str(line) for line in lines)


def test_metrics_count_requests_by_route(local_desk: Desk) -> None:
    local_desk.signed(4)
    local_desk.case()
    text = local_desk.client.get("http://localhost/metrics").text
    assert 'hemascope_requests_total{method="POST",route="/cases",status="201"} 2.0' in text
    assert "hemascope_open_cases 1.0" in text
    assert "hemascope_request_seconds_bucket" in text
