"""The page of one run: what was trained on what, how good it is, and how far to trust it."""

from dataclasses import dataclass

from hemascope.core.classes import Split
from hemascope.metrics.confidence import Confidence, assess_confidence
from hemascope.report import plots
from hemascope.report.cards import Subject, data_card, model_card, performance
from hemascope.report.figures import caption_of, draw_evaluation, draw_history
from hemascope.report.network import Network, summarize
from hemascope.report.page import render
from hemascope.report.text import LABELS, absent_sentence, seen_sentence
from hemascope.store.files import make_folder, write_text
from hemascope.store.model_folder import load_info
from hemascope.store.predictions import read_predictions
from hemascope.store.provenance import Fingerprint
from hemascope.store.run_folder import History, RunFolder, RunResults

_RELIABILITY = "reliability"  # the figure


@dataclass(frozen=True)
class RunPage:
    """What the page of a run says.

    Attributes:
        results: The figures on test.
        fingerprint: What the run was made with.
        network: The run as every page shows a network.
        confidence: What its confidence is worth.
        warnings: What makes the figures say less than they seem to, in sentences.
    """

    results: RunResults
    fingerprint: Fingerprint
    network: Network
    confidence: Confidence
    warnings: tuple[str, ...]


def write_run_page(folder: RunFolder) -> None:
    """Draws a finished run and writes its page, whatever its classes; an ensemble has no history.

    Raises:
        DataError: If a file of the run is missing or damaged.
        OutputError: If the page cannot be written.
    """
    results, fingerprint = folder.read_results(), folder.read_fingerprint()
    info = load_info(folder.path)
    histories = [folder.read_history()] if folder.history.is_file() else []
    val, test = (read_predictions(folder.predictions(split)) for split in (Split.VAL, Split.TEST))
    confidence = assess_confidence(val, test)
    network = summarize(info.settings, [results], histories, [folder.name])
    sentences = (
        absent_sentence(results),
        seen_sentence(results.name, results.num_seen),
        *results.warnings,
    )
    page = RunPage(results, fingerprint, network, confidence, tuple(filter(None, sentences)))
    _draw(folder, page, histories)
    subject = Subject(
        settings=info.settings,
        num_parameters=info.num_parameters,
        data=fingerprint.data,
        base=fingerprint.base,
        facts=fingerprint,
        performance=performance(network, results),
    )
    text = render(
        "run.html.jinja",
        folder.path,
        autoescape=True,
        p=page,
        trained_on=info.trained_on,
        data=fingerprint.data,
        facts=fingerprint,
        labels=LABELS,
        has_errors=folder.errors.is_file(),
        cards={"Model card": model_card(subject), "Data card": data_card(fingerprint.data)},
    )
    write_text(folder.page, text)


def _draw(folder: RunFolder, page: RunPage, histories: list[History]) -> None:
    caption = caption_of(page.results, f"seed {page.results.seed}")
    figures = make_folder(folder.figures)
    for history in histories:
        draw_history(history, figures, caption)
    draw_evaluation(page.results, figures, caption)
    bins = {
        "before scaling": page.confidence.before.bins,
        "after scaling": page.confidence.after.bins,
    }
    figure = plots.reliability_diagram(
        {name: (b.confidence, b.accuracy, b.count) for name, b in bins.items()},
        title="Reliability",
        caption=caption,
    )
    plots.save_figure(figure, figures / _RELIABILITY)
