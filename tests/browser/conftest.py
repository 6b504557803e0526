"""Pages opened in headless Chromium; without one, these tests say so and are skipped."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_REQUIRED = os.environ.get("HEMASCOPE_BROWSER") == "required"

Open = Callable[..., "Page"]


def _missing(reason: str) -> None:
    """Skips, or fails where HEMASCOPE_BROWSER=required."""
    if _REQUIRED:
        pytest.fail(f"{reason}, and HEMASCOPE_BROWSER=required")
    pytest.skip(f"{reason}: pages are not opened in a browser")


@pytest.fixture(scope="module")
def chromium() -> "Iterator[Browser]":
    """One browser for a module: while it is open, Playwright's event loop counts as running here,
    and a command of another module that starts its own would fail."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        _missing(f"none of {', '.join(_NAMES)} is on PATH")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("playwright is not installed")
        raise
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def open_page(chromium: "Browser") -> Iterator[Open]:
    """Opens a file at a width and in a color scheme; nothing but the file is to be asked for."""
    asked: list[str] = []
    broken: list[str] = []

    def opened(path: Path, *, width: int = 1280, scheme: str = "light") -> "Page":
        viewport = {"width": width, "height": 900}
        page = chromium.new_page(viewport=viewport, color_scheme=scheme)  # pyright: ignore[reportArgumentType]
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in chromium.contexts:
        context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert broken == []
