"""`hemascope trust`: calibration, prediction sets and abstention, from saved predictions."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from hemascope.analyses.saved import SavedPair, leaks, read_pairs
from hemascope.core.errors import RESEARCH_USE_ONLY, DataError
from hemascope.core.predictions import Predictions
from hemascope.metrics.trust import Trust, assess, sets_left_out
from hemascope.metrics.uncertainty import COVERAGES, judge
from hemascope.report import trust as pages
from hemascope.report.text import seen_on_val
from hemascope.settings.output import Output
from hemascope.store.provenance import provenance, publish


def trust(
    folders: Sequence[Path],
    output: Output,
    *,
    views: bool,
    coverages: Sequence[float],
    accuracy: float,
) -> str:
    """Fits temperature, prediction sets and abstaining on val, and tries them on test.

    Args:
        folders: Run folders or their parents; several seeds of a network are averaged.
        output: Gets trust.json, trust.md and figures/.
        views: Whether to take the predictions with eight views.
        coverages: How often prediction sets are to hold the true class.
        accuracy: The accuracy wanted on the images that are answered.

    Returns:
        The tables as text.

    Raises:
        DataError: If predictions are missing, do not fit together, or val is too small for every
            coverage asked for.
        OutputError: If `output` cannot be written.
    """
    networks = read_pairs(folders, views=views)
    content = assess_all(networks, coverages=coverages, accuracy=accuracy)
    asked_for = tuple(coverages) != COVERAGES
    if asked_for and not any(run.sets for runs in content.networks.values() for run in runs):
        raise DataError(f"{content.left_out[0]} Ask for less or give more images.")
    text = "\n\n".join([pages.trust_text(content), RESEARCH_USE_ONLY])
    caption = f"{content.data}\n{RESEARCH_USE_ONLY}"
    publish(
        output,
        provenance(),
        contents={"trust.json": content, "trust.md": text},
        draw=partial(pages.draw_trust, on_test(networks), content, caption=caption),
    )
    return text


def assess_all(
    networks: Mapping[str, Sequence[SavedPair]], *, coverages: Sequence[float], accuracy: float
) -> Trust:
    """`assess` for every run of every network, with the data's names.

    Coverages that val is too small for are left out and named.
    """
    first = next(iter(networks.values()))[0]
    val, test = first.val.predictions, first.test.predictions
    runs = [pair.val for pairs in networks.values() for pair in pairs]
    on_val = {seen_on_val(one.name, one.num_seen) for one in runs} - {""}
    return Trust(
        data=first.test.title,
        fitted_on=first.val.title,
        num_val=len(val.labels),
        num_test=len(test.labels),
        warnings=[
            *leaks({name: [pair.test for pair in pairs] for name, pairs in networks.items()}),
            *sorted(on_val),
        ],
        left_out=sets_left_out(val, test, coverages),
        networks={
            name: [
                assess(
                    pair.val.predictions,
                    pair.test.predictions,
                    seed=pair.test.seed,
                    coverages=coverages,
                    accuracy=accuracy,
                )
                for pair in pairs
            ]
            for name, pairs in networks.items()
        },
        ensembles={
            f"{name}, {len(pairs)} together": judge(
                [pair.val.predictions for pair in pairs], [pair.test.predictions for pair in pairs]
            )[0]
            for name, pairs in networks.items()
            if len(pairs) > 1
        },
    )


def on_test(networks: Mapping[str, Sequence[SavedPair]]) -> dict[str, list[Predictions]]:
    """The predictions of each run on test, by network."""
    return {name: [pair.test.predictions for pair in pairs] for name, pairs in networks.items()}
