"""Peak memory of a training run above a process that has only imported the same libraries.

Command: python benchmarks/memory.py --data FILE.npz

Two fresh processes: one runs `hemascope train --preset paper-cnn --epochs 2`, the other imports
every module that the first one ended with, and does nothing.
"""

import argparse
import json
import tempfile
from pathlib import Path

from fresh import COMMAND, cost

# The peak of the whole process is wanted here.
WHOLE = """
import hemascope.inference.efficiency as efficiency
efficiency.reset_peak_memory = lambda: None
"""
IMPORT = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
for name in json.load(open(sys.argv[1])):
    try:
        importlib.import_module(name)
    except Exception:
        pass  # parts of a library that only it can import
"""


def main() -> None:
    """Prints both peaks and their difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    options = ["--preset", "paper-cnn", "--epochs", "2", "--out", "run"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = cost(
            WHOLE + COMMAND, "train", *options, "--data", arguments.data.resolve(), folder=folder
        )
        (folder / "modules.json").write_text(json.dumps(train.modules))
        imported = cost(IMPORT, folder / "modules.json")
    training, importing = 1000 * train.peak_gb, 1000 * imported.peak_gb
    print(f"training {training:.0f} MB, importing alone {importing:.0f} MB")
    print(f"difference {training - importing:.0f} MB (goal: at most 400)")


if __name__ == "__main__":
    main()
