"""What the analyses of saved predictions cost at very many test images.

Command: python benchmarks/saved_growth.py --images 10000,100000

Trains a small network on rendered cells, gives two copies of its run random predictions of so many
val and test images, and runs each command in a fresh process; `explain` gets random pixels.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from hemascope.core.predictions import Predictions
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render
from hemascope.metrics import evaluate_all
from hemascope.report.text import results_text
from hemascope.store.predictions import write_predictions
from hemascope.store.run_folder import RunFolder

COMMAND = """
import sys, time
start = time.perf_counter()
if sys.argv[1] == "report":
    from pathlib import Path
    from hemascope.report.run_page import write_run_page
    from hemascope.store.run_folder import RunFolder
    write_run_page(RunFolder(Path(sys.argv[2])))
else:
    from hemascope.__main__ import main
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(time.perf_counter() - start, time.process_time(), peak * 1024 / 1e9)
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


def main() -> None:
    """Prints a row for each command and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", default="10000,100000")
    parser.add_argument("--commands", default="compare,trust,explain,report")
    arguments = parser.parse_args()
    print("| command | images | seconds | CPU seconds | peak GB |")
    print("| --- | ---: | ---: | ---: | ---: |", flush=True)
    for count in map(int, arguments.images.split(",")):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            rng, arrays = np.random.default_rng(0), dict[str, np.ndarray]()
            for split, size in (("train", 64), ("val", 64), ("test", 64)):
                labels = np.arange(size) % 8
                arrays[f"{split}_images"] = render(labels, seed=len(split))
                arrays[f"{split}_labels"] = labels.reshape(-1, 1).astype(np.uint8)
            np.savez(folder / "few.npz", **arrays)  # pyright: ignore[reportArgumentType]
            arrays["test_images"] = rng.integers(0, 256, (count, 28, 28, 3), dtype=np.uint8)
            arrays["test_labels"] = rng.integers(0, 8, (count, 1)).astype(np.uint8)
            np.savez(folder / "many.npz", **arrays)  # pyright: ignore[reportArgumentType]
            data, first, second = (
                ["--collection", "bloodmnist"],
                folder / "first",
                folder / "second",
            )
            _run(
                [
                    "train",
                    "--preset",
                    "paper-mlnn",
                    "--epochs",
                    "1",
                    "--out",
                    first,
                    *data,
                    "--data",
                    folder / "few.npz",
                ]
            )
            shutil.copytree(first, second)
            for seed, run in ((10, first), (20, second)):
                random_run(RunFolder(run), run.name, count, seed)
            many = ["--data", folder / "many.npz", *data, "--split", "test"]
            for words in (
                ["compare", first, second, "--out", folder / "compared"],
                ["trust", first, second, "--out", folder / "trust"],
                ["explain", first, *many, "--out", folder / "why"],
                ["report", first],
            ):
                if words[0] not in arguments.commands:
                    continue
                seconds, busy, peak = _run(words)
                print(
                    f"| {words[0]} | {count:,} | {seconds:.0f} | {busy:.0f} | {peak:.2f} |",
                    flush=True,
                )


def _run(words: list[str | Path]) -> list[float]:
    """Seconds, those of processors, and gigabytes."""
    command = [sys.executable, "-c", COMMAND, *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(cost) for cost in done.stdout.splitlines()[-1].split()]


if __name__ == "__main__":
    main()
