"""A comparison of networks, as `metrics.comparison` makes it, in words and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hemascope.metrics.comparison import Comparison, Difference, NetworkFigure
from hemascope.metrics.statistics import FIGURES, Interval, smallest_exact_p
from hemascope.report import plots
from hemascope.report.numbers import percent, ranged
from hemascope.report.text import markdown_table

LABELS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "F1, macro",
    "auroc_ovr_macro": "AUROC, macro",
}
_SMALLEST_P = 0.0001
_CHANCE = 0.05  # the p-value from which on two networks cannot be told apart
_UNDEFINED = "-"


@dataclass(frozen=True)
class Headline:
    """What was found in one sentence, and its interval."""

    text: str
    detail: str


def headline(
    comparison: Comparison,
    names: Sequence[str],
    titles: Mapping[str, str],
    where: str = "",
    key: str = "accuracy",
) -> Headline:
    """Which of two networks is better and by how much; of one, how good it is.

    Args:
        comparison: What was found.
        names: The two networks, or one.
        titles: What each is called in a sentence.
        where: What the sentence begins with.
        key: The figure that decides, one of `LABELS`.
    """
    label = LABELS[key]
    for pair in comparison.pairs:
        if {pair.first, pair.second} == set(names) and (d := pair.differences[key]):
            sign = 1 if d.value >= 0 else -1
            first, second = (titles[name] for name in (pair.first, pair.second)[::sign])
            low, high = sorted(100 * sign * bound for bound in (d.low, d.high))
            text = f"no clear difference in {label} between {first} and {second}"
            if smallest_exact_p(pair.num_differing) >= _CHANCE:
                count = f"only {pair.num_differing}" if pair.num_differing else "none"
                text = (
                    f"{first} and {second} cannot be told apart: one is right and the other wrong "
                    f"on {count} of {comparison.num_images:,} images"
                )
            elif low > 0 and d.p_holm < _CHANCE:
                text = f"{first} beats {second} by {100 * abs(d.value):.1f} points"
            p = p_text(d.p_holm, comparison.smallest_p)
            detail = f"{low:.1f} to {high:.1f} points (p {p})"
            detail = f"95 % interval of the difference in {label}: {detail}"
            return Headline(_sentence(where + text), detail)
    figure = comparison.networks[names[0]].figures[key]
    assert figure is not None  # noqa: S101 - there are images
    text = f"{titles[names[0]]} has a {label} of {percent(figure.value)}"
    if key == "accuracy":
        text = f"{titles[names[0]]} classifies {percent(figure.value)} of the test images correctly"
    return Headline(_sentence(where + text), f"95 % interval {ranged(figure)}")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] if text.startswith(("the ", "no ")) else text


def statistics_text(comparison: Comparison) -> str:
    """Everything as Markdown."""
    return "\n\n".join(
        [
            comparison.data,
            how_to_read(comparison),
            *map(markdown_table, tables(comparison)),
            *comparison.warnings,
            *(f"Passed over: {path} (no results.json)" for path in comparison.passed_over),
        ]
    )


def tables(comparison: Comparison) -> list[list[list[str]]]:
    """Every table of a comparison, each as its header and its rows."""
    pairs = [pairs_table(comparison)] if comparison.pairs else []
    kinds = ("sensitivity", "specificity")
    of_classes = [classes_table(comparison, kind) for kind in kinds]
    return [networks_table(comparison), *pairs, *(rows for rows in of_classes if len(rows) > 1)]


def draw_comparison(comparison: Comparison, folder: Path, caption: str) -> None:
    """The forest plots of a comparison: networks, and differences where there are two."""
    networks = {
        name + (f" (n = {net.n})" if net.n > 1 else ""): net.figures
        for name, net in comparison.networks.items()
    }
    figure = plots.forest(
        _panels(networks, "%"),
        title="Each network with its 95 % interval"
        + ("; ticks are single runs" if any(n.n > 1 for n in comparison.networks.values()) else ""),
        caption=caption,
    )
    plots.save_figure(figure, folder / "networks")
    if comparison.pairs:
        pairs = {f"{pair.first}\n− {pair.second}": pair.differences for pair in comparison.pairs}  # noqa: RUF001 - a minus
        figure = plots.forest(
            _panels(pairs, "points"),
            title="Paired differences with their 95 % intervals",
            caption=caption,
            zero_line=True,
        )
        plots.save_figure(figure, folder / "differences")


def sensitivities(comparison: Comparison) -> dict[str, dict[str, Interval]]:
    """The sensitivity of every class with its interval, in each network."""
    kind = "sensitivity:"
    return {
        name: {k.removeprefix(kind): f for k, f in net.figures.items() if f and k.startswith(kind)}
        for name, net in comparison.networks.items()
    }


def networks_table(comparison: Comparison) -> list[list[str]]:
    """The header and a row for each network: mean, 95 % interval, spread over seeds."""
    rows = [["network", "n", *LABELS.values()]]
    for name, network in comparison.networks.items():
        cells = (_mean(network.figures[key]) for key in FIGURES)
        rows.append([name, str(network.n), *cells])
    return rows


def pairs_table(comparison: Comparison) -> list[list[str]]:
    """The header and a row for each pair: differences in accuracy and macro F1, and the tests."""
    header = ["pair", "accuracy", "p", "F1, macro", "p", "right alone", "tests", "McNemar p"]
    rows = [header]
    for pair in comparison.pairs:
        mcnemar = pair.mcnemar
        rows.append(
            [
                f"{pair.first} - {pair.second}",
                *_difference(pair.differences["accuracy"], comparison.smallest_p),
                *_difference(pair.differences["f1_macro"], comparison.smallest_p),
                f"{mcnemar.only_first:.0f} : {mcnemar.only_second:.0f}",
                str(mcnemar.num_tests),
                p_text(mcnemar.p_holm),
            ]
        )
    return rows


def classes_table(comparison: Comparison, kind: str) -> list[list[str]]:
    """The header and a row for each class: its "sensitivity" or "specificity" in every network."""
    networks = comparison.networks
    first = next(iter(networks.values()))
    rows = [[kind, *networks]]
    for key in first.figures:
        if key.startswith(f"{kind}:"):
            cells = (_mean(network.figures[key]) for network in networks.values())
            rows.append([key.partition(":")[2], *cells])
    return rows


def how_to_read(comparison: Comparison) -> str:
    """What the intervals and p-values are, and which are missing, in a few sentences."""
    text = (
        f"Per cent, on {comparison.num_images:,} images. Brackets: 95 % interval of the mean over "
        f"the n runs, from {comparison.num_resamples:,} stratified bootstrap resamples of these "
        "images; ±: standard deviation over the seeds. Intervals of one class are Wilson's. "
        "In accuracy and balanced accuracy each resample holds one cell more, right or wrong by "
        "chance. Differences are paired on the same resamples. Their p-values are those of the "
        "resamples or of swapping the two networks' answers on random images, whichever is larger; "
        f"the smallest that so many resamples can show is {comparison.smallest_p:.2g}, and none is "
        "below 0.05 where fewer than six images differ. An interval without zero beside a large "
        "p-value is of this mix of classes only. 'Right alone' counts the "
        "images that only one of the two classifies correctly, tested by McNemar's exact test: the "
        "mean over the tests, one for each shared seed, and twice their median p-value where there "
        "are several. All p-values are Holm-corrected for the number of pairs. Images are taken as "
        "independent: with several cells of a patient or slide, intervals are too narrow and "
        "p-values too small."
    )
    return f"{text} {left_out_sentence(comparison)}".strip()


def left_out_sentence(comparison: Comparison) -> str:
    """Which figures are missing and why; empty if none are."""
    if not comparison.left_out:
        return ""
    missing = (f"{_words(key)} ({reason})" for key, reason in comparison.left_out.items())
    return f"Left out: {', '.join(missing)}."


def _words(figure: str) -> str:
    kind, _, name = figure.partition(":")
    return f"{kind} of {name}" if name else LABELS[figure]


def p_text(p: float, smallest: float = 0) -> str:
    """A p-value as papers print it; at the smallest that the method can give, as at most that."""
    if p <= smallest:
        return f"≤ {smallest:.2g}"
    return f"< {_SMALLEST_P}" if p < _SMALLEST_P else f"{p:.2g}"


def _panels(
    figures: Mapping[str, Mapping[str, Interval | None]], unit: str
) -> dict[str, dict[str, Interval]]:
    """For each quantity the rows that have it, by name; no quantity without rows."""
    panels: dict[str, dict[str, Interval]] = {}
    for key, label in LABELS.items():
        found = {name: row[key] for name, row in figures.items()}
        if rows := {name: figure for name, figure in found.items() if figure}:
            panels[f"{label} ({unit})"] = rows
    return panels


def _mean(figure: NetworkFigure | None) -> str:
    if figure is None:
        return _UNDEFINED
    sd = figure.sd_over_seeds
    spread = "" if sd is None else f" ± {100 * sd:.1f}"
    return f"{100 * figure.value:.1f}{spread} [{_bounds(figure)}]"


def _difference(figure: Difference | None, smallest_p: float) -> tuple[str, str]:
    """A difference with its interval, and its p-value."""
    if figure is None:
        return _UNDEFINED, _UNDEFINED
    shown = f"{100 * figure.value:+.1f} [{_bounds(figure, '+')}]"
    return shown, p_text(figure.p_holm, smallest_p)


def _bounds(figure: Interval, sign: str = "") -> str:
    """In per cent; a dash where every resample gives the same figure, which says nothing."""
    if figure.low == figure.high:
        return _UNDEFINED
    return f"{100 * figure.low:{sign}.1f}, {100 * figure.high:{sign}.1f}"
