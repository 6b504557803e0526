"""Who may ask, what, how often and how much; and what is logged of it."""

import hashlib
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hemascope.review.problems import FAILED, problem

COOKIE = "hemascope_token"
_OPEN = ("/api/v1/health", "/api/v1/ready", "/api/v1/session", "/static/")  # without a token
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_LOG = logging.getLogger("hemascope.review")


@dataclass(frozen=True)
class Safety:
    """What requests are held to.

    Attributes:
        token_sha256: Of the token that is asked for; "" for none.
        hosts: Names that the station may be called by; empty for any.
        max_request_bytes: Of a body.
        per_minute: Requests of one address.
        tries_per_minute: Of one address, to give the token.
    """

    token_sha256: str = ""
    hosts: frozenset[str] = frozenset()
    max_request_bytes: int = 512_000_000
    per_minute: int = 60_000
    tries_per_minute: int = 20

    def is_token(self, given: str) -> bool:
        """Whether this is the station's token, in constant time."""
        return hmac.compare_digest(hash_token(given), self.token_sha256)


def hash_token(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


class Guarded:
    """An ASGI application behind all of this.

    Args:
        app: The application.
        safety: What requests are held to.
        registry: Takes what is measured.
    """

    def __init__(self, app: ASGIApp, safety: Safety, registry: CollectorRegistry) -> None:
        self._app, self._safety = app, safety
        most = safety.max_request_bytes // 1_000_000
        self._too_long = f"a request may hold {most} MB; send fewer files at once."
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._all = RateLimitItemPerMinute(safety.per_minute)
        self._tries = RateLimitItemPerMinute(safety.tries_per_minute)
        labels = ["method", "route", "status"]
        self._requests = Counter("hemascope_requests", "Requests", labels, registry=registry)
        self._seconds = Histogram(
            "hemascope_request_seconds", "Time to answer", ["route"], registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, is_begun, is_done = time.perf_counter(), 500, False, False

        async def sent(message: Message) -> None:
            nonlocal status, is_begun, is_done
            if message["type"] == "http.response.start":
                status, is_begun = message["status"], True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/api/"):
                    headers.setdefault("Cache-Control", "no-store")
                elif scope["path"].startswith("/static/"):
                    headers.setdefault("Cache-Control", "no-cache")  # asked again, seldom sent
            else:
                is_done = not message.get("more_body", False)
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, self._measured(receive), sent)
        except HTTPException as error:
            await problem(error.status_code, error.detail)(scope, receive, sent)
        except Exception:
            _LOG.exception("failed")
            if is_begun and not is_done:
                raise
            if not is_begun:
                await problem(500, FAILED)(scope, receive, sent)
        finally:
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "other")
            self._requests.labels(scope["method"], route, status).inc()
            self._seconds.labels(route).observe(seconds)
            asked = {"method": scope["method"], "route": route, "status": status}
            _LOG.info(json.dumps({**asked, "ms": round(1000 * seconds, 1)}))

    def _check(self, scope: Scope) -> None:
        """Refuses a request that is not passed on."""
        safety, headers = self._safety, Headers(scope=scope)
        path, changes = scope["path"], scope["method"] not in ("GET", "HEAD", "OPTIONS")
        try:
            host = urlsplit(f"//{headers.get('host', '')}").hostname
        except ValueError:
            host = None
        if safety.hosts and host not in safety.hosts:
            raise HTTPException(421, "the station is not called by this name; use its own address.")
        client = (scope.get("client") or ("unknown", 0))[0]
        if not self._limiter.hit(self._all, client):
            raise HTTPException(429, "too many requests; try again in a minute.")
        if path == "/api/v1/session" and not self._limiter.hit(self._tries, "token", client):
            raise HTTPException(429, "too many tries; try again in a minute.")
        origin = headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2] != headers.get("host", "")
        if changes and (foreign or headers.get("sec-fetch-site", "same-origin") == "cross-site"):
            raise HTTPException(
                403, "this request comes from another site; use the station's page."
            )
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > safety.max_request_bytes:
            raise HTTPException(413, self._too_long)
        if safety.token_sha256 and path != "/" and not path.startswith(_OPEN):
            scheme, _, bearer = headers.get("authorization", "").partition(" ")
            given = bearer if scheme.lower() == "bearer" else ""
            given = given or cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
            if not safety.is_token(given):
                raise HTTPException(401, "this station asks for its token.")

    def _measured(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        """Counts a body that does not say how long it is."""
        num_bytes = 0

        async def received() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._safety.max_request_bytes:
                raise HTTPException(413, self._too_long)
            return message

        return received
