"""Where the cell is in a photo, and how much of a laboratory's photographs a network should see.

The nucleus is what all stains color alike: it takes up green light more than blue. Its diameter
says how large cells are in photographs of any magnification. Needs NumPy and Pillow alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")

NUCLEUS = 0.44  # median diameter over the side of the image, of the cells in PBC's central 200 px
NUM_DECIDING = 200  # pictures that decide for all of a laboratory
MOST = 1.6  # share of the side, of which the picture is a part and the rest is background
_WHOLE = (0.8, 1.2)  # shares that are as good as all, since nuclei differ between kinds of cells
_LEAST_TO_WIDEN = 10  # pictures with a cell: some cells alone have large nuclei
_TOO_LARGE = 1.5  # over NUCLEUS; of PBC's classes, monocytes have the largest nuclei: 1.27
_TOO_SMALL = 0.7  # of PBC's classes, platelets alone are smaller: 0.55; erythroblasts have 0.75
_APART = 1.3  # ratio of the nuclei of two magnifications
_FIELD_BELOW = 0.045  # share of its area that is nucleus, of a picture that may be a whole field
_SIDE = 96  # pixels, of the copy that is looked at
_BACKGROUND = 0.1  # share of the brightest pixels, which are background
_DARKEST = 0.05  # of a background
_LINED = 0.2  # share of the border that a mask of nuclei may line at most
_IN_TWO = 0.7  # share of the spread that two parts must explain; of any one hump about 0.65
_LEAST_CONTRAST = 0.12  # of the nucleus to the rest, in optical density
_SMALLEST = 0.003  # share of the area, of a nucleus
_SEGMENT, _OTHER = 0.05, 0.3  # of the nucleus' area: what may be its segment, or another nucleus
_NEAR = 3.0  # radii, between a nucleus and its segment
_CENTRAL = 0.3  # of the shorter side: how far from the middle a cell is expected
_ASIDE = 0.12  # of it: how far the cells of a field are from the middle, or
_BORDER, _MIDDLE, _DARKER = 0.1, 0.3, 0.05  # of the side, and difference in brightness
_OBLONG = 1.2  # longer over shorter side of a field
_MANY = 4  # nuclei of a like size in a sheet of cells; a photograph of one hardly ever has them


@dataclass(frozen=True)
class Cell:
    """What was found in a photograph; lengths are shares of its shorter side.

    Attributes:
        diameter: Of the nucleus, as that of a disk of its area; 0 where there is none.
        area: Of the nucleus, as a share of the photograph's.
        x: Its center, from the middle of the photograph to the right.
        y: The same downwards.
        contrast: How much more its pixels are colored as a nucleus than the rest (optical density).
        num_nuclei: How many nuclei of a like size there are, this one among them.
        aspect: Longer over shorter side of the photograph.
        is_dark: Whether the photograph is darker at its border than in its middle.
    """

    diameter: float = 0.0
    area: float = 0.0
    x: float = 0.0
    y: float = 0.0
    contrast: float = 0.0
    num_nuclei: int = 0
    aspect: float = 1.0
    is_dark: bool = False

    @property
    def is_aside(self) -> bool:
        """Whether it is far from the middle."""
        return bool(np.hypot(self.x, self.y) > _ASIDE)

    @property
    def is_in_sheet(self) -> bool:
        """Whether the photograph shows many white cells."""
        return self.num_nuclei >= _MANY

    @property
    def is_in_field(self) -> bool:
        """Whether the photograph is rather a field that holds the cell than a photograph of it."""
        is_far = 0 < self.area < _FIELD_BELOW and (self.is_aside or self.aspect > _OBLONG)
        return is_far or self.is_in_sheet


class Frame(BaseModel):
    """How much of each photograph of a laboratory is used, and what that was decided by.

    Attributes:
        share: Of the central square's side; above 1, background is added around the photograph.
        nucleus: Median diameter of the nuclei, as a share of the shorter side; 0 if there are none.
        is_field: Whether the photographs are much larger than their cells.
        num_pictures: How many photographs decided.
        is_aside: Whether the cells are far from the middle of most of them.
        is_dark: Whether most are darker at their border than in their middle, as negatives are; no
            background is added around these.
        of_all_sizes: Whether it holds for photographs of a size that training had as well, because
            most photographs of the laboratory have others.
        is_small: Whether they have a size that training had, and smaller cells.
        made_for: Digest of the `ImageSpec` that it was decided for; "" if for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    share: float = Field(gt=0, le=MOST)
    nucleus: float = Field(ge=0)
    is_field: bool
    num_pictures: int = Field(ge=0)
    is_aside: bool = False
    is_dark: bool = False
    of_all_sizes: bool = False
    is_small: bool = False
    made_for: str = ""

    def describe(self) -> str:
        """Sentences about it."""
        aside = " Cells are off the middle: `frame` cell looks for them." * self.is_aside
        dark = (
            " Most images are darker at the border than in the middle: should they be negatives, "
            "the answers are of no use."
        ) * (self.is_dark and self.share == 1)
        return f"{self._decided()}{aside}{dark}"

    def _decided(self) -> str:
        if not self.nucleus:
            return "No nucleus was found by which to frame the cells: images are used whole."
        found = (
            f"nuclei are {100 * self.nucleus:.0f} % of the side, of {self.num_pictures} image(s)"
        )
        if self.is_field:
            return (
                f"These are whole fields or sheets, not single cells ({found}): give `frame` cell."
            )
        if self.is_small:
            return (
                "Images have a size that training's have, and are framed as those were, but their "
                f"cells are small ({found}): right for platelets; for other cells give `crop` "
                f"{self.nucleus / NUCLEUS:.2f}."
            )
        if self.share > 1:
            added = (
                f"background is added around each image, to {100 * self.share:.0f} % of its side"
            )
            return f"Framed by the cells: {added} ({found})."
        used = "all" if self.share == 1 else f"the central {100 * self.share:.0f} %"
        return f"Framed by the cells: {used} of each image is used ({found})."


