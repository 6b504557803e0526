"""What a user without torch gets: size, start, memory, and accuracy over the photographs.

    python benchmarks/clean_install.py --data shared/data

Makes an empty environment, installs hemascope into it without extras, in the versions of
requirements.lock, and runs `hemascope predict` there: on one photograph (cold, best of five), and
on all of `cells_360`, whose folders say the true class, beside the same cells and the whole test
split in the 28 pixels of `bloodmnist_rebuilt_28.npz`.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

_FOLDER_NAMES = {"ig": "immature granulocyte"}
_TILES = """
import sys, numpy as np
from pathlib import Path
from PIL import Image
with np.load(sys.argv[1]) as arrays:
    for image, name in zip(arrays["test_images"], arrays["test_names"]):
        path = Path(sys.argv[2], str(name)).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
"""


def main() -> None:
    """Installs, measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with cells_360")
    data = parser.parse_args().data.resolve()
    root = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as name:
        environment, work = Path(name, "environment"), Path(name, "work")
        work.mkdir()
        venv.create(environment, with_pip=True)
        python, hemascope = (str(environment / "bin" / tool) for tool in ("python", "hemascope"))
        before = _size(environment)
        lock = str(root / "requirements.lock")
        _run(work, python, "-m", "pip", "install", "--quiet", "-c", lock, str(root))
        installed = _run(work, python, "-m", "pip", "list", "--format", "freeze")
        megabytes = (_size(environment) - before) / 1e6
        print(f"installed: {megabytes:.0f} MB, torch: {'torch=' in installed}")
        cells = data / "cells_360"
        one = str(next(cells.rglob("*.jpg")))
        print(f"one photograph, cold: {min(_cold(work, hemascope, one) for _ in range(5)):.2f} s")
        photographs = {path.stem for path in cells.rglob("*.jpg")}
        tiles = work / "tiles"
        _run(work, python, "-c", _TILES, str(data / "bloodmnist_rebuilt_28.npz"), str(tiles))
        for precision in ("fp32", "int8"):
            for source in (cells, tiles):
                out = work / f"{source.name}-{precision}.csv"
                arguments = ("--precision", precision, "--out", str(out))
                _run(work, hemascope, "predict", str(source), *arguments)
            print(f"{precision}, photographs: {_judge(work / f'{cells.name}-{precision}.csv')}")
            on_tiles = work / f"{tiles.name}-{precision}.csv"
            print(f"{precision}, the same in 28 pixels: {_judge(on_tiles, photographs)}")
            print(f"{precision}, test split: {_judge(on_tiles)}")


def _cold(work: Path, hemascope: str, picture: str) -> float:
    start = time.perf_counter()
    _run(work, hemascope, "predict", picture)
    return time.perf_counter() - start


def _judge(path: Path, only: set[str] | None = None) -> str:
    """What the answers in a file come to, of all images or some, by the names of folders."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if only is None or Path(r["path"]).stem in only]
    folders = [Path(row["path"]).parent.name for row in rows]
    true = [_FOLDER_NAMES.get(folder, folder) for folder in folders]
    right = [row["predicted_class"] == name for row, name in zip(rows, true, strict=True)]
    sets = [[name for name in row["prediction_set"].split("|") if name] for row in rows]
    held = [name in names for names, name in zip(sets, true, strict=True)]
    answered = [ok for ok, row in zip(right, rows, strict=True) if row["abstain"] == "false"]
    return (
        f"{sum(right)} of {len(rows)} right, {100 * sum(right) / len(rows):.2f} %; "
        f"{len(rows) - len(answered)} for an expert, of the others "
        f"{100 * sum(answered) / len(answered):.2f} % right; sets of "
        f"{sum(map(len, sets)) / len(sets):.3f} classes hold {100 * sum(held) / len(held):.2f} %"
    )


def _size(folder: Path) -> int:
    return sum(p.lstat().st_size for p in folder.rglob("*") if not p.is_dir())


def _run(work: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
