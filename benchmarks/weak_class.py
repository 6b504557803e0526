"""What each remedy for a weak class does to it, and at what price elsewhere.

Command: python benchmarks/weak_class.py --data FILE.npz --out runs/weak [--preset hemanet-tiny]
         [--seeds 0,1,2] [--class monocyte]

Trains the preset once with every remedy and seed, as `hemascope train` with the one flag does, and
prints what `hemascope table runs/weak --class monocyte` prints. Runs that are there are kept.
"""

import argparse
from pathlib import Path
from typing import Any

from hemascope.data import load
from hemascope.data.source import Request
from hemascope.report.table import read_results, table_text
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.workflows.plan import choose_settings, parse_seeds
from hemascope.workflows.progress import Reporter
from hemascope.workflows.train import train


def remedies(class_name: str) -> dict[str, dict[str, Any]]:
    """The changes to the preset, by the name of the remedy."""
    return {
        "plain": {},
        "focal": {"training.loss": "focal"},
        "weighted": {"training.loss": "weighted"},
        "class-balanced": {"training.loss": "class-balanced"},
        "balanced-draws": {"training.balanced": True},
        "augment-only": {"training.augmentation.only_classes": [class_name]},
    }


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="bloodmnist")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="hemanet-tiny")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--class", dest="class_name", default="monocyte")
    arguments = parser.parse_args()
    dataset, reporter = load(Request(DataSettings(sources=(arguments.data,)))), Reporter()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in parse_seeds(arguments.seeds):
        for remedy, changes in remedies(arguments.class_name).items():
            name = f"{arguments.preset}-{remedy}"
            settings = choose_settings(
                arguments.preset, None, {**changes, "name": name, "seed": seed}
            )
            out = arguments.out / f"{name}-seed{seed}"
            train(settings, dataset, Output(out, resume=True), reporter)
    print(table_text(read_results([arguments.out]), arguments.class_name))


if __name__ == "__main__":
    main()
