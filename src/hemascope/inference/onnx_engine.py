"""Runs an exported network with ONNX Runtime: no torch, one file, any number of threads."""

from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from hemascope.core.errors import DataError
from hemascope.settings.compute import OnnxPrecision
from hemascope.store.model_folder import ArtifactInfo, Head, OnnxGraph, load_graph, load_head

_SERIOUS = 3  # ONNX Runtime's level of errors: what it warns of is the exporter's to know


class OnnxEngine:
    """Answers images with the logits of an ONNX graph, whose input is uint8 pixels.

    With a `head` the logits are that one's, of the graph's features.

    Several threads may ask it at once.

    Raises:
        DataError: If the graph cannot be run.
    """

    def __init__(
        self,
        graph: bytes,
        *,
        origin: str,
        head: Head | None = None,
        threads: int = 0,
        batch_size: int = 128,
    ) -> None:
        self.head = head
        options: Any = ort.SessionOptions()  # pyright: ignore[reportAttributeAccessIssue] - their stubs
        options.intra_op_num_threads = threads  # 0: all cores
        options.log_severity_level = _SERIOUS
        self._run: Any = ort.RunOptions()  # pyright: ignore[reportAttributeAccessIssue] - their stubs
        self._run.only_execute_path_to_fetches = True
        self._batch_size, self._origin = batch_size, origin
        try:  # of bytes: a graph that names other files finds none
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # whatever a parser may raise on damaged bytes
            raise DataError(f"{origin} cannot be run by ONNX Runtime ({error}).") from error

    def with_head(self, head: Head) -> "OnnxEngine":
        """The same with another last layer; both share the graph."""
        other = copy(self)
        other.head = head
        return other

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, C) of RGB images (N, H, H, 3)."""
        if self.head:
            return self.logits_and_features(images)[0]
        return self._ask(["logits"], images)[0]

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the last layer is given, shape (N, K)."""
        return self._ask(["features"], images)[0]

    def logits_and_features(
        self, images: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Both at once."""
        if self.head:
            features = self.features(images)
            return self.head.logits(features), features
        logits, features = self._ask(["logits", "features"], images)
        return logits, features

    def maps(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What each place adds to the logit of each class, shape (N, C, h, w); see `OnnxGraph`."""
        return self._ask(["maps"], images)[0]

    def _ask(self, outputs: list[str], images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        parts: list[Any] = []
        for i in range(0, max(len(images), 1), self._batch_size):
            batch = {"images": images[i : i + self._batch_size]}
            try:
                parts.append(self._session.run(outputs, batch, self._run))
            except Exception as error:  # whatever a graph may do that was made to fit
                raise DataError(
                    f"{self._origin} cannot be run by ONNX Runtime ({error})."
                ) from error
        return [np.concatenate(part) for part in zip(*parts, strict=True)]


def load_onnx(
    path: Path, precision: OnnxPrecision | None, *, threads: int = 0
) -> tuple[ArtifactInfo, OnnxGraph, OnnxEngine]:
    """The exported network in a folder, or one that ships with this package.

    Args:
        path: The folder, or the name of a packaged model.
        precision: Which of its graphs; by default the recommended one.
        threads: That each question is spread over; 0 for all cores.

    Raises:
        DataError: If there is no whole exported model, or it cannot be run.
    """
    info, graph, content = load_graph(path, precision)
    origin, head = f"{path} ({graph.file})", load_head(path, info)
    return info, graph, OnnxEngine(content, origin=origin, head=head, threads=threads)
