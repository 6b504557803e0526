"""CellClassifier as scikit-learn's own checks and tools find it."""

import doctest
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from conftest import small_arrays
from hemascope import classifier
from hemascope.classifier import CellClassifier
from hemascope.core.images import symmetry
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render
from hemascope.store.predictions import read_predictions

Y = np.array(["platelet", "eosinophil", "lymphocyte"] * 16)
X = render(np.array([BLOOD_CELLS.names.index(name) for name in Y]), seed=0, image_size=12)
TABLE = X.reshape(len(X), -1)


def _untrained(**parameters: Any) -> CellClassifier:
    return CellClassifier(epochs=1, batch_size=16, random_state=0).set_params(**parameters)


def _pickled(model: CellClassifier) -> CellClassifier:
    return pickle.loads(pickle.dumps(model))  # noqa: S301 - our own


@pytest.fixture(scope="module")
def fitted() -> CellClassifier:
    """Trained once for all tests: not to be changed."""
    return _untrained(epochs=20).fit(X, Y)


def _painted(table: NDArray[Any]) -> NDArray[np.float64]:
    """Any table as one of images: three of its columns are the colors of a plain square."""
    columns = table.astype(np.float64).take([0, 1, 2], axis=1, mode="wrap")
    return np.tile(np.round(25 * columns), 8 * 8)


# Two images in the place of one change the order and the batches of all others. scikit-learn makes
# the same exception for its own classifiers that learn in random order, such as SGDClassifier.
_AS_OF_ANY_RANDOM_ORDER = {
    "check_sample_weight_equivalence_on_dense_data": "equivalent on average over the random order"
}


# scikit-learn's checks bring tables of a few columns. Those are painted as images where the
# classifier reads its images, so that everything else about it is checked.
@parametrize_with_checks(  # pyright: ignore[reportUntypedFunctionDecorator]
    [CellClassifier(epochs=8)], expected_failed_checks=lambda _estimator: _AS_OF_ANY_RANDOM_ORDER
)
def test_scikit_learns_checks(
    estimator: CellClassifier, check: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = classifier._images_in  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(classifier, "_images_in", lambda table: read(_painted(table)))
    check(estimator)


def test_scikit_learns_checks_find_only_that_their_tables_are_no_images() -> None:
    results: list[dict[str, Any]] = check_estimator(CellClassifier(), on_fail=None, on_skip=None)
    failed = [result["exception"] for result in results if result["status"] == "failed"]
    assert all("must be RGB images" in f"{error} {error.__context__}" for error in failed)
    assert sum(result["status"] == "passed" for result in results) >= 20


def test_the_example_runs() -> None:
    assert doctest.testmod(classifier) == (0, 7)


def test_learns_and_answers_with_the_labels_it_was_given(fitted: CellClassifier) -> None:
    assert fitted.classes_.tolist() == ["eosinophil", "lymphocyte", "platelet"]
    assert fitted.n_features_in_ == 3 * 12 * 12
    assert fitted.score(X, Y) > 0.8
    probs = fitted.predict_proba(X)
    assert probs.shape == (48, 3)
    assert_allclose(probs.sum(axis=1), 1)
    assert_array_equal(fitted.predict(X), fitted.classes_[probs.argmax(axis=1)])
    numbers = _untrained(epochs=20).fit(
        X, np.select([Y == "eosinophil", Y == "lymphocyte"], [-7, 2], 30)
    )
    assert numbers.classes_.tolist() == [-7, 2, 30]
    assert_array_equal(numbers.predict_proba(X), probs)


@pytest.mark.parametrize(
    "images",
    [TABLE, TABLE.astype(float), pd.DataFrame(TABLE), list(X), X.tolist(), torch.from_numpy(X)],
    ids=["table", "floats", "frame", "list", "numbers", "tensor"],
)
def test_images_may_come_in_any_shape(fitted: CellClassifier, images: Any) -> None:
    model = fitted
    if isinstance(images, pd.DataFrame):  # whose names of columns are held to those of fit
        model = _untrained(epochs=20).fit(images, Y)
    assert_array_equal(model.predict_proba(images), fitted.predict_proba(X))


def test_says_that_zeros_and_ones_are_no_pixels(fitted: CellClassifier) -> None:
    with pytest.warns(UserWarning, match="no value in X is above 1"):
        fitted.predict_proba(TABLE > 127)


def test_a_random_state_decides_the_network_and_leaves_other_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    first, again = (_untrained().fit(X, Y).predict_proba(X) for _ in range(2))
    assert_array_equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)
    drawn = _untrained(random_state=np.random.RandomState(0))
    others = [drawn.fit(X, Y).predict_proba(X) for _ in range(2)]
    others += [_untrained(random_state=None).fit(X, Y).predict_proba(X)]
    assert all(np.abs(other - first).max() > 1e-3 for other in others)
    assert np.abs(others[0] - others[1]).max() > 1e-3


def test_weights_decide_what_is_learned_and_only_their_proportions_count() -> None:
    contested = X[:24]
    images = np.concatenate([contested, contested])
    labels = np.repeat(["one", "other"], 24)
    shares = np.repeat([0.8, 0.2], 24)
    ours = _untrained(epochs=20).fit(images, labels, sample_weight=shares)
    assert ours.predict_proba(contested)[:, 0].mean() == pytest.approx(0.8, abs=0.1)
    scaled = _untrained(epochs=20).fit(images, labels, sample_weight=4 * shares)
    assert_array_equal(scaled.predict_proba(X), ours.predict_proba(X))
    other = _untrained(epochs=20).fit(images, labels, sample_weight=1 - shares)
    assert other.predict_proba(contested)[:, 0].mean() == pytest.approx(0.2, abs=0.1)


