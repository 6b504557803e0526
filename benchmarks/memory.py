"""Peak memory of a training run above a process that has only imported the same libraries.

Command: python benchmarks/memory.py --data FILE.npz

Two fresh processes: one runs `hemascope train --preset paper-cnn --epochs 2`, the other imports
every module that the first one ended with, and does nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

TRAIN = """
import json, sys
from hemascope.__main__ import main
import hemascope.inference.efficiency as efficiency
efficiency.reset_peak_memory = lambda: None  # the peak of the whole process is wanted here
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
with open("measured.json", "w") as file:
    json.dump({"peak_kib": peak, "modules": sorted(sys.modules)}, file)
"""
IMPORT = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
for name in json.load(open("measured.json"))["modules"]:
    try:
        importlib.import_module(name)
    except Exception:
        pass  # parts of a library that only it can import
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")))
"""


def main() -> None:
    """Prints both peaks and their difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    options = ["--preset", "paper-cnn", "--epochs", "2", "--out", "run"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-c", TRAIN, "train", *options, "--data", arguments.data.resolve()],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        measured = json.loads((Path(folder) / "measured.json").read_text())
        imported = subprocess.run(
            [sys.executable, "-c", IMPORT], cwd=folder, check=True, capture_output=True, text=True
        )
    training, importing = measured["peak_kib"] * 1024 / 1e6, int(imported.stdout) * 1024 / 1e6
    print(f"training {training:.0f} MB, importing alone {importing:.0f} MB")
    print(f"difference {training - importing:.0f} MB (goal: at most 400)")


if __name__ == "__main__":
    main()
