"""What a photograph must become before a network sees it: the only code that crops or resizes."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from hemascope.core.framing import (
    MOST,
    Cell,
    Frame,
    are_apart,
    are_sheets,
    are_small,
    are_too_large,
    background,
    choose_frame,
    find_cell,
)
from hemascope.core.jpeg import jpeg_round_trip

DEFAULT_IMAGE_SIZE = 28
TILE_SHARE = 0.7  # of the photographs' size: what is smaller was cropped to the cell by its owner
SAME_SIZE = 0.1  # by which photographs of one microscope may differ in size
SAME = 0.03  # by which pictures of a known geometry may
SQUARE = 1.1  # longer over shorter side of what still counts as square

FrameChoice = Literal["whole", "auto", "cell"]
Geometries = tuple[tuple[int, Annotated[float, Field(gt=0, le=1)]], ...]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Photographs as a network sees them.

    Attributes:
        images: RGB pixels, shape (N, H, H, 3), uint8.
        notes: What was guessed or lost for each photograph; "" where nothing was.
        fields: Whether each photograph is a whole field, in which no single cell was asked for.
    """

    images: NDArray[np.uint8]
    notes: tuple[str, ...]
    fields: tuple[bool, ...]


@dataclass(frozen=True)
class Look:
    """What was found in an image, and the share that training kept of images of its size."""

    cell: Cell
    known: float | None


