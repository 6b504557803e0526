"""A trained network on disk: weights or ONNX graphs, and one JSON that says what they are.

`artifact.json` names its files and their SHA-256, and is renamed into place after them: whoever
reads the folder sees one whole model, the old or the new. There is no pickle anywhere. Within a
format version fields are only added, with defaults; a reader refuses versions it does not know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from hemascope.core.classes import ClassSet
from hemascope.core.errors import RESEARCH_USE_ONLY, DataError
from hemascope.core.image_spec import ImageSpec
from hemascope.core.seen import Seen
from hemascope.settings.about import About
from hemascope.settings.base import Settings, explain
from hemascope.settings.compute import OnnxPrecision
from hemascope.settings.run import ModelSettings, RunSettings, Share
from hemascope.store.files import write_bytes, write_text

FORMAT_VERSION = 5  # 0.1 wrote 1 to 4
_INFO_FILE = "artifact.json"
_GRAY = 0.002  # by which the means of R, G and B of gray images differ at most
_PACKAGED = "pretrained"  # folder of this package that holds a model folder for each name

Tensors = dict[str, NDArray[Any]]

Temperature = Annotated[float, Field(ge=0.01, le=100)]
Spread = Annotated[float, Field(ge=0, le=0.5)]  # of numbers between 0 and 1


class TrainingData(Settings):
    """Which data the weights have seen: the train split of this, and what its colors are like."""

    title: str
    md5: str
    num_images: int
    collection: str = ""
    channel_mean: tuple[Share, Share, Share]
    channel_std: tuple[Spread, Spread, Spread]


class Calibration(Settings):
    """What was fitted on val when training was done.

    `temperature` divides the logits, so that the softmax's confidence matches its accuracy;
    `temperature_views` does so for the mean over several views.
    """

    fitted_on: str
    num_images: int
    temperature: Temperature
    temperature_views: Temperature | None = None


class SetRule(Settings):
    """Which classes go into a prediction set: those whose probability is at least `min_prob`.

    On val the set held the true class as often as `coverage` says (split-conformal, LAC).
    """

    coverage: Annotated[float, Field(gt=0, lt=1)]
    min_prob: Share


class Decision(Settings):
    """How logits become answers; fitted on val with as many views of each image as it says.

    `temperature` divides the logits. Below a confidence of `abstain_below` it abstains:
    on val the others were right as often as `wanted_accuracy` says. There are no `sets` where val
    was too small to justify any.
    """

    num_views: Literal[1, 8]
    temperature: Temperature
    wanted_accuracy: Share
    abstain_below: Share
    sets: tuple[SetRule, ...] = ()


class OnnxGraph(Settings):
    """One ONNX graph of the network, and what it was like on val when it was exported.

    Its input is `images`, uint8 (N, H, H, 3); its outputs are `logits`, float32 (N, C), and, with
    `has_maps`, `maps`, float32 (N, C, h, w), whose sum over a map and the bias is the logit, and,
    with `has_features`, `features`, float32 (N, K), what the last layer is given.
    """

    precision: OnnxPrecision
    file: str = Field(pattern=r"^(fp32|fp16|int8)-[0-9a-f]{12}\.onnx$")
    sha256: str
    size_bytes: int
    has_maps: bool
    has_features: bool = False
    val_accuracy: Share
    max_logit_difference: float
    latency_ms_batch1: float
    latency_ms_batch128: float
    decisions: tuple[Decision, ...] = Field(min_length=1)


class ArtifactInfo(Settings):
    """Everything about a trained network but its weights."""

    format: Literal["hemascope-artifact"] = "hemascope-artifact"
    format_version: Literal[5] = FORMAT_VERSION
    hemascope_version: str
    notice: str = RESEARCH_USE_ONLY
    model: ModelSettings
    class_names: tuple[str, ...] = Field(min_length=1)
    class_aliases: dict[str, str] = Field(default_factory=dict)
    image: ImageSpec
    num_parameters: int
    trained_on: TrainingData
    settings: RunSettings
    epoch: int
    calibration: Calibration | None = None
    about: About = About()
    weights_file: str = Field(default="", pattern=r"^(weights-[0-9a-f]{12}\.safetensors)?$")
    weights_sha256: str = ""
    seen_file: str = Field(default="", pattern=r"^(seen-[0-9a-f]{12}\.npz)?$")
    seen_sha256: str = ""
    guard_file: str = Field(default="", pattern=r"^(guard-[0-9a-f]{12}\.npz)?$")
    guard_sha256: str = ""
    head_file: str = Field(default="", pattern=r"^(head-[0-9a-f]{12}\.npz)?$")
    head_sha256: str = ""
    onnx: tuple[OnnxGraph, ...] = ()
    recommended: OnnxPrecision = "fp32"

    @property
    def classes(self) -> ClassSet:
        """What the network's outputs mean."""
        return ClassSet(self.class_names, self.class_aliases)

    @property
    def is_color(self) -> bool:
        """Whether it was trained on color images, so that it cannot answer gray ones."""
        mean = self.trained_on.channel_mean
        return max(mean) - min(mean) > _GRAY


