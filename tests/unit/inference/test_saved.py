from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hemascope.core.errors import DataError
from hemascope.core.predictions import Predictions
from hemascope.data.collections import BLOOD_CELLS
from hemascope.store.predictions import read_predictions, write_predictions


def test_predictions_come_back_exactly(tmp_path: Path, random_predictions: Predictions) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(path, random_predictions)
    back = read_predictions(path)
    assert back.ids == random_predictions.ids
    assert back.classes == BLOOD_CELLS
    np.testing.assert_array_equal(back.logits, random_predictions.logits)
    np.testing.assert_array_equal(back.labels, random_predictions.labels)


@pytest.mark.parametrize(
    "content", ["", "a,b\n1,2\n", "id,true_class,predicted_class,confidence\n"]
)
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(content)
    with pytest.raises(DataError, match="is not a whole predictions file"):
        read_predictions(path)


def test_a_row_that_is_cut_short_is_refused(
    tmp_path: Path, random_predictions: Predictions
) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(path, random_predictions)
    path.write_text(path.read_text()[:-30])
    with pytest.raises(DataError, match="is not a whole predictions file"):
        read_predictions(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv"):
        read_predictions(tmp_path / "none.csv")


def test_predictions_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit together"):
        Predictions(("a",), np.zeros((1, 7), np.float32), np.zeros(1, np.int64), BLOOD_CELLS)


def _with_probabilities(path: Path, predictions: Predictions, probs: NDArray[np.float64]) -> None:
    names = predictions.classes.names
    lines = [
        ",".join(
            ["id", "true_class", "predicted_class", "confidence", *(f"prob:{n}" for n in names)]
        )
    ]
    for i, row in enumerate(probs.tolist()):
        true, predicted = names[predictions.labels[i]], names[int(probs[i].argmax())]
        lines.append(",".join([predictions.ids[i], true, predicted, "1", *map(str, row)]))
    path.write_text("\n".join(lines) + "\n")


def test_probabilities_of_other_programs_are_read(
    tmp_path: Path, random_predictions: Predictions
) -> None:
    path = tmp_path / "predictions.csv"
    _with_probabilities(path, random_predictions, random_predictions.probs)
    found = read_predictions(path)
    np.testing.assert_allclose(found.probs, random_predictions.probs, atol=1e-6)
    assert found.ids == random_predictions.ids


def test_probabilities_that_do_not_make_1_are_refused_by_row(
    tmp_path: Path, random_predictions: Predictions
) -> None:
    probs = random_predictions.probs.copy()
    probs[6] *= 0.9
    path = tmp_path / "predictions.csv"
    _with_probabilities(path, random_predictions, probs)
    with pytest.raises(DataError, match=r"probabilities of row 7 are 0\.9 together"):
        read_predictions(path)
