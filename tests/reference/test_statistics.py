"""Our tests and intervals against scipy, scikit-learn and statsmodels."""

from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics

from hemascope.core.predictions import Predictions
from hemascope.data.collections import BLOOD_CELLS
from hemascope.metrics import METRICS
from hemascope.metrics.comparison import Difference, compare_networks
from hemascope.metrics.statistics import (
    AUROC,
    FIGURES,
    Bootstrap,
    bootstrap_p,
    combined_p,
    holm,
    mcnemar,
    swap_p,
    wilson,
)
from hemascope.report.statistics import headline, networks_table

sk: Any = metrics  # its stubs leave out what its documentation allows


def _predictions(seed: int, *, lean: float, size: int = 400, round_to: int = 9) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % 8
    logits = rng.normal(size=(size, 8))
    logits[np.arange(size), labels] += lean
    ids = tuple(f"test/{i}" for i in range(size))
    return Predictions(ids, np.round(logits, round_to).astype(np.float32), labels, BLOOD_CELLS)


@pytest.mark.parametrize("lean", [0.0, 2.0, 9.0])
@pytest.mark.parametrize("round_to", [9, 0])
def test_a_resampled_set_has_the_figures_of_the_images_it_repeats(
    lean: float, round_to: int
) -> None:
    p = _predictions(0, lean=lean, round_to=round_to)
    bootstrap = Bootstrap(p.labels, 8, num_resamples=5, seed=3, num_unseen=0)
    resampled = bootstrap([p])
    for draw in range(5):
        times = bootstrap.counts[:, draw].astype(int)
        rows = np.repeat(np.arange(len(p.labels)), times)
        again = Predictions(
            tuple(map(str, range(len(rows)))), p.logits[rows], p.labels[rows], BLOOD_CELLS
        )
        assert np.bincount(again.labels).tolist() == np.bincount(p.labels).tolist()
        for figure in FIGURES:
            assert resampled.samples[figure][draw] == pytest.approx(METRICS[figure](again))
        recall = sk.recall_score(again.labels, again.predicted, average=None, zero_division=0)
        ours = [resampled.samples[f"sensitivity:{name}"][draw] for name in BLOOD_CELLS.names]
        np.testing.assert_allclose(ours, recall)


