"""`hemascope report`: comparison, figures and pages from saved runs alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hemascope.analyses.compare.run import NUM_RESAMPLES, compare_saved
from hemascope.analyses.saved import read_pairs
from hemascope.analyses.trust.run import assess_all, on_test
from hemascope.core.errors import RESEARCH_USE_ONLY, DataError
from hemascope.metrics.uncertainty import COVERAGES, WANTED_ACCURACY
from hemascope.report import statistics, trust
from hemascope.report.cards import Card, Subject, data_card, model_card, performance
from hemascope.report.figures import caption_of, draw_confusion, seeds_text
from hemascope.report.page import render
from hemascope.report.plots import save_figure
from hemascope.report.text import LABELS
from hemascope.store.files import make_folder, write_json, write_text
from hemascope.store.run_folder import RunFolder, Runs, find_runs
from hemascope.study import published
from hemascope.study.comparison import Certainty, Comparison, compare, group
from hemascope.study.figures import AGAINST_PAPER, against_paper, bars_over_seeds


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
    comparison = replace(compare(runs), certainty=_certainty(finished, figures))
    _draw(runs, comparison, figures)
    cards = _cards(runs, comparison)
    write_json(report.comparison, comparison)
    for path, template in (
        (report.markdown, "report.md.jinja"),
        (report.page, "report.html.jinja"),
    ):
        page = render(
            template,
            folder,
            autoescape=path == report.page,
            c=comparison,
            networks=comparison.networks,
            study=published,
            labels=LABELS,
            kind=comparison.data.kind,
            statistics=statistics,
            trust=trust,
            cards=cards,
        )
        write_text(path, page)
    left_out = [f"Left out, not finished: {run}" for run in found if not run.is_finished]
    return "\n".join([_summary(comparison), f"Report: {report.page}", RESEARCH_USE_ONLY, *left_out])


def _summary(comparison: Comparison) -> str:
    """The accuracies in a few lines."""
    lines = [f"Test accuracy on {comparison.data.title}:"]
    width = 2 + max(map(len, [*comparison.networks, "published CNN"]))
    for name, network in comparison.networks.items():
        accuracy = network.results["accuracy"]
        sd = "" if accuracy.sd is None else f" ± {100 * accuracy.sd:.2f}"
        lines.append(f"  {name:<{width}}{100 * accuracy.mean:.2f}{sd} % (n = {network.n})")
    lines.append(f"  {'published CNN':<{width}}{100 * comparison.table_2[0].value:.2f} %")
    return "\n".join(lines)


def _draw(runs: Runs, comparison: Comparison, figures: Path) -> None:
    for key in AGAINST_PAPER if comparison.has_cnn else ():
        save_figure(against_paper(runs, key), figures / f"against-paper-{key}")
    for name, members in runs.items():
        network = comparison.networks[name]
        caption = caption_of(members[0].results, seeds_text(members))
        target = make_folder(figures / name)
        pooled = np.array(network.confusion_matrix_pooled, dtype=np.int64)
        draw_confusion(pooled, comparison.data.class_names, target, caption)
        save_figure(bars_over_seeds(network.per_class, caption), target / "precision-recall")


def _cards(runs: Runs, comparison: Comparison) -> dict[str, Card]:
    cards = {"Data card": data_card(comparison.data)}
    for name, network in comparison.networks.items():
        first = runs[name][0]
        subject = Subject(
            settings=first.settings,
            num_parameters=first.results.num_parameters,
            data=comparison.data,
            base=first.fingerprint.base,
            facts=first.fingerprint,
            performance=performance(network, first.results),
        )
        cards[f"Model card: {name}"] = model_card(subject)
    return cards


def _certainty(finished: Sequence[RunFolder], figures: Path) -> Certainty:
    """Intervals, tests, calibration and prediction sets of the saved predictions."""
    networks = read_pairs([run.path for run in finished], views=False)
    tests = {name: [pair.test for pair in pairs] for name, pairs in networks.items()}
    compared = compare_saved(tests, num_resamples=NUM_RESAMPLES)
    trusted = assess_all(networks, coverages=COVERAGES, accuracy=WANTED_ACCURACY)
    caption = f"{compared.data}\n{RESEARCH_USE_ONLY}"
    statistics.draw_comparison(compared, figures, caption)
    trust.draw_trust(on_test(networks), trusted, figures, caption)
    return Certainty(compared, trusted)
