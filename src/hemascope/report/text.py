"""Results as plain text: lines for the log and the terminal."""

from collections.abc import Mapping, Sequence

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.core.images import DataDescription
from hemascope.metrics import Figures
from hemascope.metrics.summary import spread
from hemascope.store.run_folder import Costs, RunResults

# The study's three dimensions, and the words for each figure in `results.json`.
LABELS = {
    "Quality": {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "f1_weighted": "F1, weighted",
        "f1_macro": "F1, macro",
        "precision_macro": "precision, macro",
        "recall_macro": "recall, macro",
        "auroc_ovr_macro": "AUROC one-vs-rest, macro",
        "loss": "loss (cross-entropy, nats)",
    },
    "Efficacy": {
        "sensitivity_macro": "sensitivity, macro",
        "specificity_macro": "specificity, macro",
    },
    "Efficiency": {
        "num_parameters": "parameters",
        "size_bytes": "size of weights (MB)",
        "train_seconds": "training time, without evaluation (s)",
        "latency_ms_batch1": "latency per image, batch 1 (ms)",
        "latency_ms_batch128": "latency per image, batch 128 (ms)",
        "peak_memory_bytes": "peak memory (MB)",
    },
}
OPTIONAL = Costs.model_fields.keys()  # figures that an evaluation does not have
_MEGA = 1e6
_CLASS_COLUMNS = ("support", "precision", "recall", "specificity", "f1", "auroc")


def in_shown_unit(key: str, value: float) -> float:
    """A figure of `results.json` in the unit of its label: bytes become megabytes."""
    return value / _MEGA if key.endswith("_bytes") else value


def is_share(key: str) -> bool:
    """Whether a figure of `LABELS` is a share, which pages show in per cent."""
    return key not in LABELS["Efficiency"] and key != "loss"


def number(value: float | None) -> str:
    """A figure as text: counts with separators, others with four decimals, unknown as a dash."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def epoch_line(record: Mapping[str, float | None], epochs: int) -> str:
    """One epoch of the history in words."""
    parts = [f"epoch {record['epoch']}/{epochs}"]
    for split in ("train", "val", "test"):
        loss, accuracy = record[f"{split}_loss"], record[f"{split}_accuracy"]
        if loss is not None and accuracy is not None:
            parts.append(f"{split} loss {loss:.4f} accuracy {accuracy:.4f}")
    return ", ".join(parts)


def results_text(results: RunResults) -> str:
    """Results with their per-class table, as aligned text."""
    lines = [f"{results.name} on {results.data}, split {results.split}", ""]
    lines += [
        f"{label:<38}{number(shown_figure(results, key)):>14}"
        for rows in LABELS.values()
        for key, label in rows.items()
        if key not in OPTIONAL or getattr(results, key) is not None
    ]
    if views := results.with_views:
        for key in ("accuracy", "f1_macro", "loss"):
            label = f"{LABELS['Quality'][key]}, {views.num_views} views"
            lines.append(f"{label:<38}{number(getattr(views, key)):>14}")
    width = max(len(name) for name in results.class_names) + 2
    lines += ["", f"{'class':<{width}}" + "".join(f"{c:>13}" for c in _CLASS_COLUMNS)]
    for name, row in results.per_class.items():
        cells = (number(getattr(row, column)) for column in _CLASS_COLUMNS)
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>13}" for cell in cells))
    for sentence in (absent_sentence(results), seen_sentence(results.name, results.num_seen)):
        if sentence:
            lines += ["", sentence]
    return "\n".join([*lines, "", RESEARCH_USE_ONLY, ""])


def absent_sentence(figures: Figures) -> str:
    """Which classes have no images here, and what that means; empty if all have some."""
    if not figures.absent_classes:
        return ""
    return (
        f"No images here of {', '.join(figures.absent_classes)}: macro averages leave out the "
        "classes that neither occur nor are predicted."
    )


def seen_sentence(name: str, num_seen: int | None) -> str:
    """What stands beside the figures of a network that has been trained on the images.

    Empty if it has not; None means that it is unknown.
    """
    if num_seen == 0:
        return ""
    if num_seen is None:
        return f"{name}: it is not known whether it was trained on some of these images."
    return (
        f"{name} was trained on {num_seen:,} of these images or near copies of them, at this or "
        "another size or crop: its figures are better than on images it has not seen."
    )


def seen_on_val(name: str, num_seen: int | None) -> str:
    """The same of val, where it has been trained on some."""
    return f"On val, where thresholds are set: {seen_sentence(name, num_seen)}" if num_seen else ""


def grouped_sentence(data: DataDescription) -> str:
    """That intervals over images of few patients or slides are too narrow; empty otherwise."""
    if data.num_groups is None or data.num_groups == sum(data.counts.values()):
        return ""
    return (
        f"The images are of {data.num_groups:,} groups (patients, slides): intervals take images "
        "as independent, and are too narrow."
    )


def over_runs(
    values: Sequence[float | None], digits: int, *, factor: float = 1, with_sd: bool = True
) -> str:
    """Mean ± sample standard deviation, or the mean alone; a dash where a value is not known."""
    known = [factor * value for value in values if value is not None]
    if len(known) < len(values):
        return "-"
    found = spread(known)
    sd = f" ± {found.sd:.{digits}f}" if with_sd and found.sd is not None else ""
    return f"{found.mean:.{digits}f}{sd}"


def file_stem(name: str) -> str:
    """A network's name as part of the name of a file."""
    return name.replace(", ", "-").replace(" ", "-")


def shown_figure(results: RunResults, key: str) -> float | None:
    """A figure of some results in the unit of its label in `LABELS`."""
    value = getattr(results, key)
    return None if value is None else in_shown_unit(key, value)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown: the first row is the header, the first column is text."""
    header, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([header, f"| --- |{' ---: |' * (len(rows[0]) - 1)}", *body])
