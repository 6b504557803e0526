"""Draws what speaks for an answer over the photograph it is about; needs Pillow alone."""

import re
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hemascope.core.answers import Answer
from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.store.files import written_whole

_SIDE = 224  # pixels of a cell as it is shown
_TEXT = 46  # pixels below it
_STRENGTH = 0.55  # of the colors laid over the cell, at most
# Source: cividis, Nuñez et al., PLOS ONE 2018, at equal steps: also for the color-blind.
_CIVIDIS = np.array(
    [
        *([0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115]),
        *([138, 134, 120], [165, 156, 116], [195, 179, 105], [225, 204, 85], [254, 232, 56]),
    ],
    dtype=np.float32,
)


def draw_overlay(
    folder: Path,
    number: int,
    path: str,
    image: NDArray[np.uint8],
    contributions: NDArray[np.float32],
    answer: Answer,
) -> None:
    """Writes `NUMBER-NAME.png`: a cell, the same with what speaks for its class, and the answer.

    Args:
        folder: Where to.
        number: Of the photograph in its run.
        path: Of the photograph; nothing but letters and digits of its last part gets into the name.
        image: What the network was given, shape (H, H, 3).
        contributions: What each place adds to the class's logit, shape (h, w).
        answer: What the network said.

    Raises:
        OutputError: If it cannot be written.
    """
    cell = Image.fromarray(image).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    mixed = Image.alpha_composite(cell.convert("RGBA"), heat_map(contributions))
    sheet = Image.new("RGB", (2 * _SIDE, _SIDE + _TEXT), "white")
    sheet.paste(cell, (0, 0))
    sheet.paste(mixed.convert("RGB"), (_SIDE, 0))
    pen, large, small = (
        ImageDraw.Draw(sheet),
        ImageFont.load_default(15),
        ImageFont.load_default(11),
    )
    text = f"{answer.predicted_class}, {100 * answer.confidence:.1f} %"
    pen.text(
        (6, _SIDE + 5), text + (": flagged for review" if answer.abstain else ""), "black", large
    )
    pen.text((6, _SIDE + 27), RESEARCH_USE_ONLY, "#555555", small)
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", PurePosixPath(path).stem)[:80].strip("-") or "picture"
    with written_whole(folder / f"{number:06d}-{stem}.png") as file:
        sheet.save(file, "PNG")


def heat_map(contributions: NDArray[np.float32]) -> Image.Image:
    """What speaks for a class at each place, shape (h, w), as an RGBA image to lay over a cell."""
    heat = np.maximum(contributions, 0)
    heat = np.sqrt(heat / max(float(heat.max()), 1e-9))  # so that lesser places are seen as well
    grid = Image.fromarray(np.rint(255 * heat).astype(np.uint8))
    smooth = np.asarray(grid.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)) / 255
    pixels = np.concatenate([_colored(smooth), 255 * _STRENGTH * smooth[..., None]], axis=-1)
    return Image.fromarray(np.rint(pixels).astype(np.uint8), "RGBA")


def _colored(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colors (H, W, 3) of values (H, W) from 0 to 1."""
    at = np.linspace(0, 1, len(_CIVIDIS))
    return np.stack([np.interp(values, at, channel) for channel in _CIVIDIS.T], axis=-1)
