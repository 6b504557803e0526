"""What is said of a network's confidence, also where val is small."""

import numpy as np
import pytest

from hemascope.core.predictions import Predictions
from hemascope.data.collections import BLOOD_CELLS
from hemascope.metrics.trust import RunTrust, assess, sets_left_out
from hemascope.metrics.uncertainty import COVERAGES, WANTED_ACCURACY


def _predictions(size: int, seed: int) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % 8
    logits = rng.normal(size=(size, 8)).astype(np.float32)
    logits[np.arange(size), labels] += 3
    return Predictions(tuple(map(str, range(size))), logits, labels, BLOOD_CELLS)


def _assess(val: Predictions, test: Predictions) -> RunTrust:
    return assess(val, test, seed=0, coverages=COVERAGES, accuracy=WANTED_ACCURACY)


def test_sets_hold_the_true_class_as_often_as_asked() -> None:
    val, test = _predictions(400, 0), _predictions(4000, 1)
    found = _assess(val, test)
    assert {row.coverage for row in found.sets} == {0.95, 0.99}
    for row in found.sets:
        assert row.observed == pytest.approx(row.coverage, abs=0.03)
        assert row.num_images == 4000
        assert row.low < row.observed < row.high
    assert found.after.nll <= found.before.nll + 0.01
    chosen = found.abstaining.chosen_on_val
    assert chosen is not None
    assert chosen.accuracy == pytest.approx(0.995, abs=0.02)


def test_what_val_is_too_small_for_is_named_and_the_rest_is_kept() -> None:
    val, test = _predictions(40, 0), _predictions(100, 1)
    assert {row.coverage for row in _assess(val, test).sets} == {0.95}
    sentences = sets_left_out(val, test, COVERAGES)
    assert (
        "Prediction sets of 99 % are left out: val has 40 images, and 99 are needed." in sentences
    )


def test_a_network_that_is_never_right_abstains_from_nothing_it_could_keep() -> None:
    val = _predictions(40, 0)
    wrong = Predictions(val.ids, np.roll(val.logits, 1, axis=1), val.labels, val.classes)
    assert _assess(wrong, wrong).abstaining.chosen_on_val is None
