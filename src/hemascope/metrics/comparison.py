"""Networks against one another on the same images, from their predictions alone."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from hemascope.core.predictions import Predictions
from hemascope.metrics.statistics import (
    FIGURES,
    Bootstrap,
    McNemar,
    Resampled,
    bootstrap_p,
    combined_p,
    holm,
    mcnemar,
    smallest_p,
    wilson,
)
from hemascope.metrics.summary import spread

RunsBySeed = Mapping[int, Predictions]


def compare_networks(
    networks: Mapping[str, RunsBySeed], *, num_resamples: int, seed: int = 0
) -> dict[str, Any]:
    """Every network with its intervals, and every pair with its tests, ready for JSON.

    A network's figure is the mean over its runs; its interval speaks of the images, its standard
    deviation of the seeds. A pair's difference is tested by the paired bootstrap, and its errors by
    McNemar's exact test on runs of the same seed (in order, where the seeds differ), whose p-values
    become one. Each family of p-values is corrected over all pairs, after Holm.

    Args:
        networks: The predictions of each network by seed, all of the same images in one order.
        num_resamples: How many resampled test sets.
        seed: Decides what is drawn.
    """
    first = next(iter(next(iter(networks.values())).values()))
    bootstrap = Bootstrap(first.labels, len(first.classes), num_resamples=num_resamples, seed=seed)
    resampled = {name: bootstrap(list(runs.values())) for name, runs in networks.items()}
    pairs = [
        _pair((one, networks[one], resampled[one]), (other, networks[other], resampled[other]))
        for one, other in combinations(networks, 2)
    ]
    _correct([pair["mcnemar"] for pair in pairs])
    for figure in FIGURES:
        _correct([pair["differences"][figure] for pair in pairs])
    return {
        "num_images": len(first.labels),
        "num_resamples": num_resamples,
        "level": 0.95,
        "smallest_p": min(1.0, smallest_p(num_resamples) * max(len(pairs), 1)),
        "networks": {
            name: _network(runs, bootstrap, resampled[name]) for name, runs in networks.items()
        },
        "pairs": pairs,
    }


def _network(runs: RunsBySeed, bootstrap: Bootstrap, resampled: Resampled) -> dict[str, Any]:
    of_seeds = [bootstrap.figures(run) for run in runs.values()]
    first = next(iter(runs.values()))
    counts = np.bincount(first.labels, minlength=len(first.classes))
    absent = {
        f"sensitivity:{name}"
        for name, count in zip(first.classes.names, counts.tolist(), strict=True)
        if count == 0
    }
    return {
        "n": len(runs),
        "seeds": list(runs),
        "figures": {
            figure: {
                **_interval_of_network(resampled, figure, first),
                "sd_over_seeds": spread([values[figure] for values in of_seeds]).sd,
                "values": [values[figure] for values in of_seeds],
            }
            for figure in resampled.values
            if figure not in absent
        },
    }


def _interval_of_network(resampled: Resampled, figure: str, run: Predictions) -> dict[str, float]:
    """Of a class's share by Wilson's formula, of everything else by the bootstrap."""
    kind, _, name = figure.partition(":")
    if not name:
        return _interval(resampled, figure)
    of_class = int((run.labels == run.classes.names.index(name)).sum())
    size = of_class if kind == "sensitivity" else len(run.labels) - of_class
    low, high = wilson(resampled.values[figure], size)
    return {"value": resampled.values[figure], "low": low, "high": high}


def _interval(resampled: Resampled, figure: str) -> dict[str, float]:
    interval = resampled.interval(figure)
    return {"value": interval.value, "low": interval.low, "high": interval.high}


_Network = tuple[str, RunsBySeed, Resampled]


def _pair(first: _Network, second: _Network) -> dict[str, Any]:
    difference = Resampled(
        {figure: first[2].values[figure] - second[2].values[figure] for figure in FIGURES},
        {figure: first[2].samples[figure] - second[2].samples[figure] for figure in FIGURES},
    )
    tests = _mcnemar_by_seed(first[1], second[1])
    return {
        "first": first[0],
        "second": second[0],
        "differences": {
            figure: {
                **_interval(difference, figure),
                "p": bootstrap_p(difference.samples[figure]),
            }
            for figure in FIGURES
        },
        "mcnemar": {
            "only_first": float(np.mean([test.only_first for test in tests])),
            "only_second": float(np.mean([test.only_second for test in tests])),
            "num_tests": len(tests),
            "p": combined_p([test.p for test in tests]),
        },
    }


def _mcnemar_by_seed(first: RunsBySeed, second: RunsBySeed) -> list[McNemar]:
    common = [seed for seed in first if seed in second]
    if common:
        return [mcnemar(first[seed], second[seed]) for seed in common]
    return [mcnemar(*pair) for pair in zip(first.values(), second.values(), strict=False)]


def _correct(family: Sequence[dict[str, Any]]) -> None:
    for test, corrected in zip(family, holm([test["p"] for test in family]), strict=True):
        test["p_holm"] = corrected
