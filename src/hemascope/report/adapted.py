"""What an adapted model says of itself: for the terminal, in its card, and on its page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.core.framing import Frame
from hemascope.core.predictions import Predictions
from hemascope.metrics.calibration import top_label
from hemascope.metrics.classification import confusion_of
from hemascope.metrics.comparison import Comparison, NetworkFigure
from hemascope.metrics.summary import Estimate, estimate
from hemascope.report import plots, statistics
from hemascope.report.export import licenses_text
from hemascope.report.figures import cells_of, confident_errors, draw_sensitivity
from hemascope.report.numbers import interval, percent, ranged
from hemascope.report.page import environment, pixels, render
from hemascope.store.files import make_folder, write_text
from hemascope.store.model_folder import ArtifactInfo
from hemascope.store.predictions import write_predictions
from hemascope.store.provenance import Provenance
from hemascope.store.run_folder import RunFolder

BEFORE, AFTER = "before", "after"
CROSS_VALIDATED = "cross-validated"
_FITTED_TO = "temperature and threshold were fitted to these same answers, which flatters both"
_SHOWN = 24  # images on the page


@dataclass(frozen=True)
class Judged:
    """How the old model and the new one do on the same labeled cells.

    Attributes:
        answers: Of last layers, or more, that were fitted to the other folds; one for each cell.
        not_judged: Classes whose cells are too few to be judged.
        num_not_judged: How many cells were fitted to alone: theirs, and those of a class that was
            in no other fold.
        num_groups: From how many groups; None where nobody says.
        num_folds: Into how many parts they were divided.
        comparison: The new model ("after") and, if it knows one of the classes, the old one.
        ece_after: Expected calibration error of the new one, after temperature scaling.
        old_val: Accuracy on the stored val images of the old model, before and after; None where
            its classes were not kept.
        deeper: Whether more than the last layer was fitted, and if not, why.
        abstain_below: The confidence below which the new one abstains.
    """

    answers: Predictions
    not_judged: tuple[str, ...]
    num_not_judged: int
    num_groups: int | None
    num_folds: int
    comparison: Comparison
    ece_after: float
    old_val: tuple[float, float] | None
    deeper: str
    abstain_below: float

    def abstained(self) -> str:
        """How many of the cells the new model abstains on, and how right it is on the others."""
        confidence, right = top_label(self.answers)
        answered = confidence >= self.abstain_below
        share = estimate(1 - float(answered.mean()), len(answered))
        if not answered.any():
            return "abstains on every cell: give more labeled cells, or cells easier to tell"
        others = estimate(float(right[answered].mean()), int(answered.sum()))
        return (
            f"abstains on {interval(share)} of these cells; of the others {interval(others)} right"
        )

    def left_out(self) -> str:
        """What was fitted to and not judged."""
        why = "their class has a single cell or group, or all its groups are in one fold"
        names = f" ({', '.join(self.not_judged)} not at all)" if self.not_judged else ""
        return f"not judged: {self.num_not_judged:,} cell(s){names}, because {why}"

    def balanced_accuracy(self, when: str) -> NetworkFigure | None:
        """Before or after; None where it is not defined."""
        net = self.comparison.networks.get(when)
        return net.figures["balanced_accuracy"] if net else None


@dataclass(frozen=True, eq=False)
class Adapted:
    """A laboratory's images and what became of the model.

    Attributes:
        title: What the images are called.
        images: As the model sees them, shape (N, H, H, 3).
        frame: How they were framed, where that was decided by them.
        apart: The share of them that the guard sets apart, before and, of those held out, after.
        base: The model it was made from.
        info: The adapted model.
        judged: The last layer's figures; None where there are no labels.
        rows: Which of the images were judged.
        moved: The share of answers that changed when the last layer was moved without labels; None
            where it was not.
        notes: What was noticed about the images.
    """

    title: str
    images: NDArray[np.uint8]
    frame: Frame | None
    apart: tuple[Estimate, Estimate]
    base: ArtifactInfo
    info: ArtifactInfo
    judged: Judged | None
    rows: NDArray[np.intp]
    moved: Estimate | None
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """What was fitted and how good it is."""
        before, after = (percent(share.value) for share in self.apart)
        apart = f"set apart as unlike training: {before} before, {after} after (held-out images)"
        judged = self.judged
        if judged is None:
            count = f"Fitted to {len(self.images):,} unlabeled images: framing and guard"
            if self.moved is None:
                return [f"{count}; the classes and the last layer are unchanged.", apart]
            return [
                f"{count}, and the last layer, which was moved to this laboratory's cells: "
                f"{percent(self.moved.value)} of the answers changed. Without labels nothing says "
                "whether more of them are right: check some, and label a few.",
                apart,
            ]
        groups = (
            f"{judged.num_groups} groups, kept apart" if judged.num_groups else "groups unknown"
        )
        old, new = map(judged.balanced_accuracy, (BEFORE, AFTER))
        lines = [
            f"Cross-validated on {len(judged.answers.labels):,} labeled cells ({groups}; "
            f"{judged.num_folds} folds), with 95 % intervals:",
            f"balanced accuracy before, as trained, in one view: "
            f"{interval(old) if old else 'not defined: other classes'}",
            f"balanced accuracy after, in one view: {interval(new) if new else 'not defined'}",
            f"expected calibration error after: {judged.ece_after:.3f}",
            judged.abstained(),
            _FITTED_TO,
            apart,
        ]
        if judged.num_not_judged:
            lines.append(judged.left_out())
        lines += [*judged.comparison.warnings, judged.deeper]
        if judged.old_val:
            first, then = (f"{100 * share:.2f} %" for share in judged.old_val)
            lines.append(f"accuracy on the old model's val images: {first} before, {then} after")
        return lines

    def headline(self) -> statistics.Headline:
        """What adapting brought, in one sentence."""
        judged = self.judged
        if judged is None:
            before, after = (percent(share.value) for share in self.apart)
            return statistics.Headline(
                f"The guard sets apart {after} of these images, {before} before",
                f"95 % intervals {ranged(self.apart[1])} and {ranged(self.apart[0])}",
            )
        names = {BEFORE: self.base.settings.name, AFTER: "the adapted model"}
        return statistics.headline(
            judged.comparison, list(judged.comparison.networks), names, key="balanced_accuracy"
        )


def write_pages(adapted: Adapted, folder: Path, facts: Provenance) -> None:
    """Writes model card, figures, page and what was judged into an adapted model's folder.

    Raises:
        OutputError: If one cannot be written.
    """
    values: Mapping[str, object] = {"a": adapted, "facts": facts}
    card = environment(autoescape=False).get_template("adapted.md.jinja")
    licenses = licenses_text(adapted.info.about)
    notice = RESEARCH_USE_ONLY
    text = card.render(notice=notice, licenses=licenses, **values)
    write_text(folder / "MODEL_CARD.md", text)
    run, judged = RunFolder(folder), adapted.judged
    errors: Sequence[object] = ()
    if judged:
        answers, figures = judged.answers, make_folder(run.figures)
        write_predictions(run.predictions(CROSS_VALIDATED), answers)
        caption = f"{adapted.base.settings.name} adapted to {adapted.title}\n{notice}"
        draw_sensitivity(statistics.sensitivities(judged.comparison), figures, caption)
        figure = plots.confusion_heatmap(
            confusion_of(answers),
            answers.classes.names,
            normalize=True,
            title="Confusion matrix after, % of the true class",
            caption=caption,
        )
        plots.save_figure(figure, figures / "confusion-normalized")
        wrong = confident_errors(answers, _SHOWN)
        errors = cells_of(answers, wrong, adapted.images[adapted.rows][wrong])
    step = max(len(adapted.images) // _SHOWN, 1)
    page = render(
        "adapted.html.jinja",
        folder,
        autoescape=True,
        headline=adapted.headline(),
        shown=[pixels(image) for image in adapted.images[::step][:_SHOWN]],
        errors=errors,
        statistics=statistics,
        fitted_to=_FITTED_TO,
        **values,
    )
    write_text(run.page, page)
