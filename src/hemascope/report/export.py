"""What an exported model says of itself: for the terminal, and as a model card in its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.report.cards import limitations, reference, source
from hemascope.store.model_folder import ArtifactInfo


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
    info: ArtifactInfo, data: Mapping[str, Any], results: Mapping[str, Any] | None
) -> str:
    """The model card as Markdown.

    Args:
        info: The exported model.
        data: What it was trained on, as `Dataset.describe` says it.
        results: What its run found on test, if it is known.
    """
    how, size = info.image, info.image.size
    jpeg = (
        f", and given a JPEG round trip of quality {how.jpeg_quality}" if how.jpeg_quality else ""
    )
    crop = (
        f"the central {100 * how.crop:.3g} % of a photograph's square"
        if how.crop < 1
        else "the central square of a picture"
    )
    rules = info.onnx[0].decisions[0].sets
    rebuilt = (
        " About 70 % of the images of the official test split are among those it was trained on: "
        "**never score it on the official test split.**"
        if data["kind"] == "rebuilt"
        else ""
    )
    lines = [
        f"# Model card: {info.settings.name}",
        "",
        f"**{RESEARCH_USE_ONLY}** Every answer needs an expert.",
        "",
        "## Intended use",
        "",
        "Sorting pictures of single blood cells into classes before an expert looks at them, and "
        "comparing networks. The classes, in the order of the outputs: "
        + ", ".join(info.class_names)
        + ". A picture of anything else is given one of them all the same.",
        "",
        "## Data",
        "",
        f"Trained on the train split of: {info.trained_on.title} ({info.trained_on.num_images:,} "
        f"images, md5 {info.trained_on.md5}).{rebuilt} {source(data)} {reference(data)}",
        "",
        "## Input and output",
        "",
        f"`images`: uint8 RGB pixels (N, {size}, {size}, 3); scaling is inside the graph. "
        f"`predict` makes them of {crop}, resized (bilinear, antialiased){jpeg}. "
        f"`logits`: float32 (N, {len(info.class_names)})"
        + (
            "; `maps`: what each place adds to them, so that explaining needs no other program."
            if info.onnx[0].has_maps
            else "."
        ),
        "",
        "## Figures on val, and what was fitted there",
        "",
        "| graph | size | accuracy, 1 view | views | temperature | abstains below | "
        + " | ".join(f"in the {100 * rule.coverage:g} % set from" for rule in rules)
        + " |",
        "| --- |" + " ---: |" * (5 + len(rules)),
    ]
    for graph in info.onnx:
        for decision in graph.decisions:
            least = " | ".join(f"{rule.min_prob:.4f}" for rule in decision.sets)
            lines.append(
                f"| {graph.precision} | {graph.size_bytes / 1e6:.2f} MB "
                f"| {100 * graph.val_accuracy:.2f} % | {decision.num_views} "
                f"| {decision.temperature:.3f} | {decision.abstain_below:.4f} | {least} |"
            )
    wanted = info.onnx[0].decisions[0].wanted_accuracy
    lines += [
        "",
        f"Answers less sure than the threshold are left to an expert: on val, the others were "
        f"right {100 * wanted:g} times in 100. Prediction sets are split-conformal (LAC).",
        "",
        "## Figures on test, read once by the run it comes from",
        "",
        _test(results),
        "",
        "## Limits",
        "",
        limitations(data),
        "",
        f"{info.num_parameters:,} parameters; hemascope {info.hemascope_version}; format version "
        f"{info.format_version}; seed {info.settings.seed}.",
    ]
    return "\n".join(lines) + "\n"


def _test(results: Mapping[str, Any] | None) -> str:
    if results is None:
        return "Not known here."
    text = (
        f"{results['data']}, split {results['split']}, in {results['precision']} by PyTorch: "
        f"accuracy {100 * results['accuracy']:.2f} %, macro F1 {results['f1_macro']:.4f}"
    )
    views = results.get("with_views")
    return text + (f"; with 8 views {100 * views['accuracy']:.2f} %." if views else ".")