def test_the_interval_agrees_with_scipy_s_bootstrap() -> None:
    p = _predictions(1, lean=1.5)
    ours = Bootstrap(p.labels, 8, num_resamples=4000)([p]).interval("accuracy")
    right = [(p.predicted == p.labels)[p.labels == label].astype(float) for label in range(8)]
    theirs = stats.bootstrap(
        right,
        lambda *samples, axis=-1: np.mean([s.mean(axis=axis) for s in samples], axis=0),
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert ours.value == METRICS["accuracy"](p)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Eighty test sets of a network that is right 9 times in 10; 95 % of them is 76."""
    held = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        labels = np.arange(400) % 8
        predicted = np.where(rng.random(400) < 0.9, labels, (labels + 1) % 8)
        logits = np.eye(8, dtype=np.float32)[predicted]
        p = Predictions(tuple(map(str, range(400))), logits, labels, BLOOD_CELLS)
        interval = Bootstrap(labels, 8, num_resamples=300, seed=seed)([p]).interval("accuracy")
        held += interval.low <= 0.9 <= interval.high
    assert 71 <= held <= 79


def _answered(labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> Predictions:
    logits = 5 * np.eye(8, dtype=np.float32)[predicted]
    return Predictions(tuple(map(str, range(len(labels)))), logits, labels, BLOOD_CELLS)


@pytest.mark.parametrize(
    ("sizes", "truth"),
    [
        ((10, 10, 10, 10), (0.95, 0.95, 0.95, 0.95)),
        ((40, 40, 40, 3), (0.9, 0.9, 0.9, 0.6)),
        ((40, 40, 40, 2), (0.9, 0.9, 0.9, 0.6)),
        ((40, 40, 40, 40), (0.98, 0.98, 0.98, 0.98)),
        ((25,), (0.95,)),
    ],
)
def test_intervals_hold_the_truth_where_classes_are_small(
    sizes: tuple[int, ...], truth: tuple[float, ...]
) -> None:
    """Of 100 test sets at least 88; without cells that were not seen it is 50 of some sets."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rng, held = np.random.default_rng(1), 0
    bootstrap = Bootstrap(labels, 8, num_resamples=300)
    for _ in range(100):
        right = rng.random(len(labels)) < np.array(truth)[labels]
        p = _answered(labels, np.where(right, labels, (labels + 1) % max(len(sizes), 2)))
        interval = bootstrap([p]).interval("balanced_accuracy")
        assert interval.low < interval.high
        held += interval.low <= np.mean(truth) <= interval.high
    assert held >= 88


def test_a_cell_that_was_not_seen_changes_nothing_where_classes_are_large() -> None:
    p = _predictions(0, lean=3.0, size=3200)
    for figure in ("accuracy", "balanced_accuracy"):
        one, none = (
            Bootstrap(p.labels, 8, num_resamples=2000, num_unseen=number)([p]).interval(figure)
            for number in (1, 0)
        )
        assert (one.low, one.high) == pytest.approx((none.low, none.high), abs=0.0005)


@pytest.mark.parametrize("number", [0, 2, 5, 6])
def test_networks_that_differ_in_fewer_than_six_cells_cannot_be_told_apart(number: int) -> None:
    labels = np.repeat([0, 1, 2], [40, 40, max(number, 2)])
    first, second = labels.copy(), labels.copy()
    second[len(labels) - number :] = 0
    networks = {"A": {0: _answered(labels, first)}, "B": {0: _answered(labels, second)}}
    found = compare_networks(networks, num_resamples=500)
    (pair,) = found.pairs
    assert pair.num_differing == number
    for figure in ("accuracy", "balanced_accuracy", "f1_macro"):
        difference = pair.differences[figure]
        assert difference is not None
        assert difference.p >= pair.mcnemar.p
        assert (difference.p_holm < 0.05) == (number == 6)
    sentence = headline(found, ["A", "B"], {"A": "A", "B": "B"}, key="balanced_accuracy").text
    count = f"only {number}" if number else "none"
    apart = f"A and B cannot be told apart: one is right and the other wrong on {count} of"
    assert ("beats" if number == 6 else apart) in sentence
    assert ["fewer than 10 images" in note for note in found.warnings] == [True]
    assert "[100.0, 100.0]" not in str(networks_table(found))


def test_swapped_answers_agree_with_scipy_s_permutation_test() -> None:
    rng = np.random.default_rng(0)
    for mean in (0.0, 0.03, 0.06):
        differences = rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], size=300) * 0.4 + mean
        expected = stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=4000, rng=rng
        )
        assert swap_p(differences, num_draws=4000) == pytest.approx(expected.pvalue, abs=0.03)
    assert swap_p(np.ones(5), num_draws=2000) >= 2 / 32
    assert swap_p(np.zeros(9), num_draws=100) == 1


def test_networks_that_always_name_one_class_differ_by_the_mix_of_classes_only() -> None:
    labels = np.repeat([0, 1], [23, 16])
    networks = {str(one): {0: _answered(labels, np.full(39, one))} for one in (0, 1)}
    (pair,) = compare_networks(networks, num_resamples=500).pairs
    difference = pair.differences["accuracy"]
    assert difference is not None
    assert difference.p == pytest.approx(pair.mcnemar.p, abs=0.06)


@pytest.mark.parametrize(("lean", "other"), [(1.0, 1.2), (2.0, 2.0), (0.5, 2.0)])
def test_mcnemar_agrees_with_statsmodels(lean: float, other: float) -> None:
    from statsmodels.stats.contingency_tables import mcnemar as reference

    first, second = _predictions(2, lean=lean), _predictions(3, lean=other)
    right = [p.predicted == p.labels for p in (first, second)]
    table = [
        [int((right[0] == a)[right[1] == b].sum()) for b in (True, False)] for a in (True, False)
    ]
    ours, expected = mcnemar(first, second), cast("Any", reference(table, exact=True))
    assert ours.p == pytest.approx(expected.pvalue)
    assert (ours.only_first, ours.only_second) == (table[0][1], table[1][0])
    assert mcnemar(first, first).p == 1


def test_holm_agrees_with_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 30):
        ps = rng.random(size) ** 3
        expected = cast("list[float]", multipletests(ps, method="holm")[1])
        np.testing.assert_allclose(holm(ps.tolist()), expected)


def test_bootstrap_p_agrees_with_a_paired_test() -> None:
    """For a plain mean the bootstrap says what the normal approximation says."""
    rng = np.random.default_rng(0)
    differences = rng.choice([-1.0, 0.0, 1.0], size=2000, p=[0.03, 0.92, 0.05])
    resampled = rng.choice(differences, size=(4000, 2000)).mean(axis=1)
    z = differences.mean() / (differences.std() / np.sqrt(2000))
    assert bootstrap_p(resampled) == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.01)
    assert bootstrap_p(np.zeros(100)) == 1


