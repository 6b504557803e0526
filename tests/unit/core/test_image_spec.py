import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from hemascope.core.image_spec import ImageSpec
from hemascope.core.jpeg import jpeg_round_trip

BILINEAR = Image.Resampling.BILINEAR


def _noise(width: int, height: int, *, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def _one(spec: ImageSpec, picture: Image.Image) -> tuple[NDArray[np.uint8], str]:
    made = spec.prepare([picture])
    return made.images[0], made.notes[0]


@pytest.mark.parametrize(
    ("size", "crop", "box"),
    [
        ((40, 40), 1.0, (0, 0, 40, 40)),
        ((60, 40), 1.0, (10, 0, 50, 40)),
        ((40, 60), 0.5, (10, 20, 30, 40)),
        ((360, 363), 200 / 360, (80, 82, 280, 282)),
    ],
)
def test_the_share_of_the_central_square_is_cropped_and_resized(
    size: tuple[int, int], crop: float, box: tuple[int, int, int, int]
) -> None:
    picture = _noise(*size)
    image, _ = _one(ImageSpec(size=16, crop=crop), picture)
    np.testing.assert_array_equal(image, picture.crop(box).resize((16, 16), BILINEAR))


def test_a_picture_of_the_exact_size_is_taken_as_it_is() -> None:
    picture = _noise(28, 28)
    image, note = _one(ImageSpec(crop=0.5, jpeg_quality=75, photo_size=360), picture)
    np.testing.assert_array_equal(image, picture)
    assert note == ""


def test_only_what_was_resized_is_recompressed_and_only_once() -> None:
    large, exact = _noise(64, 64), _noise(32, 32, seed=1)
    spec = ImageSpec(size=32, jpeg_quality=75)
    made = spec.prepare([large, exact, large])
    resized = np.asarray(large.resize((32, 32), BILINEAR))[None]
    np.testing.assert_array_equal(made.images[:1], jpeg_round_trip(resized, 75))
    np.testing.assert_array_equal(made.images[1], exact)
    np.testing.assert_array_equal(made.images[2], made.images[0])


def test_a_much_smaller_picture_is_taken_as_cropped_already_and_it_is_said() -> None:
    tile = _noise(64, 64)
    image, note = _one(ImageSpec(crop=200 / 360, photo_size=360), tile)
    np.testing.assert_array_equal(image, tile.resize((28, 28), BILINEAR))
    assert "already cropped" in note
    assert "360 pixels" in note
    assert _one(ImageSpec(photo_size=360), tile)[1].endswith("the whole was used")


@pytest.mark.parametrize(
    ("size", "photo_size", "note"),
    [
        ((360, 363), 360, ""),
        ((366, 369), 360, ""),
        ((575, 575), 360, "size differs from the 360 pixels"),
        ((300, 300), 360, "size differs from the 360 pixels"),
        ((575, 575), 0, ""),
        ((20, 20), 0, ""),
        ((640, 480), 480, "not square"),
    ],
)
def test_what_may_be_wrong_is_noted(size: tuple[int, int], photo_size: int, note: str) -> None:
    _, found = _one(ImageSpec(crop=0.5, photo_size=photo_size), _noise(*size))
    assert (note in found) if note else (found == "")


def test_pictures_are_prepared_one_by_one_or_together_alike() -> None:
    pictures = [_noise(50, 40), _noise(28, 28), _noise(100, 90)]
    spec = ImageSpec(crop=0.7, jpeg_quality=75)
    together = spec.prepare(iter(pictures)).images
    apart = [spec.prepare([picture]).images[0] for picture in pictures]
    np.testing.assert_array_equal(together, apart)
    assert spec.prepare([]).images.shape == (0, 28, 28, 3)


@pytest.mark.parametrize("wrong", [{"crop": 0}, {"crop": 1.7}, {"size": 7}, {"jpeg_quality": 96}])
def test_what_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ImageSpec.model_validate(wrong)
