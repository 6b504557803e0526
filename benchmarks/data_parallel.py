"""What training in two processes changes: weights, accuracy and loss beside those of one process.

Command: python benchmarks/data_parallel.py [--presets paper-cnn hemanet] [--seeds 3]

Both train with the same global batch, for a few epochs on the same rendered cells, and are judged
on rendered cells that they have not seen. Networks without batch statistics (paper-cnn) should
differ by rounding alone; the statistics of others (hemanet) are of each process's share of a batch.
What rounding alone makes of many steps is shown by a third run, in one process, that computes
convolutions without oneDNN. The runs are forks, so that torch is imported once.
"""

import argparse
import multiprocessing
import os
import socket
import sys
import tempfile
from importlib import import_module
from io import StringIO
from pathlib import Path

import numpy as np
import torch

from hemascope.__main__ import main as hemascope
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render
from hemascope.metrics.summary import spread
from hemascope.store.model_folder import load_artifact
from hemascope.store.run_folder import RunFolder, RunResults

NUM_VAL, NUM_TEST = 256, 2048
HOW = ("one process", "two processes", "one, without oneDNN")


def write_cells(path: Path, count: int) -> None:
    """Rendered cells in MedMNIST's layout."""
    arrays = {"class_names": np.array(BLOOD_CELLS.names)}
    sizes = {"train": count, "val": NUM_VAL, "test": NUM_TEST}
    for seed, (split, size) in enumerate(sizes.items()):
        labels = np.random.default_rng(seed).integers(len(BLOOD_CELLS), size=size)
        arrays |= {f"{split}_images": render(labels, seed=seed), f"{split}_labels": labels}
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType] - numpy's stub


def work(number: int, port: str, how: str, command: list[str]) -> None:
    """One process of a run."""
    if how == "two processes":
        told = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2, "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in told.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "benchmark"}
    torch.backends.mkldnn.enabled = how != "one, without oneDNN"  # pyright: ignore[reportAttributeAccessIssue]
    sys.argv = ["hemascope", *command]
    sys.stdout = sys.stderr = StringIO()
    hemascope()


def train(how: str, out: Path, *command: str) -> tuple[dict[str, np.ndarray], RunResults]:
    """The weights and results of one run of `hemascope train`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    arguments = ["train", *command, "--out", str(out)]
    processes = [
        multiprocessing.get_context("fork").Process(target=work, args=(i, port, how, arguments))
        for i in range(2 if how == "two processes" else 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0  # noqa: S101
    return load_artifact(out)[1], RunFolder(out).read_results()


def main() -> None:
    """Prints a row for each run, and the spread over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["paper-cnn", "hemanet"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=1500)
    asked = parser.parse_args()
    for module in ("torch._dynamo", "matplotlib.pyplot", "hemascope.workflows.train"):
        import_module(module)
    print(f"{asked.images:,} rendered cells, {asked.epochs} epochs, n = {NUM_TEST:,} test images")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cells(folder / "cells.npz", asked.images)
        fixed = ["--data", str(folder / "cells.npz"), "--precision", "fp32", "--device", "cpu"]
        fixed += ["--epochs", str(asked.epochs), "--views", "1"]
        for preset in asked.presets:
            found: dict[str, list[RunResults]] = {how: [] for how in HOW}
            for seed in range(asked.seeds):
                weights: dict[str, dict[str, np.ndarray]] = {}
                for i, how in enumerate(HOW):
                    out = folder / f"{preset}-{seed}-{i}"
                    command = ["--preset", preset, "--seed", str(seed), *fixed]
                    weights[how], results = train(how, out, *command)
                    found[how].append(results)
                    first = weights[HOW[0]]
                    apart = max(float(np.abs(first[k] - weights[how][k]).max()) for k in first)
                    print(
                        f"{preset}, seed {seed}, {how}: accuracy {100 * results.accuracy:.2f} %, "
                        f"loss {results.loss:.4f}; weights differ by at most {apart:.1e}",
                        flush=True,
                    )
            for how, runs in found.items():
                for what in ("accuracy", "loss"):
                    values = [getattr(run, what) for run in runs]
                    firsts = [getattr(run, what) for run in found[HOW[0]]]
                    mean, change = (
                        spread(values),
                        spread([b - a for a, b in zip(firsts, values, strict=True)]),
                    )
                    print(
                        f"{preset}, {how}: {what} {mean.mean:.4f} ± {mean.sd or 0:.4f}; minus that "
                        f"of one process {change.mean:+.4f} ± {change.sd or 0:.4f} "
                        f"(n = {mean.n} seeds)",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
