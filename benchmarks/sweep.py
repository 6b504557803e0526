"""How much faster several processes search settings than one, on one machine.

    python benchmarks/sweep.py [--trials 12] [--epochs 6] [--images 1600]

Runs `hemascope sweep` on rendered cells, in turns: one process, two that share a journal, and Ray
Tune with a worker for each core, each process of one thread. No trial is stopped early, so all do
the same work. Prints seconds from start to end, and the same without start-up, which is what a
sweep of one trial of one epoch takes. Needs an idle machine with two cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render

_FILE = """
preset = "hemanet-tiny"
trials = {trials}
prune = false
[fixed]
training.epochs = {epochs}
[search]
training.learning_rate = {{ low = 1e-3, high = 0.05, log = true }}
"""
_HEMASCOPE = [sys.executable, "-m", "hemascope"]
_WAYS = {"one process": (1, []), "two processes": (2, []), "Ray Tune": (1, ["--engine", "ray"])}


def main() -> None:
    """Prints a row for each way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=1600)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arrays: dict[str, np.ndarray] = {"class_names": np.array(BLOOD_CELLS.names)}
        counts = {"train": asked.images, "val": 400, "test": 80}
        for seed, (split, count) in enumerate(counts.items()):
            labels = np.arange(count) % len(BLOOD_CELLS)
            images = render(labels, seed=seed)
            arrays |= {f"{split}_images": images, f"{split}_labels": labels}
        np.savez(folder / "cells.npz", **arrays)  # pyright: ignore[reportArgumentType] - numpy's stub
        print(f"{asked.trials} trials of {asked.epochs} epochs, load {os.getloadavg()[0]:.1f}\n")
        print("| | seconds | less start-up | times one process |\n| --- | ---: | ---: | ---: |")
        one = 0.0
        for number, (way, (processes, more)) in enumerate(_WAYS.items()):
            start_up = timed(folder, f"small-{number}", 1, 1, processes, more)
            seconds = timed(folder, f"all-{number}", asked.trials, asked.epochs, processes, more)
            net = seconds - start_up
            one = one or net
            print(f"| {way} | {seconds:.0f} | {net:.0f} | {one / net:.2f} |", flush=True)


def timed(
    folder: Path, name: str, trials: int, epochs: int, processes: int, more: list[str]
) -> float:
    """Seconds of a sweep in so many processes that share a folder."""
    (folder / f"{name}.toml").write_text(_FILE.format(trials=trials, epochs=epochs))
    command = [*_HEMASCOPE, "sweep", f"{name}.toml", "--data", "cells.npz", "--out", name, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    running = [
        subprocess.Popen(
            [*command, *(["--resume"] if number else [])],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        for number in range(processes)
        if not number or waited(folder / name)
    ]
    codes = [process.wait() for process in running]
    if any(codes):
        sys.exit(f"a sweep failed: {' '.join(command)}")
    return time.perf_counter() - start


def waited(folder: Path) -> bool:
    """Whether the first process has claimed the folder, which others join; it takes seconds."""
    until = time.monotonic() + 60
    while not (folder / "journal.log").exists() and time.monotonic() < until:
        time.sleep(0.05)
    return folder.exists()


if __name__ == "__main__":
    main()
