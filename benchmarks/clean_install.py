"""What a user without torch gets: size, start, memory, and accuracy over the photographs.

    python benchmarks/clean_install.py --data shared/data

Makes an empty environment, installs hemascope into it without extras, in the versions of
requirements.lock, and runs `hemascope predict` there: on one photograph (cold, best of five), and
on all of `cells_360`, whose folders say the true class, beside the same cells' 28 pixels in
`bloodmnist_rebuilt_28.npz`.
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
        for precision in ("fp32", "int8"):
            for source in (cells, _tiles(python, data, work)):
                out = work / f"{source.stem}-{precision}.csv"
                arguments = ("--precision", precision, "--out", str(out))
                _run(work, hemascope, "predict", str(source), *arguments)
                right, count, abstained = _judge(out)
                print(
                    f"{source.stem:10} {precision}: {right} of {count} right, "
                    f"{100 * right / count:.1f} %; {abstained} left to an expert"
                )


def _tiles(python: str, data: Path, work: Path) -> Path:
    """A folder with the same cells at 28 pixels, as the data set has them."""
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from PIL import Image\n"
        "data, out = map(Path, sys.argv[1:])\n"
        "with np.load(data / 'bloodmnist_rebuilt_28.npz') as arrays:\n"
        "    images, names = arrays['test_images'], arrays['test_names']\n"
        "place = {Path(str(name)).stem: i for i, name in enumerate(names)}\n"
        "for file in (data / 'cells_360').rglob('*.jpg'):\n"
        "    (out / file.parent.name).mkdir(parents=True, exist_ok=True)\n"
        "    image = Image.fromarray(images[place[file.stem]])\n"
        "    image.save(out / file.parent.name / f'{file.stem}.png')\n"
    )
    _run(work, python, "-c", code, str(data), str(work / "tiles_28"))
    return work / "tiles_28"


def _cold(work: Path, hemascope: str, picture: str) -> float:
    start = time.perf_counter()
    _run(work, hemascope, "predict", picture)
    return time.perf_counter() - start


def _judge(path: Path) -> tuple[int, int, int]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    folders = [Path(row["path"]).parent.name for row in rows]
    true = [_FOLDER_NAMES.get(folder, folder) for folder in folders]
    right = sum(row["predicted_class"] == name for row, name in zip(rows, true, strict=True))
    return right, len(rows), sum(row["abstain"] == "true" for row in rows)


def _size(folder: Path) -> int:
    return sum(p.lstat().st_size for p in folder.rglob("*") if not p.is_dir())


def _run(work: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
