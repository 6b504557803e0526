"""What the analyses of saved predictions cost at very many test images.

Command: python benchmarks/saved_growth.py --images 10000,100000

Trains a small network on rendered cells, gives two copies of its run random predictions of so many
val and test images, and runs each command in a fresh process; `explain` gets random pixels.
"""

import argparse
import shutil
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from fresh import COMMAND, cost
from hemascope.core.classes import Split
from hemascope.core.predictions import Predictions
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render
from hemascope.metrics import evaluate_all
from hemascope.report.text import results_text
from hemascope.store.predictions import write_predictions
from hemascope.store.run_folder import RunFolder

TRAIN = "train --preset paper-mlnn --epochs 1 --data few.npz --collection bloodmnist --out first"
COMMANDS = {
    "compare": "compare first second --out compared",
    "trust": "trust first second --out trust",
    "explain": "explain first --data many.npz --collection bloodmnist --split test --out why",
    "report": "report first",
}
REPORT = """
import sys
from pathlib import Path
from hemascope.report.run_page import write_run_page
from hemascope.store.run_folder import RunFolder
write_run_page(RunFolder(Path(sys.argv[2])))
"""


def random_run(folder: RunFolder, name: str, count: int, seed: int) -> None:
    """Replaces a run's predictions by random ones that lean towards the truth."""
    for number, split in enumerate(("val", "test")):
        labels = np.random.default_rng(number).integers(0, 8, size=count)
        logits = np.random.default_rng(seed + number).normal(size=(count, 8)).astype(np.float32)
        logits[np.arange(count), labels] += 2
        ids = tuple(f"{split}/{i}" for i in range(count))
        found = Predictions(ids, logits, labels, BLOOD_CELLS)
        write_predictions(folder.predictions(split), found)
    figures = evaluate_all(found)  # pyright: ignore[reportPossiblyUnboundVariable]
    results = folder.read_results().model_copy(update={**dict(figures), "name": name})
    folder.write_results(results, results_text(results))


class Elements(HTMLParser):
    """Counts the elements of a page."""

    count = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Counts one."""
        del tag, attrs
        self.count += 1


def written(folder: Path, before: dict[Path, int]) -> str:
    """What a command wrote into a folder: its page and the elements in it, and its largest file."""
    new = [
        path
        for path in folder.rglob("*")
        if path.is_file() and before.get(path) != path.stat().st_mtime_ns
    ]
    page = next((path for path in new if path.suffix == ".html"), None)
    shown = " | "
    if page:
        elements = Elements()
        elements.feed(page.read_text("utf-8"))
        shown = f"{page.stat().st_size / 1e6:.1f} | {elements.count:,}"
    largest = max(new, key=lambda path: path.stat().st_size)
    return f"{shown} | {largest.stat().st_size / 1e6:.1f} ({largest.name})"


def save_data(folder: Path, count: int) -> None:
    """A few cells to train on, and random pixels to explain."""
    rng, arrays = np.random.default_rng(0), dict[str, np.ndarray]()
    for split in Split:
        labels = np.arange(64) % 8
        arrays[f"{split}_images"] = render(labels, seed=len(split))
        arrays[f"{split}_labels"] = labels.reshape(-1, 1).astype(np.uint8)
    np.savez(folder / "few.npz", **arrays)  # pyright: ignore[reportArgumentType]
    arrays["test_images"] = rng.integers(0, 256, (count, 28, 28, 3), dtype=np.uint8)
    arrays["test_labels"] = rng.integers(0, 8, (count, 1)).astype(np.uint8)
    np.savez(folder / "many.npz", **arrays)  # pyright: ignore[reportArgumentType]


def main() -> None:
    """Prints a row for each command and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", default="10000,100000")
    parser.add_argument("--commands", default=",".join(COMMANDS))
    arguments = parser.parse_args()
    print(
        "| command | images | seconds | CPU seconds | peak GB | page MB | its elements "
        "| largest file, MB |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for count in map(int, arguments.images.split(",")):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            save_data(folder, count)
            cost(COMMAND, *TRAIN.split(), folder=folder)
            shutil.copytree(folder / "first", folder / "second")
            for seed, run in ((10, "first"), (20, "second")):
                random_run(RunFolder(folder / run), run, count, seed)
            for command in arguments.commands.split(","):
                before = {
                    path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()
                }
                program = REPORT if command == "report" else COMMAND
                found = cost(program, *COMMANDS[command].split(), folder=folder)
                row = f"{found.seconds:.0f} | {found.busy:.0f} | {found.peak_gb:.2f}"
                print(f"| {command} | {count:,} | {row} | {written(folder, before)} |", flush=True)


if __name__ == "__main__":
    main()
