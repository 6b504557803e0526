"""What `hemascope audit` found, as one page with the images side by side, and in a few lines."""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.core.images import DataDescription
from hemascope.report.page import pixels, render

FIRST_SHOWN = 8  # images, or groups of them, of a section as the page opens
MOST_SHOWN = 120  # and when all are shown; audit.json names them all


@dataclass(frozen=True)
class AuditSettings:
    """What counts as nearly the same (gray levels; share of the contrast), and the folds."""

    near_distance: float
    near_share: float
    num_folds: int


@dataclass(frozen=True)
class LabelIssue:
    """An image whose label is likely an error; `probability` is that of the class suggested."""

    id: str
    label: str
    suggested: str
    probability: float


@dataclass(frozen=True)
class TornGroup:
    """A patient, slide or the like with images in several splits, and how many in each."""

    group: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Audit:
    """What may be wrong with a data set; images are named by their ids.

    Attributes:
        command: What found it.
        date: When.
        data: The data.
        settings: What it was found with.
        exact_duplicate_groups: Images with the same pixels.
        near_duplicate_groups: Images with nearly the same pixels.
        label_conflicts: Those of both with different labels.
        cross_split_groups: Those of both in different splits.
        label_issue_candidates: Images whose label is likely an error, the most likely first.
        blank: Images of one color, or nearly.
        blurred: Images with far less detail than others of their class.
        off_size: Images of another size in their source than most.
        label_issues: The candidates with the class that is suggested.
        cross_validated_accuracy: Of the network that judged labels; None where none did.
        groups_in_several_splits: Of patients, slides or the like.
        group_statement: What is known of them, in a sentence.
        balance_statement: How many images classes have, in a sentence.
        labels: Of all images named above.
        names: What they are called in their source, where that is known.
    """

    command: str
    date: str
    data: DataDescription
    settings: AuditSettings
    exact_duplicate_groups: Sequence[Sequence[str]]
    near_duplicate_groups: Sequence[Sequence[str]]
    label_conflicts: Sequence[Sequence[str]]
    cross_split_groups: Sequence[Sequence[str]]
    label_issue_candidates: Sequence[str]
    blank: Sequence[str]
    blurred: Sequence[str]
    off_size: Sequence[str]
    label_issues: Sequence[LabelIssue]
    cross_validated_accuracy: float | None
    groups_in_several_splits: Sequence[TornGroup]
    group_statement: str
    balance_statement: str
    labels: Mapping[str, str]
    names: Mapping[str, str]


_NOT_JUDGED = (
    "there are too few images or classes, or a small network cannot tell these classes apart."
)


def render_audit(content: Audit, images: Mapping[str, NDArray[np.uint8]]) -> str:
    """The page: needs no other file.

    Args:
        content: What was found.
        images: The pixels (H, H, 3) of each image by its id.
    """
    return render(
        "audit.html.jinja",
        Path(),
        autoescape=True,
        pixels=lambda image_id: pixels(images[image_id]),
        a=content,
        first=FIRST_SHOWN,
        most=MOST_SHOWN,
        not_judged=_NOT_JUDGED,
        headline=_headline(content),
        lines=summary(content),
    )


def _headline(content: Audit) -> str:
    total = sum(content.data.counts.values())
    if not content.labels:
        unjudged = content.cross_validated_accuracy is None
        more = ", whose labels were not judged" if unjudged else ""
        return f"Nothing wrong found in {total:,} images{more}"
    return f"{len(content.labels):,} of {total:,} images are worth checking"


def summary(content: Audit) -> list[str]:
    """What was found, a sentence for each kind."""
    exact, near = content.exact_duplicate_groups, content.near_duplicate_groups
    accuracy = content.cross_validated_accuracy
    return [
        f"{_count(exact, 'group')} of images that are the same pixel for pixel.",
        f"{_count(near, 'group')} of near-duplicates: the same cell, nearly the same pixels.",
        f"{_count(content.label_conflicts, 'group')} of duplicates with different labels.",
        "The data is not split, so no image can be in two splits."
        if len(content.data.counts) == 1
        else f"{_count(content.cross_split_groups, 'group')} of the same or nearly the same images "
        "in different splits.",
        content.group_statement,
        f"Labels were not judged: {_NOT_JUDGED}"
        if accuracy is None
        else f"{_count(content.label_issues, 'image')} with a likely label error, by a "
        f"cross-validated small network ({100 * accuracy:.1f} % accuracy).",
        f"{_count(content.blank, 'image')} blank, {_count(content.blurred, 'image')} blurred, "
        f"{_count(content.off_size, 'image')} off size.",
        content.balance_statement,
    ]


def audit_text(content: Audit) -> str:
    """The same for the terminal."""
    title = f"{content.data.title}: {sum(content.data.counts.values()):,} images"
    return "\n".join([title, *(f"- {line}" for line in summary(content)), RESEARCH_USE_ONLY])


def _count(things: Sized, word: str) -> str:
    return f"{len(things):,} {word}{'' if len(things) == 1 else 's'}"