@dataclass(frozen=True, eq=False)
class Head:
    """A last layer that replaces a graph's own: weights (C, K) and biases (C,)."""

    weights: NDArray[np.float32]
    biases: NDArray[np.float32]

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, C) of features (N, K), whatever the number of those asked about together."""
        exact = (
            features.astype(np.float64) @ self.weights.T
        )  # in float32 the last digits depend on it
        return (exact + self.biases).astype(np.float32)


def save_artifact(
    folder: Path,
    info: ArtifactInfo,
    weights: Tensors | None,
    *,
    seen: Seen | None = None,
    graphs: Sequence[bytes] = (),
    guard: Tensors | None = None,
    head: Head | None = None,
) -> None:
    """Writes a model folder, replacing the model in it at one stroke.

    Args:
        folder: Where to.
        info: What to say of the model; its `onnx` names the graphs, if there are any.
        weights: Its arrays by name; None for a model of graphs alone.
        seen: What tells the images it was trained on, if that is known: by it images of a test
            are recognized.
        graphs: Its ONNX graphs, in the order of `info.onnx`.
        guard: What tells photographs unlike those of training (`Guard.arrays`), if there is one.
        head: The last layer that replaces that of the graphs, if there is one.

    Raises:
        OutputError: If it cannot be written; a model that was there is still whole.
    """
    onnx = info.onnx if graphs else ()
    for graph, content in zip(onnx, graphs, strict=True):
        write_bytes(folder / graph.file, content)
    changes: dict[str, object] = {"onnx": onnx}
    file, sha256 = ("", "") if weights is None else write_tensors(folder, "weights", weights)
    changes |= {"weights_file": file, "weights_sha256": sha256}
    for stem, arrays in (
        ("seen", seen and {"looks": seen.looks, "names": seen.names}),
        ("guard", guard),
        ("head", head and {"weights": head.weights, "biases": head.biases}),
    ):
        file, sha256 = ("", "") if arrays is None else _write_arrays(folder, stem, arrays)
        changes |= {f"{stem}_file": file, f"{stem}_sha256": sha256}
    info = info.model_copy(update=changes)
    update_info(folder, info)
    for stem in ("weights", "seen", "guard", "head"):
        remove_older(folder, stem, getattr(info, f"{stem}_file"))


def name_graph(precision: OnnxPrecision, content: bytes) -> tuple[str, str]:
    """The file name of a graph, and its SHA-256."""
    digest = hashlib.sha256(content).hexdigest()
    return f"{precision}-{digest[:12]}.onnx", digest


def update_info(folder: Path, info: ArtifactInfo) -> None:
    """Replaces what a model folder says of its model; the weights stay.

    Raises:
        OutputError: If it cannot be written; what it said is still there.
    """
    write_text(folder / _INFO_FILE, info.model_dump_json(indent=2) + "\n")


def write_tensors(folder: Path, stem: str, tensors: Tensors) -> tuple[str, str]:
    """Writes arrays to a new file named by a stem and their SHA-256, and gives both.

    Raises:
        OutputError: If it cannot be written.
    """
    from safetensors.numpy import save

    content = save(tensors)
    digest = hashlib.sha256(content).hexdigest()
    name = f"{stem}-{digest[:12]}.safetensors"
    write_bytes(folder / name, content)
    return name, digest


def _write_arrays(folder: Path, stem: str, arrays: Tensors) -> tuple[str, str]:
    """The same in NumPy's format, which is read without safetensors."""
    file = BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    digest = hashlib.sha256(file.getvalue()).hexdigest()
    name = f"{stem}-{digest[:12]}.npz"
    write_bytes(folder / name, file.getvalue())
    return name, digest


def _read_arrays(folder: Path, name: str, sha256: str) -> Tensors:
    content = BytesIO(read_verified(folder, name, sha256))
    with np.load(content, allow_pickle=False) as arrays:
        return dict(arrays)


def load_guard(path: Path, info: ArtifactInfo) -> Tensors | None:
    """The arrays of a model's guard (`Guard.arrays`); None where it has none.

    Raises:
        DataError: If they are missing though named, damaged or altered.
    """
    if not info.guard_file:
        return None
    return _read_arrays(find_artifact(path), info.guard_file, info.guard_sha256)


def load_head(path: Path, info: ArtifactInfo) -> Head | None:
    """The last layer that replaces that of a model's graphs; None where there is none.

    Raises:
        DataError: If it is missing though named, damaged or altered.
    """
    if not info.head_file:
        return None
    return Head(**_read_arrays(find_artifact(path), info.head_file, info.head_sha256))


