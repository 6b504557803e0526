"""`hemascope trust`: what a network's confidence is worth, from its saved predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import betabinom, binomtest

from hemascope.analyses.saved import SavedPair, leaks, read_pairs
from hemascope.core.errors import RESEARCH_USE_ONLY, DataError
from hemascope.core.predictions import Predictions
from hemascope.metrics import METRICS
from hemascope.metrics import calibration as cal
from hemascope.metrics.classification import auroc
from hemascope.metrics.uncertainty import (
    SCORES,
    ConformalRule,
    abstain_below,
    covered,
    entropy,
    fit_conformal,
    fit_temperature,
    mutual_information,
    risk_coverage,
    together,
)
from hemascope.report import trust as pages
from hemascope.settings.output import Output
from hemascope.store.provenance import provenance, publish


def trust(
    folders: Sequence[Path],
    output: Output,
    *,
    views: bool,
    coverages: Sequence[float],
    accuracy: float,
) -> str:
    """Fits temperature, prediction sets and abstaining on val, and tries them on test.

    Args:
        folders: Run folders or their parents; several seeds of a network are averaged.
        output: Gets trust.json, trust.md and figures/.
        views: Whether to take the predictions with eight views.
        coverages: How often prediction sets are to hold the true class.
        accuracy: The accuracy wanted on the images that are answered.

    Returns:
        The tables as text.

    Raises:
        DataError: If predictions are missing, do not fit together, or val is too small.
        OutputError: If `output` cannot be written.
    """
    networks = read_pairs(folders, views=views)
    content = assess_all(networks, coverages=coverages, accuracy=accuracy)
    text = "\n\n".join([pages.trust_text(content), RESEARCH_USE_ONLY])
    caption = f"{content['data']}\n{RESEARCH_USE_ONLY}"
    publish(
        output,
        provenance(),
        contents={
            "trust.json": {"notice": RESEARCH_USE_ONLY, **content},
            "trust.md": text + "\n",
        },
        draw=lambda figures: pages.draw_trust(curves(networks, content), figures, caption),
    )
    return text


def assess_all(
    networks: Mapping[str, Sequence[SavedPair]], *, coverages: Sequence[float], accuracy: float
) -> dict[str, Any]:
    """`assess` for every run of every network, with the data's names.

    Raises:
        DataError: If val has too few images for a coverage.
    """
    first = next(iter(networks.values()))[0]
    return {
        "data": first.test.title,
        "fitted_on": first.val.title,
        "num_val": len(first.val.predictions.labels),
        "num_test": len(first.test.predictions.labels),
        "warnings": [
            *leaks({name: [pair.test for pair in pairs] for name, pairs in networks.items()}),
            *(
                f"On val: {sentence}"
                for sentence in leaks({n: [p.val for p in pairs] for n, pairs in networks.items()})
            ),
        ],
        "networks": {
            name: [
                {
                    "seed": pair.test.seed,
                    **assess(
                        pair.val.predictions,
                        pair.test.predictions,
                        coverages=coverages,
                        accuracy=accuracy,
                    ),
                }
                for pair in pairs
            ]
            for name, pairs in networks.items()
        },
        "ensembles": {
            f"{name}, {len(pairs)} together": judge(
                [pair.val.predictions for pair in pairs], [pair.test.predictions for pair in pairs]
            )[0]
            for name, pairs in networks.items()
            if len(pairs) > 1
        },
    }


def curves(
    networks: Mapping[str, Sequence[SavedPair]], content: Mapping[str, Any]
) -> dict[str, pages.Curves]:
    """What the pictures of each network show: its runs together, before and after scaling."""
    found: dict[str, pages.Curves] = {}
    for name, pairs in networks.items():
        before = [pair.test.predictions for pair in pairs]
        after = [
            run.scaled(one["temperature"])
            for run, one in zip(before, content["networks"][name], strict=True)
        ]
        bins: list[cal.Reliability] = []
        for runs in (before, after):
            labels = [cal.top_label(run) for run in runs]
            confidence, right = (np.concatenate(part) for part in zip(*labels, strict=True))
            bins.append(cal.reliability(confidence, right))
        each = [risk_coverage(*cal.top_label(run)) for run in after]
        risk = np.mean([curve.risk for curve in each], axis=0)
        found[name] = pages.Curves(len(pairs), bins[0], bins[1], each[0].coverage, risk)
    return found


def assess(
    val: Predictions, test: Predictions, *, coverages: Sequence[float], accuracy: float
) -> dict[str, Any]:
    """Calibration before and after, prediction sets and abstaining of one run, ready for JSON.

    Everything is fitted on `val`; `test` is only looked at with what came out.

    Raises:
        DataError: If val has too few images for a coverage.
    """
    temperature = fit_temperature(val)
    raw, val, test = test, val.scaled(temperature), test.scaled(temperature)
    return {
        "temperature": temperature,
        "before": _calibration(raw),
        "after": _calibration(test),
        "sets": [
            _try_sets(
                fit_conformal(
                    val, score=score, coverage=coverage, class_conditional=class_conditional
                ),
                test,
            )
            for coverage, class_conditional, score in product(coverages, (False, True), SCORES)
        ],
        "abstaining": _try_abstaining(val, test, accuracy),
    }


def _calibration(predictions: Predictions) -> dict[str, float]:
    return {
        "ece": cal.ece(predictions),
        "ece_by_chance": cal.ece_by_chance(predictions),
        "ece_equal_mass": cal.ece(predictions, equal_mass=True),
        "ece_classwise": cal.classwise_ece(predictions),
        "brier": cal.brier(predictions),
        "nll": METRICS["loss"](predictions),
    }


def _try_sets(rule: ConformalRule, test: Predictions) -> dict[str, Any]:
    sets = rule.sets(test)
    holds, sizes = covered(sets, test.labels), sets.sum(axis=1)
    interval = binomtest(int(holds.sum()), len(holds)).proportion_ci()
    return {
        **asdict(rule),
        "observed": float(holds.mean()),
        "low": float(interval.low),
        "high": float(interval.high),
        "expected": None if rule.class_conditional else _expected(rule, 0, len(holds)),
        "mean_size": float(sizes.mean()),
        "share_empty": float((sizes == 0).mean()),
        "share_single": float((sizes == 1).mean()),
        "per_class": {
            name: {
                "observed": float(holds[test.labels == label].mean()),
                "mean_size": float(sizes[test.labels == label].mean()),
                "expected": _expected(rule, label, int((test.labels == label).sum()))
                if rule.class_conditional
                else None,
            }
            for label, name in enumerate(test.classes.names)
            if (test.labels == label).any()
        },
    }


def _expected(rule: ConformalRule, label: int, num_images: int) -> list[float]:
    """Where the observed coverage of so many images lies with a chance of 95 %.

    Source: the count covered is beta-binomial, Angelopoulos & Bates, A Gentle Introduction to
    Conformal Prediction, 2021, section 3.2.
    """
    rank, size = rule.ranks[label], rule.sizes[label]
    law = betabinom(num_images, rank, size + 1 - rank)
    return [float(law.ppf(p)) / num_images for p in (0.025, 0.975)]


def _try_abstaining(val: Predictions, test: Predictions, accuracy: float) -> dict[str, Any]:
    confidence, right = cal.top_label(test)
    curve = risk_coverage(confidence, right)
    try:
        threshold = abstain_below(val, accuracy=accuracy)
    except DataError:  # no share of val is answered that well
        chosen: dict[str, Any] | None = None
    else:
        answered = confidence >= threshold
        chosen = {
            "threshold": threshold,
            "answered": float(answered.mean()),
            "accuracy": float(np.mean(right[answered])) if answered.any() else None,
        }
    return {
        "aurc": curve.area,
        "accuracy_at": {str(share): curve.accuracy_at(share) for share in (0.9, 0.95, 0.99, 1.0)},
        "wanted_accuracy": accuracy,
        "chosen_on_val": chosen,
    }


def judge(
    val: Sequence[Predictions], test: Sequence[Predictions]
) -> tuple[dict[str, float | None], Predictions]:
    """What several answers to the same images are worth together, and whether doubt finds errors.

    Returns:
        The figures, ready for JSON, and the predictions on test; a temperature is fitted on val.
    """
    of_val, answers = (np.stack([one.log_probs for one in part]) for part in (val, test))
    on_val = replace(val[0], logits=together(of_val))
    on_test = replace(test[0], logits=together(answers))
    temperature = fit_temperature(on_val)
    on_test = on_test.scaled(temperature)
    confidence, right = cal.top_label(on_test)
    several = len(answers) > 1
    doubts = {"confidence": 1 - confidence, "entropy": entropy(on_test.log_probs)}
    if several:
        doubts["mutual_information"] = mutual_information(answers)
    figures: dict[str, float | None] = {
        "num_answers": len(answers),
        "temperature": temperature,
        "accuracy": METRICS["accuracy"](on_test),
        "nll": METRICS["loss"](on_test),
        "ece": cal.ece(on_test),
        "aurc": risk_coverage(confidence, right).area,
        "mean_entropy": float(doubts["entropy"].mean()),
        "mean_mutual_information": float(doubts["mutual_information"].mean()) if several else None,
    }
    for name in ("confidence", "entropy", "mutual_information"):
        known = name in doubts and 0 < right.sum() < len(right)
        figures[f"finds_errors_{name}"] = auroc(doubts[name], ~right) if known else None
    return figures, on_test
