"""A trained network on disk: safetensors weights and one JSON that says what they are.

`artifact.json` names its weights file and that file's SHA-256, and is renamed into place after it:
whoever reads the folder sees one whole model, the old or the new. There is no pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from hemascope.config import ModelSettings, RunSettings, Settings, Share, explain
from hemascope.core import ClassSet
from hemascope.errors import RESEARCH_USE_ONLY, DataError
from hemascope.files import write_bytes, write_text

# 2 added calibration and the hashes of the images trained on, 3 their colors
FORMAT_VERSION = 3
_READ_VERSIONS = (1, 2, 3)
_INFO_FILE = "artifact.json"

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensors = dict[str, NDArray[Any]]
    Hashes = NDArray[np.uint64]


Temperature = Annotated[float, Field(ge=0.01, le=100)]
Spread = Annotated[float, Field(ge=0, le=0.5)]  # of numbers between 0 and 1


class Preprocessing(Settings):
    """What happens to an RGB uint8 image before the network."""

    image_size: int = Field(ge=8, le=1024)
    scaling: Literal["pixels / 255"] = "pixels / 255"


class TrainingData(Settings):
    """Which data the weights have seen: the train split of this, and what its colors are like."""

    title: str
    md5: str
    num_images: int
    channel_mean: tuple[Share, Share, Share] | None = None
    channel_std: tuple[Spread, Spread, Spread] | None = None


class Calibration(Settings):
    """What was fitted on val when training was done.

    `temperature` divides the logits, so that the softmax is as sure as it is right;
    `temperature_views` does so for the mean over several views.
    """

    fitted_on: str
    num_images: int
    temperature: Temperature
    temperature_views: Temperature | None = None


class ArtifactInfo(Settings):
    """Everything about a trained network but its weights."""

    format: Literal["hemascope-artifact"] = "hemascope-artifact"
    format_version: Literal[1, 2, 3] = FORMAT_VERSION
    hemascope_version: str
    notice: str = RESEARCH_USE_ONLY
    model: ModelSettings
    class_names: tuple[str, ...] = Field(min_length=1)
    preprocessing: Preprocessing
    num_parameters: int
    trained_on: TrainingData
    settings: RunSettings
    epoch: int
    calibration: Calibration | None = None
    weights_file: str = Field(default="", pattern=r"^(weights-[0-9a-f]{12}\.safetensors)?$")
    weights_sha256: str = ""
    seen_file: str = Field(default="", pattern=r"^(seen-[0-9a-f]{12}\.safetensors)?$")
    seen_sha256: str = ""

    @property
    def classes(self) -> ClassSet:
        """What the network's outputs mean."""
        return ClassSet(self.class_names)


def save_artifact(
    folder: Path, info: ArtifactInfo, weights: Tensors, *, seen: Hashes | None = None
) -> int:
    """Writes a model folder, replacing the model in it at one stroke.

    Args:
        folder: Where to.
        info: What to say of the model.
        weights: Its arrays by name.
        seen: The hashes of the images it was trained on (`LabeledImages.hashes`), if they are
            known: eight bytes an image, by which images of a test are recognized.

    Returns:
        Size of the weights file in bytes.

    Raises:
        OutputError: If it cannot be written; a model that was there is still whole.
    """

    def commit(seen_file: str, seen_sha256: str) -> int:
        names = {"seen_file": seen_file, "seen_sha256": seen_sha256}

        def commit_all(file: str, sha256: str) -> None:
            names.update(weights_file=file, weights_sha256=sha256)
            update_info(folder, info.model_copy(update=names))

        return write_tensors(folder, "weights", weights, commit_all)

    if seen is None:
        return commit("", "")
    sizes: list[int] = []
    write_tensors(folder, "seen", {"hashes": seen}, lambda *file: sizes.append(commit(*file)))
    return sizes[0]


