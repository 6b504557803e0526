"""Networks against one another on the same images, from their predictions alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from hemascope.core.predictions import Predictions
from hemascope.metrics.statistics import (
    AUROC,
    FIGURES,
    Bootstrap,
    Interval,
    McNemar,
    Resampled,
    bootstrap_p,
    combined_p,
    holm,
    mcnemar,
    smallest_p,
    swap_p,
    wilson,
)
from hemascope.metrics.summary import spread

RunsBySeed = Mapping[int, Predictions]
_SINGLE = (
    "the class has a single image, which is in every resample: intervals of macro F1 and AUROC "
    "leave its uncertainty out"
)
_ABSENT = "the class has no images"
_ONE_CLASS = "it needs images of two classes"
_FEW = 10  # images of a class that a bootstrap needs


@dataclass(frozen=True)
class NetworkFigure(Interval):
    """A figure of a network: the mean over its runs, with its 95 % interval.

    Attributes:
        sd_over_seeds: The sample standard deviation over the runs; None for a single run.
        values: The figure of each run.
    """

    sd_over_seeds: float | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class NetworkFigures:
    """One network of a comparison.

    Attributes:
        n: The number of runs.
        seeds: Their seeds.
        figures: Each of `FIGURES` by name, None where it is not defined, then the sensitivity and
            specificity of each class, as in "sensitivity:basophil".
    """

    n: int
    seeds: tuple[int, ...]
    figures: Mapping[str, NetworkFigure | None]


@dataclass(frozen=True)
class Difference(Interval):
    """How much higher a figure of the first network is, with its 95 % interval and p-values.

    `p_holm` is corrected for the number of pairs.
    """

    p: float
    p_holm: float


@dataclass(frozen=True)
class ErrorTest:
    """McNemar's exact test of a pair, over the seeds.

    Attributes:
        only_first: Images that only the first network gets right, mean over the tests.
        only_second: Those that only the second gets right.
        num_tests: The number of tests, one a seed.
        p: The p-value of "both err alike".
        p_holm: The same, corrected for the number of pairs.
    """

    only_first: float
    only_second: float
    num_tests: int
    p: float
    p_holm: float


@dataclass(frozen=True)
class PairTest:
    """Two networks compared; a difference is None where the figure is not defined.

    `num_differing` images are classified correctly more often by one of them, over its runs.
    """

    first: str
    second: str
    num_differing: int
    differences: Mapping[str, Difference | None]
    mcnemar: ErrorTest


@dataclass(frozen=True)
class Comparison:
    """Networks with their intervals, and pairs of networks with their tests.

    Attributes:
        data: What the images are called.
        warnings: What makes the figures say less than they seem to, in sentences.
        passed_over: Folders in which there was nothing to compare.
        left_out: The figures that are not given, each with the reason.
        num_images: The number of images.
        num_resamples: The number of resampled test sets.
        level: The share of repetitions in which an interval is to hold the true figure.
        smallest_p: The smallest corrected p-value that the bootstrap can give here.
        networks: Each network by its name.
        pairs: Every pair of them.
    """

    data: str
    warnings: Sequence[str]
    passed_over: Sequence[str]
    left_out: Mapping[str, str]
    num_images: int
    num_resamples: int
    level: float
    smallest_p: float
    networks: Mapping[str, NetworkFigures]
    pairs: Sequence[PairTest]


def compare_networks(
    networks: Mapping[str, RunsBySeed],
    *,
    num_resamples: int,
    data: str = "",
    warnings: Sequence[str] = (),
    passed_over: Sequence[str] = (),
) -> Comparison:
    """Every network with its intervals, and every pair with its tests.

    A network's figure is the mean over its runs; its interval speaks of the images, its standard
    deviation of the seeds. A pair's difference is tested by the paired bootstrap, and its errors by
    McNemar's exact test on runs of the same seed (in order, where the seeds differ), whose p-values
    become one. Each family of p-values is Holm-corrected over all pairs. No p-value of right and
    wrong answers is below that of swapping the two networks' answers (`swap_p`).

    A class with a single image or none has no sensitivity here, and images of one class have no
    AUROC; both are named in `left_out`.

    Args:
        networks: The predictions of each network by seed, all of the same images in one order.
        num_resamples: How many resampled test sets.
        data: What the images are called.
        warnings: What is to stand beside the figures.
        passed_over: Folders in which there was nothing to compare.
    """
    first = next(iter(next(iter(networks.values())).values()))
    bootstrap = Bootstrap(first.labels, len(first.classes), num_resamples=num_resamples)
    resampled = {name: bootstrap(list(runs.values())) for name, runs in networks.items()}
    left_out = _left_out(first)
    couples = list(combinations(networks, 2))
    gaps = [resampled[one] - resampled[other] for one, other in couples]
    right = {
        name: np.mean([run.predicted == run.labels for run in runs.values()], axis=0)
        for name, runs in networks.items()
    }
    apart = [right[one] - right[other] for one, other in couples]
    swapped = [swap_p(gap, num_draws=num_resamples) for gap in apart]
    sizes = np.bincount(first.labels)[first.labels]
    least = {
        "accuracy": swapped,
        "balanced_accuracy": [swap_p(gap / sizes, num_draws=num_resamples) for gap in apart],
        "f1_macro": swapped,
        AUROC: [0.0] * len(couples),  # of scores, which differ in every image
    }
    differences = {figure: _differences(gaps, figure, least[figure]) for figure in FIGURES}
    tests = _error_tests([_mcnemar_by_seed(networks[a], networks[b]) for a, b in couples])
    return Comparison(
        data=data,
        warnings=(*warnings, *_few(first)),
        passed_over=tuple(passed_over),
        left_out=left_out,
        num_images=len(first.labels),
        num_resamples=num_resamples,
        level=0.95,
        smallest_p=min(1.0, smallest_p(num_resamples) * max(len(couples), 1)),
        networks={
            name: _network(runs, bootstrap, resampled[name], left_out)
            for name, runs in networks.items()
        },
        pairs=[
            PairTest(
                *couple,
                int(np.count_nonzero(apart[i])),
                {key: of[i] for key, of in differences.items()},
                tests[i],
            )
            for i, couple in enumerate(couples)
        ],
    )


def _left_out(predictions: Predictions) -> dict[str, str]:
    """The figures without an interval, with the reasons."""
    counts = np.bincount(predictions.labels, minlength=len(predictions.classes)).tolist()
    reasons: dict[str, str] = {}
    for name, count in zip(predictions.classes.names, counts, strict=True):
        if count < 2:
            reasons[f"sensitivity:{name}"] = _SINGLE if count else _ABSENT
        if count == len(predictions.labels):
            reasons |= {AUROC: _ONE_CLASS, f"specificity:{name}": _ONE_CLASS}
    return reasons


def _few(predictions: Predictions) -> list[str]:
    """A sentence on the classes that are too small for a bootstrap of macro F1 and AUROC."""
    counts = np.bincount(predictions.labels, minlength=len(predictions.classes)).tolist()
    few = zip(predictions.classes.names, counts, strict=True)
    named = ", ".join(f"{name} ({count})" for name, count in few if 0 < count < _FEW)
    start = f"Classes with fewer than {_FEW} images: {named}. Intervals"
    return [f"{start} of macro F1 and AUROC are too narrow here."] if named else []


def _network(
    runs: RunsBySeed, bootstrap: Bootstrap, resampled: Resampled, left_out: Mapping[str, str]
) -> NetworkFigures:
    of_seeds = [bootstrap.figures(run) for run in runs.values()]
    first = next(iter(runs.values()))

    def figure_of(name: str) -> NetworkFigure | None:
        if name not in resampled.values:
            return None
        interval = _interval(resampled, name, first)
        values = tuple(figures[name] for figures in of_seeds)
        return NetworkFigure(**vars(interval), sd_over_seeds=spread(values).sd, values=values)

    of_classes = [name for name in resampled.values if ":" in name and name not in left_out]
    figures = {name: figure_of(name) for name in (*FIGURES, *of_classes)}
    return NetworkFigures(len(runs), tuple(runs), figures)


def _interval(resampled: Resampled, figure: str, run: Predictions) -> Interval:
    """Of a class's share by Wilson's formula, of everything else by the bootstrap."""
    kind, _, name = figure.partition(":")
    if not name:
        return resampled.interval(figure)
    of_class = int((run.labels == run.classes.names.index(name)).sum())
    size = of_class if kind == "sensitivity" else len(run.labels) - of_class
    return Interval(resampled.values[figure], *wilson(resampled.values[figure], size))


def _differences(
    gaps: Sequence[Resampled], figure: str, least: Sequence[float]
) -> list[Difference | None]:
    """A figure's difference in every pair; None in all where the figure is not defined."""
    if any(figure not in gap.values for gap in gaps):
        return [None] * len(gaps)
    intervals = [gap.interval(figure) for gap in gaps]
    ps = [max(bootstrap_p(gap.samples[figure]), p) for gap, p in zip(gaps, least, strict=True)]
    return [
        Difference(**vars(interval), p=p, p_holm=corrected)
        for interval, p, corrected in zip(intervals, ps, holm(ps), strict=True)
    ]


def _error_tests(pairs: Sequence[Sequence[McNemar]]) -> list[ErrorTest]:
    ps = [combined_p([test.p for test in tests]) for tests in pairs]
    return [
        ErrorTest(
            only_first=float(np.mean([test.only_first for test in tests])),
            only_second=float(np.mean([test.only_second for test in tests])),
            num_tests=len(tests),
            p=p,
            p_holm=corrected,
        )
        for tests, p, corrected in zip(pairs, ps, holm(ps), strict=True)
    ]


def _mcnemar_by_seed(first: RunsBySeed, second: RunsBySeed) -> list[McNemar]:
    common = [seed for seed in first if seed in second]
    if common:
        return [mcnemar(first[seed], second[seed]) for seed in common]
    return [mcnemar(*pair) for pair in zip(first.values(), second.values(), strict=False)]