def test_a_comparison_is_paired_corrected_and_says_which_is_better() -> None:
    networks = {
        "good": {seed: _predictions(seed, lean=3.0) for seed in (0, 1)},
        "same": {seed: _predictions(seed, lean=3.0) for seed in (0, 1)},
        "poor": {7: _predictions(5, lean=1.0)},
    }
    found = compare_networks(networks, num_resamples=500)
    same, better, _ = found.pairs
    alike = same.differences["accuracy"]
    assert alike is not None
    assert (alike.value, alike.p, alike.p_holm) == (0, 1, 1)
    assert -0.01 < alike.low < 0 < alike.high < 0.01
    assert (same.num_differing, same.differences["f1_macro"]) == (0, Difference(0, 0, 0, 1, 1))
    assert same.mcnemar.p_holm == 1
    difference = better.differences["accuracy"]
    assert difference is not None
    assert difference.low > 0.1
    assert difference.p_holm == pytest.approx(3 * 2 / 501)
    assert better.mcnemar.p < better.mcnemar.p_holm < 1e-6
    good, poor = (
        found.networks[name].figures[key] for name, key in (("good", "accuracy"), ("poor", AUROC))
    )
    assert good is not None
    assert good.value == pytest.approx(np.mean(good.values))
    assert good.low < good.value < good.high
    assert poor is not None
    assert poor.sd_over_seeds is None
    assert not found.left_out


def test_wilson_agrees_with_scipy() -> None:
    for right, total in ((30, 30), (0, 5), (97, 100), (1, 2)):
        expected = stats.binomtest(right, total).proportion_ci(method="wilson")
        assert wilson(right / total, total) == pytest.approx((expected.low, expected.high))


def test_p_values_of_several_seeds_become_twice_their_median() -> None:
    assert combined_p([0.01, 0.02, 0.9]) == pytest.approx(0.04)
    assert combined_p([0.3]) == 0.3
    assert combined_p([0.7, 0.8]) == 1


def _without(p: Predictions, dropped: NDArray[np.bool_]) -> Predictions:
    keep = np.flatnonzero(~dropped)
    return Predictions(tuple(p.ids[i] for i in keep), p.logits[keep], p.labels[keep], BLOOD_CELLS)


def test_a_class_that_does_not_occur_has_no_sensitivity() -> None:
    p = _predictions(0, lean=2)
    fewer = _without(p, p.labels == 2)
    found = compare_networks({"one": {0: fewer}}, num_resamples=100)
    figures = found.networks["one"].figures
    assert "sensitivity:erythroblast" not in figures
    assert "specificity:erythroblast" in figures
    assert found.left_out == {"sensitivity:erythroblast": "the class has no images"}


def test_a_class_with_one_image_is_left_out_by_name_and_nothing_else_is_lost() -> None:
    p = _predictions(0, lean=2)
    fewer = _without(p, (p.labels == 2) & (np.arange(len(p.labels)) > 8))
    assert (fewer.labels == 2).sum() == 1
    found = compare_networks({"one": {0: fewer}}, num_resamples=300)
    figures = found.networks["one"].figures
    assert list(found.left_out) == ["sensitivity:erythroblast"]
    assert "a single image" in found.left_out["sensitivity:erythroblast"]
    assert "sensitivity:erythroblast" not in figures
    assert "sensitivity:monocyte" in figures
    for name in FIGURES:
        figure = figures[name]
        assert figure is not None
        assert figure.value == pytest.approx(METRICS[name](fewer))
        assert figure.low < figure.value < figure.high


def test_images_of_one_class_have_no_auroc_but_an_accuracy() -> None:
    p, q = (_predictions(seed, lean=2) for seed in (0, 1))
    one, other = (_without(each, each.labels != 2) for each in (p, q))
    found = compare_networks({"one": {0: one}, "other": {0: other}}, num_resamples=100)
    figures = found.networks["one"].figures
    assert figures[AUROC] is None
    assert figures["accuracy"] is not None
    assert found.pairs[0].differences[AUROC] is None
    assert found.pairs[0].differences["accuracy"] is not None
    assert "two classes" in found.left_out[AUROC]
    assert "two classes" in found.left_out["specificity:erythroblast"]
