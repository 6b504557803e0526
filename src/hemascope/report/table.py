"""One row per network: saved results side by side, as a Markdown table."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hemascope.core.errors import RESEARCH_USE_ONLY, DataError, did_you_mean
from hemascope.metrics.summary import spread
from hemascope.store.run_folder import read_results_file

Results = Mapping[str, Any]
Column = Callable[[Sequence[Results]], str]


def read_results(folders: Sequence[Path]) -> list[Results]:
    """The results in some folders, and in the folders directly inside them.

    Raises:
        DataError: If a folder holds none, or a file is damaged.
    """
    return [read_results_file(path) for path in find_results(folders)]


def find_results(folders: Sequence[Path]) -> list[Path]:
    """Every results.json in some folders, and in the folders directly inside them.

    Raises:
        DataError: If a folder holds none.
    """
    found: list[Path] = []
    for folder in folders:
        here = [folder / "results.json", *sorted(folder.glob("*/results.json"))]
        present = [path for path in here if path.is_file()]
        if not present:
            raise DataError(f"{folder} holds no results.json; give run folders, or their parent.")
        found += [path for path in present if path not in found]
    return found


def table_text(results: Sequence[Results], class_name: str | None = None) -> str:
    """A Markdown table of mean ± sample standard deviation over the seeds, best accuracy first.

    Args:
        results: What `read_results` read.
        class_name: A class whose sensitivity gets a column as well.

    Raises:
        DataError: If results of one name are not of the same network, or not of the same data.
    """
    sources = sorted({f"{result['data']}, split {result['split']}" for result in results})
    files = {result["data_md5"] for result in results if "data_md5" in result}
    if len(sources) > 1 or len(files) > 1:
        md5s = f", of files with md5 {' and '.join(sorted(files))}" if len(files) > 1 else ""
        raise DataError(
            f"these results are of different images ({'; '.join(sources)}{md5s}); a table compares "
            "networks on the same ones."
        )
    groups: dict[str, list[Results]] = {}
    for result in results:
        groups.setdefault(_label(result), []).append(result)
    for name, members in groups.items():
        seeds = {member["seed"] for member in members}
        if len(seeds) < len(members) or len({m["num_parameters"] for m in members}) > 1:
            raise DataError(
                f"the results called '{name}' are not of one network over several seeds; give each "
                "network its own --name when training, and each run once."
            )
    columns = _columns(results, class_name)
    ranked = sorted(groups.items(), key=lambda item: -(_mean(item[1], ("accuracy",)) or 0))
    lines = [
        f"| network | n | {' | '.join(columns)} |",
        f"| --- | ---: |{' ---: |' * len(columns)}",
    ]
    for name, members in ranked:
        cells = [column(members) for column in columns.values()]
        lines.append(f"| {name} | {len(members)} | {' | '.join(cells)} |")
    return "\n".join([sources[0], "", *lines, "", RESEARCH_USE_ONLY])


def _label(result: Results) -> str:
    """The network's name; an evaluation with views is not the same as one without."""
    views = result.get("num_views", 1)
    return result["name"] if views == 1 else f"{result['name']}, {views} views"


def _columns(results: Sequence[Results], class_name: str | None) -> dict[str, Column]:
    columns: dict[str, Column] = {"accuracy (%)": _percent("accuracy")}
    if any("with_views" in result for result in results):
        columns["accuracy, 8 views (%)"] = _percent("with_views", "accuracy")
    columns["F1, macro"] = _fraction("f1_macro")
    if class_name is not None:
        known = results[0]["per_class"]
        if class_name not in known:
            raise DataError(f"--class {class_name}: {did_you_mean(class_name, known)}")
        columns[f"{class_name}, sensitivity (%)"] = _percent("per_class", class_name, "recall")
        columns[f"{class_name}, precision (%)"] = _percent("per_class", class_name, "precision")
    columns["parameters"] = lambda members: f"{members[0]['num_parameters']:,}"
    columns["ms an image, batch 1"] = _plain("latency_ms_batch1", 1)
    columns["ms an image, batch 128"] = _plain("latency_ms_batch128", 1)
    columns["training (min)"] = _plain("train_seconds", 60)
    return columns


def _percent(*key: str) -> Column:
    return lambda members: _mean_and_sd(members, key, factor=100, digits=2)


def _fraction(key: str) -> Column:
    return lambda members: _mean_and_sd(members, (key,), factor=1, digits=4)


def _plain(key: str, divisor: float) -> Column:
    def column(members: Sequence[Results]) -> str:
        mean = _mean(members, (key,))
        return "-" if mean is None else f"{mean / divisor:.2f}"

    return column


def _mean_and_sd(
    members: Sequence[Results], key: Sequence[str], *, factor: float, digits: int
) -> str:
    values = _values(members, key)
    if values is None:
        return "-"
    result = spread([factor * value for value in values])
    sd = "" if result.sd is None else f" ± {result.sd:.{digits}f}"
    return f"{result.mean:.{digits}f}{sd}"


def _mean(members: Sequence[Results], key: Sequence[str]) -> float | None:
    values = _values(members, key)
    return None if values is None else spread(values).mean


def _values(members: Sequence[Results], key: Sequence[str]) -> list[float] | None:
    """One figure of every run, by the path of its keys; None where a run has none."""
    values: list[float] = []
    for member in members:
        value: Any = member
        for part in key:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            return None
        values.append(float(value))
    return values
