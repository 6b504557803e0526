"""How fast `hemascope predict` is, against what the same threads need to decode the files alone.

    python benchmarks/predict_speed.py --cells shared/data/cells_360 [--images 4000] [--threads 2]

Makes a folder of links to the photographs, as often as asked, and takes turns, in processes of
their own: decode every file with Pillow and do nothing else; `hemascope predict` with each graph of
the packaged models. Prints rates without start-up (taken from a run on one photograph), their
ratio, and the peak of resident memory. A million: --images 1000000 --rounds 1 --only int8.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_MODELS = ("hemanet-64-labs", "hemanet")
_DECODE = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from PIL import Image
def decode(path):
    with Image.open(path) as image:
        image.load()
with ThreadPoolExecutor(int(sys.argv[2])) as pool:
    for _ in pool.map(decode, sorted(Path(sys.argv[1]).iterdir())):
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
_PREDICT = """
import resource, sys
from hemascope.__main__ import main
folder, threads, model, precision, out = sys.argv[1:]
sys.argv = ["hemascope", "predict", folder, "--threads", threads, "--precision", precision]
sys.argv += ["--model", model, "--out", out, "--overwrite"]
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def main() -> None:
    """Measures in turns and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["fp32", "int8"], help="measure this alone")
    args = parser.parse_args()
    files = sorted(path.resolve() for path in args.cells.rglob("*.jpg"))
    with tempfile.TemporaryDirectory() as name:
        many, one, out = Path(name, "many"), Path(name, "one"), Path(name, "out.csv")
        _link(files, many, args.images)
        _link(files, one, 1)
        threads = str(args.threads)
        precisions = [args.only] if args.only else ["fp32", "int8"]
        commands = {
            f"{m} {p}": [sys.executable, "-c", _PREDICT, "", threads, m, p, str(out)]
            for m in _MODELS
            for p in precisions
        }
        if not args.only:
            commands = {"decode": [sys.executable, "-c", _DECODE, "", threads], **commands}
        seconds: dict[str, list[float]] = {what: [] for what in commands}
        peak = dict.fromkeys(commands, 0)
        for _ in range(args.rounds):
            for what, command in commands.items():
                start_up, _ = _timed(command, one)
                whole, memory = _timed(command, many)
                seconds[what].append(whole - start_up)
                peak[what] = max(peak[what], memory)
    rates = {what: args.images / statistics.median(each) for what, each in seconds.items()}
    print(f"{args.images:,} photographs, {args.threads} threads, {args.rounds} rounds")
    for what, rate in rates.items():
        ratio = f"{rate / rates['decode']:.2f} of decoding" if "decode" in rates else ""
        print(f"{what:20} {rate:8.0f} images/s   {ratio:20} peak {peak[what] / 1e6:.0f} MB")
    print(json.dumps({"rates": rates, "peak_bytes": peak, "seconds": seconds}))


def _link(files: list[Path], folder: Path, count: int) -> None:
    folder.mkdir()
    for i in range(count):
        (folder / f"{i:07d}.jpg").symlink_to(files[i % len(files)])


def _timed(command: list[str], folder: Path) -> tuple[float, int]:
    command = [str(folder) if part == "" else part for part in command]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"it failed after {time.perf_counter() - start:.0f} s:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start, int(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
