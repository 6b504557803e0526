"""`hemascope compare`: saved predictions against one another, with intervals and tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hemascope import plots
from hemascope.core import Predictions
from hemascope.errors import RESEARCH_USE_ONLY, DataError
from hemascope.files import MARK, make_folder, make_out, write_json, write_text
from hemascope.inference.saved import read_predictions
from hemascope.metrics.comparison import compare_networks
from hemascope.report import statistics
from hemascope.report.runs import read_results_file
from hemascope.report.table import find_results
from hemascope.workflows.environment import provenance

_FEWEST = 2  # images of a class: resampling one gives the same one


@dataclass(frozen=True)
class _Saved:
    """One run's predictions and what its results say of them."""

    path: Path
    name: str
    seed: int
    title: str
    predictions: Predictions


def compare(
    folders: Sequence[Path], out: Path, *, views: bool, num_resamples: int, overwrite: bool
) -> str:
    """Compares every network in some folders with every other, and writes what it finds.

    Args:
        folders: Run folders, folders of evaluations, or their parents.
        out: Gets comparison.json, comparison.md and figures/.
        views: Whether to take the predictions with eight views.
        num_resamples: How many resampled test sets the bootstrap draws.
        overwrite: Whether an older folder of ours may be deleted.

    Returns:
        The tables as text.

    Raises:
        DataError: If there are no predictions, or they are not of the same images in one order.
        OutputError: If `out` cannot be written.
    """
    saved = [_read(path, views=views) for path in find_results(folders)]
    _check_same_images(saved)
    networks: dict[str, dict[int, Predictions]] = {}
    for one in saved:
        runs = networks.setdefault(one.name, {})
        if one.seed in runs:
            raise DataError(
                f"{one.path} is the second run called '{one.name}' with seed {one.seed}; give each "
                "network its own --name when training, and each run once."
            )
        runs[one.seed] = one.predictions
    comparison = {
        "notice": RESEARCH_USE_ONLY,
        "data": saved[0].title,
        "views": 8 if views else 1,
        **compare_networks(networks, num_resamples=num_resamples),
    }
    make_out(out, overwrite=overwrite)
    write_json(out / MARK, provenance())
    write_json(out / "comparison.json", comparison)
    tables = [statistics.networks_table(comparison)]
    if comparison["pairs"]:
        tables.append(statistics.pairs_table(comparison))
    tables += [statistics.classes_table(comparison, k) for k in ("sensitivity", "specificity")]
    text = "\n\n".join(
        [
            saved[0].title + (", 8 views" if views else ""),
            statistics.how_to_read(comparison),
            *map(statistics.markdown, tables),
            RESEARCH_USE_ONLY,
        ]
    )
    write_text(out / "comparison.md", text + "\n")
    figures, caption = make_folder(out / "figures"), f"{saved[0].title}\n{RESEARCH_USE_ONLY}"
    forest = statistics.forest_of_networks(comparison, caption)
    plots.save_figure(forest, figures / "networks")
    if comparison["pairs"]:
        forest = statistics.forest_of_differences(comparison, caption)
        plots.save_figure(forest, figures / "differences")
    return text


def _read(results_path: Path, *, views: bool) -> _Saved:
    results = read_results_file(results_path)
    name, seed, split = (results[key] for key in ("name", "seed", "split"))
    path = results_path.with_name(f"predictions-{Path(split).name}{'-views' if views else ''}.csv")
    if views and not path.is_file():
        raise DataError(
            f"there is no {path}: this run was not evaluated with 8 views; train it with --views 8 "
            "or leave --views out."
        )
    label = f"{name}, 8 views" if results.get("num_views", 1) > 1 else name
    title = f"{results['data']}, split {split}"
    return _Saved(path, label, seed, title, read_predictions(path))


def _check_same_images(saved: Sequence[_Saved]) -> None:
    first = saved[0]
    for one in saved[1:]:
        ours, theirs = one.predictions, first.predictions
        for what, here, there in (
            ("classes", ours.classes.names, theirs.classes.names),
            ("images", ours.ids, theirs.ids),
            ("labels", ours.labels.tolist(), theirs.labels.tolist()),
        ):
            if list(here) != list(there):
                raise DataError(
                    f"{one.path} and {first.path} do not have the same {what} in the same order: "
                    f"{_first_difference(here, there)}; compare runs on the same split of the same "
                    "data."
                )
        if one.title != first.title:
            raise DataError(
                f"{one.path} is of {one.title}, {first.path} of {first.title}; compare runs on the "
                "same split of the same data."
            )
    names = first.predictions.classes.names
    counts = np.bincount(first.predictions.labels, minlength=len(names))
    for name, count in zip(names, counts.tolist(), strict=True):
        if 0 < count < _FEWEST:
            raise DataError(
                f"{first.path} has {count} image of the class '{name}', too few for an interval; "
                f"evaluate on a split with at least {_FEWEST} of each class that occurs."
            )
    if (counts > 0).sum() < _FEWEST:
        raise DataError(f"{first.path} has images of one class only; AUROC needs two.")


def _first_difference(here: Sequence[object], there: Sequence[object]) -> str:
    for row, (ours, theirs) in enumerate(zip(here, there, strict=False), start=1):
        if ours != theirs:
            return f"row {row} is {ours!r} in one and {theirs!r} in the other"
    return f"{len(here)} rows in one and {len(there)} in the other"
