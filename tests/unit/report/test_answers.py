"""What a run of `predict` says at its end."""

from dataclasses import replace

from hemascope.core.errors import NO_GUARD
from hemascope.data.walk import PassedOver
from hemascope.report.answers import Outcome
from hemascope.store.answers import Row

ROW = Row(
    path="a.png",
    predicted_class="platelet",
    confidence=0.9,
    prediction_set=("platelet",),
    abstain=False,
    error="",
    probs={"platelet": 0.9, "other": 0.1},
    note="",
    warning="",
    distance=0.3,
)


def test_a_model_that_sets_nothing_apart_says_so() -> None:
    for distance in (0.3, None):
        outcome = Outcome(PassedOver())
        outcome.add([replace(ROW, distance=distance)])
        assert (NO_GUARD in outcome.summary()) == (distance is None)
    outcome = Outcome(PassedOver())
    outcome.add([replace(ROW, error="damaged", predicted_class="", confidence=None)])
    assert NO_GUARD not in outcome.summary()