def find_cell(picture: Image.Image) -> Cell:
    """The white cell in an RGB picture: the largest nucleus, best one near the middle."""
    scale = _SIDE / max(picture.size)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    pixels = np.asarray(picture.resize(size, how), dtype=np.float64) / 255
    [index] = purple(densities(pixels[None]))
    mask = _nuclei(index)
    is_dark = _is_dark(pixels)
    if not mask.any() or mask.all():
        return Cell(is_dark=is_dark)
    contrast = float(index[mask].mean() - index[~mask].mean())
    names = components(mask)
    _, which, areas = np.unique(names[mask], return_inverse=True, return_counts=True)
    height, width = mask.shape
    shorter = min(width, height)
    rows, columns = np.nonzero(mask)
    x = np.bincount(which, columns + 0.5) / areas - width / 2
    y = np.bincount(which, rows + 0.5) / areas - height / 2
    nearness = np.exp(-((np.hypot(x, y) / (_CENTRAL * shorter)) ** 2) / 2)
    main = int(np.argmax(np.where(areas >= 0.1 * areas.max(), areas * nearness, 0)))
    radius = np.sqrt(np.maximum(areas, areas[main]) / np.pi)
    near = np.hypot(x - x[main], y - y[main]) < _NEAR * radius
    parts = near & (areas >= _SEGMENT * areas[main])
    area = int(areas[parts].sum())
    if contrast < _LEAST_CONTRAST or area < _SMALLEST * mask.size:
        return Cell(contrast=contrast)
    others = ~parts & (areas >= _OTHER * area)
    return Cell(
        diameter=float(2 * np.sqrt(area / np.pi) / shorter),
        area=area / mask.size,
        x=float((x[parts] * areas[parts]).sum() / area / shorter),
        y=float((y[parts] * areas[parts]).sum() / area / shorter),
        contrast=contrast,
        num_nuclei=1 + int(others.sum()),
        aspect=max(picture.size) / min(picture.size),
        is_dark=is_dark,
    )


def _is_dark(pixels: NDArray[np.floating]) -> bool:
    """Whether pixels (H, W, 3) are darker at the border than in the middle."""
    brightness = pixels.mean(axis=2)
    height, width = brightness.shape
    y, x = (np.abs(np.arange(n) + 0.5 - n / 2) / n for n in (height, width))
    from_middle = np.maximum(y[:, None], x)
    border = np.median(brightness[from_middle > 0.5 - _BORDER])
    return bool(border < np.median(brightness[from_middle < _MIDDLE / 2]) - _DARKER)


def spread(pictures: Sequence[T], count: int = NUM_DECIDING) -> list[T]:
    """Enough photographs to decide for all, spread evenly: the first may be of a single class."""
    step = max(len(pictures) / count, 1)
    return [pictures[int(i * step)] for i in range(min(len(pictures), count))]


