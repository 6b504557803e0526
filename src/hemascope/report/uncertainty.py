"""What `hemascope uncertainty` found, in words."""

from collections.abc import Mapping
from typing import Any

from hemascope.report.text import markdown_table

_COLUMNS = {
    "accuracy": ("accuracy, %", 100, 2),
    "nll": ("NLL (nats)", 1, 4),
    "ece": ("ECE", 1, 4),
    "aurc": ("AURC", 1, 5),
    "mean_entropy": ("entropy (nats)", 1, 4),
    "mean_mutual_information": ("mutual information", 1, 4),
    "finds_errors_confidence": ("errors found by confidence", 1, 4),
    "finds_errors_entropy": ("by entropy", 1, 4),
    "finds_errors_mutual_information": ("by mutual information", 1, 4),
}


HOW_TO_READ = (
    "Each answers with the mean of its answers, after a temperature fitted on val. Entropy is all "
    "of its doubt, mutual information how far its answers disagree, before that temperature. "
    "'Errors found' is the AUROC of telling its own errors from its hits by that doubt: 0.5 is "
    "chance, 1 is all errors first."
)


def uncertainty_text(content: Mapping[str, Any]) -> str:
    """Every way to doubt with its figures."""
    intro = f"{content['data']}, split test, {content['num_test']:,} images. {HOW_TO_READ}"
    return "\n\n".join([intro, markdown_table(doubt_rows(content["ways"])), *content["notes"]])


def doubt_rows(ways: Mapping[str, Mapping[str, float | None]]) -> list[list[str]]:
    """The header and a row for each way."""
    rows = [["way", "answers", *(title for title, _, _ in _COLUMNS.values())]]
    for name, figures in ways.items():
        cells = [
            "-" if (value := figures[key]) is None else f"{value * factor:.{decimals}f}"
            for key, (_, factor, decimals) in _COLUMNS.items()
        ]
        rows.append([name, str(figures["num_answers"]), *cells])
    return rows
