"""One row per network: saved results side by side, as a Markdown table."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hemascope.core.errors import RESEARCH_USE_ONLY, DataError, did_you_mean
from hemascope.report.formats import TableFormat, format_tables
from hemascope.report.text import over_runs
from hemascope.store.run_folder import RunResults, find_results

Figure = Callable[[RunResults], float | None]
Column = Callable[[Sequence[RunResults]], str]


def read_results(folders: Sequence[Path]) -> list[RunResults]:
    """The results in some folders, and in the folders directly inside them.

    Raises:
        DataError: If a folder holds none, or a file is damaged.
    """
    return [folder.read_results() for folder in find_results(folders)]


def table_text(
    results: Sequence[RunResults], class_name: str | None = None, how: TableFormat = "md"
) -> str:
    """A table of mean ± sample standard deviation over the seeds, best accuracy first.

    Args:
        results: What `read_results` read.
        class_name: A class whose sensitivity gets a column as well.
        how: Its format; what it is of stands above it in Markdown alone.

    Raises:
        DataError: If results of one name are not of the same network, or not of the same data.
    """
    sources = sorted({f"{result.data}, split {result.split}" for result in results})
    files = {result.data_md5 for result in results}
    if len(sources) > 1 or len(files) > 1:
        md5s = f", of files with md5 {' and '.join(sorted(files))}" if len(files) > 1 else ""
        raise DataError(
            f"these results are of different images ({'; '.join(sources)}{md5s}); a table compares "
            "networks on the same ones."
        )
    groups: dict[str, list[RunResults]] = {}
    for result in results:
        groups.setdefault(result.label, []).append(result)
    for name, members in groups.items():
        seeds = {member.seed for member in members}
        kinds = {(member.num_parameters, member.trained_on) for member in members}
        if len(seeds) < len(members) or len(kinds) > 1:
            raise DataError(
                f"the results called '{name}' are not of one network over several seeds; give each "
                "network its own `name` when training, and each run once."
            )
    columns = _columns(results, class_name)
    ranked = sorted(groups.items(), key=lambda item: -np.mean([m.accuracy for m in item[1]]))
    rows = [["network", "n", *columns]]
    for name, members in ranked:
        cells = [column(members) for column in columns.values()]
        rows.append([name, str(len(members)), *cells])
    table = format_tables([rows], how)
    return "\n\n".join([sources[0], table, RESEARCH_USE_ONLY]) if how == "md" else table


def _columns(results: Sequence[RunResults], class_name: str | None) -> dict[str, Column]:
    columns = {"accuracy (%)": _column(lambda r: r.accuracy, 100)}
    if any(result.with_views for result in results):
        columns["accuracy, 8 views (%)"] = _column(
            lambda r: r.with_views and r.with_views.accuracy, 100
        )
    columns["F1, macro"] = _column(lambda r: r.f1_macro, digits=4)
    if class_name is not None:
        known = results[0].per_class
        if class_name not in known:
            said = f"it is '{class_name}'; {did_you_mean(class_name, known)}"
            raise DataError(said, field="class")
        for figure in ("sensitivity", "precision"):
            columns[f"{class_name}, {figure} (%)"] = _column(
                lambda r, key=figure: getattr(r.per_class[class_name], key), 100
            )
    columns["parameters"] = lambda members: f"{members[0].num_parameters:,}"
    for title, cost in (
        ("ms an image, batch 1", lambda r: r.latency_ms_batch1),
        ("ms an image, batch 128", lambda r: r.latency_ms_batch128),
        ("training (min)", lambda r: r.train_seconds and r.train_seconds / 60),
    ):
        columns[title] = _column(cost, with_sd=False)
    return columns


def _column(figure: Figure, factor: float = 1, *, digits: int = 2, with_sd: bool = True) -> Column:
    """A figure over the runs, as `over_runs` writes it."""
    return lambda members: over_runs(
        [figure(member) for member in members], digits, factor=factor, with_sd=with_sd
    )
