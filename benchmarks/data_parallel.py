"""What training in two processes changes: weights, accuracy and loss beside those of one process.

Command: python benchmarks/data_parallel.py [--presets paper-cnn hemanet] [--seeds 3]

Both train with the same global batch, for a few epochs on the same rendered cells, and are judged
on rendered cells that they have not seen. Networks without batch statistics (paper-cnn) should
differ by rounding alone; the statistics of others (hemanet) are of each process's share of a batch.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render
from hemascope.metrics.summary import spread
from hemascope.store.model_folder import load_artifact
from hemascope.store.run_folder import RunFolder

NUM_VAL, NUM_TEST = 256, 2048


def write_cells(path: Path, count: int) -> None:
    """Rendered cells in MedMNIST's layout."""
    arrays = {"class_names": np.array(BLOOD_CELLS.names)}
    sizes = {"train": count, "val": NUM_VAL, "test": NUM_TEST}
    for seed, (split, size) in enumerate(sizes.items()):
        labels = np.random.default_rng(seed).integers(len(BLOOD_CELLS), size=size)
        arrays |= {f"{split}_images": render(labels, seed=seed), f"{split}_labels": labels}
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType] - numpy's stub


def train(preset: str, seed: int, epochs: int, data: Path, out: Path, *options: str) -> RunFolder:
    """One run of `hemascope train`."""
    command = ["train", "--preset", preset, "--seed", str(seed), "--epochs", str(epochs)]
    fixed = ["--data", str(data), "--out", str(out), "--precision", "fp32", "--views", "1"]
    program = [sys.executable, "-m", "hemascope", *command, *fixed, "--device", "cpu", *options]
    subprocess.run(program, check=True, capture_output=True)
    return RunFolder(out)


def main() -> None:
    """Prints a row for each run of two, and the spread over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["paper-cnn", "hemanet"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=1500)
    asked = parser.parse_args()
    print(f"{asked.images:,} rendered cells, {asked.epochs} epochs, n = {NUM_TEST:,} test images")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cells(folder / "cells.npz", asked.images)
        for preset in asked.presets:
            found: list[tuple[float, float, float, float]] = []
            for seed in range(asked.seeds):
                one, two = (
                    train(preset, seed, asked.epochs, folder / "cells.npz", folder / out, *options)
                    for out, options in (
                        (f"{preset}-{seed}-one", ()),
                        (f"{preset}-{seed}-two", ("--devices", "2")),
                    )
                )
                weights = [load_artifact(run.path)[1] for run in (one, two)]
                apart = max(float(np.abs(weights[0][k] - weights[1][k]).max()) for k in weights[0])
                first, second = one.read_results(), two.read_results()
                found.append((first.accuracy, second.accuracy, first.loss, second.loss))
                print(
                    f"{preset}, seed {seed}: weights differ by at most {apart:.1e}; accuracy "
                    f"{100 * first.accuracy:.2f} % and {100 * second.accuracy:.2f} %, loss "
                    f"{first.loss:.4f} and {second.loss:.4f}; training {first.train_seconds:.0f} "
                    f"and {second.train_seconds:.0f} s",
                    flush=True,
                )
            columns = np.array(found).T.tolist()
            labels = ("accuracy, one", "accuracy, two", "loss, one", "loss, two")
            columns += [
                [b - a for a, b in zip(columns[i], columns[i + 1], strict=True)] for i in (0, 2)
            ]
            for label, values in zip(
                (*labels, "accuracy, two - one", "loss, two - one"), columns, strict=True
            ):
                result = spread(values)
                sd = f" ± {result.sd:.4f}" if result.sd is not None else ""
                print(f"{preset}: {label}: {result.mean:.4f}{sd} (n = {result.n} seeds)")


if __name__ == "__main__":
    main()