def remove_older(folder: Path, stem: str, valid: str) -> None:
    """Deletes what was written under the same stem before the file that is valid now."""
    for other in (*folder.glob(f"{stem}-*.safetensors"), *folder.glob(f"{stem}-*.npz")):
        if other.name != valid:
            other.unlink(missing_ok=True)


def read_tensors(folder: Path, name: str, sha256: str) -> Tensors:
    """Reads and verifies what `write_tensors` wrote.

    Raises:
        DataError: If it is missing, damaged or altered.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = read_verified(folder, name, sha256)
    try:
        return load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{folder / name} is not a safetensors file ({error}).") from error


def read_verified(folder: Path, name: str, sha256: str) -> bytes:
    """The content of a file of a model folder.

    Raises:
        DataError: If it is missing, damaged or altered.
    """
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
    return content


def find_artifact(path: Path) -> Path:
    """The model folder meant by a path: itself, `model/` of a run folder, or one of this package.

    Raises:
        DataError: If there is no model.
    """
    packaged = Path(__file__).parents[1] / _PACKAGED
    for folder in (
        path,
        path / "model",
        *([packaged / path] if path.name == str(path) and not path.exists() else []),
    ):
        if (folder / _INFO_FILE).is_file():
            return folder
    names = ", ".join(sorted(folder.name for folder in packaged.iterdir() if folder.is_dir()))
    raise DataError(
        f"{path} holds no trained model; give a run folder of 'hemascope train' or its model/, a "
        f"folder of 'hemascope export', or a model that ships with hemascope ({names})."
    )


def load_artifact(path: Path) -> tuple[ArtifactInfo, Tensors]:
    """Reads a model folder and verifies its weights.

    Raises:
        DataError: If a part is missing, damaged, altered or of another format version.
    """
    info, folder = load_info(path), find_artifact(path)
    if not info.weights_file and info.onnx:
        raise DataError(
            f"{path} is an exported model, which has no weights for PyTorch; give the run folder "
            "it was exported from."
        )
    if not info.weights_file:
        raise DataError(f"{folder / _INFO_FILE} names no weights_file: it is damaged; train again.")
    return info, read_tensors(folder, info.weights_file, info.weights_sha256)


def load_graph(
    path: Path, precision: OnnxPrecision | None
) -> tuple[ArtifactInfo, OnnxGraph, bytes]:
    """Reads an exported model and verifies the graph asked for, by default the recommended one.

    Raises:
        DataError: If there is none, or it is missing, damaged, altered or of another version.
    """
    info = load_info(path)
    if not info.onnx:
        raise DataError(
            f"{path} was trained and not exported; run 'hemascope export' on it and give the "
            "folder of that."
        )
    by_name = {graph.precision: graph for graph in info.onnx}
    wanted = precision or info.recommended
    if wanted not in by_name:
        raise DataError(
            f"{path} has no {wanted} graph, only {', '.join(by_name)}; choose one of them or "
            "export the run again."
        )
    graph = by_name[wanted]
    return info, graph, read_verified(find_artifact(path), graph.file, graph.sha256)


def size_of_weights(path: Path, info: ArtifactInfo) -> int:
    """Size in bytes of the weights file that the model at `path` has by its `info`."""
    return (find_artifact(path) / info.weights_file).stat().st_size


def load_seen(path: Path) -> Seen | None:
    """What tells the images a model was trained on; None where its artifact does not say.

    Raises:
        DataError: If it is missing though named, damaged or altered.
    """
    info = load_info(path)
    if not info.seen_file:
        return None
    folder = find_artifact(path)
    arrays = _read_arrays(folder, info.seen_file, info.seen_sha256)
    looks, names = arrays.get("looks"), arrays.get("names", np.empty(0, np.uint64))
    if looks is None or (looks.dtype, looks.ndim, names.dtype) != (np.uint8, 2, np.uint64):
        raise DataError(
            f"{folder / info.seen_file} does not say what images look like; train the model again."
        )
    return Seen(looks, names)


def load_info(path: Path) -> ArtifactInfo:
    """What a model folder says of its model.

    Raises:
        DataError: If there is no model, or it is damaged or of another format version.
    """
    path = find_artifact(path) / _INFO_FILE
    try:
        content: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not readable JSON ({error}); the model is damaged.") from error
    if not isinstance(content, dict) or "format_version" not in content:
        raise DataError(f"{path} does not describe a model (no format_version): it is damaged.")
    version = content["format_version"]
    if version != FORMAT_VERSION:
        remake = "'hemascope train' (or 'hemascope export' where it was exported)"
        raise DataError(
            f"{path} has format version {version!r}, this hemascope reads {FORMAT_VERSION}; "
            f"make the model again with {remake}, or use the version of hemascope that wrote it."
        )
    try:
        return ArtifactInfo.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path}: {explain(error, ArtifactInfo)}") from error
