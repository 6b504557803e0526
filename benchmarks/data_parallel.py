"""What training in two processes changes: weights, accuracy and loss beside those of one process.

Command: python benchmarks/data_parallel.py [--presets paper-cnn hemanet] [--seeds 3]

Both train with the same global batch on the same rendered cells, and are judged on rendered cells
that they have not seen. Networks without batch statistics (paper-cnn) should differ by rounding
alone; the statistics of others (hemanet) are of each process's share of a batch. What rounding
alone makes of many steps is shown by a third run, in one process, that computes convolutions
without oneDNN. The runs are forks, so that torch is imported once.
"""

import argparse
import multiprocessing
import os
import socket
import tempfile
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hemascope.core.images import LabeledImages
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render
from hemascope.metrics.summary import spread
from hemascope.settings.run import load_preset
from hemascope.training import loop, parallel
from hemascope.training.state import TrainingState
from hemascope.training.task import ClassificationTask

NUM_VAL, NUM_TEST = 64, 2048
ONE, TWO, OTHER = "one process", "two processes", "one, without oneDNN"
FIGURES = ("accuracy", "loss")


def cells(count: int, seed: int) -> LabeledImages:
    """Rendered cells."""
    labels = np.random.default_rng(seed).integers(len(BLOOD_CELLS), size=count)
    return LabeledImages(render(labels, seed=seed), labels, tuple(map(str, range(count))))


def work(rank: int, port: str, how: str, asked: argparse.Namespace, out: Path) -> None:
    """One process of a run; the first one saves weights and figures."""
    if how == TWO:
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in told.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "benchmark"}
    settings, cpu = load_preset(asked.preset), torch.device("cpu")
    training = settings.training.model_copy(update={"epochs": asked.epochs})
    train, val, test = (cells(n, i) for i, n in enumerate((asked.images, NUM_VAL, NUM_TEST)))
    with parallel.joined("cpu"), torch.backends.mkldnn.flags(enabled=how != OTHER):
        torch.manual_seed(asked.seed)
        model = loop.fresh_model(settings, image_size=28, num_classes=len(BLOOD_CELLS))
        state = TrainingState(model, training, seed=asked.seed, device=cpu)
        task = ClassificationTask(train, state, classes=BLOOD_CELLS)
        history = list(loop.fit(state, task, val))
        if parallel.rank() == 0:
            found = task.evaluate(state.result, test)
            figures = {name: np.array(found[name]) for name in FIGURES}
            weights = {name: tensor.numpy() for name, tensor in state.result.state_dict().items()}
            seconds = np.array(sum(record.seconds for record in history))
            np.savez(out, seconds=seconds, **figures, **weights)  # pyright: ignore[reportArgumentType]


def train(how: str, asked: argparse.Namespace, out: Path) -> dict[str, NDArray[np.float64]]:
    """The figures and weights of one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        multiprocessing.get_context("fork").Process(target=work, args=(i, port, how, asked, out))
        for i in range(2 if how == TWO else 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)
    with np.load(out) as content:
        return dict(content)


def main() -> None:
    """Prints a row for each run, and the spread over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["paper-cnn", "hemanet"])
    parser.add_argument("--control", nargs="*", default=["paper-cnn"], help="with the third run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=700)
    asked = parser.parse_args()
    import_module("torch._dynamo")
    print(f"{asked.images:,} rendered cells, {asked.epochs} epochs, n = {NUM_TEST:,} test images")
    with tempfile.TemporaryDirectory() as name:
        for preset in asked.presets:
            asked.preset = preset
            ways = (ONE, TWO, OTHER) if preset in asked.control else (ONE, TWO)
            found: dict[str, list[dict[str, NDArray[np.float64]]]] = {how: [] for how in ways}
            for seed in range(asked.seeds):
                asked.seed = seed
                for how, runs in found.items():
                    runs.append(train(how, asked, Path(name) / "run.npz"))
                    first, own = found[ONE][-1], runs[-1]
                    names = set(own) - {*FIGURES, "seconds"}
                    apart = max(np.abs(first[key] - own[key]).max() for key in names)
                    print(
                        f"{preset}, seed {seed}, {how}: accuracy "
                        f"{100 * own['accuracy']:.2f} %, loss {own['loss']:.4f}, "
                        f"{own['seconds']:.0f} s; weights differ by at most {apart:.1e}",
                        flush=True,
                    )
            for how, runs in found.items():
                for what in FIGURES:
                    values = [run[what].item() for run in runs]
                    pairs = zip(values, found[ONE], strict=True)
                    mean, change = (
                        spread(values),
                        spread([v - one[what].item() for v, one in pairs]),
                    )
                    print(
                        f"{preset}, {how}: {what} {mean.mean:.4f} ± {mean.sd or 0:.4f}; less "
                        f"one process's {change.mean:+.4f} ± {change.sd or 0:.4f} (n = {mean.n})",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
