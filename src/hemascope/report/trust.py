"""What `hemascope trust` found, in words and figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hemascope.core.predictions import Predictions
from hemascope.metrics.calibration import Reliability, reliability, top_label
from hemascope.metrics.trust import ClassCoverage, RunTrust, TriedSets, Trust
from hemascope.metrics.uncertainty import SCORES, risk_coverage
from hemascope.report import plots
from hemascope.report.text import file_stem, markdown_table, over_runs
from hemascope.report.uncertainty import HOW_TO_READ, doubt_rows

_CALIBRATION = {
    "ece": "ECE",
    "ece_by_chance": "by chance",
    "ece_equal_mass": "ECE, equal mass",
    "ece_classwise": "ECE, classwise",
    "brier": "Brier",
    "nll": "NLL (nats)",
}
Networks = Mapping[str, Sequence[RunTrust]]
_SCORES = {"lac": "LAC", "aps": "APS", "raps": "RAPS"}


def trust_text(content: Trust) -> str:
    """Everything as Markdown."""
    parts = [
        f"**{title}**{' ' + note if note else ''}\n\n{markdown_table(rows)}"
        for title, note, rows in tables(content)
    ]
    return "\n\n".join([how_to_read(content), *parts, *content.warnings])


def how_to_read(content: Trust) -> str:
    """What was fitted where, and what could not be."""
    first = _first(content.networks)
    classes = [
        f"For class-conditional sets of {100 * sets.coverage:g} %, val has too few images of "
        f"{', '.join(sets.left_out)}: these classes are in every set and are not counted."
        for sets in first.sets
        if sets.left_out and sets.score == SCORES[0]
    ]
    return " ".join(
        [
            f"{content.num_test:,} test images. Temperature, thresholds and prediction sets were "
            f"fitted on {content.num_val:,} other images ({content.fitted_on})."
            + (" Mean ± standard deviation over runs." if _repeated(content) else ""),
            *content.left_out,
            *classes,
        ]
    )


def tables(content: Trust) -> list[tuple[str, str, list[list[str]]]]:
    """Every table with its title and a note, each as its header and its rows; none empty."""
    networks = content.networks
    found = [
        (
            "Calibration before and after temperature scaling",
            "15 bins. By chance: the ECE that a perfectly calibrated network shows on so many "
            "images.",
            _calibration_rows(networks),
        ),
        (
            "Prediction sets",
            "After temperature scaling. As expected: the observed coverage lies in the central "
            "95 % of its distribution for so many calibration and test images.",
            _set_rows(networks),
        ),
        (
            "Prediction sets by class",
            "Observed coverage / mean size.",
            _class_rows(networks),
        ),
        ("Abstention on the least confident images", "", _abstain_rows(networks)),
        (
            "Deep ensemble of the runs of each network",
            HOW_TO_READ,
            doubt_rows(content.ensembles),
        ),
    ]
    return [(title, note, rows) for title, note, rows in found if len(rows) > 1]


def _repeated(content: Trust) -> bool:
    return any(len(runs) > 1 for runs in content.networks.values())


def _first(networks: Networks) -> RunTrust:
    return next(iter(networks.values()))[0]


def _calibration_rows(networks: Networks) -> list[list[str]]:
    rows = [["network", "n", "temperature", *_CALIBRATION.values()]]
    for name, runs in networks.items():
        temperature = over_runs([run.temperature for run in runs], 2)
        for when, scaled_by, found in (
            ("before", "1", [run.before for run in runs]),
            ("after", temperature, [run.after for run in runs]),
        ):
            cells = (over_runs([getattr(one, key) for one in found], 3) for key in _CALIBRATION)
            rows.append([f"{name}, {when}", str(len(runs)), scaled_by, *cells])
    return rows


def _set_rows(networks: Networks) -> list[list[str]]:
    rows = [
        ["network", "rule", "target (%)", "observed (%)", "as expected", "mean size", "empty (%)"]
    ]
    for name, runs in networks.items():
        for sets in zip(*(run.sets for run in runs), strict=True):
            rows.append(
                [
                    name,
                    _rule(sets[0]),
                    f"{100 * sets[0].coverage:g}",
                    over_runs([one.observed for one in sets], 1, factor=100),
                    _as_expected(sets),
                    over_runs([one.mean_size for one in sets], 2),
                    over_runs([one.share_empty for one in sets], 1, factor=100),
                ]
            )
    return rows


def _class_rows(networks: Networks) -> list[list[str]]:
    first = _first(networks).sets
    shown = [i for i, one in enumerate(first) if one.score == "lac"]
    header = [f"{_rule(first[i])}, {100 * first[i].coverage:g} %" for i in shown]
    rows = [["network, class", *header]]
    classes = dict.fromkeys(name for i in shown for name in first[i].per_class)
    for network, runs in networks.items():
        for name in classes:
            cells = (
                _class_cell([run.sets[i].per_class[name] for run in runs])
                if name in first[i].per_class
                else "-"
                for i in shown
            )
            rows.append([f"{network}, {name}", *cells])
    return rows


def _class_cell(of_runs: Sequence[ClassCoverage]) -> str:
    observed = np.mean([one.observed for one in of_runs])
    size = np.mean([one.mean_size for one in of_runs])
    return f"{100 * observed:.1f} % / {size:.2f}"


def _abstain_rows(networks: Networks) -> list[list[str]]:
    first = _first(networks).abstaining
    shares = [share for share in first.accuracy_at if float(share) < 1]
    wanted = f"{100 * first.wanted_accuracy:g} %"
    rows = [
        [
            "network",
            "AURC",
            *(f"accuracy at {100 * float(share):g} % coverage (%)" for share in shares),
            f"coverage for {wanted} on val (%)",
            "accuracy there (%)",
        ]
    ]
    for name, runs in networks.items():
        all_of = [run.abstaining for run in runs]
        kept = [
            (chosen.answered, chosen.accuracy)
            for one in all_of
            if (chosen := one.chosen_on_val) and chosen.accuracy is not None
        ]
        if len(kept) == len(runs):
            last = [over_runs(parts, 1, factor=100) for parts in zip(*kept, strict=True)]
        else:
            last = ["not reached on val", "-"]
        rows.append(
            [
                name,
                over_runs([one.aurc for one in all_of], 4),
                *(over_runs([one.accuracy_at[s] for one in all_of], 1, factor=100) for s in shares),
                *last,
            ]
        )
    return rows


def _as_expected(sets: Sequence[TriedSets]) -> str:
    """In how many runs, or for a class-conditional rule in how many classes of all runs."""
    conditional = sets[0].class_conditional
    claims = [row for one in sets for row in (one.per_class.values() if conditional else [one])]
    within = sum(
        one.expected[0] <= one.observed <= one.expected[1] for one in claims if one.expected
    )
    if len(claims) == 1:
        return "yes" if within else "no"
    return f"{within} of {len(claims)} {'classes' if conditional else 'runs'}"


def _rule(sets: TriedSets) -> str:
    return _SCORES[sets.score] + (", class-conditional" if sets.class_conditional else "")


def draw_trust(
    networks: Mapping[str, Sequence[Predictions]], content: Trust, folder: Path, caption: str
) -> None:
    """The reliability diagram of each network, its runs together, and all risk-coverage curves.

    Args:
        networks: The predictions of each network's runs.
        content: What was found in them.
        folder: Gets the figures.
        caption: Below each.
    """
    lines: dict[str, tuple[plots.Series, plots.Series]] = {}
    for name, before in networks.items():
        temperatures = [run.temperature for run in content.networks[name]]
        after = [run.scaled(t) for run, t in zip(before, temperatures, strict=True)]
        runs = f"{len(before)} runs together | " if len(before) > 1 else ""
        stem = f"reliability-{file_stem(name)}"
        title = f"Reliability of {name}"
        draw_reliability(before, after, folder / stem, title=title, caption=f"{runs}{caption}")
        curves = [risk_coverage(*top_label(run)) for run in after]
        lines[name] = curves[0].coverage, np.mean([curve.risk for curve in curves], axis=0)
    plots.save_figure(plots.risk_coverage_curves(lines, caption=caption), folder / "risk-coverage")


def draw_reliability(
    before: Sequence[Predictions],
    after: Sequence[Predictions],
    stem: Path,
    *,
    title: str,
    caption: str,
) -> None:
    """Accuracy against confidence before and after scaling, over runs on the same images."""
    bins: dict[str, Reliability] = {}
    for label, runs in (("before scaling", before), ("after scaling", after)):
        confidence, right = zip(*map(top_label, runs), strict=True)
        bins[label] = reliability(np.concatenate(confidence), np.concatenate(right))
    plots.save_figure(plots.reliability_diagram(bins, title=title, caption=caption), stem)
