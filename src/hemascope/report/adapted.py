"""What an adapted model says of itself: for the terminal, and as a model card in its folder."""

from collections.abc import Sequence
from dataclasses import dataclass

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.metrics.statistics import Interval
from hemascope.report.cards import card_markdown
from hemascope.report.export import licenses_text
from hemascope.report.numbers import interval
from hemascope.store.model_folder import ArtifactInfo


@dataclass(frozen=True)
class Judged:
    """How the old model and the new one do on the same labeled cells.

    Attributes:
        num_cells: How many there are.
        not_judged: Classes whose cells are too few to be judged.
        num_groups: From how many groups; None where nobody says.
        num_folds: Into how many parts they were divided.
        before: Balanced accuracy of the old model; None if it knows none of the classes.
        after: Balanced accuracy of last layers that were fitted to the other folds.
        ece_after: Expected calibration error of those, after temperature scaling.
        old_val: Accuracy on the stored val images of the old model, before and after; None where
            its classes were not kept.
        deeper: Whether more than the last layer was fitted, and if not, why.
    """

    num_cells: int
    not_judged: tuple[str, ...]
    num_groups: int | None
    num_folds: int
    before: Interval | None
    after: Interval
    ece_after: float
    old_val: tuple[float, float] | None
    deeper: str


def judged_lines(
    judged: Judged | None, num_pictures: int, set_apart: tuple[float, float]
) -> list[str]:
    """What was fitted and how good it is, in lines.

    Args:
        judged: The last layer's figures; None where there are no labels.
        num_pictures: How many pictures of the laboratory there were.
        set_apart: Share of them that the guard sets apart before, and after adapting to the
            others.
    """
    before, after = (f"{100 * share:.1f} %" for share in set_apart)
    apart = f"set apart as unlike training: {before} before, {after} after (held-out pictures)"
    if judged is None:
        return [
            f"Fitted to {num_pictures:,} unlabeled pictures: framing and guard; the classes and "
            "how they are told apart are as before.",
            apart,
        ]
    groups = f"{judged.num_groups} groups, kept apart" if judged.num_groups else "no groups known"
    old = interval(judged.before) if judged.before else "not defined: other classes"
    lines = [
        f"Cross-validated on {judged.num_cells:,} labeled cells ({groups}; {judged.num_folds} "
        "folds), with 95 % intervals:",
        f"balanced accuracy before: {old}",
        f"balanced accuracy after:  {interval(judged.after)}",
        f"expected calibration error after: {judged.ece_after:.3f}",
        apart,
    ]
    if judged.not_judged:
        lines.append(f"not judged, being of a single cell or group: {', '.join(judged.not_judged)}")
    lines.append(judged.deeper)
    if judged.old_val:
        first, then = (f"{100 * share:.2f} %" for share in judged.old_val)
        lines.append(f"accuracy on the old model's val images: {first} before, {then} after")
    return lines


def card_text(info: ArtifactInfo, base: ArtifactInfo, title: str, lines: Sequence[str]) -> str:
    """The model card as Markdown.

    Args:
        info: The adapted model.
        base: The model it was made from.
        title: What it was adapted to.
        lines: Of `judged_lines`.
    """
    card = [
        ("Intended use and users", f"Classes: {', '.join(info.class_names)}. {RESEARCH_USE_ONLY}"),
        (
            "Base model",
            f"{base.settings.name}, trained on {base.trained_on.num_images:,} images of "
            f"{base.trained_on.title} (md5 {base.trained_on.md5}).",
        ),
        ("Adapted to", f"{title}. Its license and its patients are its owner's to state."),
        ("Licenses of the weights and of the data", licenses_text(info.about)),
        ("Model performance", "\n".join(f"- {line}" for line in lines)),
        (
            "Limitations",
            "Fitted to few cells of one laboratory: judge it on more of them, of other patients, "
            "before you rely on it.",
        ),
        ("Version", f"hemascope {info.hemascope_version}; format version {info.format_version}."),
    ]
    return card_markdown(f"Model card: {base.settings.name}, adapted", card)
