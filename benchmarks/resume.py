"""Kills a training run at random points, resumes it, and compares it with one left in peace.

Command: python benchmarks/resume.py [--kills 20]

Trains a small network on rendered cells with everything that has a state: augmentation, dropout, a
weight average, two optimizers. The process is killed (SIGKILL) and resumed again and again; after
every kill, no finished epoch may be lost and the model must be whole; at the end weights, history
and predictions must be the same to the bit. Exits with 1 if they are not.
"""

import argparse
import csv
import io
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from hemascope.core.classes import BLOOD_CELLS, Split
from hemascope.core.images import Dataset, LabeledImages
from hemascope.data.rendered import render
from hemascope.settings.output import Output
from hemascope.settings.run import ModelSettings, RunSettings, load_preset
from hemascope.store.model_folder import load_artifact
from hemascope.workflows.progress import Reporter
from hemascope.workflows.train import train


class Silent(Reporter):
    """Says nothing."""

    def say(self, text: str) -> None:
        """Drops the line."""
        del text


def settings(epochs: int = 40) -> RunSettings:
    """The preset's recipe on a network small enough to be trained in seconds."""
    preset = load_preset("hemanet")
    model = ModelSettings(
        name="hemanet", options={"stem": 4, "widths": [8, 8], "strides": [2, 2], "dropout": 0.1}
    )
    mixing = preset.training.augmentation.model_copy(update={"mixup": 0.2, "affine": 0.2})
    training = preset.training.model_copy(
        update={"epochs": epochs, "batch_size": 16, "augmentation": mixing}
    )
    changes = {"model": model, "training": training, "device": "cpu", "precision": "fp32"}
    return preset.model_copy(update=changes)


def rendered_cells() -> Dataset:
    """A handful of rendered cells in three splits."""
    splits: dict[Split, LabeledImages] = {}
    for seed, split in enumerate(Split):
        labels = torch.arange(64).remainder(8).numpy()
        ids = tuple(f"{split.value}/{i}" for i in range(64))
        splits[split] = LabeledImages(render(labels, seed=seed), labels, ids)
    return Dataset("rendered cells", splits, BLOOD_CELLS, "benchmarks/resume.py", "0" * 32)


def start(dataset: Dataset, out: Path) -> int:
    """Trains in a process of its own; returns its number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        train(settings(), dataset, Output(out, resume=True), Silent())
        status = 0
    finally:
        os._exit(status)  # without the parent's clean-up


def finished_epochs(out: Path) -> int:
    """Rows of the history that is on disk."""
    path = out / "history.csv"
    return len(path.read_text("utf-8").splitlines()) - 1 if path.is_file() else 0


def left_behind(out: Path) -> dict[str, object]:
    """Everything about a run that must not depend on whether it was interrupted."""
    rows = list(csv.DictReader(io.StringIO((out / "history.csv").read_text("utf-8"))))
    for row in rows:
        del row["train_seconds"]
    names = ("predictions-val.csv", "predictions-test.csv", "predictions-test-views.csv")
    return {
        "history": rows,
        "weights": load_artifact(out)[0].weights_sha256,
        **{name: (out / name).read_text("utf-8") for name in names},
    }


def main() -> int:
    """Runs the comparison; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # no thread may be running when the process forks
    delays = random.Random(arguments.seed)  # noqa: S311 - not a secret
    dataset = rendered_cells()
    with tempfile.TemporaryDirectory() as folder:
        peaceful, killed = Path(folder) / "peaceful", Path(folder) / "killed"
        # Once in this process, so that those it forks find every library imported.
        warm_up = Path(folder) / "warm-up"
        train(settings(1), dataset, Output(warm_up), Silent())
        begin = time.perf_counter()
        child = start(dataset, peaceful)
        while not finished_epochs(peaceful) and time.perf_counter() - begin < 120:
            time.sleep(0.01)
        first = time.perf_counter() - begin
        if os.waitpid(child, 0)[1]:
            print("the run left in peace failed")
            return 1
        others = time.perf_counter() - begin - first
        print(f"first epoch on disk after {first:.1f} s, all results {others:.1f} s later")
        epochs = 0
        for number in range(1, arguments.kills + 1):
            child = start(dataset, killed)
            time.sleep(delays.uniform(0.5 * first, first + 2 * others / arguments.kills))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            now = finished_epochs(killed)
            print(f"kill {number}: {now} of {settings().training.epochs} epochs on disk")
            if now < epochs:
                print(f"lost: there were {epochs}")
                return 1
            if now:
                load_artifact(killed)
            epochs = now
        if os.waitpid(start(dataset, killed), 0)[1]:
            print("the last resumption failed")
            return 1
        differences = [
            what
            for what, value in left_behind(peaceful).items()
            if left_behind(killed)[what] != value
        ]
    print(f"different after {arguments.kills} kills: {', '.join(differences) or 'nothing'}")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
