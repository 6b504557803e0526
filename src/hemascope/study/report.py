"""`hemascope report`: comparison, figures and pages from saved runs alone."""

from dataclasses import replace
from pathlib import Path

from hemascope.analyses.compare.run import NUM_RESAMPLES, compare_saved
from hemascope.analyses.saved import read_pairs
from hemascope.analyses.trust.run import assess_all, on_test
from hemascope.core.classes import Split
from hemascope.core.errors import RESEARCH_USE_ONLY, DataError
from hemascope.metrics.summary import Estimate
from hemascope.metrics.uncertainty import COVERAGES, WANTED_ACCURACY
from hemascope.report import numbers, statistics, trust
from hemascope.report.cards import Entry, data_card, joined, model_card, performance
from hemascope.report.figures import (
    caption_of,
    draw_evaluation,
    draw_sensitivity,
    error_cells,
    seeds_text,
)
from hemascope.report.page import render
from hemascope.report.plots import PALETTE
from hemascope.report.text import LABELS
from hemascope.store.files import make_folder, write_json, write_text
from hemascope.store.predictions import read_predictions
from hemascope.store.run_folder import RunFolder, Runs, find_runs
from hemascope.study import published
from hemascope.study.comparison import Certainty, Comparison, compare, group
from hemascope.study.figures import draw_curves


def write_report(folder: Path) -> str:
    """Writes comparison.json, figures/, report.md and report.html for the runs in a folder.

    Returns:
        A summary for the terminal.

    Raises:
        DataError: If there are no finished runs, or they do not belong together.
    """
    found = find_runs(folder)
    finished = [run for run in found if run.is_finished]
    if not finished:
        raise DataError(f"no run in {folder} was finished; train again.")
    runs = group([run.read() for run in finished])
    report = RunFolder(folder)
    figures = make_folder(report.figures)
    comparison = _with_certainty(compare(runs), _certainty(runs, figures))
    comparable = comparison.data.collection == published.COLLECTION
    curves = draw_curves(runs, figures, comparable=comparable)
    _draw(runs, comparison, figures)
    values = {
        "c": comparison,
        "networks": comparison.networks,
        "titles": _titles(comparison),
        "headline": _headline(comparison),
        "comparable": comparable,
        "curves": curves,
        "palette": PALETTE,
        "errors": {
            name: error_cells(of[0].folder, read_predictions(of[0].folder.predictions(Split.TEST)))
            for name, of in runs.items()
        },
        "study": published,
        "labels": LABELS,
        "kind": comparison.data.kind,
        "statistics": statistics,
        "trust": trust,
        "cards": _cards(runs, comparison),
    }
    write_json(report.comparison, comparison)
    for path, template in (
        (report.markdown, "report.md.jinja"),
        (report.page, "report.html.jinja"),
    ):
        write_text(path, render(template, folder, autoescape=path == report.page, **values))
    left_out = [f"Left out, not finished: {run}" for run in found if not run.is_finished]
    return "\n".join([_summary(comparison), f"Report: {report.page}", RESEARCH_USE_ONLY, *left_out])


def _summary(comparison: Comparison) -> str:
    """The accuracies in a few lines."""
    lines = [f"Test accuracy on {comparison.data.title}:"]
    width = 2 + max(map(len, [*comparison.networks, "published CNN"]))
    for name, network in comparison.networks.items():
        accuracy = network.results["accuracy"]
        shown = numbers.spread_text(accuracy, as_percent=True)
        lines.append(f"  {name:<{width}}{shown} (n = {network.n})")
    if comparison.data.collection == published.COLLECTION:
        shown = numbers.percent(comparison.table_2[0].value)
        lines.append(f"  {'published CNN':<{width}}{shown}")
    return "\n".join(lines)


def _with_certainty(comparison: Comparison, certainty: Certainty) -> Comparison:
    """One interval of a network's accuracy on the whole page: that of the mean over its runs."""
    networks = dict(comparison.networks)
    for name, found in (certainty.statistics.networks if certainty.statistics else {}).items():
        if figure := found.figures["accuracy"]:
            n = networks[name].accuracy.n
            accuracy = Estimate(figure.value, figure.low, figure.high, n)
            networks[name] = replace(networks[name], accuracy=accuracy)
    return replace(comparison, networks=networks, certainty=certainty)


def _titles(comparison: Comparison) -> dict[str, str]:
    return {name: published.TITLES.get(name, name) for name in comparison.networks}


def _headline(comparison: Comparison) -> statistics.Headline:
    """The study's CNN against its MLNN, or else the best network against the next."""
    where = "On rendered cells, " if comparison.data.kind == "rendered" else ""
    names, titles = list(comparison.networks), _titles(comparison)
    named = {n: f"the {t}" if n in published.TITLES else t for n, t in titles.items()}
    wanted = ["paper-cnn", "paper-mlnn"] if {"paper-cnn", "paper-mlnn"} <= set(names) else names[:2]
    assert comparison.certainty.statistics is not None  # noqa: S101 - just computed
    return statistics.headline(comparison.certainty.statistics, wanted, named, where)


def _draw(runs: Runs, comparison: Comparison, figures: Path) -> None:
    names = comparison.data.class_names
    for name, members in runs.items():
        caption = caption_of(members[0].results, seeds_text(members))
        target = make_folder(figures / name)
        draw_evaluation(comparison.networks[name], names, target, caption)
    titles = _titles(comparison)
    found = {titles[name]: net.sensitivities for name, net in comparison.networks.items()}
    draw_sensitivity(found, figures, f"{comparison.data.title}\n{RESEARCH_USE_ONLY}")


def _cards(runs: Runs, comparison: Comparison) -> dict[str, list[Entry]]:
    cards = {
        name: model_card(
            runs[name][0].settings,
            comparison.data,
            num_parameters=runs[name][0].results.num_parameters,
            base=runs[name][0].fingerprint.base,
            facts=runs[name][0].fingerprint,
            performance=performance(network, runs[name][0].results),
        )
        for name, network in comparison.networks.items()
    }
    return {"Model card": joined(cards), "Data card": joined({"": data_card(comparison.data)})}


def _certainty(runs: Runs, figures: Path) -> Certainty:
    """Intervals, tests, calibration and prediction sets of the saved predictions."""
    folders = [run.folder.path for members in runs.values() for run in members]
    networks = read_pairs(folders, views=False)
    networks = {name: networks[name] for name in runs}
    tests = {name: [pair.test for pair in pairs] for name, pairs in networks.items()}
    compared = compare_saved(tests, num_resamples=NUM_RESAMPLES)
    trusted = assess_all(networks, coverages=COVERAGES, accuracy=WANTED_ACCURACY)
    caption = f"{compared.data}\n{RESEARCH_USE_ONLY}"
    statistics.draw_comparison(compared, figures, caption)
    trust.draw_trust(on_test(networks), trusted, figures, caption)
    return Certainty(compared, trusted)
