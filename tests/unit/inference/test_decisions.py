"""How much accuracy is asked of what is not set apart."""

import numpy as np
import pytest

from hemascope.core.predictions import Predictions
from hemascope.data.collections import BLOOD_CELLS
from hemascope.inference.decisions import decide


@pytest.mark.parametrize(
    ("share_hard", "hard_right", "wanted"),
    [(0.1, 0.5, 0.995), (0.4, 0.96, 0.98), (0.5, 0.8, 0.9), (0.5, 0.2, 0.9)],
)
def test_the_highest_accuracy_that_leaves_most_cells_is_asked_for(
    share_hard: float, hard_right: float, wanted: float
) -> None:
    """Easy cells are all right; of the hard ones, all alike in confidence, a share is."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 1000)
    hard = np.arange(1000) < 1000 * share_hard
    wrong = np.arange(1000) >= 1000 * share_hard * hard_right
    named = np.where(hard & wrong, (labels + 1) % 8, labels)
    logits = np.zeros((1000, 8), dtype=np.float32)
    logits[np.arange(1000), named] = np.where(hard, 2, 6)
    val = Predictions(tuple(map(str, range(1000))), logits, labels, BLOOD_CELLS)
    decision = decide(val, num_views=1)
    assert decision.wanted_accuracy == wanted
    confidence = val.scaled(decision.temperature).probs.max(axis=1)
    answered = confidence >= decision.abstain_below
    assert np.mean((named == labels)[answered]) >= wanted
    assert np.mean(answered) == 1 - (share_hard if hard_right < 0.9 else 0)


def test_where_nothing_is_answered_well_enough_it_abstains_on_all() -> None:
    logits = np.zeros((100, 8), dtype=np.float32)
    logits[:, 0] = 1
    val = Predictions(tuple(map(str, range(100))), logits, np.arange(100) % 2, BLOOD_CELLS)
    assert decide(val, num_views=1).abstain_below == 1
