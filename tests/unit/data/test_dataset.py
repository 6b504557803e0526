import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hemascope.core.images import channel_statistics


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_channel_statistics_are_those_of_float64(seed: int, n: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (n, 9, 9, 3), dtype=np.uint8)
    statistics = channel_statistics(images)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(statistics.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(statistics.std, scaled.std(axis=(0, 1, 2)), atol=1e-12)
