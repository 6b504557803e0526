"""What `hemascope trust` found, in words and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemascope.metrics.calibration import Reliability
from hemascope.metrics.summary import spread
from hemascope.report import plots
from hemascope.report.text import markdown_table
from hemascope.report.uncertainty import HOW_TO_READ, doubt_rows

_CALIBRATION = {
    "ece": "ECE",
    "ece_by_chance": "by chance",
    "ece_equal_mass": "ECE, equal mass",
    "ece_classwise": "ECE, classwise",
    "brier": "Brier",
    "nll": "NLL (nats)",
}
_SCORES = {"lac": "LAC", "aps": "APS", "raps": "RAPS"}


def trust_text(content: Mapping[str, Any]) -> str:
    """Everything as Markdown."""
    parts = [f"**{title}**\n\n{markdown_table(rows)}" for title, rows in tables(content)]
    return "\n\n".join([how_to_read(content), *parts, *content["warnings"]])


def how_to_read(content: Mapping[str, Any]) -> str:
    """What was fitted where."""
    return (
        f"{content['data']}: {content['num_test']:,} images. Temperature, thresholds and "
        f"prediction sets were fitted on {content['num_val']:,} other images "
        f"({content['fitted_on']}); mean ± standard deviation over n runs."
    )


def tables(content: Mapping[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Every table with its title, each as its header and its rows."""
    networks: Mapping[str, Sequence[Mapping[str, Any]]] = content["networks"]
    return [
        (
            "Calibration (15 bins), before and after temperature scaling. By chance: the ECE of a "
            "network that is exactly as right as it is sure, on so many images",
            _calibration_rows(networks),
        ),
        (
            "Prediction sets, after scaling. As expected: the observed coverage lies where that of "
            "19 in 20 such rules does, fitted and tried on so many images",
            _set_rows(networks),
        ),
        (
            "Prediction sets of each class: observed coverage / mean size",
            _class_rows(networks),
        ),
        ("Abstaining from the least sure", _abstain_rows(networks)),
        *(
            [(f"The runs of a network together (deep ensemble). {HOW_TO_READ}", rows)]
            if len(rows := doubt_rows(content["ensembles"])) > 1
            else []
        ),
    ]


def _calibration_rows(networks: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    rows = [["network", "n", "temperature", *_CALIBRATION.values()]]
    for name, runs in networks.items():
        for when in ("before", "after"):
            temperature = (
                "1" if when == "before" else _over([run["temperature"] for run in runs], 3)
            )
            cells = (_over([run[when][key] for run in runs], 4) for key in _CALIBRATION)
            rows.append([f"{name}, {when}", str(len(runs)), temperature, *cells])
    return rows


def _set_rows(networks: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    rows = [
        ["network", "rule", "asked (%)", "observed (%)", "as expected", "mean size", "empty (%)"]
    ]
    for name, runs in networks.items():
        for sets in zip(*(run["sets"] for run in runs), strict=True):
            asked = sets[0]["coverage"]
            rows.append(
                [
                    name,
                    _rule(sets[0]),
                    f"{100 * asked:g}",
                    _over([100 * one["observed"] for one in sets], 2),
                    _as_expected(sets),
                    _over([one["mean_size"] for one in sets], 3),
                    _over([100 * one["share_empty"] for one in sets], 2),
                ]
            )
    return rows


def _class_rows(networks: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    first = next(iter(networks.values()))[0]["sets"]
    shown = [i for i, one in enumerate(first) if one["score"] == "lac"]
    header = [f"{_rule(first[i])}, {100 * first[i]['coverage']:g} %" for i in shown]
    rows = [["network, class", *header]]
    for name, runs in networks.items():
        for cell in first[0]["per_class"]:
            cells: list[str] = []
            for i in shown:
                of_class = [run["sets"][i]["per_class"][cell] for run in runs]
                observed, size = (
                    np.mean([one[key] for one in of_class]) for key in ("observed", "mean_size")
                )
                cells.append(f"{100 * observed:.1f} % / {size:.2f}")
            rows.append([f"{name}, {cell}", *cells])
    return rows


def _abstain_rows(networks: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    first = next(iter(networks.values()))[0]["abstaining"]
    shares = [share for share in first["accuracy_at"] if float(share) < 1]
    wanted = f"{100 * first['wanted_accuracy']:g} %"
    rows = [
        [
            "network",
            "AURC",
            *(f"accuracy with {100 * float(share):g} % answered (%)" for share in shares),
            f"{wanted} wanted on val: answered (%)",
            "accuracy there (%)",
        ]
    ]
    for name, runs in networks.items():
        all_of = [run["abstaining"] for run in runs]
        chosen = [one["chosen_on_val"] for one in all_of]
        kept = [one for one in chosen if one and one["accuracy"] is not None]
        if len(kept) == len(chosen):
            last = [_over([100 * one[key] for one in kept], 2) for key in ("answered", "accuracy")]
        else:
            last = ["not reached on val", "-"]
        rows.append(
            [
                name,
                _over([one["aurc"] for one in all_of], 5),
                *(_over([100 * one["accuracy_at"][s] for one in all_of], 2) for s in shares),
                *last,
            ]
        )
    return rows


def _as_expected(sets: Sequence[Mapping[str, Any]]) -> str:
    """In how many runs, or for a class-conditional rule in how many classes of all runs."""
    claims = [one for one in sets if one["expected"]] or [
        row for one in sets for row in one["per_class"].values()
    ]
    within = sum(
        low <= one["observed"] <= high for one in claims for low, high in [one["expected"]]
    )
    return f"{within} of {len(claims)} {'runs' if sets[0]['expected'] else 'classes'}"


def _rule(sets: Mapping[str, Any]) -> str:
    return _SCORES[sets["score"]] + (", class-conditional" if sets["class_conditional"] else "")


def _over(values: Sequence[float], digits: int) -> str:
    result = spread(values)
    sd = "" if result.sd is None else f" ± {result.sd:.{digits}f}"
    return f"{result.mean:.{digits}f}{sd}"


def reliability_stem(name: str) -> str:
    """The file name of a network's reliability diagram."""
    return f"reliability-{name.replace(', ', '-').replace(' ', '-')}"


@dataclass(frozen=True, eq=False)
class Curves:
    """What the pictures of a network show.

    Attributes:
        num_runs: How many runs are put together.
        before: Confidence and accuracy in bins before temperature scaling.
        after: The same after it.
        coverage: Shares of images answered, shape (N,).
        risk: Share of errors among them, shape (N,).
    """

    num_runs: int
    before: Reliability
    after: Reliability
    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]


def draw_trust(networks: Mapping[str, Curves], folder: Path, caption: str) -> None:
    """The reliability diagram of each network, and all risk-coverage curves."""
    for name, shown in networks.items():
        bins = {"before scaling": shown.before, "after scaling": shown.after}
        runs = f"{shown.num_runs} runs together | " if shown.num_runs > 1 else ""
        figure = plots.reliability_diagram(
            {k: (b.confidence, b.accuracy, b.count) for k, b in bins.items()},
            title=f"Reliability of {name}",
            caption=f"{runs}{caption}",
        )
        plots.save_figure(figure, folder / reliability_stem(name))
    lines = {name: (shown.coverage, shown.risk) for name, shown in networks.items()}
    plots.save_figure(plots.risk_coverage_curves(lines, caption=caption), folder / "risk-coverage")
