"""The differential as a laboratory counts it, against the published methods' own libraries."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from hemascope.core.classes import Role, role_of
from hemascope.metrics.counts import (
    agreement_table,
    clopper_pearson,
    kappa,
    largest_difference,
    of_one,
)
from hemascope.review.differential import Counted, agreement, differential, kept_of, share
from hemascope.review.schemas import NOT_COUNTED, ClassInfo, Differential

_FIVE = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")


def classes_of(names: Sequence[str]) -> list[ClassInfo]:
    found = [
        ClassInfo(
            name=name,
            role=role_of(name) or Role.WHITE,
            key="1",
            color="#000000",
            guessed=role_of(name) is None,
        )
        for name in names
    ]
    return [*found, ClassInfo(name=NOT_COUNTED, role=Role.NOT_COUNTED, key="0", color="#000000")]


def counted(names: Sequence[str], predicted: Sequence[str] | None = None) -> list[Counted]:
    said = predicted or names
    pairs = zip(names, said, strict=True)
    return [Counted(str(i), now, before) for i, (now, before) in enumerate(pairs)]


def of(classes: Sequence[str], *args: Sequence[str]) -> Differential:
    return differential(classes_of(classes), counted(*args))


@pytest.mark.parametrize("total", [1, 7, 100, 200, 5000])
@pytest.mark.parametrize("share_of", [0.0, 0.01, 0.3, 0.5, 1.0])
def test_intervals_are_clopper_and_pearson_s(share_of: float, total: int) -> None:
    count = round(share_of * total)
    low, high = proportion_confint(count, total, alpha=0.05, method="beta")
    assert clopper_pearson(count, total) == pytest.approx((low, high), abs=1e-9)
    one = share(count, total)
    assert (one.percent, one.low, one.high) == pytest.approx(
        (100 * count / total, 100 * low, 100 * high)
    )


def test_intervals_are_those_of_rumke_s_table() -> None:
    """200 cells: the 95 % limits in percent that laboratories have on the wall."""
    table = {0: (0, 2), 1: (0, 4), 5: (2, 9), 10: (6, 15), 50: (42, 58), 100: (98, 100)}
    for percent, (low, high) in table.items():
        found = clopper_pearson(2 * percent, 200)
        assert found[0] * 100 == pytest.approx(low, abs=1)
        assert found[1] * 100 == pytest.approx(high, abs=1)


def test_of_no_cells_nothing_is_known() -> None:
    found = of(_FIVE, [])
    assert found.counted == 0
    assert [(row.percent, row.low, row.high) for row in found.rows] == [(None, 0, 100)] * 5
    assert found.warning == "No white cells were counted: 200 are the target."
    assert kept_of(0, 0).percent is None


def test_percentages_are_over_white_cells_alone() -> None:
    names = ["neutrophil"] * 60 + ["lymphocyte"] * 40 + ["erythroblast"] * 5 + ["platelet"] * 30
    names += [NOT_COUNTED] * 3 + [""] * 2
    found = of((*_FIVE, "erythroblast", "platelet"), names)
    assert found.counted == 100
    assert {row.class_name: row.percent for row in found.rows} == {
        **dict.fromkeys(_FIVE, 0.0),
        "neutrophil": 60.0,
        "lymphocyte": 40.0,
    }
    [nucleated] = found.per_100
    assert (nucleated.class_name, nucleated.count, nucleated.per_100) == ("erythroblast", 5, 5.0)
    low, high = proportion_confint(5, 105, method="beta")
    assert nucleated.low == pytest.approx(100 * low / (1 - low))
    assert nucleated.high == pytest.approx(100 * high / (1 - high))
    assert [(row.class_name, row.count) for row in found.not_counted] == [
        ("platelet", 30),
        (NOT_COUNTED, 3),
    ]
    assert found.unidentified == 2
    assert found.warning == ""
    assert of(_FIVE, names[1:100]).warning.startswith("Only 99 white cells")


def test_what_the_model_said_stands_beside_what_is_confirmed() -> None:
    now = ["neutrophil"] * 3 + ["lymphocyte", "", NOT_COUNTED]
    said = ["neutrophil"] * 2 + ["monocyte", "lymphocyte", "basophil", "monocyte"]
    found = of(_FIVE, now, said)
    by_class = {row.class_name: row for row in found.rows}
    assert (by_class["neutrophil"].count, by_class["neutrophil"].pre.count) == (3, 2)
    assert by_class["monocyte"].pre.percent == pytest.approx(100 * 2 / 6)
    assert by_class["neutrophil"].percent == 75.0
    assert (found.kept.count, found.kept.total) == (3, 5)  # the unidentified one is not asked yet
    low, high = proportion_confint(3, 5, method="beta")
    assert (found.kept.low, found.kept.high) == pytest.approx((100 * low, 100 * high))


def test_a_five_part_model_gives_five_parts() -> None:
    found = of(_FIVE, ["neutrophil"] * 5)
    assert [row.class_name for row in found.rows] == list(_FIVE)
    assert found.per_100 == []
    assert [row.class_name for row in found.not_counted] == [NOT_COUNTED]


def test_a_role_that_was_guessed_is_said() -> None:
    found = of(("neutrophil", "strange cell"), ["strange cell"])
    assert found.counted == 1
    assert found.notes == ["Counted as white cells, because their role is not known: strange cell."]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("lean", [0.0, 1.5, 4.0])
def test_kappa_and_its_interval(seed: int, lean: float) -> None:
    rng = np.random.default_rng(seed)
    first = rng.integers(5, size=200)
    logits = rng.normal(size=(200, 5))
    logits[np.arange(200), first] += lean
    second = logits.argmax(axis=1)
    names = [_FIVE[i] for i in first], [_FIVE[i] for i in second]
    table = agreement_table(*names, _FIVE)
    found = kappa(table)
    reference: Any = cohens_kappa(table)
    assert found.value == pytest.approx(cohen_kappa_score(first, second))
    assert found.value == pytest.approx(reference.kappa)
    if found.value == 1:
        assert found.low is found.high is None
    else:
        assert found.low == pytest.approx(reference.kappa_low, abs=1e-6)
        assert found.high == pytest.approx(min(reference.kappa_upp, 1), abs=1e-6)
    for label in range(5):
        one = kappa(of_one(table, label)).value
        assert one == pytest.approx(cohen_kappa_score(first == label, second == label))


def test_kappa_where_it_is_not_defined() -> None:
    assert kappa(np.zeros((3, 3), dtype=np.int64)).value is None
    assert kappa(np.diag([20, 0, 0])).value is None
    for table, value in ((np.diag([1, 1]), 1), (np.array([[19, 1], [0, 0]]), 0)):
        found = kappa(table)
        assert (found.value, found.low, found.high) == (value, None, None)
    assert kappa(np.array([[0, 2], [1, 0]])).low == -1
    assert kappa(np.diag([20, 20, 0])).value == 1.0


def test_two_readers_are_compared() -> None:
    classes = classes_of((*_FIVE, "platelet"))
    pairs = [("neutrophil", "neutrophil")] * 100 + [("lymphocyte", "monocyte")] * 20
    pairs += [("platelet", "neutrophil")] * 10 + [(NOT_COUNTED, NOT_COUNTED)] * 5
    found = agreement(classes, [(str(i), *pair) for i, pair in enumerate(pairs)])
    assert found.n == 135
    assert found.agree_percent == pytest.approx(100 * 105 / 135)
    assert found.kappa == pytest.approx(cohen_kappa_score(*zip(*pairs, strict=True)))
    assert (found.low or 1) < (found.kappa or 0) < (found.high or 0)
    assert [one.cell for one in found.differing] == [str(i) for i in range(100, 130)]
    assert {one.class_name for one in found.per_class} == {
        *("neutrophil", "lymphocyte", "monocyte", "platelet", NOT_COUNTED)
    }
    compared = {one.class_name: one for one in found.comparison}
    assert set(compared) == set(_FIVE)  # white cells alone
    monocytes = compared["monocyte"]
    assert (monocytes.first_percent, monocytes.second_percent) == (0, pytest.approx(2000 / 130))
    assert not monocytes.within
    assert compared["neutrophil"].within
    assert "CLSI H20-A2" in found.note


def test_the_largest_difference_by_chance_is_twice_the_common_standard_error() -> None:
    """CLSI H20-A2, and by trial: 95 of 100 pairs of counts of one sample differ by less."""
    common = 0.3
    limit = largest_difference(60, 200, 60, 200)
    assert limit == pytest.approx(1.96 * np.sqrt(2 * common * (1 - common) / 200), rel=1e-4)
    rng = np.random.default_rng(0)
    pairs = rng.binomial(200, common, size=(20_000, 2))
    within = [
        abs(a - b) / 200 <= largest_difference(int(a), 200, int(b), 200) for a, b in pairs[:5000]
    ]
    assert np.mean(within) == pytest.approx(0.95, abs=0.015)


def test_copies_of_one_image_and_cells_that_were_read_are_counted() -> None:
    cells = [
        Counted(str(i), "monocyte", "monocyte", is_read=i < 2, image="ab" if i < 3 else str(i))
        for i in range(6)
    ]
    found = differential(classes_of(_FIVE), cells)
    assert found.read == 2
    assert found.notes == ["2 image(s) are copies of others: such cells are counted twice."]
