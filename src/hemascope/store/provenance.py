"""What results were made with, and how a folder of results is begun."""

import os
import platform
import shlex
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, SerializerFunctionWrapHandler, model_serializer

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.core.images import DataDescription, Dataset
from hemascope.core.predictions import Predictions
from hemascope.settings.base import Settings
from hemascope.settings.compute import Precision
from hemascope.settings.output import Output
from hemascope.store.files import FIGURES, MARK, made_out, make_folder, write_json, write_text
from hemascope.store.predictions import write_predictions

FORMAT_VERSION = 2  # of fingerprint.json and results.json; those of hemascope 0.1 have none

_PACKAGES = ("hemascope", "torch", "onnxruntime", "numpy", "pillow", "safetensors")


class Record(Settings):
    """Base of what a results folder holds as JSON: an optional field that is None is left out."""

    model_config = ConfigDict(strict=True)

    @model_serializer(mode="wrap")
    def _without_unknown(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        known = type(self).model_fields
        return {
            key: value
            for key, value in serialize(self).items()
            if value is not None or known[key].is_required()
        }


class Machine(Record):
    """The computer, and what of it was used."""

    platform: str
    processor: str
    cores: int | None
    device: str | None = None
    torch_threads: int | None = None


class Provenance(Record):
    """Command, date, versions and machine behind some results."""

    notice: str = RESEARCH_USE_ONLY
    format_version: Literal[2] = FORMAT_VERSION
    command: str
    date: str
    versions: dict[str, str]
    machine: Machine


class BaseNetwork(Record):
    """The trained network that a run began from."""

    name: str
    data: str
    num_images: int
    weights_sha256: str


class Fingerprint(Provenance):
    """The same with the data; a training run adds what `resume` has to find unchanged.

    `models` gives the SHA-256 of the weights that the run began with or learned from, by role.
    """

    data: DataDescription
    precision: Precision | None = None
    models: dict[str, str] | None = None
    base: BaseNetwork | None = None


def provenance() -> Provenance:
    """Command, date, versions and machine of this process."""
    return Provenance(
        command=shlex.join(["hemascope", *sys.argv[1:]]),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={
            "python": platform.python_version(),
            **{package: found for package in _PACKAGES if (found := _version(package))},
        },
        machine=Machine(platform=platform.platform(), processor=_processor(), cores=os.cpu_count()),
    )


def fingerprint(
    dataset: Dataset,
    *,
    device: str,
    precision: Precision | None = None,
    models: dict[str, str] | None = None,
    base: BaseNetwork | None = None,
) -> Fingerprint:
    """The same for what a network did with some data on a device."""
    facts, torch = dict(provenance()), sys.modules.get("torch")
    used = {"device": device, "torch_threads": torch.get_num_threads() if torch else None}
    facts["machine"] = facts["machine"].model_copy(update=used)
    return Fingerprint(
        **facts,
        data=dataset.describe(),
        precision=precision,
        models=models,
        base=base,
    )


@contextmanager
def begun_out(output: Output, facts: Provenance) -> Generator[Path]:
    """`made_out`, with `facts` written first: by them the folder is known for ours.

    Yields:
        The folder.

    Raises:
        OutputError: As `made_out`.
    """
    with made_out(output) as out:
        write_json(out / MARK, facts)
        yield out


def publish(
    output: Output,
    facts: Provenance,
    *,
    contents: Mapping[str, object],
    draw: Callable[[Path], None] | None = None,
) -> None:
    """Writes a folder of results at once: what it was made with, its files, its figures.

    Args:
        output: The folder.
        facts: What the results were made with.
        contents: What each file holds, by its name: text, predictions, or an object, which is
            written as JSON under the notice that it is for research.
        draw: Draws into the folder it is given, if there is anything to draw.

    Raises:
        OutputError: If the folder cannot be written.
    """
    with begun_out(output, facts) as out:
        for name, content in contents.items():
            if isinstance(content, str):
                write_text(out / name, f"{content.rstrip()}\n")
            elif isinstance(content, Predictions):
                write_predictions(out / name, content)
            else:
                noticed = {"notice": RESEARCH_USE_ONLY, **vars(content)}
                write_json(out / name, content if isinstance(content, Record) else noticed)
        if draw is not None:
            draw(make_folder(out / FIGURES))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # torch, where models are only used
        return None


def _processor() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - not a real file
            line = next(line for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
    return line.partition(":")[2].strip()
