"""How `hemascope audit` grows: seconds, peak memory and copies found at several numbers of images.

Command: python benchmarks/audit_growth.py --images 10000,30000,100000

Renders so many cells, of which each fiftieth is a copy that was turned, mirrored, shifted and given
noise, and each two-hundredth an exact one, and audits them in a fresh process: comparing all pairs
up to 20,000 images, by the index above. With --exact, sizes up to the number given are audited the
other way too: the share of all pairs' near-duplicates that the index finds.
"""

import argparse
import json
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np

from fresh import COMMAND, Cost, cost
from hemascope.analyses.audit.find import MOST_EXACT
from hemascope.core.images import symmetry
from hemascope.data.rendered import render

NOISE = 2.0  # gray levels


def cells(count: int) -> tuple[dict[str, np.ndarray], set[tuple[int, int]]]:
    """Rendered cells as an .npz has them, and which of them are near copies of which."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, size=count)
    images = render(labels, seed=0)
    near, exact = np.arange(count // 50), np.arange(count // 200) + count // 50
    sources = rng.permutation(np.arange(len(near) + len(exact), count))
    for place, source in zip(near, sources, strict=False):
        copy = symmetry(images[source : source + 1], int(rng.integers(8)))
        copy = np.roll(copy, rng.integers(-1, 2, size=2), axis=(1, 2))
        noisy = copy + rng.normal(0, NOISE, copy.shape)
        images[place] = np.clip(noisy, 0, 255).round().astype(np.uint8)[0]
        labels[place] = labels[source]
    for place, source in zip(exact, sources[len(near) :], strict=False):
        images[place], labels[place] = images[source], labels[source]
    pairs = set(zip(near.tolist(), sources[: len(near)].tolist(), strict=True))
    order = np.array_split(np.arange(count), [count * 7 // 10, count * 8 // 10])
    arrays: dict[str, np.ndarray] = {}
    for split, rows in zip(("train", "val", "test"), order, strict=True):
        arrays[f"{split}_images"] = images[rows]
        arrays[f"{split}_labels"] = labels[rows].reshape(-1, 1).astype(np.uint8)
        arrays[f"{split}_names"] = rows.astype(str)
    return arrays, pairs


def audit(source: Path, out: Path, most_exact: int) -> tuple[Cost, set[tuple[str, str]]]:
    """What it costs, and near-duplicates as pairs of their names."""
    limit = f"from hemascope.analyses.audit import find\nfind.MOST_EXACT = {most_exact}"
    found = cost(limit + COMMAND, "audit", source, "--collection", "bloodmnist", "--out", out)
    written = json.loads((out / "audit.json").read_text())
    groups = ([written["names"][one] for one in g] for g in written["near_duplicate_groups"])
    return found, {pair for g in groups for pair in combinations(sorted(g), 2)}


def main() -> None:
    """Prints a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", default="10000,30000,100000")
    parser.add_argument("--exact", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    print("| images | seconds | CPU seconds | peak GB | copies found | by the index |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for count in map(int, arguments.images.split(",")):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            arrays, planted = cells(count)
            np.savez(folder / "cells.npz", **arrays)  # pyright: ignore[reportArgumentType]
            del arrays
            costs, found = audit(folder / "cells.npz", folder / "out", MOST_EXACT)
            named = {tuple(sorted(map(str, pair))) for pair in planted}
            share = f"{100 * len(named & found) / len(named):.1f} %"
            recall = ""
            if count <= arguments.exact:
                by_index = count > MOST_EXACT
                _, other = audit(folder / "cells.npz", folder / "other", count * by_index)
                every, some = (other, found) if by_index else (found, other)
                recall = f"{100 * len(every & some) / len(every):.2f} % of {len(every):,}"
            row = f"{costs.seconds:.0f} | {costs.busy:.0f} | {costs.peak_gb:.2f}"
            print(f"| {count:,} | {row} | {share} | {recall} |", flush=True)


if __name__ == "__main__":
    main()
