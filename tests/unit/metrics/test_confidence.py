"""What is said of a network's confidence, also where val is small."""

import numpy as np
import pytest

from hemascope.core.classes import BLOOD_CELLS
from hemascope.core.predictions import Predictions
from hemascope.metrics.confidence import assess_confidence


def _predictions(size: int, seed: int) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % 8
    logits = rng.normal(size=(size, 8)).astype(np.float32)
    logits[np.arange(size), labels] += 3
    return Predictions(tuple(map(str, range(size))), logits, labels, BLOOD_CELLS)


def test_sets_hold_the_true_class_as_often_as_asked() -> None:
    val, test = _predictions(400, 0), _predictions(4000, 1)
    found = assess_confidence(val, test)
    assert [row.coverage for row in found.sets] == [0.95, 0.99]
    for row in found.sets:
        assert row.observed.value == pytest.approx(row.coverage, abs=0.03)
        assert row.observed.n == 4000
    assert found.after.nll <= found.before.nll + 0.01
    assert found.abstaining is not None
    assert found.abstaining.accuracy is not None
    assert found.abstaining.accuracy.value == pytest.approx(0.995, abs=0.02)
    assert found.left_out == ()


def test_what_val_is_too_small_for_is_named_and_the_rest_is_kept() -> None:
    found = assess_confidence(_predictions(40, 0), _predictions(100, 1))
    assert [row.coverage for row in found.sets] == [0.95]
    (sentence,) = found.left_out
    assert sentence.startswith("Prediction sets of 99 %: val has 40 images in all, too few")


def test_a_network_that_is_never_right_abstains_from_nothing_it_could_keep() -> None:
    val = _predictions(40, 0)
    wrong = Predictions(val.ids, np.roll(val.logits, 1, axis=1), val.labels, val.classes)
    found = assess_confidence(wrong, wrong)
    assert found.abstaining is None
    assert any(sentence.startswith("Abstention: on val no share") for sentence in found.left_out)
