"""Answers about cells: pictures in, classes and doubts out. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.core.answers import Answer
from hemascope.core.errors import DataError, UsageError
from hemascope.core.predictions import log_softmax
from hemascope.data.jpeg import jpeg_round_trip
from hemascope.data.pictures import BadPictureError, middle, read_rgb, to_rgb
from hemascope.inference import Engine
from hemascope.inference.onnx_engine import load_onnx
from hemascope.inference.views import ViewsEngine
from hemascope.settings.run import OnnxPrecision
from hemascope.store.model_folder import ArtifactInfo, OnnxGraph

Picture = str | Path | Image.Image | NDArray[np.uint8]
Images = NDArray[np.uint8]

_FINE = 100_000  # parts that a share is counted in


class Predictor:
    """A trained model that ships with hemascope or was exported, ready to answer.

    Several threads may ask it at once.

    Args:
        model: The name of a packaged model, or the folder of an exported one.
        precision: Which of its graphs; by default the one it recommends.
        views: 8 also asks for every picture mirrored and turned: eight times the work, a little
            more accuracy.
        coverage: How often prediction sets are to hold the true class; one of those fitted, by
            default the largest.
        crop: The share of a picture's central square to keep where it is not of the network's size
            already; by default what the model's own images were made with.
        threads: That each question is spread over; 0 for all cores.

    Raises:
        DataError: If there is no such model, or it is damaged.
        UsageError: If it has no rule for the views or the coverage, or the crop is no share.

    Example:
        >>> from hemascope import load
        >>> from hemascope.data.rendered import render
        >>> import numpy as np
        >>> [answer] = load("hemanet").predict(render(np.array([7]), seed=0))
        >>> answer.predicted_class
        'platelet'
    """

    def __init__(
        self,
        model: str | Path = "hemanet",
        *,
        precision: OnnxPrecision | None = None,
        views: int = 1,
        coverage: float | None = None,
        crop: float | None = None,
        threads: int = 0,
    ) -> None:
        info, graph, self._onnx = load_onnx(Path(model), precision, threads=threads)
        self.info: ArtifactInfo = info
        self.graph: OnnxGraph = graph
        self._engine: Engine = self._onnx if views == 1 else ViewsEngine(self._onnx)
        fitted = {one.num_views: one for one in graph.decisions}
        if views not in fitted:
            raise UsageError(f"views is {views}; the model was fitted for {_listed(fitted)}.")
        self.decision = fitted[views]
        rules = {rule.coverage: rule.min_prob for rule in self.decision.sets}
        self.coverage = max(rules) if coverage is None else coverage
        if self.coverage not in rules:
            raise UsageError(
                f"coverage is {self.coverage:g}; the model's prediction sets were fitted for "
                f"{_listed(rules)}."
            )
        self._min_prob = rules[self.coverage]
        self.photographs = info.preprocessing.photographs
        if crop is not None:
            if not 0 < crop <= 1:
                raise UsageError(f"crop is {crop:g}; give a share above 0 and up to 1.")
            kept = {"crop_pixels": max(round(crop * _FINE), 1), "of_pixels": _FINE}
            self.photographs = self.photographs.model_copy(update=kept)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of `Answer.probs`."""
        return self.info.class_names

    def predict(self, pictures: Picture | Sequence[Picture]) -> list[Answer]:
        """What the model says of each picture.

        Args:
            pictures: Paths, PIL images, or RGB arrays (H, W, 3) of uint8, of any size; one of
                them or a sequence, or an array (N, H, W, 3).

        Raises:
            DataError: If one of them is no picture.
        """
        return self.answer(self.prepare(pictures))

    def predict_proba(self, pictures: Picture | Sequence[Picture]) -> NDArray[np.float64]:
        """The probability of each class, after temperature scaling, shape (N, C).

        Raises:
            DataError: If one of the pictures is none.
        """
        return self._probs(self.prepare(pictures))

    def prepare(self, pictures: Picture | Sequence[Picture]) -> Images:
        """Pictures as the network takes them, shape (N, H, H, 3).

        Raises:
            DataError: If one of them is no picture.
        """
        single = isinstance(pictures, (str, Path, Image.Image)) or (
            isinstance(pictures, np.ndarray) and pictures.ndim == 3
        )
        each: Sequence[Picture] = [pictures] if single else pictures  # type: ignore[assignment, list-item]
        return self.shrink(_open_all(each))

    def shrink(self, pictures: Iterable[Image.Image]) -> Images:
        """RGB pictures at the network's size, shape (N, H, H, 3), treated as its own images were.

        Those that have the size already are left as they are. Of the others, one is held at a time.
        """
        size, how = self.info.preprocessing.image_size, self.photographs
        images: list[Images] = [np.empty((0, size, size, 3), dtype=np.uint8)]
        resized: list[bool] = []
        for picture in pictures:
            resized.append(picture.size != (size, size))
            side = how.side(min(picture.size)) if resized[-1] else size
            images.append(middle(picture, size, side)[None])
        together = np.concatenate(images)
        if how.jpeg_quality and any(resized):
            together[resized] = jpeg_round_trip(together[resized], how.jpeg_quality)
        return together

    def answer(self, images: Images) -> list[Answer]:
        """What the model says of images (N, H, H, 3) of its own size."""
        probs = self._probs(images)
        names = self.class_names
        answers: list[Answer] = []
        for row in probs:
            order = np.argsort(-row, kind="stable")
            confidence = float(row[order[0]])
            answers.append(
                Answer(
                    predicted_class=names[order[0]],
                    confidence=confidence,
                    prediction_set=tuple(names[i] for i in order if row[i] >= self._min_prob),
                    abstain=confidence < self.decision.abstain_below,
                    probs=tuple(row.tolist()),
                )
            )
        return answers

    def maps(self, images: Images) -> NDArray[np.float32]:
        """What each place of images (N, H, H, 3) adds to each class's logit, shape (N, C, h, w).

        Raises:
            UsageError: If the model has no such maps.

        Source: class-activation maps, Zhou et al., CVPR 2016, here exact: the maps of a class and
        its bias add up to its logit.
        """
        self.check_maps()
        return self._onnx.maps(images)

    def check_maps(self) -> None:
        """Refuses early a model without maps.

        Raises:
            UsageError: If it has none.
        """
        if not self.graph.has_maps:
            raise UsageError(
                "this model has no class-activation maps: its architecture does not end in a map; "
                "leave --explain out."
            )

    def _probs(self, images: Images) -> NDArray[np.float64]:
        logits = self._engine.logits(images)
        if logits.shape != (len(images), len(self.class_names)) or not np.isfinite(logits).all():
            raise DataError(
                f"{self.graph.file} does not give a number for each of the model's classes; the "
                "model is damaged: export it again."
            )
        scaled = logits / np.float32(self.decision.temperature)
        return np.exp(log_softmax(scaled))


def _open_all(pictures: Sequence[Picture]) -> Iterator[Image.Image]:
    for number, picture in enumerate(pictures):
        try:
            yield _open(picture)
        except BadPictureError as error:
            name = picture if isinstance(picture, (str, Path)) else f"picture {number}"
            raise DataError(f"{name} cannot be read ({error}); leave it out.") from error


def _open(picture: Picture) -> Image.Image:
    if isinstance(picture, (str, Path)):
        return read_rgb(Path(picture))[0]
    if isinstance(picture, Image.Image):
        return to_rgb(picture)[0]
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise BadPictureError(
            f"it has shape {picture.shape} and type {picture.dtype}, expected (H, W, 3) and uint8"
        )
    return Image.fromarray(picture)


def _listed(known: Iterable[float]) -> str:
    return " and ".join(f"{key:g}" for key in known)
