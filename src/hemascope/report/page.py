"""How every page is rendered: its templates and the figures inside it."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.core.errors import RESEARCH_USE_ONLY, DataError
from hemascope.report.numbers import FILTERS

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(*, autoescape: bool) -> "Environment":
    """Where all pages' templates are, and how they write figures."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # late: pictures need none

    pages = Environment(
        loader=PackageLoader("hemascope.report"),
        undefined=StrictUndefined,
        autoescape=autoescape,  # noqa: S701 - off for Markdown, which is text
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name, function in FILTERS.items():
        pages.filters[name] = _unbroken(function) if autoescape else function
    pages.filters["unbroken"] = _unbroken(str)
    return pages


def _unbroken(number: Callable[..., str]) -> Callable[..., str]:
    """No line of a page breaks before its per cent sign."""
    return lambda *args, **options: number(*args, **options).replace(" %", "\N{NO-BREAK SPACE}%")


def render(template: str, folder: Path, *, autoescape: bool, **values: object) -> str:
    """A page of a folder; the figures that it embeds are files of that folder.

    Raises:
        DataError: If a figure cannot be read.
    """
    pages = environment(autoescape=autoescape)
    pages.filters["embedded"] = lambda name: embedded(folder / str(name))  # pyright: ignore[reportArgumentType] - jinja's stubs
    return pages.get_template(template).render(notice=RESEARCH_USE_ONLY, **values)


def embedded(path: Path) -> str:
    """An SVG file as a data address, so that the page carries it (and its ids stay its own)."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the figure {path}: {error.strerror}; train again.") from error
    return "data:image/svg+xml;base64," + base64.b64encode(content).decode("ascii")


def png(image: NDArray[np.uint8]) -> bytes:
    """An RGB or RGBA image (H, W, 3 or 4) as the bytes of a PNG file."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG")
    return content.getvalue()


def pixels(image: NDArray[np.uint8]) -> str:
    """An RGB image (H, W, 3) as a data address."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode("ascii")
