import pytest

from hemascope.core.classes import BLOOD_CELLS, ClassSet, Split, split_named


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("basophil", 0),
        (" Basophils ", 0),
        ("Immature_Granulocytes", 3),
        ("immature-granulocyte", 3),
        ("immature  granulocyte", 3),
        ("IG", 3),
        ("nRBC", 2),
        ("Thrombocytes", 7),
        ("blast", None),
        ("", None),
    ],
)
def test_a_name_is_found_in_any_spelling(name: str, label: int | None) -> None:
    assert BLOOD_CELLS.index(name) == label


def test_an_exact_name_comes_before_a_spelling() -> None:
    classes = ClassSet(("Cells", "cell", "CELL"))
    assert [classes.index(name) for name in classes.names] == [0, 1, 2]


def test_a_name_comes_before_an_alias() -> None:
    assert ClassSet(("a", "ig"), {"ig": "a"}).index("IG") == 1


def test_short_names_and_double_s_keep_their_s() -> None:
    classes = ClassSet(("class", "cs"))
    assert classes.index("clas") is None
    assert classes.index("c") is None
    assert classes.index("CLASSES") is None


def test_some_of_the_classes_keep_their_order_and_aliases() -> None:
    some = BLOOD_CELLS.only({7, 3})
    assert some.names == ("immature granulocyte", "platelet")
    assert some.index("ig") == 0
    assert some.index("nrbc") is None


@pytest.mark.parametrize(
    ("name", "split"),
    [("TRAIN", Split.TRAIN), ("valid", Split.VAL), (" Validation", Split.VAL), ("testing", "test")],
)
def test_splits_by_their_usual_names(name: str, split: Split) -> None:
    assert split_named(name) is Split(split)
    assert split_named("platelet") is None
