"""Our metrics against scikit-learn and torchmetrics, which compute them their own way."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics

from hemascope.core.classes import BLOOD_CELLS
from hemascope.core.predictions import Predictions
from hemascope.metrics import METRICS, evaluate_all
from hemascope.metrics import classification as cls

LABELS = list(range(8))
sk: Any = metrics  # its stubs leave out what its documentation allows


def _sk_specificity(p: Predictions) -> float:
    per_class = sk.multilabel_confusion_matrix(p.labels, p.predicted)
    others = per_class[:, 0].sum(axis=1)
    return float(np.mean(np.divide(per_class[:, 0, 0], others, out=0.0 * others, where=others > 0)))


# To add a metric: its row here.
REFERENCES: dict[str, Callable[[Predictions], float]] = {
    "accuracy": lambda p: sk.accuracy_score(p.labels, p.predicted),
    "balanced_accuracy": lambda p: sk.balanced_accuracy_score(p.labels, p.predicted),
    "f1_weighted": lambda p: sk.f1_score(
        p.labels, p.predicted, average="weighted", zero_division=0
    ),
    "f1_macro": lambda p: sk.f1_score(p.labels, p.predicted, average="macro", zero_division=0),
    "precision_macro": lambda p: sk.precision_score(
        p.labels, p.predicted, average="macro", zero_division=0
    ),
    "recall_macro": lambda p: sk.recall_score(
        p.labels, p.predicted, average="macro", zero_division=0
    ),
    "sensitivity_macro": lambda p: sk.recall_score(
        p.labels, p.predicted, average="macro", zero_division=0
    ),
    "specificity_macro": _sk_specificity,
    "auroc_ovr_macro": lambda p: sk.roc_auc_score(
        p.labels, p.probs, labels=LABELS, multi_class="ovr", average="macro"
    ),
    "loss": lambda p: (  # scikit-learn's log_loss clips probabilities
        torch.nn.functional.cross_entropy(
            torch.from_numpy(p.logits).double(), torch.from_numpy(p.labels)
        ).item()
    ),
}


@pytest.fixture
def one_class_never_predicted(random_predictions: Predictions) -> Predictions:
    logits = random_predictions.logits.copy()
    logits[:, 5] -= 100
    return Predictions(random_predictions.ids, logits, random_predictions.labels, BLOOD_CELLS)


@pytest.fixture
def with_ties(random_predictions: Predictions) -> Predictions:
    logits = np.round(random_predictions.logits)
    return Predictions(random_predictions.ids, logits, random_predictions.labels, BLOOD_CELLS)


@pytest.fixture
def five_of_eight_classes(random_predictions: Predictions) -> Predictions:
    """Classes 1, 4 and 6 have no images; 1 and 6 are never predicted, 4 is."""
    keep = np.flatnonzero(~np.isin(random_predictions.labels, (1, 4, 6)))
    logits = random_predictions.logits[keep]
    logits[:, (1, 6)] -= 100
    assert (logits.argmax(axis=1) == 4).any()
    ids = tuple(random_predictions.ids[i] for i in keep)
    return Predictions(ids, logits, random_predictions.labels[keep], BLOOD_CELLS)


def test_every_metric_has_a_reference() -> None:
    assert set(REFERENCES) == set(METRICS)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("case", ["random_predictions", "one_class_never_predicted", "with_ties"])
def test_agrees_with_its_reference(name: str, case: str, request: pytest.FixtureRequest) -> None:
    predictions: Predictions = request.getfixturevalue(case)
    assert METRICS[name](predictions) == pytest.approx(REFERENCES[name](predictions), abs=1e-12)


@pytest.mark.filterwarnings("ignore")  # scikit-learn notes that a class is predicted but absent
@pytest.mark.parametrize("name", sorted(set(METRICS) - {"auroc_ovr_macro"}))
def test_agrees_with_its_reference_where_classes_are_absent(
    name: str, five_of_eight_classes: Predictions
) -> None:
    p = five_of_eight_classes
    assert METRICS[name](p) == pytest.approx(REFERENCES[name](p), abs=1e-12)


def test_a_perfect_network_has_macro_f1_one_on_five_of_eight_classes(
    five_of_eight_classes: Predictions,
) -> None:
    p = five_of_eight_classes
    logits = (20 * np.eye(8, dtype=np.float32))[p.labels]
    figures = evaluate_all(Predictions(p.ids, logits, p.labels, p.classes))
    assert figures.f1_macro == figures.precision_macro == figures.recall_macro == 1
    assert figures.specificity_macro == 1
    assert figures.absent_classes == ("eosinophil", "lymphocyte", "neutrophil")
    assert figures.per_class["eosinophil"].auroc is None


@pytest.mark.filterwarnings("ignore")  # as above
def test_each_resampled_confusion_matrix_has_its_own_classes() -> None:
    rng = np.random.default_rng(0)
    pairs = [rng.integers(8, size=(2, size)) for size in (3, 5, 8, 40)]
    stack = np.stack([sk.confusion_matrix(*pair, labels=LABELS) for pair in pairs])
    assert (stack.sum(axis=1) + stack.sum(axis=2) == 0).any(axis=1).sum() >= 2
    for ours, theirs in (
        (cls.f1, sk.f1_score), (cls.precision, sk.precision_score), (cls.recall, sk.recall_score),
    ):  # fmt: skip
        expected = [theirs(*pair, average="macro", zero_division=0) for pair in pairs]
        np.testing.assert_allclose(cls.macro(ours(stack), stack), expected, atol=1e-12)


def test_confusion_matrix_agrees_with_scikit_learn(random_predictions: Predictions) -> None:
    p = random_predictions
    expected = sk.confusion_matrix(p.labels, p.predicted, labels=LABELS)
    np.testing.assert_array_equal(cls.confusion_of(p), expected)


def test_a_class_that_does_not_occur(random_predictions: Predictions) -> None:
    keep = np.flatnonzero(random_predictions.labels != 2)
    p = Predictions(
        tuple(random_predictions.ids[i] for i in keep),
        random_predictions.logits[keep],
        random_predictions.labels[keep],
        BLOOD_CELLS,
    )
    recall = sk.recall_score(p.labels, p.predicted, labels=LABELS, average=None, zero_division=0)
    np.testing.assert_allclose(cls.recall(cls.confusion_of(p)), recall)
    present = [c for c in LABELS if c != 2]
    aurocs = [sk.roc_auc_score(p.labels == c, p.probs[:, c]) for c in present]
    assert METRICS["auroc_ovr_macro"](p) == pytest.approx(np.mean(aurocs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn notes that a class is predicted but absent
        expected = sk.balanced_accuracy_score(p.labels, p.predicted)
    assert METRICS["balanced_accuracy"](p) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore")  # torchmetrics' own imports warn
def test_agrees_with_torchmetrics(random_predictions: Predictions) -> None:
    import torchmetrics.functional.classification as tm

    p = random_predictions
    predicted, labels = torch.from_numpy(p.predicted), torch.from_numpy(p.labels)
    expected = {
        "accuracy": tm.multiclass_accuracy(predicted, labels, 8, average="micro"),
        "f1_weighted": tm.multiclass_f1_score(predicted, labels, 8, average="weighted"),
        "f1_macro": tm.multiclass_f1_score(predicted, labels, 8, average="macro"),
        "precision_macro": tm.multiclass_precision(predicted, labels, 8, average="macro"),
        "recall_macro": tm.multiclass_recall(predicted, labels, 8, average="macro"),
        "specificity_macro": tm.multiclass_specificity(predicted, labels, 8, average="macro"),
        "auroc_ovr_macro": tm.multiclass_auroc(torch.from_numpy(p.probs), labels, 8),
    }
    for name, value in expected.items():
        assert METRICS[name](p) == pytest.approx(value.item(), abs=1e-6), name
