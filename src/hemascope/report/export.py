"""What an exported model says of itself: for the terminal, and as a model card in its folder."""

from pathlib import Path

from hemascope.core.errors import NO_GUARD, RESEARCH_USE_ONLY
from hemascope.core.images import DataDescription
from hemascope.metrics.summary import estimate
from hemascope.report.cards import card_markdown, filled, model_card, performance
from hemascope.report.network import summarize
from hemascope.report.numbers import interval
from hemascope.report.text import markdown_table
from hemascope.settings.about import NOT_STATED, About
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
    if not any(graph.has_features for graph in info.onnx):
        lines += ["", NO_GUARD]
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
    card = model_card(
        info.settings,
        data,
        num_parameters=info.num_parameters,
        base=base,
        facts=None,
        performance=found,
    )
    added = filled(
        "export_card",
        data,
        info=info,
        image=info.image,
        graphs=_graphs(info, data.counts["val"]),
    )
    sections = [
        *card,
        *added,
        ("Licenses of the weights and of the data", licenses_text(info.about)),
        *info.about.sections.items(),
    ]
    return card_markdown(f"Model card: {info.settings.name}", sections)


def licenses_text(about: About) -> str:
    """The license of the weights, and a table of the sources of the data."""
    rows = [["source", "images in train", "license, as stated", "groups"]]
    for one in about.sources:
        title = f"[{one.title}]({one.url})" if one.url else one.title
        count = f"{one.num_images:,}" if one.num_images else NOT_STATED
        rows.append([title, count, one.license, one.groups or NOT_STATED])
    return f"Weights: {about.license}.\n\n{markdown_table(rows)}"


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
    return markdown_table(rows)
