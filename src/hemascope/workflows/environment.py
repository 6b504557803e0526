"""What a run was made with, so that it can be made again."""

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version

from hemascope.data.dataset import Dataset
from hemascope.errors import RESEARCH_USE_ONLY

_PACKAGES = ("hemascope", "torch", "numpy", "pillow", "safetensors")


def fingerprint(dataset: Dataset, *, device: str) -> dict[str, object]:
    """Data, command, date, versions and machine as plain values for `fingerprint.json`."""
    import torch

    return {
        "notice": RESEARCH_USE_ONLY,
        "data": dataset.describe(),
        "command": shlex.join(["hemascope", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in _PACKAGES},
        },
        "machine": {
            "platform": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "device": device,
        },
    }


def _processor() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - not a real file
            line = next(line for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
    return line.partition(":")[2].strip()
