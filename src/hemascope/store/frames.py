"""The file that says how a laboratory's photographs are framed, and what a user may ask instead."""

from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from hemascope.core.errors import DataError, UsageError
from hemascope.core.framing import Frame
from hemascope.core.image_spec import FrameChoice, ImageSpec
from hemascope.settings.base import explain
from hemascope.store.files import write_text


def asked_spec(spec: ImageSpec, *, crop: float | None, frame: str) -> ImageSpec:
    """A spec with the share or the framing that a user asks for instead of its own.

    Args:
        spec: What photographs become images by.
        crop: The share of the central square to use, of photographs of all sizes.
        frame: "whole", "auto", "cell", or the path of a frame file.

    Raises:
        UsageError: If both are given, or the frame is neither a word nor a file.
        DataError: If the file is not a frame file, or one for images made otherwise.
    """
    if crop is not None and frame:
        raise UsageError("give either `crop` or `frame`.", field="frame")
    if crop is not None or frame == "whole":
        changes = {"crop": crop or 1.0, "photo_size": 0, "frame": "whole", "geometries": ()}
        return spec.model_copy(update=changes)
    if frame in ("", *get_args(FrameChoice)):
        return spec.model_copy(update={"frame": frame}) if frame else spec
    path = Path(frame)
    if not path.is_file():
        raise UsageError(f"'{frame}' is not auto, whole or cell, nor a frame file.", field="frame")
    for undecided in ("auto", "cell"):
        wanted = spec.model_copy(update={"frame": undecided})
        if (found := read_frame(path)).made_for == wanted.digest:
            return wanted.framed(found)
    raise DataError(
        f"{path} was decided for a model that makes its images otherwise; use that model, or let "
        "`frame` auto decide.",
        field="frame",
    )


def read_frame(path: Path) -> Frame:
    """Reads a frame file.

    Raises:
        DataError: If it is none.
    """
    try:
        return Frame.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        why = explain(error, Frame) if isinstance(error, ValidationError) else error.strerror
        raise DataError(f"{path} is not a frame file: {why}", field="frame") from error


def write_frame(path: Path, frame: Frame) -> None:
    """Writes a frame file.

    Raises:
        OutputError: If it cannot be written.
    """
    write_text(path, frame.model_dump_json(indent=2) + "\n")
