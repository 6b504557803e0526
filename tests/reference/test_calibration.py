"""Calibration, temperature and prediction sets against torchmetrics, scikit-learn and MAPIE."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn import metrics
from sklearn.base import BaseEstimator, ClassifierMixin

from hemascope.core import BLOOD_CELLS, Predictions
from hemascope.metrics.calibration import brier, classwise_ece, ece, reliability
from hemascope.uncertainty import (
    SCORES,
    Score,
    covered,
    fit_conformal,
    fit_temperature,
    mutual_information,
    predictive_entropy,
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


def test_raps_gives_no_larger_sets_than_aps_where_many_classes_are_likely() -> None:
    val, test = _drawn(4000, 11, temperature=4), _drawn(4000, 12, temperature=4)
    largest = [
        fit_conformal(val, score=score, coverage=0.9).sets(test).sum(axis=1).max()
        for score in ("raps", "aps")
    ]
    assert largest[0] <= largest[1]


def test_entropies_agree_with_scipy() -> None:
    from scipy.stats import entropy

    probs = np.stack([_drawn(50, seed).probs for seed in (13, 14, 15)])
    np.testing.assert_allclose(predictive_entropy(probs), entropy(probs, axis=-1))
    mean = probs.mean(axis=0)
    expected = np.mean([entropy(p, mean, axis=-1) for p in probs], axis=0)  # Jensen-Shannon
    np.testing.assert_allclose(mutual_information(probs), expected, atol=1e-12)


def test_the_risk_coverage_curve_counts_errors_among_the_surest() -> None:
    p = _drawn(300, 16)
    confidence, right = p.probs.max(axis=1), p.predicted == p.labels
    curve = risk_coverage(confidence, right)
    for share in (0.1, 0.5, 0.95, 1.0):
        surest = np.argsort(-confidence)[: int(np.ceil(share * 300))]
        assert curve.accuracy_at(share) == pytest.approx(right[surest].mean())
    naive = [1 - right[np.argsort(-confidence)[:k]].mean() for k in range(1, 301)]
    assert curve.area == pytest.approx(np.mean(naive))
