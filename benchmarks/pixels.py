"""What pixels buy: test accuracy over the side of the images, of saved runs.

Command: python benchmarks/pixels.py RUN... --out pixels

Each RUN is the folder of `hemascope train --preset hemanet-64 --image-size S --data pbc_200` (28
pixels: `--preset hemanet`), with a seed. Prints a table, and draws pixels.png, .svg and .pdf into
the folder: every run as a dot, the mean of each size as a line.
"""

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.report import plots
from hemascope.store.model_folder import load_info
from hemascope.store.run_folder import RunFolder, RunResults

STYLE = mpl.rc_params_from_file(
    Path(plots.__file__).with_name("paper.mplstyle"), use_default_template=False
)


def figures(results: RunResults) -> dict[str, float]:
    """Accuracy of one view and of the mean of all."""
    views = results.with_views
    return {"1 view": results.accuracy} | ({"8 views": views.accuracy} if views else {})


@mpl.rc_context(STYLE)
def drawn(by_size: dict[int, list[RunResults]], caption: str) -> Figure:
    """Accuracy over the side of the images."""
    figure = Figure(figsize=(3.46, 2.6), layout="constrained")
    axes = figure.subplots()
    figure.suptitle("Test accuracy over the side of the images", x=0.01, ha="left")
    figure.supxlabel(caption, fontsize=6, color="0.35", x=0.01, ha="left")
    sizes = sorted(by_size)
    for color, marker, name in zip(plots.PALETTE, "os", ("1 view", "8 views"), strict=False):
        found = {s: [f[name] for f in map(figures, by_size[s]) if name in f] for s in sizes}
        for size, values in found.items():
            axes.plot([size] * len(values), values, marker, color=color, markersize=2.5, alpha=0.5)
        known = [size for size in sizes if found[size]]
        axes.plot(known, [statistics.mean(found[s]) for s in known], "-", color=color, label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=1, symbol=" %"))
    axes.set_xlabel("pixels along a side")
    axes.legend(loc="lower right")
    return figure


def main() -> None:
    """Prints the table and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    by_size: dict[int, list[RunResults]] = defaultdict(list)
    for run in asked.runs:
        by_size[load_info(run).image.size].append(RunFolder(run).read_results())
    parameters = {one.num_parameters for runs in by_size.values() for one in runs}
    print("| pixels | n | parameters | accuracy, 1 view | accuracy, 8 views |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for size, runs in sorted(by_size.items()):
        cells: list[str] = []
        for name in ("1 view", "8 views"):
            values = [100 * f[name] for f in map(figures, runs) if name in f]
            sd = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.2f}{sd} %" if values else "")
        print(f"| {size} | {len(runs)} | {runs[0].num_parameters:,} | {' | '.join(cells)} |")
    asked.out.mkdir(exist_ok=True)
    counts = ", ".join(f"{size} px n = {len(runs)}" for size, runs in sorted(by_size.items()))
    same = f"{parameters.pop():,} parameters each" if len(parameters) == 1 else "see the table"
    caption = f"{counts}; {same}\n{RESEARCH_USE_ONLY}"
    plots.save_figure(drawn(by_size, caption), asked.out / "pixels")


if __name__ == "__main__":
    main()
