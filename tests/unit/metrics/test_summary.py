import statistics

import pytest

from hemascope.metrics.summary import binomial_margin, spread


def test_spread_is_the_sample_s() -> None:
    values = [0.86, 0.9, 0.88, 0.91]
    result = spread(values)
    assert result.mean == pytest.approx(statistics.mean(values))
    assert result.sd == pytest.approx(statistics.stdev(values))
    assert (result.n, result.minimum, result.maximum) == (4, 0.86, 0.91)


def test_one_run_has_no_spread() -> None:
    assert spread([0.9]).sd is None


def test_binomial_margin_is_the_textbook_s() -> None:
    assert binomial_margin(0.965, 3421) == pytest.approx(0.00616, abs=1e-5)
