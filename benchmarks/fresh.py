"""What a program costs in a process of its own: for the other benchmarks."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COMMAND = """
from hemascope.__main__ import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
_TOLD = """
import json, sys, time
from hemascope.inference.efficiency import peak_memory_bytes
costs = [time.perf_counter() - start, time.process_time(), peak_memory_bytes() / 1e9]
print(json.dumps([*costs, sorted(sys.modules)]))
"""


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock and of processors, the peak of memory, and the modules at the end."""

    seconds: float
    busy: float
    peak_gb: float
    modules: Sequence[str]


def cost(program: str, *words: str | Path, folder: Path | None = None) -> Cost:
    """Runs a program, such as `COMMAND` (the command line), whose `sys.argv` ends with `words`."""
    whole = f"import time\nstart = time.perf_counter()\n{program}{_TOLD}"
    done = subprocess.run(
        [sys.executable, "-c", whole, *words],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    return Cost(*json.loads(done.stdout.splitlines()[-1]))
