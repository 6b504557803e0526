"""Answers about cells: photographs in, classes and their uncertainty out. Needs no torch."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.core.answers import Answer
from hemascope.core.errors import DataError, UsageError
from hemascope.core.fit import LaboratoryFit, MovedLayer
from hemascope.core.framing import Frame, spread
from hemascope.core.packaged import FOR_PHOTOGRAPHS
from hemascope.core.predictions import log_softmax
from hemascope.data.pictures import (
    MAX_FILE_BYTES,
    BadPictureError,
    Picture,
    read_picture,
    readable,
    to_picture,
)
from hemascope.inference.efficiency import cores
from hemascope.inference.guard import COLORLESS, SWAPPED, Guard, are_colorless
from hemascope.inference.last_layer import (
    LEAST_TO_MOVE,
    digest_of,
    head_of,
    is_unlike,
    moved_layer,
)
from hemascope.inference.onnx_engine import OnnxEngine, load_onnx
from hemascope.inference.views import ViewsEngine
from hemascope.metrics.two_samples import Shift
from hemascope.settings.compute import NumViews, OnnxPrecision
from hemascope.store.frames import asked_fit
from hemascope.store.model_folder import (
    ArtifactInfo,
    Decision,
    OnnxGraph,
    find_artifact,
    load_guard,
)

# Or a tensor of uint8.
Source = str | PathLike[str] | bytes | memoryview | BinaryIO | Image.Image | NDArray[np.uint8]
Images = NDArray[np.uint8]
Read = Callable[[], Picture]

_LEAST_FOR_TEST = 20  # photographs, to say of a laboratory that it is unlike the training ones
_DIGITS = 3  # of a distance: what follows depends on how many images are asked about together
_MOVED_NOTE = "the last layer was moved to this laboratory's images, which are unlike training's"
NUM_MOVING, _BATCH = 1000, 64  # images that a last layer is moved to; read and asked at once


@dataclass(frozen=True, eq=False)
class Answered:
    """Answers to some photographs, and what the network saw of those that could be read.

    Attributes:
        answers: One for each photograph.
        images: Of the readable ones, shape (M, H, H, 3).
        places: Which of the photographs each image is, shape (M,).
        features: What the network's last layer was given, as `Guard.project` shortens it, shape
            (M, P + 1); None without a guard.
    """

    answers: list[Answer]
    images: Images
    places: tuple[int, ...]
    features: NDArray[np.float32] | None = None


class Predictor:
    """A trained model that ships with hemascope or was exported, ready to answer.

    Several threads may ask it at once.

    Args:
        model: The name of a packaged model (by default the one for photographs; "hemanet" is for
            tiles of 28 pixels), or the folder of an exported one.
        precision: Which of its graphs; by default the one it recommends.
        views: 8 averages over eight flips and rotations (test-time augmentation): eight times the
            work, a little more accuracy. By default 1, or 8 where the last layer is moved.
        coverage: How often prediction sets are to contain the true class; one of those fitted, by
            default the largest.
        crop: The share of a photograph's central square to use where it is not of the network's
            size already; by default what the model's own images were made with.
        frame: "auto" crops photographs to their cells, by one share for all photographs of a call;
            "cell" crops around the white cell of each; "whole"; or the path of a frame file. With
            the first two, a call with 50 photographs or more of a laboratory unlike those of
            training is answered by a last layer moved to them (docs/decisions/0022).
        as_trained: Whether the last layer stays as it is, whatever the photographs.
        threads: Threads for each call; 0 for all cores.

    Raises:
        DataError: If there is no such model, or it is damaged.
        UsageError: If it has no rule for the views or the coverage, or the crop is not a share.

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
        model: str | Path = FOR_PHOTOGRAPHS,
        *,
        precision: OnnxPrecision | None = None,
        views: NumViews | None = None,
        coverage: float | None = None,
        crop: float | None = None,
        frame: str = "",
        as_trained: bool = False,
        threads: int = 0,
    ) -> None:
        self._remake = partial(
            Predictor,
            find_artifact(Path(model)).resolve() if Path(model).exists() else model,
            precision=precision,
            views=views,
            coverage=coverage,
            crop=crop,
            frame=str(Path(frame).resolve()) if Path(frame).is_file() else frame,
            as_trained=as_trained,
            threads=threads,
        )
        info, graph, self.engine = load_onnx(Path(model), precision, threads=threads)
        self.info: ArtifactInfo = info
        self.graph: OnnxGraph = graph
        arrays = load_guard(Path(model), info) if graph.has_features else None
        self.guard: Guard | None = Guard.of(arrays) if arrays else None
        self._views = views
        self._decisions = {one.num_views: one for one in graph.decisions}
        if (views or 1) not in self._decisions:
            raise UsageError(
                f"it is {views}; the model was fitted for {_listed(self._decisions)}.",
                field="views",
            )
        rules = _rules(self._decisions[views or 1])
        if coverage is not None and coverage not in rules:
            sets = f"fitted for {_listed(rules)}" if rules else "not fitted: too few val images"
            raise UsageError(
                f"it is {coverage:g}; the model's prediction sets were {sets}.", field="coverage"
            )
        self.coverage = coverage or max(rules, default=None)
        if crop is not None and not 0 < crop <= 1:
            raise UsageError(f"it is {crop:g}; give a number above 0 and up to 1.", field="crop")
        self.spec, layer = asked_fit(info.image, crop=crop, frame=frame)
        self.as_trained = as_trained
        self.layer = None if as_trained else layer
        self._base = self.engine
        if self.layer:
            self.engine = self._moved(self.layer)

    def __reduce__(self) -> tuple[Callable[[], Predictor], tuple[()]]:
        """Pickles as how it was made: another process reads the model again."""
        return self._remake, ()

    @property
    def digest(self) -> str:
        """What tells it from others: its graph, and a last layer that replaces the graph's."""
        info, graph = self.info, self.graph
        if not info.head_sha256:
            return graph.sha256
        parts = (graph.sha256, info.head_sha256, info.guard_sha256, graph.decisions)
        return sha256(f"{parts} {info.class_names}".encode()).hexdigest()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of `Answer.probs`."""
        return self.info.class_names

    def predict(self, pictures: Source | Sequence[Source]) -> list[Answer]:
        """What the model says of each photograph; one that cannot be read has its error.

        Args:
            pictures: Paths, encoded bytes, binary files, PIL images, or arrays or tensors of uint8
                (H, W, 3), (H, W, 4) or (H, W); one of them or a sequence, or an array (N, H, W, 3).

        Warns:
            UserWarning: Where photographs were converted, cropped by guess, or the like; the note
                of each answer says what. And of how those of a laboratory are framed and answered.
        """
        reads = [_again(one) for one in _each(pictures)]
        fit = self.decide(reads)
        answers = self.answer_all(reads, fit).answers
        counts = Counter(note for answer in answers for note in answer.note.split("; ") if note)
        told = [self.told(fit)] if fit else []
        if counts:
            listed = "; ".join(f"{count} of {len(answers)}: {n}" for n, count in counts.items())
            told.append(f"{listed} (Answer.note)")
        if told:
            warnings.warn(" ".join(told), UserWarning, stacklevel=2)
        return answers

    def predict_proba(self, pictures: Source | Sequence[Source]) -> NDArray[np.float64]:
        """The probability of each class, after temperature scaling, shape (N, C).

        Raises:
            DataError: If one of the photographs cannot be read.
        """
        answers = self.predict(pictures)
        for number, answer in enumerate(answers):
            if answer.error:
                raise DataError(f"image {number} cannot be read ({answer.error}); leave it out.")
        return np.array([answer.probs for answer in answers]).reshape(-1, len(self.class_names))

    def decide_frame(self, reads: Iterable[Read]) -> Frame | None:
        """How photos of one laboratory are framed, by some of them; None where that is settled.

        Args:
            reads: As `answer_all`.
        """
        return self.spec.decide(readable(reads))

    def decide(self, reads: Sequence[Read]) -> LaboratoryFit | None:
        """How photos of one laboratory are framed and answered, by some of them.

        None where that is settled. Of those unlike training, up to a thousand are looked at.
        """
        if not self.spec.is_undecided:
            return None
        return self.fit(reads, self.decide_frame(spread(reads)))

    def fit(self, reads: Sequence[Read], frame: Frame | None) -> LaboratoryFit | None:
        """The same where it is known how they are framed."""
        spec = self.spec.framed(frame) if frame else self.spec

        def images_of(rows: Sequence[int]) -> Images:
            return spec.prepare(readable(reads[row] for row in rows)).images

        layer = None
        if not (frame and frame.is_field):
            layer = self.layer or self.move(len(reads), images_of)
        return LaboratoryFit(frame=frame, layer=layer) if frame or layer else None

    def move(self, count: int, images_of: Callable[[Sequence[int]], Images]) -> MovedLayer | None:
        """The last layer moved to images of a laboratory unlike those of training; else None.

        None too where a frame file has said what it is.

        Args:
            count: How many images there are.
            images_of: Gives those of some numbers, shape (N, H, H, 3); those that cannot be read
                are left out. Several threads may call it.
        """
        if self.layer or self.as_trained or self.guard is None or count < LEAST_TO_MOVE:
            return None
        guard = self.guard

        def features_of_cells(rows: Sequence[int]) -> NDArray[np.float32]:
            images = images_of(rows)
            return self.engine.features(images[guard.show_cells(images)])

        def features_of(rows: Sequence[int]) -> NDArray[np.float32]:
            parts = [rows[i : i + _BATCH] for i in range(0, len(rows), _BATCH)]
            with ThreadPoolExecutor(cores()) as pool:
                return np.concatenate(list(pool.map(features_of_cells, parts)))

        layer = self.engine.head or guard.last_layer
        every = spread(range(count), NUM_MOVING)
        first = spread(every)
        features = features_of(first)
        if len(features) >= LEAST_TO_MOVE and not is_unlike(guard, layer, features):
            return None
        if rest := sorted({*every} - {*first}):
            features = np.concatenate([features, features_of(rest)])
        plain = next(one for one in self.graph.decisions if one.num_views == 1)
        return moved_layer(guard, layer, features, plain.temperature)

    def answering(self, layer: MovedLayer | None) -> OnnxEngine | ViewsEngine:
        """The network, with another last layer where one is given, and views where asked for."""
        engine = self._moved(layer) if layer else self.engine
        return engine if self.decision_of(layer).num_views == 1 else ViewsEngine(engine)

    def decision_of(self, layer: MovedLayer | None = None) -> Decision:
        """How logits become answers, and how many views of each image they are of.

        Of a moved layer confidence is asked for as of the strictest decision: that was fitted on
        val, and says less of a laboratory unlike training's.
        """
        if not (layer or self.layer):
            return self._decisions[self._views or 1]
        found = self._decisions[self._views or max(self._decisions)]
        strictest = max(one.abstain_below for one in self._decisions.values())
        return found.model_copy(update={"abstain_below": strictest})

    def describe(self, fit: LaboratoryFit) -> str:
        """What was decided and what follows, in sentences."""
        views = self.decision_of(fit.layer).num_views if fit.layer else 1
        averaged = f" The answers are means over {views} views of each image." if views > 1 else ""
        return fit.describe() + averaged

    def told(self, fit: LaboratoryFit) -> str:
        """The same, and how to have it otherwise."""
        return self.describe(fit) + (" `as_trained` leaves the last layer." if fit.layer else "")

    def fits(self, fit: LaboratoryFit) -> bool:
        """Whether that was decided for this model."""
        with suppress(DataError):
            if fit.layer:
                self._moved(fit.layer)
            if fit.frame:
                return fit.frame.made_for == self.spec.digest
            return fit.layer is not None
        return False

    def _moved(self, layer: MovedLayer) -> OnnxEngine:
        """The network with another last layer.

        Raises:
            DataError: If that was moved from another one.
        """
        own = self._base.head or (self.guard and self.guard.last_layer)
        moved = head_of(layer)
        if (
            not own
            or layer.made_for != digest_of(own)
            or moved.weights.shape != own.weights.shape
            or not np.isfinite(moved.weights).all()
        ):
            raise DataError(
                "the frame file's last layer was moved from that of another model; use that model, "
                "or let `frame` auto decide.",
                field="frame",
            )
        return self._base.with_head(moved)

    def answer_all(self, reads: Sequence[Read], fit: LaboratoryFit | None = None) -> Answered:
        """Answers to photographs that are read one after another: what every front door asks.

        Args:
            reads: For each photograph, what gives it or raises a `BadPictureError` or `OSError`.
            fit: How photographs of their laboratory are framed and answered; see `decide`.
        """
        spec = self.spec.framed(fit.frame) if fit and fit.frame else self.spec
        layer = fit.layer if fit else None
        answers: list[Answer | None] = [None] * len(reads)
        notes: list[tuple[str, ...]] = []
        places: list[int] = []

        def to_answer() -> Iterator[Image.Image]:
            for place, read in enumerate(reads):
                try:
                    picture = read()
                except (BadPictureError, OSError) as error:
                    reason = getattr(error, "strerror", None) or str(error)
                    answers[place] = Answer(error=reason)
                    continue
                places.append(place)
                notes.append(picture.notes)
                yield picture.image

        made = spec.prepare(to_answer())
        found, features = self._answer(made.images, layer)
        every_note = zip(notes, made.notes, made.fields, strict=True)
        for place, answer, (noted, guessed, is_field) in zip(
            places, found, every_note, strict=True
        ):
            every = (
                *noted,
                *filter(None, [guessed, answer.note, _MOVED_NOTE if layer or self.layer else ""]),
            )
            answer = replace(answer, note="; ".join(dict.fromkeys(every)))
            if is_field:
                answer = replace(answer, warning="several cells", abstain=True)
            answers[place] = answer
        whole = [answer for answer in answers if answer is not None]
        return Answered(whole, made.images, tuple(places), features)

    def answer(self, images: Images, layer: MovedLayer | None = None) -> list[Answer]:
        """What the model says of images (N, H, H, 3) of its own size; see `move` for the layer."""
        return self._answer(images, layer)[0]

    def _answer(
        self, images: Images, layer: MovedLayer | None
    ) -> tuple[list[Answer], NDArray[np.float32] | None]:
        """The same, and the features of `Answered`."""
        probs, features = self._probs_and_features(images, layer)
        distances = np.empty(0, dtype=np.float32)
        if self.guard and features is not None:
            distances = self.guard.distances_of(features)
        names, decision = self.class_names, self.decision_of(layer)
        # 2: no class is in the set
        least = _rules(decision).get(self.coverage, 2.0) if self.coverage else 2.0
        is_gray = are_colorless(images).tolist() if self.info.is_color else [False] * len(images)
        apart = self.guard.apart(images, distances) if self.guard else ()
        answers: list[Answer] = []
        for i, (row, unfit) in enumerate(zip(probs, is_gray, strict=True)):
            order = np.argsort(-row, kind="stable")
            confidence = float(row[order[0]])
            distance, warning = None, ""
            note = COLORLESS if unfit else ""
            if self.guard:
                distance = round(float(distances[i] / self.guard.threshold), _DIGITS)
                if apart[i]:
                    warning = self.guard.warning(images[i])
                    if warning == "unusual color" and self.guard.is_swapped(images[i]):
                        note = SWAPPED
            answers.append(
                Answer(
                    predicted_class=names[order[0]],
                    confidence=confidence,
                    prediction_set=tuple(names[i] for i in order if row[i] >= least),
                    abstain=bool(unfit or warning) or confidence < decision.abstain_below,
                    probs=tuple(row.tolist()),
                    note=note,
                    warning=warning,
                    distance=distance,
                )
            )
        return answers, features

    def maps(self, images: Images) -> NDArray[np.float32]:
        """What each place of images (N, H, H, 3) adds to each class's logit, shape (N, C, h, w).

        Raises:
            UsageError: If the model has no such maps.

        Source: class-activation maps, Zhou et al., CVPR 2016, here exact: the maps of a class and
        its bias add up to its logit.
        """
        self.check_maps()
        return self.engine.maps(images)

    def shift(self, distances: Sequence[float], predicted: Sequence[str]) -> Shift | None:
        """How a laboratory's distances from training compare with those of val.

        Args:
            distances: Of its photographs, as their answers have them.
            predicted: Their classes.

        Returns:
            None where they are too few to say it, or the model cannot tell.
        """
        if self.guard is None or len(distances) < _LEAST_FOR_TEST:
            return None
        return self.guard.shift(distances, [self.class_names.index(name) for name in predicted])

    def check_maps(self) -> None:
        """Refuses early a model without maps.

        Raises:
            UsageError: If it has none.
        """
        if not self.graph.has_maps or self.layer:
            raise UsageError(
                "this model has no class-activation maps: its architecture does not end in a map, "
                "or its last layer was moved; leave `explain` out."
            )

    def _probs_and_features(
        self, images: Images, layer: MovedLayer | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float32] | None]:
        """Probabilities (N, C), and what `Answered.features` holds."""
        features, engine = None, self.answering(layer)
        if self.guard and isinstance(engine, OnnxEngine):
            logits, features = engine.logits_and_features(images)
        else:
            logits = engine.logits(images)
            features = self.engine.features(images) if self.guard else None
        if logits.shape != (len(images), len(self.class_names)) or not np.isfinite(logits).all():
            raise DataError(
                f"{self.graph.file} does not give a number for each of the model's classes; the "
                "model is damaged: export it again."
            )
        scaled = logits / np.float32(self.decision_of(layer).temperature)
        projected = self.guard.project(features) if self.guard and features is not None else None
        return np.exp(log_softmax(scaled)), projected


def _each(pictures: Source | Sequence[Source]) -> Sequence[Source]:
    """The photographs one by one; an array is one photograph unless it has one axis, or four."""
    alone = isinstance(pictures, str | PathLike | bytes | bytearray | memoryview | Image.Image)
    if alone or hasattr(pictures, "read") or not hasattr(pictures, "__iter__"):
        return [cast("Source", pictures)]
    if hasattr(pictures, "__array__") and getattr(pictures, "ndim", 0) in (0, 2, 3):
        return [cast("Source", pictures)]
    return cast("Sequence[Source]", pictures)


def _again(picture: Source) -> Read:
    """Reads a photograph as often as it is asked to; a stream gives its bytes once."""
    if isinstance(picture, memoryview):
        picture = bytes(picture)
    elif isinstance(picture, PathLike):
        picture = Path(picture)
    if isinstance(picture, str | Path | bytes | bytearray) or not hasattr(picture, "read"):
        return partial(_read, picture)
    content = cache(partial(cast("BinaryIO", picture).read, MAX_FILE_BYTES + 1))

    def read() -> Picture:
        try:
            found = cast("object", content())
        except ValueError as error:
            raise BadPictureError(f"cannot be read ({error})") from error
        if not isinstance(found, bytes | bytearray):
            raise BadPictureError("not opened as a binary file: open it with mode 'rb'")
        return read_picture(bytes(found))

    return read


def _read(picture: Source) -> Picture:
    """One photograph, however it is given.

    Raises:
        BadPictureError: If it is not an image, damaged, or an array of another layout.
    """
    if isinstance(picture, str | Path):
        if "\0" in str(picture):
            raise BadPictureError("its name contains a zero byte")
        return read_picture(Path(picture))
    if isinstance(picture, bytes | bytearray):
        return read_picture(bytes(picture))
    if isinstance(picture, Image.Image):
        return to_picture(picture)
    if hasattr(picture, "read"):
        return read_picture(cast("BinaryIO", picture))
    try:
        pixels: NDArray[Any] = np.asarray(picture)
    except (TypeError, ValueError, RuntimeError) as error:  # such as a tensor on another device
        raise BadPictureError(f"not an array of pixels ({error})") from error
    expected = "expected uint8 of shape (H, W, 3), (H, W, 4) or (H, W)"
    if pixels.dtype != np.uint8:
        raise BadPictureError(f"array of type {pixels.dtype}; {expected}, from 0 to 255")
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        first = " (channels first: transpose it)" if pixels.shape[:1] in ((1,), (3,)) else ""
        raise BadPictureError(f"array of shape {pixels.shape}{first}; {expected}")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if not pixels.size:
        raise BadPictureError(f"array of shape {pixels.shape} without pixels")
    return to_picture(Image.fromarray(np.ascontiguousarray(pixels)))


def _rules(decision: Decision) -> dict[float, float]:
    """The least probability of a class in a prediction set, by coverage."""
    return {rule.coverage: rule.min_prob for rule in decision.sets}


def _listed(known: Iterable[float]) -> str:
    return " and ".join(f"{key:g}" for key in known)