def choose_frame(cells: Sequence[Cell]) -> Frame:
    """The one share for photographs of a laboratory, by what was found in some of them."""
    found = [cell for cell in cells if cell.diameter]
    is_dark = 2 * sum(cell.is_dark for cell in cells) > len(cells)
    if not found:
        return Frame(share=1, nucleus=0, is_field=False, num_pictures=len(cells), is_dark=is_dark)
    nucleus = float(np.median([cell.diameter for cell in found]))
    may_widen = len(found) >= _LEAST_TO_WIDEN and not is_dark  # or there is no background to add
    share = min(nucleus / NUCLEUS, MOST if may_widen else 1.0)
    is_field = 2 * sum(cell.is_in_field for cell in found) > len(found)
    return Frame(
        share=1.0 if _WHOLE[0] <= share <= _WHOLE[1] else round(share, 3),
        nucleus=round(nucleus, 3),
        is_field=is_field,
        num_pictures=len(cells),
        is_aside=not is_field
        and share < _WHOLE[0]
        and 2 * sum(cell.is_aside for cell in found) > len(found),
        is_dark=is_dark,
    )


def are_apart(some: Sequence[Cell], others: Sequence[Cell]) -> bool:
    """Whether two kinds of photographs show cells at different magnifications."""
    first, second = (choose_frame(cells).nucleus for cells in (some, others))
    if len(some) < _LEAST_TO_WIDEN or not first * second:
        return False
    return max(first / second, second / first) > _APART


def are_sheets(cells: Sequence[Cell]) -> bool:
    """Whether most photographs show many white cells."""
    return 2 * sum(cell.is_in_sheet for cell in cells) > len(cells)


def are_too_large(diameters: Sequence[float]) -> bool:
    """Whether nuclei, as shares of what training kept, are larger than those of any class."""
    enough = len(diameters) >= _LEAST_TO_WIDEN
    return enough and float(np.median(diameters)) > _TOO_LARGE * NUCLEUS


def are_small(diameters: Sequence[float]) -> bool:
    """Whether they are smaller than those of any class but platelets."""
    enough = len(diameters) >= _LEAST_TO_WIDEN
    return enough and float(np.median(diameters)) < _TOO_SMALL * NUCLEUS


def background(pixels: NDArray[np.floating]) -> NDArray[np.floating]:
    """The color of the background of images (N, H, W, 3), the brightest tenth of them, (N, 3)."""
    brightness = pixels.mean(axis=3)
    flat = brightness.reshape(len(pixels), pixels.shape[1] * pixels.shape[2])
    place = int((1 - _BACKGROUND) * flat.shape[1])
    least = np.partition(flat, place, axis=1)[:, place]
    bright = (brightness >= least[:, None, None])[..., None]
    return (pixels * bright).sum(axis=(1, 2)) / bright.sum(axis=(1, 2))


def densities(pixels: NDArray[np.floating]) -> NDArray[np.floating]:
    """Optical densities of R, G and B over the background, (3, N, H, W), of images in [0, 1]."""
    white = background(pixels)
    relative = pixels / np.maximum(white, _DARKEST)[:, None, None]
    return np.moveaxis(-np.log(np.clip(relative, 1 / 255, 1)), 3, 0)


def purple(densities: NDArray[np.floating]) -> NDArray[np.floating]:
    """How much each pixel is colored as a nucleus, (N, H, W), of optical densities (3, N, H, W)."""
    red, green, blue = densities
    return np.clip(green - blue, -0.2, 2) + 0.3 * np.clip(red, 0, 1.5)


def _nuclei(index: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where an image (H, W) is colored as nuclei are.

    Where red cells are purple too, the first threshold parts all cells from the background. No
    nucleus lines the border, so a mask that does is parted again, if it falls in two.
    """
    mask = index > _otsu(index)
    for _ in range(2):
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        found = index[mask]
        if border.mean() <= _LINED or not np.ptp(found):
            break
        threshold = _otsu(found)
        upper = found > threshold
        between = found[upper].mean() - found[~upper].mean()
        if upper.mean() * (1 - upper.mean()) * between**2 < _IN_TWO * found.var():
            break
        mask = index > threshold
    return mask


def _otsu(values: NDArray[np.floating]) -> float:
    """The threshold that parts values best in two. Source: Otsu, IEEE Trans. SMC 1979."""
    counts, edges = np.histogram(values, 64)
    centers = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), values.size
    sums = np.cumsum(counts * centers)
    between = (sums[-1] * below / total - sums) ** 2 / np.maximum(below * (total - below), 1)
    return float(centers[between.argmax()])


def components(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """A number for each pixel of a mask, the same for pixels that touch, corners included."""
    height, width = mask.shape
    names = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(names, 1)
        rows = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
        largest = np.maximum(np.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
        grown = np.where(mask, largest[:height, :width], 0)
        grown = np.where(mask, grown.ravel()[grown - 1], 0)  # its name's own name: far fewer rounds
        if (grown == names).all():
            return names
        names = grown
