"""The page of one run: what was trained on what, how good it is, and how far to trust it."""

from hemascope.core.classes import Split
from hemascope.metrics.trust import assess, sets_left_out
from hemascope.metrics.uncertainty import COVERAGES, WANTED_ACCURACY
from hemascope.report.cards import data_card, joined, model_card, performance
from hemascope.report.figures import (
    caption_of,
    draw_evaluation,
    draw_history,
    draw_sensitivity,
    error_cells,
)
from hemascope.report.network import summarize
from hemascope.report.page import render
from hemascope.report.text import (
    LABELS,
    absent_sentence,
    grouped_sentence,
    seen_on_val,
    seen_sentence,
)
from hemascope.report.trust import draw_reliability
from hemascope.store.files import make_folder, write_text
from hemascope.store.model_folder import load_info
from hemascope.store.predictions import read_predictions
from hemascope.store.run_folder import RunFolder


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
    trust = assess(val, test, seed=results.seed, coverages=COVERAGES, accuracy=WANTED_ACCURACY)
    network = summarize(info.settings, [results], histories, [folder.name])
    warnings = (
        absent_sentence(results),
        seen_sentence(results.name, results.num_seen),
        seen_on_val(results.name, results.num_seen_val),
        grouped_sentence(fingerprint.data),
        *results.warnings,
    )
    caption = caption_of(results, f"seed {results.seed}")
    figures = make_folder(folder.figures)
    for history in histories:
        draw_history(history, figures, caption)
    draw_evaluation(network, results.class_names, figures, caption)
    draw_sensitivity({results.name: network.sensitivities}, figures, caption)
    scaled, stem = test.scaled(trust.temperature), figures / "reliability"
    draw_reliability([test], [scaled], stem, title="Reliability", caption=caption)
    card = model_card(
        info.settings,
        fingerprint.data,
        num_parameters=info.num_parameters,
        base=fingerprint.base,
        facts=fingerprint,
        performance=performance(network, results),
    )
    text = render(
        "run.html.jinja",
        folder.path,
        autoescape=True,
        r=results,
        net=network,
        trust=trust,
        num_val=len(val.labels),
        left_out=sets_left_out(val, test, COVERAGES),
        warnings=list(filter(None, warnings)),
        trained_on=info.trained_on,
        data=fingerprint.data,
        facts=fingerprint,
        labels=LABELS,
        errors=error_cells(folder, test),
        cards={
            "Model card": joined({results.name: card}),
            "Data card": joined({"": data_card(fingerprint.data)}),
        },
    )
    write_text(folder.page, text)
