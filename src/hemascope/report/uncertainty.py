"""What `hemascope uncertainty` found, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hemascope.metrics.uncertainty import Doubt
from hemascope.report.text import markdown_table, over_runs

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
    "Each predicts the mean of its samples, after a temperature fitted on val. Predictive entropy "
    "is the total uncertainty; mutual information is how far the samples disagree, before that "
    "temperature. 'Errors found' is the AUROC of detecting its own errors by that uncertainty: 0.5 "
    "is chance, 1 ranks all errors first."
)


@dataclass(frozen=True)
class Uncertainty:
    """Ways to estimate the uncertainty of some networks, compared on the same images.

    Attributes:
        data: What the images are called.
        num_test: The number of images.
        num_samples: The number of MC dropout and Laplace samples.
        notes: What could not be tried and why, what was chosen on val, and what to beware of.
        ways: The figures of each way.
    """

    data: str
    num_test: int
    num_samples: int
    notes: Sequence[str]
    ways: Mapping[str, Doubt]


def uncertainty_text(content: Uncertainty) -> str:
    """Every uncertainty estimate with its figures."""
    intro = f"{content.data}, split test, {content.num_test:,} images. {HOW_TO_READ}"
    return "\n\n".join([intro, markdown_table(doubt_rows(content.ways)), *content.notes])


def doubt_rows(ways: Mapping[str, Doubt]) -> list[list[str]]:
    """The header and a row for each way."""
    rows = [["way", "answers", *(title for title, _, _ in _COLUMNS.values())]]
    for name, figures in ways.items():
        cells = [
            over_runs([getattr(figures, key)], decimals, factor=factor)
            for key, (_, factor, decimals) in _COLUMNS.items()
        ]
        rows.append([name, str(figures.num_answers), *cells])
    return rows
