"""What a picture must become before a network sees it: the only code that crops or resizes."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from hemascope.core.jpeg import jpeg_round_trip

DEFAULT_IMAGE_SIZE = 28
_TILE_SHARE = 0.7  # of the photographs' size: what is smaller was cropped to the cell by its owner
SAME_SIZE = 0.1  # by which photographs of one microscope may differ in size
_SQUARE = 1.1  # longer over shorter side of what still counts as square


@dataclass(frozen=True, eq=False)
class Prepared:
    """Pictures as a network sees them.

    Attributes:
        images: RGB pixels, shape (N, H, H, 3), uint8.
        notes: What was guessed or lost for each picture; "" where nothing was.
    """

    images: NDArray[np.uint8]
    notes: tuple[str, ...]


class ImageSpec(BaseModel):
    """How a picture becomes a network's image; travels from the data to every use of the model.

    A picture of `size` by `size` pixels is taken as it is. Of any other, the central square is
    cropped to the share `crop` of its side, resized (bilinear, antialiased), and, where
    `jpeg_quality` is not 0, saved as a JPEG file and read again. `photo_size` is the shorter side
    in pixels of the photographs that the crop was chosen for, 0 where that is unknown: much
    smaller pictures have been cropped to the cell already and are used whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: int = Field(default=DEFAULT_IMAGE_SIZE, ge=8, le=1024)
    crop: float = Field(default=1.0, gt=0, le=1)
    jpeg_quality: int = Field(default=0, ge=0, le=95)
    photo_size: int = Field(default=0, ge=0)

    def prepare(self, pictures: Iterable[Image.Image]) -> Prepared:
        """RGB pictures of any size as images of this one; one picture is held at a time."""
        images = [np.empty((0, self.size, self.size, 3), dtype=np.uint8)]
        notes: list[str] = []
        changed: list[bool] = []
        for picture in pictures:
            changed.append(picture.size != (self.size, self.size))
            image, note = self._framed(picture) if changed[-1] else (np.asarray(picture), "")
            images.append(image[None])
            notes.append(note)
        together = np.concatenate(images)
        if self.jpeg_quality and any(changed):
            together[changed] = jpeg_round_trip(together[changed], self.jpeg_quality)
        return Prepared(together, tuple(notes))

    def _crop_of(self, picture: Image.Image) -> tuple[float, str]:
        """The share to keep of a picture's central square, and what is guessed or lost thereby."""
        shorter, longer = sorted(picture.size)
        if self.crop < 1 and shorter < _TILE_SHARE * self.photo_size:
            return 1.0, (
                f"taken as already cropped to the cell, being smaller than the {self.photo_size} "
                "pixels of the training photographs"
            )
        if abs(shorter - self.photo_size) > SAME_SIZE * self.photo_size > 0:
            return self.crop, (
                f"size differs from the {self.photo_size} pixels of the training photographs: "
                f"{'the same central fraction' if self.crop < 1 else 'the whole'} was used"
            )
        if longer > _SQUARE * shorter:
            return self.crop, "not square: only the center was used"
        return self.crop, ""

    def _framed(self, picture: Image.Image) -> tuple[NDArray[np.uint8], str]:
        crop, note = self._crop_of(picture)
        side = max(round(min(picture.size) * crop), 1)
        left, top = round((picture.width - side) / 2), round((picture.height - side) / 2)
        square = picture.crop((left, top, left + side, top + side))
        resized = square.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.asarray(resized), note
