"""How `hemascope audit` grows: seconds, peak memory and copies found at several numbers of images.

Command: python benchmarks/audit_growth.py --images 10000,30000,100000

Renders so many cells, of which each fiftieth is a copy that was turned, mirrored, shifted and given
noise, and each two-hundredth an exact one, and audits them in a fresh process: comparing all pairs
up to 20,000 images, by the index above. With --exact, sizes up to the number given are audited the
other way too: the share of all pairs' near-duplicates that the index finds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np

from hemascope.analyses.audit.find import MOST_EXACT
from hemascope.core.images import symmetry
from hemascope.data.rendered import render

AUDIT = """
import sys, time
from hemascope.analyses.audit import find
most = int(sys.argv.pop())
find.MOST_EXACT = most if most >= 0 else find.MOST_EXACT
from hemascope.__main__ import main
start = time.perf_counter()
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(time.perf_counter() - start, time.process_time(), peak * 1024 / 1e9)
"""
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


def audit(source: Path, out: Path, most_exact: int) -> tuple[list[float], set[tuple[str, str]]]:
    """Seconds, those of processors, gigabytes; and near-duplicates as pairs of their names."""
    command = [sys.executable, "-c", AUDIT, "audit", source, "--collection", "bloodmnist"]
    done = subprocess.run(
        [*command, "--out", out, str(most_exact)], check=True, capture_output=True, text=True
    )
    costs = [float(cost) for cost in done.stdout.splitlines()[-1].split()]
    found = json.loads((out / "audit.json").read_text())
    groups = ([found["names"][one] for one in g] for g in found["near_duplicate_groups"])
    return costs, {pair for g in groups for pair in combinations(sorted(g), 2)}


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
            costs, found = audit(folder / "cells.npz", folder / "out", -1)
            named = {tuple(sorted(map(str, pair))) for pair in planted}
            share = f"{100 * len(named & found) / len(named):.1f} %"
            recall = ""
            if count <= arguments.exact:
                by_index = count > MOST_EXACT
                _, other = audit(folder / "cells.npz", folder / "other", count * by_index)
                every, some = (other, found) if by_index else (found, other)
                recall = f"{100 * len(every & some) / len(every):.2f} % of {len(every):,}"
            seconds, busy, peak = costs
            row = f"{seconds:.0f} | {busy:.0f} | {peak:.2f} | {share} | {recall}"
            print(f"| {count:,} | {row} |", flush=True)


if __name__ == "__main__":
    main()
