import statistics

import pytest

from hemascope.metrics.summary import difference_margin, spread


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
