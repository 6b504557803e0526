"""What the confidence of one network is worth: fitted on val, tried on test."""

from dataclasses import dataclass

import numpy as np

from hemascope.core.errors import DataError
from hemascope.core.predictions import Predictions
from hemascope.metrics import calibration as cal
from hemascope.metrics.classification import cross_entropy
from hemascope.metrics.summary import Estimate, estimate
from hemascope.metrics.uncertainty import (
    COVERAGES,
    WANTED_ACCURACY,
    abstain_below,
    covered,
    fit_conformal,
    fit_temperature,
)


@dataclass(frozen=True)
class CalibrationFigures:
    """Calibration on test; `ece_by_chance` is the ECE of a calibrated network on so many images."""

    ece: float
    ece_by_chance: float
    brier: float
    nll: float
    bins: cal.Reliability


@dataclass(frozen=True)
class SetFigures:
    """Prediction sets (LAC) of one coverage: how often they hold the true class on test."""

    coverage: float
    observed: Estimate
    mean_size: float


@dataclass(frozen=True)
class AbstainFigures:
    """Abstaining below the confidence at which the others of val were right as often as wanted.

    `accuracy` is that on the images of test that are answered, None where none is.
    """

    wanted_accuracy: float
    threshold: float
    answered: Estimate
    accuracy: Estimate | None


@dataclass(frozen=True)
class Confidence:
    """Calibration, prediction sets and abstention of one network.

    Attributes:
        temperature: What logits are divided by, fitted on val.
        num_val: The number of images it was fitted on.
        before: Calibration without the temperature; `after` with it.
        sets: One for each coverage that val is large enough for.
        abstaining: None where no share of val is answered well enough.
        left_out: What could not be fitted, and why, in sentences.
    """

    temperature: float
    num_val: int
    before: CalibrationFigures
    after: CalibrationFigures
    sets: tuple[SetFigures, ...]
    abstaining: AbstainFigures | None
    left_out: tuple[str, ...]


def assess_confidence(val: Predictions, test: Predictions) -> Confidence:
    """Everything that can be fitted on val, with what comes of it on test.

    What val is too small for is left out and named; nothing else is lost because of it.
    """
    temperature = fit_temperature(val)
    scaled_val, scaled = val.scaled(temperature), test.scaled(temperature)
    left_out: list[str] = []
    sets: list[SetFigures] = []
    for coverage in COVERAGES:
        try:
            sets.append(_try_sets(scaled_val, scaled, coverage))
        except DataError as error:
            left_out.append(f"Prediction sets of {100 * coverage:g} %: {error}")
    abstaining = None
    try:
        abstaining = _try_abstaining(scaled_val, scaled)
    except DataError as error:
        left_out.append(f"Abstention: {error}")
    return Confidence(
        temperature=temperature,
        num_val=len(val.labels),
        before=_calibration(test),
        after=_calibration(scaled),
        sets=tuple(sets),
        abstaining=abstaining,
        left_out=tuple(left_out),
    )


def _calibration(predictions: Predictions) -> CalibrationFigures:
    return CalibrationFigures(
        ece=cal.ece(predictions),
        ece_by_chance=cal.ece_by_chance(predictions),
        brier=cal.brier(predictions),
        nll=cross_entropy(predictions),
        bins=cal.reliability(*cal.top_label(predictions)),
    )


def _try_sets(val: Predictions, test: Predictions, coverage: float) -> SetFigures:
    sets = fit_conformal(val, score="lac", coverage=coverage).sets(test)
    holds = covered(sets, test.labels)
    observed = estimate(float(holds.mean()), len(holds))
    return SetFigures(coverage, observed, float(sets.sum(axis=1).mean()))


def _try_abstaining(val: Predictions, test: Predictions) -> AbstainFigures:
    threshold = abstain_below(val, accuracy=WANTED_ACCURACY)
    confidence, right = cal.top_label(test)
    answered = confidence >= threshold
    num_answered = int(answered.sum())
    return AbstainFigures(
        wanted_accuracy=WANTED_ACCURACY,
        threshold=threshold,
        answered=estimate(float(answered.mean()), len(answered)),
        accuracy=estimate(float(np.mean(right[answered])), num_answered) if num_answered else None,
    )
