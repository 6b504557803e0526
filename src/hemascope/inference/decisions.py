"""How logits become answers: what is fitted to predictions on images that were not trained on."""

from typing import Literal

from hemascope.core.errors import DataError
from hemascope.core.predictions import Predictions
from hemascope.metrics.uncertainty import (
    COVERAGES,
    WANTED_ACCURACY,
    abstain_below,
    fit_conformal,
    fit_temperature,
)
from hemascope.store.model_folder import Decision, SetRule


def decide(on_val: Predictions, *, num_views: Literal[1, 8]) -> Decision:
    """What is fitted to answers on val; no prediction sets of a coverage it is too small for."""
    temperature = fit_temperature(on_val)
    scaled = on_val.scaled(temperature)
    possible = [c for c in COVERAGES if len(on_val.labels) * (1 - c) >= c]
    rules = [fit_conformal(scaled, score="lac", coverage=coverage) for coverage in possible]
    try:
        threshold = abstain_below(scaled, accuracy=WANTED_ACCURACY)
    except DataError:  # no share of val is classified that well: it abstains on all
        threshold = 1.0
    return Decision(
        num_views=num_views,
        temperature=temperature,
        wanted_accuracy=WANTED_ACCURACY,
        abstain_below=threshold,
        sets=tuple(SetRule(coverage=r.coverage, min_prob=1 - r.thresholds[0]) for r in rules),
    )
