"""Calibration, temperature and prediction sets against torchmetrics, scikit-learn and MAPIE."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn import metrics
from sklearn.base import BaseEstimator, ClassifierMixin

from hemascope.core.errors import DataError
from hemascope.core.predictions import Predictions
from hemascope.data.collections import BLOOD_CELLS
from hemascope.metrics.calibration import brier, classwise_ece, ece, ece_by_chance, reliability
from hemascope.metrics.uncertainty import (
    SCORES,
    Score,
    abstain_below,
    covered,
    fit_conformal,
    fit_temperature,
    risk_coverage,
)


def _drawn(size: int, seed: int, *, temperature: float = 1.0) -> Predictions:
    """Labels drawn from the network's probabilities at a temperature: there it is calibrated."""
    rng = np.random.default_rng(seed)
    logits = (3 * rng.normal(size=(size, 8))).astype(np.float32)
    probs = np.exp(logits / temperature)
    probs /= probs.sum(axis=1, keepdims=True)
    labels = (probs.cumsum(axis=1) < rng.random((size, 1))).sum(axis=1).clip(max=7)
    return Predictions(tuple(map(str, range(size))), logits, labels, BLOOD_CELLS)


@pytest.mark.filterwarnings("ignore")  # torchmetrics' own imports warn
@pytest.mark.parametrize("num_bins", [10, 15])
def test_ece_agrees_with_torchmetrics(num_bins: int) -> None:
    from torchmetrics.functional.classification import multiclass_calibration_error

    p = _drawn(1000, 0, temperature=2)
    expected = multiclass_calibration_error(
        torch.from_numpy(p.probs), torch.from_numpy(p.labels), 8, n_bins=num_bins, norm="l1"
    )
    assert ece(p, num_bins=num_bins) == pytest.approx(expected.item(), abs=1e-6)


def test_brier_agrees_with_scikit_learn() -> None:
    p = _drawn(500, 1)
    sk: Any = metrics  # its stubs leave out what its documentation allows
    expected = sk.brier_score_loss(p.labels, p.probs, labels=range(8), scale_by_half=False)
    assert brier(p) == pytest.approx(expected)


def test_bins_of_equal_mass_hold_equally_many() -> None:
    p = _drawn(1500, 2)
    bins = reliability(p.probs.max(axis=1), p.predicted == p.labels, equal_mass=True)
    assert set(bins.count) == {100}
    assert (np.diff(bins.confidence) >= 0).all()


def test_temperature_scaling_finds_the_temperature_and_mends_the_calibration() -> None:
    val, test = (_drawn(4000, seed, temperature=2.5) for seed in (3, 4))
    temperature = fit_temperature(val)
    assert temperature == pytest.approx(2.5, rel=0.1)
    before, after = test, test.scaled(temperature)
    assert (after.predicted == before.predicted).all()
    assert ece(after) < 0.025 < 0.2 < ece(before)
    assert classwise_ece(after) < 0.02 < 0.04 < classwise_ece(before)
    assert fit_temperature(val.scaled(temperature)) == pytest.approx(1, abs=1e-3)


