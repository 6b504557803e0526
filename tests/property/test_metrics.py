"""What holds of the metrics whatever the predictions are."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from hemascope.core.classes import ClassSet
from hemascope.core.predictions import Predictions
from hemascope.metrics import METRICS, evaluate_all
from hemascope.metrics import classification as cls


@st.composite
def predictions(draw: st.DrawFn) -> Predictions:
    n, c = draw(st.integers(1, 40)), draw(st.integers(2, 6))
    finite = st.floats(-30, 30, width=32)
    logits = draw(hnp.arrays(np.float32, (n, c), elements=finite))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, c - 1)))
    classes = ClassSet(tuple(f"class {i}" for i in range(c)))
    return Predictions(tuple(map(str, range(n))), logits, labels, classes)


@given(predictions())
def test_fractions_stay_in_bounds(p: Predictions) -> None:
    for name, metric in METRICS.items():
        value = metric(p)
        if name == "loss":
            assert value >= 0
        elif not np.isnan(value):
            assert 0 <= value <= 1, name


@given(predictions())
def test_order_of_images_does_not_matter(p: Predictions) -> None:
    back = Predictions(p.ids[::-1], p.logits[::-1], p.labels[::-1], p.classes)
    for name, metric in METRICS.items():
        np.testing.assert_allclose(metric(back), metric(p), rtol=1e-12, err_msg=name)


@given(predictions())
def test_perfect_predictions_score_one(p: Predictions) -> None:
    perfect = (np.eye(len(p.classes), dtype=np.float32) * 50)[p.labels]
    scores = evaluate_all(Predictions(p.ids, perfect, p.labels, p.classes))
    assert scores.accuracy == scores.balanced_accuracy == scores.f1_weighted == 1
    assert scores.f1_macro == scores.precision_macro == scores.recall_macro == 1
    assert scores.auroc_ovr_macro in (1, None)
    assert scores.loss < 1e-6


@given(predictions())
def test_confusion_matrix_counts_every_image_once(p: Predictions) -> None:
    confusion = cls.confusion_of(p)
    assert confusion.sum() == len(p.labels)
    supports = np.bincount(p.labels, minlength=len(p.classes))
    np.testing.assert_array_equal(confusion.sum(axis=1), supports)


@given(hnp.arrays(np.int64, (4, 4), elements=st.integers(0, 50)))
def test_most_confused_lists_every_error_once_most_frequent_first(
    confusion: NDArray[np.int64],
) -> None:
    pairs = cls.most_confused(confusion, ("a", "b", "c", "d"))
    counts = [count for _, _, count in pairs]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == confusion.sum() - np.trace(confusion)
    assert all(true != predicted for true, predicted, _ in pairs)
