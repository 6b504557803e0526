"""How fast the study's CNN trains beside a plain hand-written PyTorch loop, in one run.

Command: python benchmarks/training_speed.py --data FILE.npz [--rounds 5] [--seeds 5]
         python benchmarks/training_speed.py --data cells.csv --image-size 64

Every round times an epoch of each, in a new order, on the same images, evaluation of the test split
included:

- plain: the loop as the study has it, on float images (N, 3, H, H) that are made beforehand;
- plain, our tensors: the same loop on the uint8 images (N, H, H, 3) that ours keeps in memory;
- fp32, and bf16 where the processor has it: the workflow of `hemascope train`, which also evaluates
  val, and writes history, model and checkpoint after every epoch.

An epoch is timed after a first one has warmed up. The ratios are of medians. With --seeds, whole
trainings in both precisions follow, to compare their accuracies.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from hemascope.core.classes import Split
from hemascope.core.images import Dataset
from hemascope.data import load
from hemascope.data.source import Request
from hemascope.inference.torch_engine import pick_precision, to_input
from hemascope.metrics.summary import spread
from hemascope.models import build_model
from hemascope.settings.compute import Precision
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.settings.run import load_preset
from hemascope.training.loop import initialize
from hemascope.workflows.progress import Reporter
from hemascope.workflows.train import train

SETTINGS = load_preset("paper-cnn")


class Clock(Reporter):
    """Notes the time of every line that the workflow says: one at the end of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def say(self, text: str) -> None:
        """Notes the time and stays silent."""
        del text
        self.times.append(time.perf_counter())


class PlainLoop:
    """The study's loop, written by hand; its tensors are made beforehand and not timed."""

    def __init__(self, dataset: Dataset, *, our_tensors: bool) -> None:
        self.prepare: Callable[[Tensor], Tensor] = (
            to_input if our_tensors else lambda images: images
        )
        self.image_size, self.num_classes = dataset.spec.size, len(dataset.classes)
        self.tensors: dict[Split, tuple[Tensor, Tensor]] = {}
        for split, part in dataset.splits.items():
            images = torch.from_numpy(part.images)
            if not our_tensors:
                images = images.permute(0, 3, 1, 2).contiguous().float() / 255
            self.tensors[split] = images, torch.from_numpy(part.labels)

    def __call__(self) -> float:
        """Trains for two epochs, evaluates test after each, returns the second one's seconds."""
        torch.manual_seed(0)
        model = build_model(
            SETTINGS.model, image_size=self.image_size, num_classes=self.num_classes
        )
        initialize(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
        criterion = nn.CrossEntropyLoss()
        images, labels = self.tensors[Split.TRAIN]
        test_images, test_labels = self.tensors[Split.TEST]
        start = 0.0
        for _ in range(2):
            start = time.perf_counter()
            model.train()
            order = torch.randperm(len(labels))
            total_loss = 0.0
            for first in range(0, len(labels), 128):
                chosen = order[first : first + 128]
                optimizer.zero_grad()
                loss = criterion(model(self.prepare(images[chosen])), labels[chosen])
                loss.backward()
                optimizer.step()
                total_loss += loss.item()
            model.eval()
            with torch.no_grad():
                for first in range(0, len(test_labels), 128):
                    batch = slice(first, first + 128)
                    logits = model(self.prepare(test_images[batch]))
                    criterion(logits, test_labels[batch]).item()
        return time.perf_counter() - start


def ours(
    dataset: Dataset, precision: Precision, *, seed: int = 0, epochs: int = 2
) -> tuple[float, float]:
    """Trains as `hemascope train` does; returns the last epoch's seconds and the accuracy."""
    training = SETTINGS.training.model_copy(update={"epochs": epochs})
    changes = {"training": training, "precision": precision, "seed": seed, "device": "cpu"}
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        settings = SETTINGS.model_copy(update=changes)
        run = train(settings, dataset, Output(Path(folder) / "run"), clock)
        accuracy = run.read_results().accuracy
    return clock.times[-1] - clock.times[-2], accuracy


def main() -> None:
    """Prints times, ratios and accuracies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="bloodmnist")
    parser.add_argument("--image-size", type=int, help="default: the data's own, else 28")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=0)
    arguments = parser.parse_args()
    asked = DataSettings(sources=(arguments.data,), image_size=arguments.image_size)
    dataset = load(Request(asked))
    loops: dict[str, Callable[[], float]] = {
        "plain": PlainLoop(dataset, our_tensors=False),
        "plain, our tensors": PlainLoop(dataset, our_tensors=True),
        "fp32": lambda: ours(dataset, "fp32")[0],
    }
    fastest = pick_precision("auto", torch.device("cpu"))
    if fastest == "bf16":
        loops["bf16"] = lambda: ours(dataset, "bf16")[0]
    else:
        print("bf16 is left out: this processor would emulate it")
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(arguments.rounds):
        for name in random.sample(list(loops), len(loops)):
            seconds[name].append(loops[name]())
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{dataset.title}, {dataset.spec.size} pixels")
    print(f"{torch.get_num_threads()} threads, {arguments.rounds} rounds")
    for name, values in seconds.items():
        low, high = min(values), max(values)
        print(f"{name:<19} {medians[name]:.2f} s an epoch (from {low:.2f} to {high:.2f})")
    for base in ("plain", "plain, our tensors"):
        for name, goal in (("fp32", 1.03), ("bf16", 0.65)):
            if name in medians:
                print(f"{name} against {base}: {medians[name] / medians[base]:.2f} (goal {goal})")
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if fastest == "bf16" else ("fp32",)
    for precision in precisions if arguments.seeds else ():
        epochs = SETTINGS.training.epochs
        seeds = range(arguments.seeds)
        accuracies = [ours(dataset, precision, seed=s, epochs=epochs)[1] for s in seeds]
        result = spread(accuracies)
        listed = ", ".join(f"{100 * value:.2f}" for value in accuracies)
        sd = f" ± {100 * result.sd:.2f}" if result.sd is not None else ""
        print(f"{precision} test accuracy {100 * result.mean:.2f}{sd} % (n = {result.n}: {listed})")


if __name__ == "__main__":
    main()