def test_images_of_weight_zero_are_left_out_and_their_classes_stay() -> None:
    kept = Y != "platelet"
    ours = _untrained().fit(X, Y, sample_weight=kept.astype(float))
    assert ours.classes_.tolist() == ["eosinophil", "lymphocyte", "platelet"]
    with_noise = X.copy()
    with_noise[~kept] = 255 - with_noise[~kept]
    noisy = _untrained().fit(with_noise, Y, sample_weight=kept)
    assert_array_equal(noisy.predict_proba(X), ours.predict_proba(X))


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (np.full(48, -1.0), "[Nn]egative"),
        (np.ones(47), "47"),
        (np.zeros(48), "zero"),
        (np.full(48, np.nan), "NaN"),
    ],
)
def test_says_which_weights_it_expects(weights: NDArray[Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        _untrained().fit(X, Y, sample_weight=weights)


def test_is_the_network_that_the_command_trains(trained: Path) -> None:
    arrays, names = small_arrays(), np.array(BLOOD_CELLS.names)
    model = CellClassifier("paper-cnn", epochs=2, random_state=0, device="auto")
    model.fit(arrays["train_images"], names[arrays["train_labels"].ravel()])
    assert tuple(model.classes_) == BLOOD_CELLS.names
    expected = read_predictions(trained / "predictions-test.csv").probs
    assert_allclose(model.predict_proba(arrays["test_images"]), expected, atol=1e-5)


def test_views_are_averaged(fitted: CellClassifier) -> None:
    views = [fitted.predict_proba(symmetry(X, view)) for view in range(8)]
    eight = _pickled(fitted).set_params(views=8)
    assert_allclose(eight.predict_proba(X), np.mean(views, axis=0), rtol=1e-4)


def test_pickled_it_answers_the_same_and_can_be_trained_on_other_images(
    fitted: CellClassifier,
) -> None:
    copy = _pickled(fitted)
    assert_array_equal(copy.predict_proba(X), fitted.predict_proba(X))
    assert copy.fit(X[:, :8, :8], Y).n_features_in_ == 3 * 8 * 8


def test_parameters_can_be_searched() -> None:
    grid = {"epochs": np.array([1, 20]), "preset": ["hemanet-tiny", "paper-mlnn"], "views": [8]}
    search = GridSearchCV(_untrained(), grid, cv=2).fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = _untrained(**search.best_params_)
    assert best.epochs == 20
    assert_array_equal(search.predict_proba(X), best.fit(X, Y).predict_proba(X))


def test_is_cross_validated_in_a_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline = make_pipeline(FunctionTransformer(), _untrained())
    pipeline.set_params(cellclassifier__epochs=20)
    scores = cross_val_score(pipeline, TABLE, Y, cv=2)
    assert scores.shape == (2,)
    assert scores.mean() > 0.5  # a third by chance
    assert not list(tmp_path.iterdir())


def test_says_how_it_goes_only_if_asked_to(capsys: pytest.CaptureFixture[str]) -> None:
    _untrained().fit(X, Y)
    assert capsys.readouterr() == ("", "")
    _untrained(epochs=2, verbose=True).fit(X, Y)
    out, err = capsys.readouterr()
    assert not out
    assert [line.split(":")[0] for line in err.splitlines()] == ["epoch 1/2", "epoch 2/2"]


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (X.transpose(0, 3, 1, 2), Y, r"RGB images \(N, H, H, 3\).*; got shape \(48, 3, 12, 12\)"),
        (X[0], Y, r"; got shape \(12, 12, 3\)"),
        (X[:, :10], Y, r"; got shape \(48, 10, 12, 3\)"),
        (X[:, :6, :6], Y, "H at least 8.*; got 108 numbers an image"),
        (TABLE[:, :-1], Y, "; got 431 numbers an image"),
        (X / 255, Y, "multiply images in .0, 1. by 255"),
        (X.astype(int) + 256, Y, "integers from 0 to 255"),
        (X.astype(int) - 255, Y, "Negative values in data"),
        (X[:0], Y[:0], "0 sample"),
        (X, Y[:-1], "inconsistent numbers of samples"),
        (X, np.full(48, "platelet"), "at least two classes"),
        (X, np.linspace(0, 1, 48), "continuous"),
    ],
)
def test_says_which_images_and_labels_it_expects(images: Any, labels: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        _untrained().fit(images, labels)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"preset": "hemanet-tyni"}, "did you mean 'hemanet-tiny'"),
        ({"epochs": 0}, "training.epochs.*greater than or equal to 1"),
        ({"batch_size": "many"}, "training.batch_size.*integer"),
        ({"views": 2}, "views.*1 or 8"),
        ({"random_state": -1}, "seed.*greater than or equal to 0"),
        ({"random_state": "a"}, "cannot be used to seed"),
        ({"device": "abacus"}, "'auto', 'cpu'"),
        ({"precision": "fp64"}, "'auto', 'fp32'"),
    ],
)
def test_says_which_parameters_it_expects(parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        _untrained(**parameters).fit(X, Y)


def test_says_what_a_trained_one_needs(
    fitted: CellClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFittedError):
        CellClassifier().predict(X)
    failed = CellClassifier(epochs=0)
    with pytest.raises(ValueError, match="epochs"):
        failed.fit(X, Y)
    with pytest.raises(NotFittedError):
        failed.predict(X)
    with pytest.raises(ValueError, match="192 features, but CellClassifier is expecting 432"):
        fitted.predict(X[:, :8, :8])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    moved = _pickled(fitted).set_params(device="cuda")
    with pytest.raises(ValueError, match=r"^device: this machine has no cuda; take cpu"):
        moved.predict(X)
