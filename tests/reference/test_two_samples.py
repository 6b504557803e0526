"""The test of two samples, against SciPy."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from hemascope.metrics.two_samples import rank_test


@pytest.mark.parametrize("shift", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("decimals", [1, 8])  # many ties, none
def test_it_is_scipys(shift: float, decimals: int) -> None:
    rng = np.random.default_rng(0)
    sample = rng.normal(shift, 1, 60).round(decimals)
    reference = rng.normal(0, 1, 90).round(decimals)
    found = rank_test(sample, reference)
    expected = mannwhitneyu(sample, reference, method="asymptotic")
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.larger == pytest.approx(expected.statistic / (60 * 90))


def test_without_numbers_nothing_is_said() -> None:
    assert rank_test(np.empty(0), np.ones(3)).p_value == 1
