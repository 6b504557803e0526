import statistics

import numpy as np
import pytest
from scipy.stats import binomtest

from hemascope.core.predictions import Predictions
from hemascope.metrics.classification import confusion_of
from hemascope.metrics.statistics import Bootstrap
from hemascope.metrics.summary import difference_margin, estimate, macro_f1, spread


def test_spread_is_the_sample_s() -> None:
    values = [0.86, 0.9, 0.88, 0.91]
    result = spread(values)
    assert result.mean == pytest.approx(statistics.mean(values))
    assert result.sd == pytest.approx(statistics.stdev(values))
    assert (result.n, result.minimum, result.maximum) == (4, 0.86, 0.91)


def test_one_run_has_no_spread() -> None:
    assert spread([0.9]).sd is None


def test_margin_of_a_difference_is_that_of_one_share_times_the_root_of_two() -> None:
    one = 1.96 * (0.965 * 0.035 / 3421) ** 0.5
    assert difference_margin(0.965, 3421, 3421) == pytest.approx(one * 2**0.5)


def test_an_estimate_has_wilson_s_interval() -> None:
    expected = binomtest(9, 10).proportion_ci(method="wilson")
    found = estimate(0.9, 10)
    assert (found.value, found.n) == (0.9, 10)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_macro_f1_of_a_matrix_has_the_interval_of_resampled_images(
    random_predictions: Predictions,
) -> None:
    p = random_predictions
    images = Bootstrap(p.labels, 8, num_resamples=2000)([p]).interval("f1_macro")
    found = macro_f1(confusion_of(p))
    assert found.value == pytest.approx(images.value)
    assert (found.low, found.high) == pytest.approx((images.low, images.high), abs=0.01)
    assert found.n == 200


def test_macro_f1_is_of_the_classes_that_occur() -> None:
    found = macro_f1(np.diag([3, 0, 2]).astype(np.int64))
    assert (found.value, found.low, found.high) == (1, 1, 1)
