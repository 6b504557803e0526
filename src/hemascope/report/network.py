"""One network over its runs, as every page, card and comparison shows it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hemascope.metrics import METRICS, ClassFigures
from hemascope.metrics.classification import most_confused
from hemascope.metrics.summary import Estimate, Spread, estimate, macro_f1, spread
from hemascope.report.text import LABELS
from hemascope.settings.run import RunSettings
from hemascope.store.run_folder import History, RunResults

_MOST_CONFUSED = 5  # pairs of classes shown


@dataclass(frozen=True)
class ClassSummary:
    """One class over the runs; a figure is None where it is not defined.

    `sensitivity` is the mean recall with its interval over the images.
    """

    support: int
    precision: Spread
    recall: Spread | None
    specificity: Spread | None
    f1: Spread
    auroc: Spread | None
    sensitivity: Estimate | None


@dataclass(frozen=True)
class Confused:
    """How many images of one class were taken for another, and their share of its images."""

    true: str
    predicted: str
    images: int
    share: float


@dataclass(frozen=True)
class Network:
    """One network over its runs on the same images.

    Attributes:
        n: The number of runs; `seeds` and `folders` are theirs, in order.
        settings: Those of the first run; the others differ in the seed alone.
        results: Each figure of `results.json` that all runs have.
        first_epoch: Each column of `history.csv` in the first epoch; `last_epoch` in the last.
        per_class: The classes in order.
        confusion_matrix_pooled: The sum over the runs.
        most_confused: The most frequent errors of all runs together, the most frequent first.
        accuracy: Mean accuracy with its interval over the images.
        f1_macro: Macro F1 with its interval over the images; None for several runs.
        worst_class: The class with the lowest sensitivity; None if it is the only class.
    """

    n: int
    seeds: tuple[int, ...]
    folders: tuple[str, ...]
    settings: RunSettings
    results: Mapping[str, Spread]
    first_epoch: Mapping[str, Spread]
    last_epoch: Mapping[str, Spread]
    per_class: Mapping[str, ClassSummary]
    confusion_matrix_pooled: tuple[tuple[int, ...], ...]
    most_confused: tuple[Confused, ...]
    accuracy: Estimate
    f1_macro: Estimate | None
    worst_class: str | None

    @property
    def sensitivities(self) -> dict[str, Estimate]:
        """The sensitivity of each class that has images."""
        return {name: row.sensitivity for name, row in self.per_class.items() if row.sensitivity}


def summarize(
    settings: RunSettings,
    results: Sequence[RunResults],
    histories: Sequence[History] = (),
    folders: Sequence[str] = (),
) -> Network:
    """A network over its runs; an ensemble has no history."""
    first = results[0]
    pooled = np.sum([result.confusion for result in results], axis=0)
    per_class = {name: _summary(name, results) for name in first.class_names}
    known = {name: row.sensitivity.value for name, row in per_class.items() if row.sensitivity}
    supports = dict(zip(first.class_names, pooled.sum(axis=1).tolist(), strict=True))
    accuracy = spread([result.accuracy for result in results])
    return Network(
        n=len(results),
        seeds=tuple(result.seed for result in results),
        folders=tuple(folders),
        settings=settings,
        results=_spreads(results),
        first_epoch=_epoch(histories, 0),
        last_epoch=_epoch(histories, -1),
        per_class=per_class,
        confusion_matrix_pooled=tuple(map(tuple, pooled.tolist())),
        most_confused=tuple(
            Confused(true, predicted, images, images / supports[true])
            for true, predicted, images in most_confused(pooled, first.class_names)[:_MOST_CONFUSED]
        ),
        accuracy=estimate(accuracy.mean, first.num_images),
        f1_macro=macro_f1(first.confusion) if len(results) == 1 else None,
        worst_class=min(known, key=lambda name: known[name]) if len(known) > 1 else None,
    )


def _spreads(results: Sequence[RunResults]) -> dict[str, Spread]:
    keys = dict.fromkeys([*METRICS, *LABELS["Efficiency"]])
    values = {key: [getattr(result, key) for result in results] for key in keys}
    return {key: spread(of_key) for key, of_key in values.items() if None not in of_key}


def _epoch(histories: Sequence[History], index: int) -> dict[str, Spread]:
    if not histories:
        return {}
    shared = [name for name in histories[0].known() if all(name in h.known() for h in histories)]
    return {name: spread([float(h[name][index]) for h in histories]) for name in shared}


def _summary(name: str, results: Sequence[RunResults]) -> ClassSummary:
    rows = [result.per_class[name] for result in results]
    support = rows[0].support

    def over(figure: Callable[[ClassFigures], float | None]) -> Spread | None:
        known = [value for row in rows if (value := figure(row)) is not None]
        return spread(known) if len(known) == len(rows) else None

    recall = over(lambda row: row.recall)
    return ClassSummary(
        support=support,
        precision=spread([row.precision for row in rows]),
        recall=recall,
        specificity=over(lambda row: row.specificity),
        f1=spread([row.f1 for row in rows]),
        auroc=over(lambda row: row.auroc),
        sensitivity=estimate(recall.mean, support) if support and recall else None,
    )