class _Fixed(ClassifierMixin, BaseEstimator):
    """A classifier for MAPIE whose input is its answer."""

    classes_ = np.arange(8)

    def fit(self, inputs: NDArray[np.float64], labels: NDArray[np.int64]) -> "_Fixed":
        return self

    def predict(self, inputs: NDArray[np.float64]) -> NDArray[np.int64]:
        return inputs.argmax(axis=1)

    def predict_proba(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        return inputs


def _mapie_sets(
    val: Predictions, test: Predictions, score: Score, coverage: float
) -> NDArray[np.bool_]:
    from mapie.classification import SplitConformalClassifier

    mapie: Any = SplitConformalClassifier(
        _Fixed(), confidence_level=coverage, conformity_score=score, random_state=0
    )
    mapie.conformalize(val.probs, val.labels)
    options = (
        {} if score == "lac" else {"conformity_score_params": {"include_last_label": "randomized"}}
    )
    _, sets = mapie.predict_set(test.probs, **options)
    return cast("NDArray[np.bool_]", sets[:, :, 0])


@pytest.mark.filterwarnings("ignore")  # MAPIE's own imports warn
@pytest.mark.parametrize("coverage", [0.8, 0.95, 0.99])
def test_lac_sets_are_mapie_s(coverage: float) -> None:
    val, test = _drawn(1000, 5), _drawn(1000, 6)
    ours = fit_conformal(val, score="lac", coverage=coverage).sets(test)
    np.testing.assert_array_equal(ours, _mapie_sets(val, test, "lac", coverage))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_aps_sets_are_as_large_as_mapie_s(coverage: float) -> None:
    """Both draw for each image, so that they agree on the whole and not image by image."""
    val, test = _drawn(4000, 7), _drawn(4000, 8)
    ours = fit_conformal(val, score="aps", coverage=coverage).sets(test)
    theirs = _mapie_sets(val, test, "aps", coverage)
    assert ours.sum(axis=1).mean() == pytest.approx(theirs.sum(axis=1).mean(), abs=0.06)
    assert covered(ours, test.labels).mean() == pytest.approx(
        covered(theirs, test.labels).mean(), abs=0.02
    )


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("class_conditional", [False, True])
def test_sets_cover_as_often_as_they_say(score: Score, class_conditional: bool) -> None:
    val, test = _drawn(4000, 9, temperature=2), _drawn(4000, 10, temperature=2)
    rule = fit_conformal(val, score=score, coverage=0.9, class_conditional=class_conditional)
    holds = covered(rule.sets(test), test.labels)
    assert holds.mean() == pytest.approx(0.9, abs=0.02)
    by_class = [holds[test.labels == c].mean() for c in range(8)]
    assert (min(by_class) > 0.85) or not class_conditional


def test_raps_keeps_sets_from_growing_large() -> None:
    val, test = (_drawn(4000, seed, temperature=4).scaled(4) for seed in (11, 12))
    sizes = {
        score: fit_conformal(val, score=score, coverage=0.9).sets(test).sum(axis=1)
        for score in SCORES
    }
    assert (sizes["raps"] >= 7).mean() < 0.9 * (sizes["aps"] >= 7).mean()


def test_the_risk_coverage_curve_counts_errors_among_the_surest() -> None:
    p = _drawn(300, 16)
    confidence, right = p.probs.max(axis=1), p.predicted == p.labels
    curve = risk_coverage(confidence, right)
    for share in (0.1, 0.5, 0.95, 1.0):
        surest = np.argsort(-confidence)[: int(np.ceil(share * 300))]
        assert curve.accuracy_at(share) == pytest.approx(right[surest].mean())
    naive = [1 - right[np.argsort(-confidence)[:k]].mean() for k in range(1, 301)]
    assert curve.area == pytest.approx(np.mean(naive))


def test_tied_confidences_share_their_errors_whatever_their_order() -> None:
    confidence = np.array([1.0] * 100 + [0.5] * 100)
    right = np.array([False] * 10 + [True] * 90 + [True] * 100)
    for order in (np.arange(200), np.arange(200)[::-1]):
        curve = risk_coverage(confidence[order], right[order])
        assert curve.accuracy_at(0.25) == pytest.approx(0.9)
        assert curve.accuracy_at(1.0) == pytest.approx(0.95)
    assert fit_temperature(_sure()) == 1


def _sure() -> Predictions:
    labels = np.arange(16) % 8
    logits = 5 * np.eye(8, dtype=np.float32)[labels]
    return Predictions(tuple(map(str, range(16))), logits, labels, BLOOD_CELLS)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_the_fewest_images_for_a_coverage_are_said_and_enough(coverage: float) -> None:
    needed = round(coverage / (1 - coverage))
    val = _drawn(1000, 17)
    for size in (needed - 1, needed):
        few = Predictions(val.ids[:size], val.logits[:size], val.labels[:size], BLOOD_CELLS)
        if size == needed:
            fit_conformal(few, score="lac", coverage=coverage)
        else:
            with pytest.raises(DataError, match=f"at least {needed} are needed"):
                fit_conformal(few, score="lac", coverage=coverage)


def test_the_threshold_to_abstain_answers_most_of_val_at_the_accuracy_wanted() -> None:
    val = _drawn(1000, 18)
    threshold = abstain_below(val, accuracy=0.97)
    confidence, right = val.probs.max(axis=1), val.predicted == val.labels
    assert right[confidence >= threshold].mean() >= 0.97
    lower = np.unique(confidence[confidence < threshold])
    assert all(right[confidence >= value].mean() < 0.97 for value in lower)


def test_a_network_as_right_as_it_is_sure_has_the_ece_of_chance() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2000, 8)).astype(np.float32) * 3
    predictions = Predictions(
        tuple(map(str, range(2000))), logits, np.zeros(2000, dtype=np.int64), BLOOD_CELLS
    )
    calibrated = [
        replace(
            predictions,
            labels=(rng.random((2000, 1)) < predictions.probs.cumsum(axis=1)).argmax(axis=1),
        )
        for _ in range(60)
    ]
    assert ece_by_chance(predictions) == pytest.approx(np.mean([*map(ece, calibrated)]), rel=0.1)
    too_sure = calibrated[0].scaled(0.3)
    assert ece(too_sure) > 3 * ece_by_chance(too_sure)
