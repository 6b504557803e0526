"""One row per network: saved results side by side, as a Markdown table."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hemascope.core.errors import RESEARCH_USE_ONLY, DataError, did_you_mean
from hemascope.metrics.summary import spread
from hemascope.store.run_folder import RunResults, find_results

Figure = Callable[[RunResults], float | None]
Column = Callable[[Sequence[RunResults]], str]


def read_results(folders: Sequence[Path]) -> list[RunResults]:
    """The results in some folders, and in the folders directly inside them.

    Raises:
        DataError: If a folder holds none, or a file is damaged.
    """
    return [folder.read_results() for folder in find_results(folders)]


def table_text(results: Sequence[RunResults], class_name: str | None = None) -> str:
    """A Markdown table of mean ± sample standard deviation over the seeds, best accuracy first.

    Args:
        results: What `read_results` read.
        class_name: A class whose sensitivity gets a column as well.

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
        groups.setdefault(_label(result), []).append(result)
    for name, members in groups.items():
        seeds = {member.seed for member in members}
        if len(seeds) < len(members) or len({m.num_parameters for m in members}) > 1:
            raise DataError(
                f"the results called '{name}' are not of one network over several seeds; give each "
                "network its own `name` when training, and each run once."
            )
    columns = _columns(results, class_name)
    ranked = sorted(groups.items(), key=lambda item: -np.mean([m.accuracy for m in item[1]]))
    lines = [
        f"| network | n | {' | '.join(columns)} |",
        f"| --- | ---: |{' ---: |' * len(columns)}",
    ]
    for name, members in ranked:
        cells = [column(members) for column in columns.values()]
        lines.append(f"| {name} | {len(members)} | {' | '.join(cells)} |")
    return "\n".join([sources[0], "", *lines, "", RESEARCH_USE_ONLY])


def _label(result: RunResults) -> str:
    """The network's name; an evaluation with views is not the same as one without."""
    return result.name if result.num_views == 1 else f"{result.name}, {result.num_views} views"


def _columns(results: Sequence[RunResults], class_name: str | None) -> dict[str, Column]:
    columns = {"accuracy (%)": _percent(lambda r: r.accuracy)}
    if any(result.with_views for result in results):
        columns["accuracy, 8 views (%)"] = _percent(
            lambda r: r.with_views and r.with_views.accuracy
        )
    columns["F1, macro"] = _column(lambda r: r.f1_macro, factor=1, digits=4)
    if class_name is not None:
        known = results[0].per_class
        if class_name not in known:
            raise DataError(did_you_mean(class_name, known), field="class")
        columns[f"{class_name}, sensitivity (%)"] = _percent(
            lambda r: r.per_class[class_name].recall
        )
        columns[f"{class_name}, precision (%)"] = _percent(
            lambda r: r.per_class[class_name].precision
        )
    columns["parameters"] = lambda members: f"{members[0].num_parameters:,}"
    columns["ms an image, batch 1"] = _mean(lambda r: r.latency_ms_batch1)
    columns["ms an image, batch 128"] = _mean(lambda r: r.latency_ms_batch128)
    columns["training (min)"] = _mean(lambda r: r.train_seconds and r.train_seconds / 60)
    return columns


def _percent(figure: Figure) -> Column:
    return _column(figure, factor=100, digits=2)


def _mean(figure: Figure) -> Column:
    return _column(figure, factor=1, digits=2, with_sd=False)


def _column(figure: Figure, *, factor: float, digits: int, with_sd: bool = True) -> Column:
    """Mean ± sd over the runs, or the mean alone; a dash where a run has no such figure."""

    def column(members: Sequence[RunResults]) -> str:
        values = [value for member in members if (value := figure(member)) is not None]
        if len(values) < len(members):
            return "-"
        result = spread([factor * value for value in values])
        sd = f" ± {result.sd:.{digits}f}" if with_sd and result.sd is not None else ""
        return f"{result.mean:.{digits}f}{sd}"

    return column
