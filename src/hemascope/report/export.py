"""What an exported model says of itself: for the terminal, and as a model card in its folder."""

from pathlib import Path

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.core.images import DataDescription
from hemascope.metrics.summary import estimate
from hemascope.report.cards import Subject, card_markdown, model_card, performance
from hemascope.report.network import summarize
from hemascope.report.page import interval
from hemascope.report.text import markdown_table
from hemascope.store.model_folder import ArtifactInfo
from hemascope.store.provenance import BaseNetwork
from hemascope.store.run_folder import RunResults


def export_text(info: ArtifactInfo, folder: Path) -> str:
    """What came out of an export, as text."""
    lines = [
        f"{info.settings.name} in ONNX: {folder}",
        "",
        f"{'graph':8}{'size':>10}{'val accuracy':>14}{'largest logit difference':>26}"
        f"{'ms, batch 1':>13}{'ms an image, 128':>18}",
    ]
    for graph in info.onnx:
        lines.append(
            f"{graph.precision:8}{graph.size_bytes / 1e6:>7.2f} MB"
            f"{100 * graph.val_accuracy:>12.2f} %"
            f"{graph.max_logit_difference:>26.2g}{graph.latency_ms_batch1:>13.2f}"
            f"{graph.latency_ms_batch128:>18.3f}"
        )
    lines += [
        "",
        f"The fastest on this machine, and what predict takes by default: {info.recommended}.",
        f"Next: hemascope predict PATH... --model {folder}",
        RESEARCH_USE_ONLY,
    ]
    return "\n".join(lines)


def card_text(
    info: ArtifactInfo,
    data: DataDescription,
    results: RunResults | None,
    base: BaseNetwork | None,
) -> str:
    """The model card as Markdown.

    Args:
        info: The exported model.
        data: What it was trained on.
        results: What its run found on test, if it is known.
        base: What its run began from, if it is known.
    """
    found = performance(summarize(info.settings, [results]), results) if results else ""
    subject = Subject(
        settings=info.settings,
        num_parameters=info.num_parameters,
        data=data,
        base=base,
        facts=None,
        performance=found,
    )
    rebuilt = (
        [
            (
                "Never to be tested on",
                "The official test split: about 70 % of its images are among those it was trained "
                "on, so never score it on the official test split.",
            )
        ]
        if data.kind == "rebuilt"
        else []
    )
    card = [
        *model_card(subject),
        *rebuilt,
        ("Input and output", _input_and_output(info)),
        ("Graphs, and what was fitted on val", _graphs(info, data.counts["val"])),
        ("Version", f"hemascope {info.hemascope_version}; format version {info.format_version}."),
    ]
    return card_markdown(f"Model card: {info.settings.name}", card)


def _input_and_output(info: ArtifactInfo) -> str:
    how, size = info.image, info.image.size
    jpeg = (
        f", and given a JPEG round trip of quality {how.jpeg_quality}" if how.jpeg_quality else ""
    )
    crop = (
        f"the central {100 * how.crop:.3g} % of a photograph's square"
        if how.crop < 1
        else "the central square of a picture"
    )
    maps = (
        "; `maps`: what each place adds to them, so that explaining needs no other program."
        if info.onnx[0].has_maps
        else "."
    )
    return (
        f"`images`: uint8 RGB pixels (N, {size}, {size}, 3); scaling is inside the graph. "
        f"`predict` makes them of {crop}, resized (bilinear, antialiased){jpeg}. `logits`: float32 "
        f"(N, {len(info.class_names)}), in the order of the classes{maps}"
    )


def _graphs(info: ArtifactInfo, num_val: int) -> str:
    first = info.onnx[0].decisions[0]
    coverages = [f"min. probability in the {100 * rule.coverage:g} % set" for rule in first.sets]
    rows = [
        [
            "graph",
            "size",
            f"val accuracy, 1 view, n = {num_val:,}",
            "views",
            "temperature",
            "abstention threshold",
            *coverages,
        ]
    ]
    for graph in info.onnx:
        for decision in graph.decisions:
            rows.append(
                [
                    graph.precision,
                    f"{graph.size_bytes / 1e6:.2f} MB",
                    interval(estimate(graph.val_accuracy, num_val)),
                    str(decision.num_views),
                    f"{decision.temperature:.3f}",
                    f"{decision.abstain_below:.4f}",
                    *(f"{rule.min_prob:.4f}" for rule in decision.sets),
                ]
            )
    return (
        f"{markdown_table(rows)}\n\nAnswers below the abstention threshold are flagged for expert "
        f"review: it is the lowest at which the other images of val are classified with an "
        f"accuracy of at least {100 * first.wanted_accuracy:g} %. Prediction sets are "
        "split-conformal (LAC)."
    )
