"""How fast labeled photographs are read, from class folders and from a table.

Command: python benchmarks/read_photographs.py --photographs shared/data/pbc_200 [--rounds 3]

Takes turns, in processes of their own: decode every file with Pillow on as many threads as the
machine has cores and do nothing else; `data.load` of the split and class folders; `data.load` of a
CSV table of the same files. Prints the seconds of each and its ratio to decoding alone, and by how
much the peak of resident memory exceeds that of decoding, beside the size of the images themselves.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_DECODE = """
import json, os, resource, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from PIL import Image
def decode(path):
    with Image.open(path) as image:
        image.load()
start = time.perf_counter()
paths = sorted(Path(sys.argv[1]).rglob("*.jpg"))
with ThreadPoolExecutor(os.cpu_count()) as pool:
    for _ in pool.map(decode, paths, chunksize=64):
        pass
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "peak": peak, "images": len(paths), "bytes": 0}))
"""
_LOAD = """
import json, resource, sys, time
from hemascope.data import load
from hemascope.data.source import Request
from hemascope.settings.data import DataSettings
settings = DataSettings(sources=(sys.argv[1],), image_size=int(sys.argv[2]))
start = time.perf_counter()
dataset = load(Request(settings))
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
images = [part.images for part in dataset.splits.values()]
print(json.dumps({"seconds": seconds, "peak": peak, "images": sum(map(len, images)),
                  "bytes": sum(part.nbytes for part in images)}))
"""


def _table(photographs: Path, file: Path) -> None:
    """A table of the photographs as a laboratory has one: path, label and split."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "split"])
        for path in sorted(photographs.rglob("*.jpg")):
            writer.writerow([path, path.parent.name, path.parent.parent.name])


def main() -> None:
    """Measures in turns and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photographs", type=Path, required=True, help="split and class folders")
    parser.add_argument("--size", type=int, default=64, help="of the images, in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    photographs = args.photographs.resolve()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "cells.csv")
        _table(photographs, table)
        ways = {
            "decoding alone": [_DECODE, str(photographs)],
            "class folders": [_LOAD, str(photographs), str(args.size)],
            "table": [_LOAD, str(table), str(args.size)],
        }
        found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for turn in range(args.rounds):
            order = list(ways)
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                command = [sys.executable, "-c", *ways[name]]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
    base = found["decoding alone"]
    fastest = statistics.median(one["seconds"] for one in base)
    peak = statistics.median(one["peak"] for one in base)
    print(
        f"{base[0]['images']:,.0f} photographs, {os.cpu_count()} threads, median of {args.rounds}"
    )
    for name, runs in found.items():
        seconds = statistics.median(one["seconds"] for one in runs)
        more = statistics.median(one["peak"] for one in runs) - peak
        print(
            f"{name:<15} {runs[0]['images']:>7,.0f} images  {seconds:6.2f} s  "
            f"{seconds / fastest:5.2f} of decoding  peak {more / 1e6:+7.0f} MB, "
            f"of which images {runs[0]['bytes'] / 1e6:.0f} MB"
        )


if __name__ == "__main__":
    main()
