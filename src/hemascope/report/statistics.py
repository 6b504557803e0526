"""A comparison of networks, as `metrics.comparison` makes it, in words and pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hemascope.metrics.statistics import FIGURES
from hemascope.report import plots
from hemascope.report.text import markdown_table

LABELS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "F1, macro",
    "auroc_ovr_macro": "AUROC, macro",
}
_SMALLEST_P = 0.0001


def statistics_text(comparison: Mapping[str, Any]) -> str:
    """Everything as Markdown."""
    return "\n\n".join(
        [
            comparison["data"],
            how_to_read(comparison),
            *map(markdown_table, tables(comparison)),
            *comparison["warnings"],
        ]
    )


def tables(comparison: Mapping[str, Any]) -> list[list[list[str]]]:
    """Every table of a comparison, each as its header and its rows."""
    pairs = [pairs_table(comparison)] if comparison["pairs"] else []
    kinds = ("sensitivity", "specificity")
    of_classes = [classes_table(comparison, kind) for kind in kinds]
    return [networks_table(comparison), *pairs, *of_classes]


def draw_comparison(comparison: Mapping[str, Any], folder: Path, caption: str) -> None:
    """The forest plots of a comparison: networks, and differences where there are two."""
    plots.save_figure(forest_of_networks(comparison, caption), folder / "networks")
    if comparison["pairs"]:
        plots.save_figure(forest_of_differences(comparison, caption), folder / "differences")


def networks_table(comparison: Mapping[str, Any]) -> list[list[str]]:
    """The header and a row for each network: mean, 95 % interval, spread over seeds."""
    rows = [["network", "n", *LABELS.values()]]
    for name, network in comparison["networks"].items():
        figures = network["figures"]
        rows.append([name, str(network["n"]), *(_estimate(figures[key]) for key in FIGURES)])
    return rows


def pairs_table(comparison: Mapping[str, Any]) -> list[list[str]]:
    """The header and a row for each pair: differences in accuracy and macro F1, and the tests."""
    header = ["pair", "accuracy", "p", "F1, macro", "p", "right alone", "tests", "McNemar p"]
    rows, smallest = [header], comparison["smallest_p"]
    for pair in comparison["pairs"]:
        accuracy, f1 = (pair["differences"][key] for key in ("accuracy", "f1_macro"))
        mcnemar = pair["mcnemar"]
        rows.append(
            [
                f"{pair['first']} - {pair['second']}",
                _difference(accuracy),
                p_text(accuracy["p_holm"], smallest),
                _difference(f1),
                p_text(f1["p_holm"], smallest),
                f"{mcnemar['only_first']:.0f} : {mcnemar['only_second']:.0f}",
                str(mcnemar["num_tests"]),
                p_text(mcnemar["p_holm"]),
            ]
        )
    return rows


def classes_table(comparison: Mapping[str, Any], kind: str) -> list[list[str]]:
    """The header and a row for each class: its "sensitivity" or "specificity" in every network."""
    networks = comparison["networks"]
    of_first = next(iter(networks.values()))["figures"]
    keys = [key for key in of_first if key.startswith(f"{kind}:")]
    rows = [[kind, *networks]]
    for key in keys:
        cells = (_estimate(network["figures"][key]) for network in networks.values())
        rows.append([key.partition(":")[2], *cells])
    return rows


def how_to_read(comparison: Mapping[str, Any]) -> str:
    """What the intervals and p-values are, in a few sentences."""
    return (
        f"Per cent, on {comparison['num_images']:,} images. In brackets the 95 % interval of "
        f"{comparison['num_resamples']:,} stratified bootstrap resamples of these images, of the "
        "mean over the n runs; after ± the standard deviation over runs, which is of the seeds "
        "alone. Intervals of one class are Wilson's. Differences and their p-values are paired on "
        "the same resamples, which cannot show a p-value below "
        f"{comparison['smallest_p']:.2g} here (--resamples draws more). 'Right alone' counts the "
        "images that only one of the two gets right, tested by McNemar's exact test: the mean "
        "over the tests, one for each seed that both have, and twice their median p-value where "
        "they are several. All p-values are corrected for the number of pairs, after Holm."
    )


def p_text(p: float, smallest: float = 0) -> str:
    """A p-value as papers print it; at the smallest that the method can give, as at most that."""
    if p <= smallest:
        return f"≤ {smallest:.2g}"
    return f"< {_SMALLEST_P}" if p < _SMALLEST_P else f"{p:.4f}"


def forest_of_networks(comparison: Mapping[str, Any], caption: str) -> Figure:
    """Every network's figures with their intervals; small marks are single runs."""
    panels = {
        label: [
            plots.ForestRow(
                f"{name} (n = {network['n']})",
                *(100 * network["figures"][key][part] for part in ("value", "low", "high")),
                points=[100 * value for value in network["figures"][key]["values"]],
            )
            for name, network in comparison["networks"].items()
        ]
        for key, label in LABELS.items()
    }
    return plots.forest(
        {f"{label} (%)": rows for label, rows in panels.items()},
        title="Mean over runs with its 95 % interval; small marks are single runs",
        caption=caption,
    )


def forest_of_differences(comparison: Mapping[str, Any], caption: str) -> Figure:
    """Every pair's differences with their intervals."""
    panels = {
        f"{label} (points)": [
            plots.ForestRow(
                f"{pair['first']} - {pair['second']}",
                *(100 * pair["differences"][key][part] for part in ("value", "low", "high")),
            )
            for pair in comparison["pairs"]
        ]
        for key, label in LABELS.items()
    }
    return plots.forest(
        panels,
        title="Paired differences with their 95 % intervals",
        caption=caption,
        zero_line=True,
    )


def _estimate(figure: Mapping[str, Any]) -> str:
    value, low, high = (100 * figure[key] for key in ("value", "low", "high"))
    sd = figure["sd_over_seeds"]
    spread = "" if sd is None else f" ± {100 * sd:.2f}"
    return f"{value:.2f}{spread} [{low:.2f}, {high:.2f}]"


def _difference(figure: Mapping[str, Any]) -> str:
    value, low, high = (100 * figure[key] for key in ("value", "low", "high"))
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
