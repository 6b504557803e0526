"""Wall time of `hemascope --help` and of usage errors, and until the review station answers.

Command: python benchmarks/startup.py [--only commands|station]

Every process is a fresh one. Of the station (`hemascope serve`), the time runs from the command
until its printed address answers `GET /api/v1/health`, until it gives the page, and until
`/api/v1/ready` says that database and model are there: in a new data folder, and in a used one.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

COMMANDS = (
    ["--help"],
    ["reproduc"],
    ["train", "--presett", "x"],
    ["train", "--preset", "paper-cn", "--out", "none"],
    ["train", "--preset", "paper-cnn", "--data", "none.npz", "--out", "none"],
    ["reproduce", "--seeds", "a", "--out", "none"],
    ["evaluate", "none"],
    ["report", "none"],
    ["data", "info", "none"],
)
REPEATS = 7
_ASKED = ("/api/v1/health", "/", "/api/v1/ready")


def shown(seconds: list[float], what: str) -> str:
    """A line: the median and the slowest."""
    return f"{statistics.median(seconds):.2f} s (slowest {max(seconds):.2f})  {what}"


def commands() -> None:
    """Prints the time of each command."""
    for command in COMMANDS:
        seconds: list[float] = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "hemascope", *command], capture_output=True, check=False
            )
            seconds.append(time.perf_counter() - start)
        print(shown(seconds, " ".join(["hemascope", *command])))
    print("goal: under 0.6 s each")


def station() -> None:
    """Prints the time until the station answers."""
    for is_new in (True, False):
        times: dict[str, list[float]] = {path: [] for path in _ASKED}
        with tempfile.TemporaryDirectory() as name:
            if not is_new:
                _start(Path(name) / "again")
            for i in range(REPEATS):
                found = _start(Path(name) / (f"new-{i}" if is_new else "again"))
                for path, seconds in found.items():
                    times[path].append(seconds)
        for path, seconds in times.items():
            where = "a new data folder" if is_new else "a used data folder"
            print(shown(seconds, f"hemascope serve, {where}, until GET {path} answers"))
    print("goal: under 2 s until the address answers")


def _start(folder: Path) -> dict[str, float]:
    """Starts a station once: the seconds until each path answers."""
    command = [sys.executable, "-m", "hemascope", "serve", "--port", "0", "--data-dir", str(folder)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline() if process.stderr else ""
        if not (address := re.search(r"http://[0-9.]+:[0-9]+", line)):
            sys.exit(f"the station did not start: {line}")
        return {path: _until(address[0] + path, start) for path in _ASKED}
    finally:
        process.terminate()
        process.communicate()


def _until(url: str, start: float) -> float:
    while True:
        try:
            with urllib.request.urlopen(url) as answer:  # noqa: S310 - this machine's own address
                answer.read()
            return time.perf_counter() - start
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
        time.sleep(0.02)


def main() -> None:
    """Prints the median and the slowest time of each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=["commands", "station"])
    chosen = parser.parse_args().only
    if chosen != "station":
        commands()
    if chosen != "commands":
        station()


if __name__ == "__main__":
    main()
