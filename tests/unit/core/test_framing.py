"""Finding the cell in a picture, and one share for all pictures of a laboratory."""

import re

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps
from scipy.ndimage import label

from hemascope.core import framing
from hemascope.core.framing import NUCLEUS, Cell, choose_frame, find_cell, spread
from hemascope.core.image_spec import ImageSpec

PAPER, RED_CELL, NUCLEAR = (238, 230, 226), (225, 170, 160), (105, 60, 150)


def drawn(
    size: tuple[int, int], *nuclei: tuple[float, float, float], paper: tuple[int, ...] = PAPER
) -> Image.Image:
    """A picture with red cells and round nuclei (x, y, diameter in pixels)."""
    picture = Image.new("RGB", size, paper)
    pen = ImageDraw.Draw(picture)
    for x in range(0, size[0], 60):
        pen.ellipse((x, 5, x + 40, 45), fill=RED_CELL)
    for x, y, diameter in nuclei:
        r = diameter / 2
        pen.ellipse((x - r, y - r, x + r, y + r), fill=NUCLEAR)
    return picture


@pytest.mark.parametrize("paper", [PAPER, (240, 220, 150), (150, 145, 140)])
def test_the_nucleus_is_measured_on_any_background(paper: tuple[int, ...]) -> None:
    cell = find_cell(drawn((300, 300), (180, 140, 90), paper=paper))
    assert cell.diameter == pytest.approx(0.3, abs=0.015)
    assert (cell.x, cell.y) == pytest.approx((0.1, -1 / 30), abs=0.01)
    assert cell.area == pytest.approx(np.pi * 0.15**2, rel=0.1)
    assert cell.num_nuclei == 1


def test_segments_are_one_nucleus_and_another_cell_is_not() -> None:
    segments = find_cell(drawn((300, 300), (130, 150, 50), (185, 150, 50)))
    assert segments.num_nuclei == 1
    assert segments.diameter == pytest.approx(50 * 2**0.5 / 300, abs=0.015)
    assert find_cell(drawn((300, 300), (150, 150, 60), (40, 250, 60))).num_nuclei == 2


@pytest.mark.parametrize("color", [PAPER, (0, 0, 0), (90, 200, 40)])
def test_nothing_is_found_where_nothing_is(color: tuple[int, int, int]) -> None:
    assert find_cell(Image.new("RGB", (120, 120), color)).diameter == 0
    assert find_cell(drawn((300, 300))).diameter == 0  # red cells alone


def test_components_are_those_of_scipy() -> None:
    mask = np.random.default_rng(0).random((60, 70)) < 0.4
    ours = framing.components(mask)
    theirs: NDArray[np.int32] = np.zeros(mask.shape, dtype=np.int32)
    label(mask, np.ones((3, 3)), output=theirs)
    pairs = {*zip(ours.ravel().tolist(), theirs.ravel().tolist(), strict=True)}
    assert len(pairs) == len(np.unique(theirs)) == len(np.unique(ours))


def test_one_share_for_all_and_a_word_on_fields() -> None:
    cells = [Cell(diameter=NUCLEUS * share, area=0.1) for share in (0.5, 0.6, 0.9)]
    assert choose_frame(cells).share == pytest.approx(0.6)
    assert choose_frame([Cell(diameter=NUCLEUS * 0.95, area=0.1)]).share == 1
    assert choose_frame([Cell()]).share == 1
    assert "whole" in choose_frame([Cell()]).describe()
    field = choose_frame([find_cell(drawn((640, 480), (500, 120, 90)))])
    assert field.is_field
    assert "whole fields" in field.describe()
    spec = ImageSpec(size=64, frame="auto", geometries=((360, 0.5),))
    pictures = [drawn((640, 480), (500, 120, 90)), drawn((360, 360), (180, 180, 100))]
    assert spec.framed(field).prepare(pictures).fields == (True, False)
    assert spec.prepare(pictures).fields == (True, False)
    around = spec.model_copy(update={"frame": "cell"})
    assert around.framed(field).prepare(pictures).fields == (False, False)


