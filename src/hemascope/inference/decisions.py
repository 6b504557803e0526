"""How logits become answers: what is fitted to predictions on images that were not trained on."""

from typing import Literal

import numpy as np

from hemascope.core.errors import DataError
from hemascope.core.predictions import Predictions
from hemascope.metrics.uncertainty import (
    COVERAGES,
    abstain_below,
    fit_conformal,
    fit_temperature,
)
from hemascope.store.model_folder import Decision, SetRule

_ACCURACIES = (0.995, 0.99, 0.98, 0.95, 0.9)  # of what is not set apart: as much as can be had
_MOST_APART = 0.3  # of val


def decide(on_val: Predictions, *, num_views: Literal[1, 8]) -> Decision:
    """What is fitted to answers on val; no prediction sets of a coverage it is too small for.

    The accuracy asked for is the highest that sets apart three images of val in ten at most, else
    the least; where no share of val is answered even that well, it abstains on every image.
    """
    temperature = fit_temperature(on_val)
    scaled = on_val.scaled(temperature)
    possible = [c for c in COVERAGES if len(on_val.labels) * (1 - c) >= c]
    rules = [fit_conformal(scaled, score="lac", coverage=coverage) for coverage in possible]
    confidence = scaled.probs.max(axis=1)
    wanted, threshold = _ACCURACIES[-1], 1.0
    for wanted in _ACCURACIES:
        try:
            threshold = abstain_below(scaled, accuracy=wanted)
        except DataError:  # no share of val is classified that well
            continue
        if np.mean(confidence < threshold) <= _MOST_APART:
            break
    return Decision(
        num_views=num_views,
        temperature=temperature,
        wanted_accuracy=wanted,
        abstain_below=threshold,
        sets=tuple(SetRule(coverage=r.coverage, min_prob=1 - r.thresholds[0]) for r in rules),
    )
