"""What a run was made with, so that it can be made again."""

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.core.images import Dataset

_PACKAGES = ("hemascope", "torch", "onnxruntime", "numpy", "pillow", "safetensors")


def provenance() -> dict[str, Any]:
    """Command, date, versions and machine as plain values for `fingerprint.json`."""
    return {
        "notice": RESEARCH_USE_ONLY,
        "command": shlex.join(["hemascope", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            **{package: found for package in _PACKAGES if (found := _version(package))},
        },
        "machine": {
            "platform": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # torch, where models are only used
        return None


def fingerprint(dataset: Dataset, *, device: str) -> dict[str, Any]:
    """The same for what a network did with some data on a device."""
    facts = provenance()
    facts["machine"] |= {"device": device}
    if torch := sys.modules.get("torch"):
        facts["machine"] |= {"torch_threads": torch.get_num_threads()}
    return {**facts, "data": dataset.describe()}


def _processor() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - not a real file
            line = next(line for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
    return line.partition(":")[2].strip()
