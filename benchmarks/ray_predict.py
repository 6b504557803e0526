"""How `hemascope predict --engine ray` scales, what it costs over plain `predict`, and its memory.

    python benchmarks/ray_predict.py [--images 100000] [--simulate 1000000] [--size 64]

Renders cells, saves them as PNG in Parquet files of 10,000 (some are repeated: 2,000 are rendered),
and has them answered, each time in processes of their own with one thread each: by plain
`predict`, by one worker and by two, in turns. Rates are without start-up: what 1/10 of the images
takes is taken off. Memory is the peak of resident memory of a worker (Linux), at 1/10 of the
images, at all, and, with --simulate, at so many (the same files, named again and again). Needs an
idle machine with two cores. For a quick look: --images 4000 --rounds 1 --file 500.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hemascope.data.rendered import render

_RENDERED = 2000
_ENGINES = {
    "plain": ["--threads", "1"],
    "ray, 1 worker": ["--engine", "ray", "--workers", "1"],
    "ray, 2 workers": ["--engine", "ray", "--workers", "2"],
}


@dataclass(frozen=True)
class Measured:
    """What a command took: seconds, and bytes of its largest process that answers."""

    seconds: float
    peak_bytes: int


def save_archive(folder: Path, *, images: int, size: int, per_file: int) -> list[Path]:
    """Rendered cells in Parquet files."""
    contents: list[bytes] = []
    for image in render(np.arange(min(_RENDERED, images)) % 8, seed=0, image_size=size):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        contents.append(file.getvalue())
    files: list[Path] = []
    for first in range(0, images, per_file):
        part = [contents[i % len(contents)] for i in range(first, min(first + per_file, images))]
        files.append(folder / f"{first:09}.parquet")
        pq.write_table(pa.table({"image": part}), files[-1], row_group_size=1000)
    return files


def run(files: list[str], engine: str, folder: Path) -> Measured:
    """Runs the command on some files, and watches its processes."""
    out = folder / ("out" if "ray" in engine else "out.parquet")
    command = [sys.executable, "-m", "hemascope", "predict", *files, "--quiet", "--overwrite"]
    command += ["--out", str(out), *_ENGINES[engine]]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    with subprocess.Popen(command, env=environment) as process:
        peaks = dict[int, int]()
        watch = threading.Thread(target=_watch, args=(process, engine, peaks), daemon=True)
        watch.start()
        if code := process.wait():
            raise SystemExit(f"{' '.join(command[-8:])} ended with {code}")
        seconds = time.perf_counter() - start
        watch.join()
    return Measured(seconds, max(peaks.values(), default=0))


def _watch(process: subprocess.Popen[bytes], engine: str, peaks: dict[int, int]) -> None:
    """Notes the peaks of a command's workers, or of itself where it has none."""
    while process.poll() is None:
        itself = Path("/proc") / str(process.pid)
        workers = [path for path in Path("/proc").glob("[0-9]*") if _is_worker(path)]
        for path in workers if "ray" in engine else [itself]:
            with suppress(OSError):  # it has just ended
                status = (path / "status").read_text("ascii").splitlines()
                for line in status:
                    if line.startswith("VmHWM:"):
                        peaks[int(path.name)] = int(line.split()[1]) * 1024
        time.sleep(0.2)


def _is_worker(path: Path) -> bool:
    try:
        return b"MapWorker" in (path / "cmdline").read_bytes()
    except OSError:
        return False


def main() -> None:
    """Prints three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--simulate", type=int, default=0)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--file", type=int, default=10_000, help="Images of a Parquet file.")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{arguments.images:,} images of {arguments.size} pixels, {os.cpu_count()} cores{load}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        saved = save_archive(
            folder, images=arguments.images, size=arguments.size, per_file=arguments.file
        )
        files = list(map(str, saved))
        few = files[: max(len(files) // 10, 1)]
        num_few = sum(pq.read_metadata(file).num_rows for file in few)
        num_bytes = sum(path.stat().st_size for path in saved)
        print(f"archive: {num_bytes / arguments.images:,.0f} bytes an image")
        small: dict[str, list[Measured]] = {engine: [] for engine in _ENGINES}
        large: dict[str, list[Measured]] = {engine: [] for engine in _ENGINES}
        for _ in range(arguments.rounds):
            for engine in _ENGINES:
                small[engine].append(run(few, engine, folder))
                large[engine].append(run(files, engine, folder))
        answers = sum(path.stat().st_size for path in (folder / "out").glob("part-*"))
        print(f"answers: {answers / arguments.images:,.0f} bytes an image\n")
        print("| engine | start-up, s | ms an image | images/s | peak MB, 1/10 | peak MB, all |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        each = dict[str, float]()
        for engine in _ENGINES:
            first = statistics.median(one.seconds for one in small[engine])
            whole = statistics.median(one.seconds for one in large[engine])
            each[engine] = (whole - first) / (arguments.images - num_few)
            peaks = [max(one.peak_bytes for one in runs[engine]) / 1e6 for runs in (small, large)]
            print(
                f"| {engine} | {first - num_few * each[engine]:.1f} | {1000 * each[engine]:.3f} | "
                f"{1 / each[engine]:,.0f} | {peaks[0]:,.0f} | {peaks[1]:,.0f} |"
            )
        plain, one, two = each.values()
        print(f"\none worker over plain: {100 * (one / plain - 1):+.1f} % (goal: at most 15 %)")
        print(f"two workers over one: {one / two:.2f} times (goal: at least 1.8)")
        if arguments.simulate:
            many = [files[i % len(files)] for i in range(-(-arguments.simulate // arguments.file))]
            found = run(many, "ray, 2 workers", folder)
            print(
                f"{len(many) * arguments.file:,} images: peak {found.peak_bytes / 1e6:,.0f} MB a "
                f"worker, {found.seconds:,.0f} s"
            )


if __name__ == "__main__":
    main()