@pytest.mark.parametrize("size", [360, 450])  # one that training had, and another
def test_sheets_of_cells_are_not_answered_as_the_one_in_the_middle(size: int) -> None:
    sheet = Image.new("RGB", (size, size))
    for place in range(9):
        part = size // 3
        one = drawn((part, part), (part / 2, part / 2, 0.4 * part))
        sheet.paste(one, (place % 3 * part, place // 3 * part))
    spec = ImageSpec(size=64, frame="auto", geometries=((360, 0.5),))
    frame = spec.decide([sheet] * 12)
    assert frame is not None
    assert spec.framed(frame).prepare([sheet]).fields == (True,)
    several = drawn((size, size), (size / 2, size / 2, size / 4))  # with another cell at its edge
    several.paste(sheet.crop((0, 0, size // 3, size // 3)), (0, 0))
    frame = spec.decide([several] * 12)
    assert frame is None or not frame.is_field


def test_an_oblong_field_among_photographs_of_cells_is_seen() -> None:
    spec = ImageSpec(size=64, frame="auto")
    one, field = drawn((300, 300), (150, 150, 100)), drawn((640, 480), (500, 120, 60))
    beside = drawn((400, 300), (200, 150, 100))  # oblong, and of one cell
    frame = spec.decide([one] * 12 + [field, beside])
    assert frame is not None
    made = spec.framed(frame).prepare([one, field, beside])
    assert made.fields == (False, True, False)


def test_those_that_decide_are_spread_evenly() -> None:
    assert spread(list(range(1000))) == list(range(0, 1000, 5))
    assert spread([3, 4]) == [3, 4]


def test_pictures_of_a_known_size_are_not_framed() -> None:
    spec = ImageSpec(size=64, frame="auto", geometries=((200, 1.0), (360, 0.5)))
    small = drawn((300, 300), (150, 150, 66))
    assert spec.decide([drawn((200, 200), (100, 100, 20))]) is None
    known = drawn((360, 360), (180, 180, 100))
    frame = spec.decide([small, known])
    assert frame is not None
    assert frame.share == pytest.approx(0.5, abs=0.03)
    [image] = spec.framed(frame).prepare([small]).images
    side = round(300 * frame.share)
    corner = round((300 - side) / 2)
    square = small.crop((corner, corner, corner + side, corner + side))
    np.testing.assert_array_equal(image, square.resize((64, 64), Image.Resampling.BILINEAR))
    [image] = spec.framed(frame).prepare([known]).images
    half = known.crop((90, 90, 270, 270)).resize((64, 64), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(image, half)


def test_one_picture_of_a_known_size_is_framed_as_its_laboratory() -> None:
    spec = ImageSpec(size=64, frame="auto", geometries=((200, 1.0), (360, 0.5)))
    chance = drawn((360, 360), (180, 180, 158))
    frame = spec.decide([drawn((300, 300), (150, 150, 132))] * 2 + [chance])
    assert frame is not None
    assert frame.share == 1
    assert frame.of_all_sizes
    [image] = spec.framed(frame).prepare([chance]).images
    np.testing.assert_array_equal(image, chance.resize((64, 64), Image.Resampling.BILINEAR))


def test_pictures_of_training_s_kind_keep_their_frame_among_more_of_another() -> None:
    """A folder of two microscopes: by the smaller part's size it is known how to frame that."""
    spec = ImageSpec(size=64, frame="auto", geometries=((360, 0.5),))
    known, other = drawn((360, 360), (180, 180, 80)), drawn((300, 300), (150, 150, 132))
    frame = spec.decide([known] * 10 + [other] * 15)
    assert frame is not None
    assert frame.share == 1
    [image] = spec.framed(frame).prepare([known]).images
    half = known.crop((90, 90, 270, 270)).resize((64, 64), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(image, half)


def test_pictures_of_a_known_size_whose_cells_are_too_large_are_framed_by_them() -> None:
    """Another laboratory's, which someone resized to the size of training's."""
    spec = ImageSpec(size=64, frame="auto", geometries=((360, 0.5),))
    other = drawn((360, 360), (180, 180, 158))
    frame = spec.decide([other] * 12)
    assert frame is not None
    assert frame.share == 1
    [image] = spec.framed(frame).prepare([other]).images
    np.testing.assert_array_equal(image, other.resize((64, 64), Image.Resampling.BILINEAR))
    assert spec.decide([other] * 3) is None  # too few to tell


def test_pictures_of_a_known_size_whose_cells_are_small_are_framed_as_known_and_said() -> None:
    """Platelets, or another laboratory's cells, which have the size of training's by chance."""
    spec = ImageSpec(size=64, frame="auto", geometries=((200, 1.0),))
    small = drawn((200, 200), (100, 100, 50))
    frame = spec.decide([small] * 12)
    assert frame is not None
    assert spec.framed(frame) == spec
    crop = re.search(r"for other cells give `crop` ([\d.]+)\.", frame.describe())
    assert crop
    assert float(crop[1]) == pytest.approx(50 / 200 / NUCLEUS, abs=0.03)
    assert spec.decide([small] * 3) is None  # too few to tell
    assert spec.decide([drawn((200, 200), (100, 100, 66))] * 12) is None  # as erythroblasts'


def test_cells_that_fill_their_pictures_get_background_around_them() -> None:
    spec = ImageSpec(size=64, frame="auto")
    close = drawn((200, 260), (100, 130, 132))
    frame = spec.decide([close] * 10)
    assert frame is not None
    assert frame.share == pytest.approx(1.5, abs=0.05)
    assert "background is added" in frame.describe()
    made = spec.framed(frame).prepare([close])
    assert "background was added" in made.notes[0]
    [image] = made.images
    assert image[32, 2] == pytest.approx(PAPER, abs=3)  # beside the picture
    assert find_cell(Image.fromarray(image)).diameter == pytest.approx(NUCLEUS, abs=0.03)
    few = spec.decide([close] * 3)  # a few cells may have large nuclei
    assert few is not None
    assert few.share == 1


def test_framing_says_what_was_used() -> None:
    spec = ImageSpec(size=64, frame="cell")
    [note] = spec.prepare([drawn((640, 480), (500, 120, 90))]).notes
    assert note == "framed: 43 % of the shorter side around the cell was used"


def test_a_cell_is_cut_out_of_its_field() -> None:
    spec = ImageSpec(size=64, frame="cell")
    [image] = spec.prepare([drawn((640, 480), (500, 120, 90))]).images
    cell = find_cell(Image.fromarray(image))
    assert (cell.x, cell.y) == pytest.approx((0, 0), abs=0.04)
    assert cell.diameter == pytest.approx(NUCLEUS, abs=0.04)


def test_purple_red_cells_that_touch_the_white_cell_are_no_nucleus() -> None:
    """As where all of a smear is stained: the first threshold parts cells from the background."""
    picture = Image.new("RGB", (192, 192), (240, 225, 225))
    draw = ImageDraw.Draw(picture)
    around = (
        (20, 30),
        (70, 10),
        (130, 20),
        (180, 70),
        (20, 100),
        (30, 165),
        (100, 185),
        (165, 150),
    )
    for x, y in around:
        draw.circle((x, y), 36, fill=(180, 90, 160))
    draw.circle((96, 96), 42, fill=(180, 90, 160))
    draw.circle((96, 96), 27, fill=(140, 50, 150))
    cell = find_cell(picture)
    assert cell.num_nuclei == 1
    assert abs(cell.diameter - 54 / 192) < 0.03
    assert abs(cell.x) < 0.03


def test_nothing_is_added_around_negatives_and_it_is_said() -> None:
    """Their brightest part is the cell, so that more of it would be added as their background."""
    spec = ImageSpec(size=64, frame="auto")
    pictures = [ImageOps.invert(drawn((200, 200), (100, 100, d))) for d in range(80, 110)]
    frame = spec.decide(pictures)
    assert frame is not None
    assert frame.share <= 1
    assert "should they be negatives" in frame.describe()
    assert (
        "negatives" not in choose_frame([find_cell(drawn((200, 200), (100, 100, 90)))]).describe()
    )


def test_cells_off_the_middle_are_said_and_found_where_asked_for() -> None:
    """Of a known size too: who asks for the cell is not to get the middle."""
    off = [drawn((300, 300), (210, 150, d)) for d in range(78, 98)]
    spec = ImageSpec(size=64, frame="auto", geometries=((360, 0.5),))
    frame = spec.decide(off)
    assert frame is not None
    assert "`frame` cell looks for them" in frame.describe()
    around = spec.model_copy(update={"frame": "cell"})
    known = drawn((360, 360), (240, 180, 80))
    for one, framed in ((off[0], around.framed(frame)), (known, around)):
        [image] = framed.prepare([one]).images
        assert np.hypot(*(getattr(find_cell(Image.fromarray(image)), axis) for axis in "xy")) < 0.05
    [image] = spec.prepare([known]).images
    np.testing.assert_array_equal(
        image, known.crop((90, 90, 270, 270)).resize((64, 64), Image.Resampling.BILINEAR)
    )
