"""Wall time of `hemascope --help` and of usage errors, from fresh processes.

Command: python benchmarks/startup.py
"""

import statistics
import subprocess
import sys
import time

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


def main() -> None:
    """Prints the median and the slowest time of each command."""
    for command in COMMANDS:
        seconds: list[float] = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "hemascope", *command], capture_output=True, check=False
            )
            seconds.append(time.perf_counter() - start)
        shown = " ".join(["hemascope", *command])
        print(f"{statistics.median(seconds):.2f} s (slowest {max(seconds):.2f})  {shown}")
    print("goal: under 0.6 s each")


if __name__ == "__main__":
    main()