class ImageSpec(BaseModel):
    """How a photograph becomes a network's image; travels from the data to every use of the model.

    A photograph of `size` by `size` pixels is taken as it is. Of any other, a square is cropped,
    resized (bilinear, antialiased), and, where `jpeg_quality` is not 0, saved as a JPEG file and
    read again. The square is the share of the central one that `geometries` lists for photographs
    of that size (pairs of shorter side in pixels and share), unless most of the laboratory's have
    others and show cells as large; for those `frame` says:

    - "whole": the share `crop`. `photo_size` is the shorter side in pixels of the photographs that
      it was chosen for, 0 where that is unknown: much smaller photographs have been cropped to the
      cell already and are used whole.
    - "auto": the share that the cell in each photograph asks for; `framed` decides it for all,
      after which it is "framed", or "field" where the photographs are much larger than their cells.
      Where cells fill their photos, it is above 1, and the background's color is added around them.
    - "cell": the same share, but around the cell instead of the middle; decided, it is "centered".
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: int = Field(default=DEFAULT_IMAGE_SIZE, ge=8, le=1024)
    crop: float = Field(default=1.0, gt=0, le=MOST)
    jpeg_quality: int = Field(default=0, ge=0, le=95)
    photo_size: int = Field(default=0, ge=0)
    frame: Literal[FrameChoice, "framed", "field", "centered"] = "whole"
    geometries: Geometries = ()

    @property
    def is_undecided(self) -> bool:
        """Whether photographs decide how they are framed; see `framed`."""
        return self.frame in ("auto", "cell")

    @property
    def digest(self) -> str:
        """What a frame is known to fit by."""
        return blake2b(self.model_dump_json().encode(), digest_size=8).hexdigest()

    def decide(self, pictures: Iterable[Image.Image]) -> Frame | None:
        """How photographs of one laboratory are framed; None if that is settled without them."""
        if not self.is_undecided:
            return None
        return self.decide_by(map(self.look, pictures))

    def look(self, picture: Image.Image) -> Look:
        """What an image tells of how those of its laboratory are framed."""
        is_own = picture.size == (self.size, self.size)  # taken as it is, whatever the cell
        return Look(Cell() if is_own else find_cell(picture), self.knows(picture))

    def decide_by(self, looks: Iterable[Look]) -> Frame | None:
        """The same as `decide`, of images looked at before."""
        known: list[Cell] = []
        others: list[Cell] = []
        diameters: list[float] = []  # of nuclei, in what training kept of photographs of a size
        for look in looks:
            (others if look.known is None else known).append(look.cell)
            if look.known and look.cell.diameter:
                diameters.append(look.cell.diameter / look.known)
        # Some have a size of training's by chance.
        of_all_sizes = len(others) > len(known) and not are_apart(known, others)
        of_all_sizes |= are_too_large(diameters) or are_sheets([*known, *others])
        is_small = not (others or of_all_sizes) and are_small(diameters)
        if not (others or of_all_sizes or is_small):
            return None
        cells = [*others, *known] if of_all_sizes or is_small else others
        changes: dict[str, object] = {"of_all_sizes": of_all_sizes, "made_for": self.digest}
        if is_small:  # framed as training's all the same: they may be platelets
            changes |= {"share": 1.0, "is_small": True, "is_field": False, "is_aside": False}
        return choose_frame(cells).model_copy(update=changes)

    def framed(self, frame: Frame) -> "ImageSpec":
        """The same with one share for all photographs, where that is undecided."""
        if not self.is_undecided or frame.is_small:
            return self
        of_middle = "field" if frame.is_field else "framed"
        decided = "centered" if self.frame == "cell" else of_middle
        changes: dict[str, object] = {"crop": frame.share, "frame": decided, "photo_size": 0}
        if frame.of_all_sizes:
            changes["geometries"] = ()
        return self.model_copy(update=changes)

    def knows(self, picture: Image.Image) -> float | None:
        """The share to keep of a photo of a size that training had, or of its own; else None."""
        shorter, longer = sorted(picture.size)
        if longer > SQUARE * shorter:
            return None
        if picture.size == (self.size, self.size):
            return 1.0
        near = [crop for size, crop in self.geometries if abs(shorter - size) <= SAME * size]
        return near[0] if near else None

    def prepare(self, pictures: Iterable[Image.Image]) -> Prepared:
        """RGB photographs of any size as images of this one; one photograph is held at a time."""
        images = [np.empty((0, self.size, self.size, 3), dtype=np.uint8)]
        notes: list[str] = []
        changed: list[bool] = []
        fields: list[bool] = []
        for picture in pictures:
            changed.append(picture.size != (self.size, self.size))
            whole = np.asarray(picture), "", False
            image, note, is_field = self._square(picture) if changed[-1] else whole
            images.append(image[None])
            notes.append(note)
            fields.append(is_field)
        together = np.concatenate(images)
        if self.jpeg_quality and any(changed):
            together[changed] = jpeg_round_trip(together[changed], self.jpeg_quality)
        return Prepared(together, tuple(notes), tuple(fields))

    def _crop_of(self, picture: Image.Image) -> tuple[float, str]:
        """The share to keep of a photo's central square, and what is guessed or lost thereby."""
        shorter, longer = sorted(picture.size)
        if (known := self.knows(picture)) is not None:
            return known, ""
        if self.crop < 1 and shorter < TILE_SHARE * self.photo_size:
            return 1.0, (
                f"taken as already cropped to the cell, being smaller than the {self.photo_size} "
                "pixels of the training photographs"
            )
        if abs(shorter - self.photo_size) > SAME_SIZE * self.photo_size > 0:
            return self.crop, (
                f"size differs from the {self.photo_size} pixels of the training photographs: "
                f"{'the same central fraction' if self.crop < 1 else 'the whole'} was used"
            )
        if longer > SQUARE * shorter:
            return self.crop, "not square: only the center was used"
        return self.crop, ""

    def _square(self, picture: Image.Image) -> tuple[NDArray[np.uint8], str, bool]:
        """The image, what is to be noted, and whether the photograph is a whole field."""
        x = y = 0.0
        crop, note = self._crop_of(picture)
        is_field = False
        known = self.knows(picture)
        if self.frame != "whole" and (known is None or self.frame in ("cell", "centered")):
            is_field = self.frame == "field"
            if self.frame == "framed" and max(picture.size) > SQUARE * min(picture.size):
                is_field = find_cell(picture).is_in_field  # a field among photographs of cells
            if self.frame not in ("framed", "field"):
                cell = find_cell(picture)
                if self.is_undecided:
                    alone = choose_frame([cell])
                    is_field = alone.is_field and self.frame == "auto"
                    crop = known or alone.share
                if self.frame != "auto":
                    x, y = cell.x, cell.y
            if crop > 1:
                note = f"framed: background was added around it, to {100 * crop:.0f} % of its side"
            elif crop < 1 or x or y:
                middle = "the cell" if x or y else "the middle"
                note = f"framed: {100 * crop:.0f} % of the shorter side around {middle} was used"
        shorter = min(picture.size)
        side = max(round(shorter * crop), 1)
        left, top = (
            min(max(round((length - side) / 2 + shift * shorter), 0), max(length - side, 0))
            if crop <= 1
            else (length - side) // 2
            for length, shift in zip(picture.size, (x, y), strict=True)
        )
        square = picture.crop((left, top, left + side, top + side))
        if crop > 1:
            [color] = background(np.asarray(picture)[None])
            square = Image.new("RGB", (side, side), tuple(color.round().astype(int).tolist()))
            square.paste(picture, (-left, -top))
        resized = square.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.asarray(resized), note, is_field
