"""What must hold of the eight views, whatever the network."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hemascope.core.images import symmetry
from hemascope.inference.views import ViewsEngine


class _Corner:
    """Answers by one corner of the image: as far from symmetric as can be."""

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return (images[:, 0, :4, 0] / 10).astype(np.float32)


@given(seed=st.integers(0, 1000), view=st.integers(0, 7))
@settings(max_examples=30, deadline=None)
def test_a_turned_image_gets_the_same_answer(seed: int, view: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    engine = ViewsEngine(_Corner())
    np.testing.assert_allclose(
        engine.logits(symmetry(images, view)), engine.logits(images), atol=1e-5
    )


def test_the_eight_views_are_eight() -> None:
    image = np.arange(27, dtype=np.uint8).reshape(1, 3, 3, 3)
    views = {symmetry(image, view).tobytes() for view in range(8)}
    assert len(views) == 8
    assert image.tobytes() in views


def test_the_answer_is_the_mean_probability() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    probs = [np.exp(_Corner().logits(symmetry(images, view))) for view in range(8)]
    mean = np.mean([p / p.sum(axis=1, keepdims=True) for p in probs], axis=0)
    np.testing.assert_allclose(np.exp(ViewsEngine(_Corner()).logits(images)), mean, rtol=1e-5)
