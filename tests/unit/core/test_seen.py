"""What tells images that a model was trained on."""

import numpy as np
import pytest

from hemascope.core.images import LabeledImages
from hemascope.core.seen import Seen
from hemascope.data.rendered import render


def _named(images: np.ndarray, *names: str) -> LabeledImages:
    return LabeledImages(images, np.zeros(len(names), np.int64), names)


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    return render(np.arange(4), seed=1)


@pytest.mark.parametrize(
    ("trained", "asked", "is_known"),
    [
        ("train/basophil/BA_225902.jpg", "mine/BA_225902.png", True),
        ("Patient_02__BA_5899689.jpg", "jhu/BA_5899689.jpg", False),
        ("cells/image_12.png", "other/image_12.png", False),
        ("BloodImage_00012.jpg", "BloodImage_00012.jpg", False),  # a place in a series
        ("train/11958", "train/11958", False),  # an array's
    ],
)
def test_another_image_is_known_by_a_source_id_alone(
    cells: np.ndarray, *, trained: str, asked: str, is_known: bool
) -> None:
    seen = Seen.of(_named(cells[:1], trained))
    assert seen.find(_named(cells[1:3], asked, "b.png")).tolist() == [is_known, False]


def test_the_names_that_a_source_gives_go_before_places_in_an_array(cells: np.ndarray) -> None:
    labels = np.zeros(1, np.int64)
    trained = LabeledImages(
        cells[:1], labels, ("train/0",), names=("platelet/PLATELET_100161.jpg",)
    )
    assert Seen.of(trained).find(_named(cells[1:2], "x/PLATELET_100161.jpg")).all()


def test_an_image_is_known_at_another_size_whatever_its_name(cells: np.ndarray) -> None:
    seen = Seen.of(_named(cells[:2], "a.png", "b.png"))
    larger = render(np.arange(4), seed=1, image_size=64)
    found = seen.find(_named(larger, "1.png", "2.png", "3.png", "4.png"))
    assert found.tolist() == [True, True, False, False]


def test_joined_is_all_of_both_and_unknown_if_one_is(cells: np.ndarray) -> None:
    one, other = Seen.of(_named(cells[:1], "a_10000")), Seen.of(_named(cells[1:2], "b_10001"))
    both = Seen.joined((one, other))
    assert both is not None
    assert both.find(_named(cells[:3], "x", "y", "z")).tolist() == [True, True, False]
    assert both.find(_named(cells[2:], "b_10001", "c_10001")).tolist() == [True, False]
    assert Seen.joined((one, None)) is None
