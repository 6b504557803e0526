"""What a network costs: seconds per image, and memory."""

import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.inference import Engine

_WARM_UP = 5
_REPEATS = 30


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def latency_ms(engine: Engine, images: NDArray[np.uint8], *, batch_size: int) -> float:
    """Milliseconds per image, in batches of `batch_size`: the median of 30 timed batches.

    Counted from uint8 pixels to logits, as a caller waits for them. Where there are fewer images
    than a batch holds, they are repeated.
    """
    batch = np.resize(images[:batch_size], (batch_size, *images.shape[1:]))
    for _ in range(_WARM_UP):
        engine.logits(batch)
    seconds: list[float] = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        engine.logits(batch)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds) / batch_size


def reset_peak_memory() -> None:
    """Forgets earlier peaks of this process, where the system lets it (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # the peak is then the process's own since it started: too high, never too low


def peak_memory_bytes() -> int | None:
    """Peak resident memory of this process since the last reset; None where it is not known.

    Libraries and data count, and what earlier work in the process keeps; a GPU's memory does not.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return _peak_since_start()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024


def _peak_since_start() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB
