"""Training from shards beside training from memory: images a second, and under a limit of memory.

Command: python benchmarks/shards.py [--rounds 5]
         python benchmarks/shards.py --limit 700 --set 1000   (MB; as root, on Linux)

Without a limit, one process trains epochs of paper-cnn by turns on the same images in memory and in
64 shards; the ratios are of the medians, on the clock and of the processor's time, which other
work on the machine changes less. With one, `hemascope train` trains a small network for an
epoch on a set that is larger, in a control group that may use no more memory than the limit, page
cache included: once from shards, and once from the same images as an .npz file.
"""

import argparse
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hemascope.core.classes import Split
from hemascope.core.images import Dataset, LabeledImages, stored
from hemascope.data import load
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render
from hemascope.data.shards import write_shards
from hemascope.data.source import Request
from hemascope.settings.data import DataSettings
from hemascope.settings.run import load_preset
from hemascope.store.run_folder import RunFolder
from hemascope.training import loop
from hemascope.training.state import TrainingState
from hemascope.training.task import ClassificationTask

NUM_SHARDS, NUM_IMAGES = 64, 4096
CGROUPS = Path("/sys/fs/cgroup")
TINY = """
name = "tiny"
[model]
name = "mlnn"
options = {hidden_widths = [16]}
[training]
epochs = 1
learning_rate = 0.001
"""
RUN = """
import os, sys
if sys.argv[1]:
    open(sys.argv[1], "w").write(str(os.getpid()))
del sys.argv[1]
from hemascope.__main__ import main
main()
"""


def cells(count: int, size: int, *, repeats: int = 1) -> Dataset:
    """Rendered cells in three splits; those of train so many times over, which take no memory.

    Larger ones than 32 pixels are enlarged: rendering them would take longer than training.
    """
    drawn = min(size, 32)
    splits: dict[Split, LabeledImages] = {}
    for seed, split in enumerate(Split):
        number = count if split is Split.TRAIN else 256
        labels = np.arange(number) % len(BLOOD_CELLS)
        images = render(labels, seed=seed, image_size=drawn)
        images = images.repeat(size // drawn, axis=1).repeat(size // drawn, axis=2)
        if split is Split.TRAIN and repeats > 1:
            images, labels = stored([images] * repeats), np.tile(labels, repeats)
        ids = tuple(f"{split}/{i}" for i in range(len(labels)))
        splits[split] = LabeledImages(images, labels, ids)
    dataset = Dataset("rendered cells", splits, BLOOD_CELLS, "", "0" * 32, kind="rendered")
    return replace(dataset, spec=dataset.spec.model_copy(update={"size": size}))


def epoch(dataset: Dataset) -> tuple[float, float]:
    """Images a second in an epoch of the study's CNN: on the clock, and of the processor's time."""
    settings = load_preset("paper-cnn")
    training = settings.training.model_copy(update={"epochs": 1})
    torch.manual_seed(0)
    model = loop.fresh_model(settings, image_size=dataset.image_size, num_classes=8)
    state = TrainingState(model, training, seed=0, device=torch.device("cpu"))
    task = ClassificationTask(dataset.splits[Split.TRAIN], state, classes=dataset.classes)
    start = time.process_time()
    [record] = loop.fit(state, task, dataset.splits[Split.VAL])
    return len(task) / record.seconds, len(task) / (time.process_time() - start)


def throughput(rounds: int) -> None:
    """Prints images a second of both, and the ratio."""
    memory = cells(NUM_IMAGES, 28)
    with tempfile.TemporaryDirectory() as name:
        write_shards(memory, Path(name), rows=NUM_IMAGES // NUM_SHARDS)
        on_disk = load(Request(DataSettings(sources=(name,))))
        found: dict[str, list[tuple[float, float]]] = {"in memory": [], "shards": []}
        for _ in range(rounds + 1):  # the first one warms up
            for where, dataset in random.sample([("in memory", memory), ("shards", on_disk)], 2):
                found[where].append(epoch(dataset))
    for number, how in enumerate(("a second", "a second of the processor's time")):
        speeds = {where: [one[number] for one in values[1:]] for where, values in found.items()}
        for where, values in speeds.items():
            low, high = min(values), max(values)
            median = statistics.median(values)
            print(f"{where:<10} {median:>6,.0f} images {how} (from {low:,.0f} to {high:,.0f})")
        ratio = statistics.median(speeds["shards"]) / statistics.median(speeds["in memory"])
        print(f"shards against memory: {100 * ratio:.1f} % (n = {rounds} epochs each; goal 90 %)")


def limited(limit: int, total: int, minutes: float) -> None:
    """Trains from shards and from an .npz file, and prints what came of each."""
    size, at_once = 128, 1024
    bytes_each = 3 * size**2
    dataset = cells(at_once, size, repeats=total * 10**6 // (at_once * bytes_each))
    count = len(dataset.splits[Split.TRAIN])
    print(
        f"{count:,} images of {size} pixels: {count * bytes_each / 1e6:,.0f} MB; limit {limit} MB",
        flush=True,
    )
    old = CGROUPS / "memory"
    group = (old if old.is_dir() else CGROUPS) / "hemascope-shards"
    group.mkdir(exist_ok=True)
    (group / ("memory.limit_in_bytes" if old.is_dir() else "memory.max")).write_text(
        str(limit * 10**6)
    )
    try:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
            folder = Path(name).resolve()
            (folder / "tiny.toml").write_text(TINY)
            (folder / "shards").mkdir()
            write_shards(dataset, folder / "shards")
            arrays = {"class_names": np.array(BLOOD_CELLS.names)}
            for split, part in dataset.splits.items():
                arrays |= {f"{split}_images": part.images[:], f"{split}_labels": part.labels}
            np.savez(folder / "all.npz", **arrays)  # pyright: ignore[reportArgumentType]
            for data, procs in (
                ("shards", ""),
                ("shards", str(group / "cgroup.procs")),
                ("all.npz", str(group / "cgroup.procs")),
            ):
                out = folder / f"run-{data}-{bool(procs)}"
                command = ["train", "--config", "tiny.toml", "--data", data, "--out", str(out)]
                start = time.perf_counter()
                how = f"{data}, {'with' if procs else 'without'} the limit"
                try:
                    done = subprocess.run(
                        [sys.executable, "-c", RUN, procs, *command, "--device", "cpu"],
                        cwd=folder,
                        capture_output=True,
                        text=True,
                        check=False,
                        timeout=minutes * 60,
                    )
                except subprocess.TimeoutExpired:
                    print(f"{how}: stopped after {minutes} minutes", flush=True)
                    continue
                seconds = time.perf_counter() - start
                if done.returncode == 0:
                    speed = count / (RunFolder(out).read_results().train_seconds or 1)
                    print(
                        f"{how}: {speed:,.0f} images a second, {seconds:.0f} s in all", flush=True
                    )
                else:
                    last = (done.stderr.splitlines() or [""])[-1]
                    code = done.returncode
                    ended = signal.Signals(-code).name if code < 0 else f"code {code}: {last}"
                    print(f"{how}: ended by {ended} after {seconds:.0f} s", flush=True)
    finally:
        group.rmdir()


def main() -> None:
    """Measures one or the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=int, help="MB of memory")
    parser.add_argument("--set", type=int, default=1000, help="MB of images")
    parser.add_argument("--minutes", type=float, default=5, help="for each run under a limit")
    asked = parser.parse_args()
    if asked.limit:
        limited(asked.limit, asked.set, asked.minutes)
    else:
        throughput(asked.rounds)


if __name__ == "__main__":
    main()
