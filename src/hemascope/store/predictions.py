"""Predictions as a CSV file that a person can read and any later stage can start from."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.core.classes import ClassSet
from hemascope.core.errors import DataError
from hemascope.core.predictions import Predictions
from hemascope.store.files import csv_text, write_text

_FIXED = ("id", "true_class", "predicted_class", "confidence")
_PREFIX, _PROB_PREFIX = "logit:", "prob:"
_SUM_TOLERANCE = 1e-3  # of probabilities written with few digits
_LEAST_PROB = 1e-12  # what 0 stands for, lest a loss be infinite
_LARGEST = float(np.finfo(np.float32).max)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Writes one row per image; logits have nine digits, so that float32 comes back exactly."""
    names = predictions.classes.names
    rows: list[tuple[str, ...]] = [(*_FIXED, *(_PREFIX + name for name in names))]
    confidence = predictions.probs.max(axis=1)
    for i, image_id in enumerate(predictions.ids):
        true, predicted = names[predictions.labels[i]], names[predictions.predicted[i]]
        logits = (f"{value:.9g}" for value in predictions.logits[i])
        rows.append((image_id, true, predicted, f"{confidence[i]:.6f}", *logits))
    write_text(path, csv_text(rows))


def medmnist_name(split: str, *, image_size: int, auc: float, acc: float, run: str) -> str:
    """The name that MedMNIST's evaluator gives the file of `write_medmnist`.

    Args:
        split: "train", "val" or "test".
        image_size: Of the images; all but 28 stand in the name.
        auc: One-vs-rest AUROC, mean over classes.
        acc: Accuracy.
        run: Which run it is; a dot would end it, so that none stays.
    """
    size = "" if image_size == 28 else f"_{image_size}"
    return f"bloodmnist{size}_{split}_[AUC]{auc:.3f}_[ACC]{acc:.3f}@{run.replace('.', '-')}.csv"


def write_medmnist(path: Path, predictions: Predictions) -> None:
    """Writes what MedMNIST's evaluator reads: a line per image, its number and probabilities.

    Source: medmnist.Evaluator, MedMNIST v2.
    """
    lines = (
        ",".join([str(i), *map(repr, row)]) for i, row in enumerate(predictions.probs.tolist())
    )
    write_text(path, "\n".join(lines) + "\n")


def read_predictions(path: Path) -> Predictions:
    """Reads what `write_predictions` wrote.

    Columns of probabilities, `prob:CLASS`, are read in place of logits: so other programs' networks
    can be compared with ours.

    Raises:
        DataError: If the file is missing or was not written so.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        columns = header[len(_FIXED) :]
        prefix = _PROB_PREFIX if columns and columns[0].startswith(_PROB_PREFIX) else _PREFIX
        names = tuple(cell.removeprefix(prefix) for cell in columns)
        if tuple(header[: len(_FIXED)]) != _FIXED or not names or not rows:
            raise ValueError("its columns are not those of a predictions file")
        labels = np.array([names.index(row[1]) for row in rows], dtype=np.int64)
        scores = np.array([row[len(_FIXED) :] for row in rows], dtype=np.float64)
        if (np.abs(scores) <= _LARGEST).all():  # false for NaN as well
            logits = _logits_of(scores) if prefix == _PROB_PREFIX else scores
            ids = tuple(row[0] for row in rows)
            return Predictions(ids, logits.astype(np.float32), labels, ClassSet(names))
        raise ValueError("some scores are not finite numbers")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from error
    except (ValueError, IndexError, csv.Error) as error:
        raise DataError(f"{path} is not a whole predictions file ({error}).") from error


def _logits_of(probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of probabilities (N, C), whose rows must sum to 1."""
    sums = probs.sum(axis=1)
    wrong = np.flatnonzero((np.abs(sums - 1) > _SUM_TOLERANCE) | (probs < 0).any(axis=1))
    if len(wrong):
        raise ValueError(
            f"the probabilities of row {wrong[0] + 1} are {sums[wrong[0]]:.4g} together; expected "
            "numbers from 0 to 1 that make 1"
        )
    return np.log(np.maximum(probs, _LEAST_PROB))
