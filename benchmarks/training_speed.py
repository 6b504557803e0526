"""How fast `fit` trains the study's CNN beside a plain hand-written PyTorch loop, in one run.

Command: python benchmarks/training_speed.py --data FILE.npz [--rounds 5] [--seeds 5]

Every round times two epochs of each loop, in a new order, on the same images, evaluation of the
test split included: the plain loop as the study has it (float images in memory, Adam, contiguous
tensors), ours in exact fp32, and ours in bf16. Ours also evaluates val. The ratios are of medians.
With --seeds, whole trainings in both precisions follow, to compare their accuracies.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from hemascope.config import Precision, load_preset
from hemascope.core import Split
from hemascope.data import load
from hemascope.data.dataset import Dataset
from hemascope.metrics.summary import spread
from hemascope.models import build_model
from hemascope.training.loop import fit, initialize

CPU = torch.device("cpu")
SETTINGS = load_preset("paper-cnn")
EPOCHS = 2


def new_model(seed: int) -> nn.Module:
    """The study's CNN, He-initialized."""
    torch.manual_seed(seed)
    model = build_model(SETTINGS.model, image_size=28, num_classes=8)
    initialize(model)
    return model


class PlainLoop:
    """The study's loop, written by hand; its tensors are made beforehand and not timed."""

    def __init__(self, dataset: Dataset) -> None:
        self.tensors = {
            split: (
                torch.from_numpy(part.images).permute(0, 3, 1, 2).contiguous().float() / 255,
                torch.from_numpy(part.labels),
            )
            for split, part in dataset.splits.items()
        }

    def __call__(self) -> None:
        """Trains for EPOCHS epochs and evaluates the test split after each."""
        model = new_model(0)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
        criterion = nn.CrossEntropyLoss()
        images, labels = self.tensors[Split.TRAIN]
        test_images, test_labels = self.tensors[Split.TEST]
        for _ in range(EPOCHS):
            model.train()
            order = torch.randperm(len(labels))
            total_loss = 0.0
            for first in range(0, len(labels), 128):
                chosen = order[first : first + 128]
                optimizer.zero_grad()
                loss = criterion(model(images[chosen]), labels[chosen])
                loss.backward()
                optimizer.step()
                total_loss += loss.item()
            model.eval()
            with torch.no_grad():
                for first in range(0, len(test_labels), 128):
                    batch = slice(first, first + 128)
                    criterion(model(test_images[batch]), test_labels[batch]).item()


def ours(
    dataset: Dataset, precision: Precision, *, seed: int = 0, epochs: int = EPOCHS
) -> float | None:
    """Trains with `fit`; returns the last epoch's test accuracy."""
    settings = SETTINGS.training.model_copy(update={"epochs": epochs})
    splits = dataset.splits
    *_, last = fit(
        new_model(seed),
        splits[Split.TRAIN],
        splits[Split.VAL],
        settings,
        classes=dataset.classes,
        seed=seed,
        device=CPU,
        precision=precision,
        watched=splits[Split.TEST],
    )
    return last.test_accuracy


def main() -> None:
    """Prints times, ratios and accuracies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="bloodmnist")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=0)
    arguments = parser.parse_args()
    dataset = load(arguments.data)
    loops: dict[str, Callable[[], object]] = {
        "plain": PlainLoop(dataset),
        "fp32": lambda: ours(dataset, "fp32"),
        "bf16": lambda: ours(dataset, "bf16"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for round_number in range(arguments.rounds + 1):
        for name in random.sample(list(loops), len(loops)):
            start = time.perf_counter()
            loops[name]()
            if round_number > 0:  # the first round warms up
                seconds[name].append((time.perf_counter() - start) / EPOCHS)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{dataset.title}, {torch.get_num_threads()} threads, {arguments.rounds} rounds")
    for name, values in seconds.items():
        low, high = min(values), max(values)
        print(f"{name:<6} {medians[name]:.2f} s an epoch (from {low:.2f} to {high:.2f})")
    print(f"fp32 / plain {medians['fp32'] / medians['plain']:.2f} (goal: at most 1.03)")
    print(f"bf16 / plain {medians['bf16'] / medians['plain']:.2f} (goal: at most 0.65)")
    print(f"bf16 / fp32  {medians['bf16'] / medians['fp32']:.2f}")
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions if arguments.seeds else ():
        epochs = SETTINGS.training.epochs
        accuracies = [
            ours(dataset, precision, seed=seed, epochs=epochs) or 0.0
            for seed in range(arguments.seeds)
        ]
        result = spread(accuracies)
        listed = ", ".join(f"{100 * value:.2f}" for value in accuracies)
        sd = f" ± {100 * result.sd:.2f}" if result.sd is not None else ""
        print(f"{precision} test accuracy {100 * result.mean:.2f}{sd} % (n = {result.n}: {listed})")


if __name__ == "__main__":
    main()
