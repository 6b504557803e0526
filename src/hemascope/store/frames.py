"""The file that says how a laboratory's photographs are framed and answered, or what is asked."""

from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from hemascope.core.errors import DataError, UsageError
from hemascope.core.fit import LaboratoryFit, MovedLayer
from hemascope.core.image_spec import FrameChoice, ImageSpec
from hemascope.settings.base import explain
from hemascope.store.files import write_text


def asked_spec(spec: ImageSpec, *, crop: float | None, frame: str) -> ImageSpec:
    """The spec of `asked_fit` alone."""
    return asked_fit(spec, crop=crop, frame=frame)[0]


def asked_fit(
    spec: ImageSpec, *, crop: float | None, frame: str
) -> tuple[ImageSpec, MovedLayer | None]:
    """A spec with the share or the framing that a user asks for, and the last layer, if one is.

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
        return spec.model_copy(update=changes), None
    if frame in ("", *get_args(FrameChoice)):
        return (spec.model_copy(update={"frame": frame}) if frame else spec), None
    path = Path(frame)
    if not path.is_file():
        raise UsageError(f"'{frame}' is not auto, whole or cell, nor a frame file.", field="frame")
    found = read_fit(path)
    if found.layer and not found.frame:  # of photographs whose share is known
        return spec, found.layer
    for undecided in ("auto", "cell"):
        wanted = spec.model_copy(update={"frame": undecided})
        if found.frame and found.frame.made_for == wanted.digest:
            return wanted.framed(found.frame), found.layer
    raise DataError(
        f"{path} was decided for a model that makes its images otherwise; use that model, or let "
        "`frame` auto decide.",
        field="frame",
    )


def holds_layer(frame: str) -> bool:
    """Whether what is asked for is a frame file with a moved last layer."""
    return bool(frame) and Path(frame).is_file() and read_fit(Path(frame)).layer is not None


def read_fit(path: Path) -> LaboratoryFit:
    """Reads a frame file.

    Raises:
        DataError: If it is none.
    """
    try:
        return LaboratoryFit.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        why = (
            explain(error, LaboratoryFit) if isinstance(error, ValidationError) else error.strerror
        )
        raise DataError(f"{path} is not a frame file: {why}", field="frame") from error


def write_fit(path: Path, fit: LaboratoryFit) -> None:
    """Writes a frame file.

    Raises:
        OutputError: If it cannot be written.
    """
    write_text(path, fit.model_dump_json(indent=2) + "\n")