def update_info(folder: Path, info: ArtifactInfo) -> None:
    """Replaces what a model folder says of its model; the weights stay.

    Raises:
        OutputError: If it cannot be written; what it said is still there.
    """
    write_text(folder / _INFO_FILE, info.model_dump_json(indent=2) + "\n")


def write_tensors(
    folder: Path, stem: str, tensors: Tensors, commit: Callable[[str, str], None]
) -> int:
    """Writes arrays to a new file named by their SHA-256 and deletes the older one.

    Args:
        folder: Where to.
        stem: How the file's name begins.
        tensors: The arrays by name.
        commit: Called with the file's name and SHA-256 when it is whole; makes it the valid one.

    Returns:
        Size of the file in bytes.

    Raises:
        OutputError: If it cannot be written; the older file is still there.
    """
    from safetensors.numpy import save

    content = save(tensors)
    digest = hashlib.sha256(content).hexdigest()
    name = f"{stem}-{digest[:12]}.safetensors"
    write_bytes(folder / name, content)
    commit(name, digest)
    for other in folder.glob(f"{stem}-*.safetensors"):
        if other.name != name:
            other.unlink(missing_ok=True)
    return len(content)


def read_tensors(folder: Path, name: str, sha256: str) -> Tensors:
    """Reads and verifies what `write_tensors` wrote.

    Raises:
        DataError: If it is missing, damaged or altered.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = folder / Path(name).name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}; the model is incomplete."
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(
            f"{path} is not the file that the JSON beside it describes (SHA-256 differs): it is "
            "damaged or was altered; train or fetch it again."
        )
    try:
        return load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{path} is not a safetensors file ({error}).") from error


def find_artifact(path: Path) -> Path:
    """The model folder meant by a path: the folder itself, or `model/` of a run folder.

    Raises:
        DataError: If there is no model.
    """
    for folder in (path, path / "model"):
        if (folder / _INFO_FILE).is_file():
            return folder
    raise DataError(
        f"{path} holds no trained model; give a run folder of 'hemascope train' or its model/."
    )


def load_artifact(path: Path) -> tuple[ArtifactInfo, Tensors]:
    """Reads a model folder and verifies its weights.

    Raises:
        DataError: If a part is missing, damaged, altered or of another format version.
    """
    info = load_info(path)
    folder = find_artifact(path)
    if not info.weights_file:
        raise DataError(f"{folder / _INFO_FILE} names no weights_file: it is damaged; train again.")
    return info, read_tensors(folder, info.weights_file, info.weights_sha256)


def load_seen(path: Path) -> Hashes | None:
    """The hashes of the images a model was trained on; None where its artifact has none.

    Raises:
        DataError: If they are missing though named, damaged or altered.
    """
    info = load_info(path)
    if not info.seen_file:
        return None
    folder = find_artifact(path)
    hashes = read_tensors(folder, info.seen_file, info.seen_sha256).get("hashes")
    if hashes is None or hashes.dtype.name != "uint64" or hashes.ndim != 1:
        raise DataError(
            f"{folder / info.seen_file} does not hold the hashes of images; train the model again."
        )
    return hashes


def load_info(path: Path) -> ArtifactInfo:
    """What a model folder says of its model.

    Raises:
        DataError: If there is no model, or it is damaged or of another format version.
    """
    return _read_info(find_artifact(path) / _INFO_FILE)


def _read_info(path: Path) -> ArtifactInfo:
    try:
        content: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not readable JSON ({error}); the model is damaged.") from error
    if not isinstance(content, dict) or "format_version" not in content:
        raise DataError(f"{path} does not describe a model (no format_version): it is damaged.")
    version = content["format_version"]
    if version not in _READ_VERSIONS:
        raise DataError(
            f"{path} has format version {version!r}, this hemascope reads "
            f"{', '.join(map(str, _READ_VERSIONS))}; use the version of hemascope that wrote it."
        )
    try:
        return ArtifactInfo.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path}: {explain(error, ArtifactInfo)}") from error
