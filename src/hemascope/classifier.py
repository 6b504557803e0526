"""For scikit-learn: a network that tells cells apart, with `fit`, `predict` and `score`.

Research use only. Not a medical device; no clinical claim is made.
"""

import math
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from copy import deepcopy
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_random_state, validation
from sklearn.utils.multiclass import check_classification_targets
from torch import nn

from hemascope.core.classes import ClassSet
from hemascope.core.errors import HemascopeError
from hemascope.core.images import LabeledImages
from hemascope.core.predictions import log_softmax
from hemascope.inference import Engine
from hemascope.inference.torch_engine import TorchEngine, pick_device, pick_precision
from hemascope.inference.views import ViewsEngine
from hemascope.settings.compute import Device, PrecisionChoice
from hemascope.training import loop
from hemascope.training.state import TrainingState
from hemascope.training.task import ClassificationTask
from hemascope.workflows.plan import choose_settings
from hemascope.workflows.progress import Reporter

_validated: Any = validation.validate_data  # whose defaults make its arguments look like strings
_checked_weights: Any = validation._check_sample_weight  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the one for estimators
_AS_TORCH_NEEDS = {"order": "C", "force_writeable": True}  # copied only where they are not
_SMALLEST = 8  # pixels: the study's CNN halves an image three times
_EXPECTED = (
    f"RGB images (N, H, H, 3) or flattened (N, 3 * H * H), H at least {_SMALLEST}, of "
    "integers from 0 to 255"
)


class CellClassifier(ClassifierMixin, BaseEstimator):
    """Trains a preset's network on your images, wherever scikit-learn takes a classifier.

    It works in `cross_val_score`, `GridSearchCV`, pipelines and the like, and writes no file. All
    images given to `fit` are trained on: for all epochs, and nothing is chosen by any of them.

    Images are RGB with integers from 0 to 255, shape (N, H, H, 3), H at least 8; or
    (N, 3 * H * H), which is `images.reshape(N, -1)`, for tools that insist on tables. Labels are
    strings or integers.

    Args:
        preset: Which network and recipe: a name that `hemascope train --preset` takes.
        epochs: How often each image is seen; None for the preset's number.
        batch_size: Images in a step; None for the preset's number.
        views: 8 averages what the network says of an image's mirror images and quarter turns, which
            takes eight times as long; 1 asks about the image alone. The preset's is not used.
        random_state: An int makes each `fit` the same, on a CPU to the bit, and the same as
            `hemascope train --seed` with this preset, precision and images; a `RandomState` is
            drawn from; None is another network each time.
        device: "auto" takes MPS, then CUDA, then the CPU.
        precision: "fp32" is exact, "bf16" quicker where the processor has it, "auto" takes it
            there. The preset's is not used.
        verbose: Whether to say the loss after each epoch, on standard error.

    Attributes:
        classes_: The labels, sorted: what the columns of `predict_proba` mean, shape (C,).
        n_features_in_: Numbers in an image, 3 * H * H, in whichever shape it was given.
        network_: The trained network, on the CPU, so that a pickle can be read on any machine.

    Notes:
        To use several cores, let `n_jobs` start processes, as joblib does by default. Threads share
        torch's random numbers, so that a network then depends on the others.

    Example:
        >>> import numpy as np
        >>> from hemascope.classifier import CellClassifier
        >>> from hemascope.data.rendered import render
        >>> y = np.array(["eosinophil", "platelet"] * 32)
        >>> X = render(np.where(y == "platelet", 7, 1), seed=0)
        >>> model = CellClassifier(epochs=12, batch_size=8, random_state=0)
        >>> model.fit(X[:48], y[:48]).score(X[48:], y[48:])
        1.0
    """

    classes_: NDArray[Any]
    n_features_in_: int
    network_: nn.Module

    def __init__(
        self,
        preset: str = "hemanet-tiny",
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        views: int = 1,
        random_state: int | np.random.RandomState | None = None,
        device: Device = "auto",
        precision: PrecisionChoice = "fp32",
        verbose: bool = False,
    ) -> None:
        # Stored untouched, as `clone` and `set_params` ask for: `fit` says what is wrong.
        self.preset = preset
        self.epochs = epochs
        self.batch_size = batch_size
        self.views = views
        self.random_state = random_state
        self.device: Device = device
        self.precision: PrecisionChoice = precision
        self.verbose = verbose

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True  # and no tag speaks of arrays with four axes
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Trains a new network; what an earlier `fit` learned is forgotten.

        Args:
            X: RGB images (N, H, H, 3) or (N, 3 * H * H), integers from 0 to 255.
            y: The label of each image, shape (N,).
            sample_weight: How much the loss of each image counts, shape (N,), relative to the
                others; None for all the same. An image of weight 2 counts as if it were there
                twice, on average over the random order of the images; one of weight 0 is left out.

        Returns:
            The classifier itself.

        Raises:
            ValueError: If images, labels or parameters are not what they should be, or the loss is
                no longer a number.
        """
        table, y = _validated(self, _flat(X), y, **_AS_TORCH_NEEDS)
        images = _images_in(table)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError("CellClassifier needs images of at least two classes, y has 1 class.")
        train = LabeledImages(images, labels, tuple(map(str, range(len(images)))))
        weights = None
        if sample_weight is not None:
            given: NDArray[np.float64] = _checked_weights(
                sample_weight, table, dtype=np.float64, ensure_non_negative=True
            )
            counting = np.flatnonzero(given)
            train, weights = train.take(counting), given[counting]
        with _as_value_errors():
            network = self._train(train, ClassSet(tuple(map(str, classes))), weights)
        self.classes_, self.network_ = classes, network
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """How likely each class is, shape (N, C), in the order of `classes_`; rows sum to 1.

        Args:
            X: RGB images (N, H, H, 3) or (N, 3 * H * H), as large as those of `fit`.

        Raises:
            NotFittedError: If `fit` was not called before.
            ValueError: If they are no such images.
        """
        validation.check_is_fitted(self, "network_")
        images = _images_in(_validated(self, _flat(X), reset=False, **_AS_TORCH_NEEDS))
        with _as_value_errors():
            device = pick_device(self.device)
            precision = pick_precision(self.precision, device)
        network = self.network_ if device.type == "cpu" else deepcopy(self.network_)
        engine: Engine = TorchEngine(network, device=device, precision=precision)
        if self.views > 1:
            engine = ViewsEngine(engine)
        return np.exp(log_softmax(engine.logits(images)))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable label of each image, shape (N,); for the rest see `predict_proba`."""
        probs = self.predict_proba(X)
        return self.classes_[probs.argmax(axis=1)]

    def _train(
        self, train: LabeledImages, classes: ClassSet, weights: NDArray[np.float64] | None
    ) -> nn.Module:
        seed = self.random_state
        if not isinstance(seed, Integral):
            seed = check_random_state(seed).randint(2**31)
        changes = {
            "training.epochs": self.epochs,
            "training.batch_size": self.batch_size,
            "training.patience": 0,
            "views": self.views,
            "device": self.device,
            "precision": self.precision,
            "seed": seed,
        }
        settings = choose_settings(self.preset, None, changes)
        device = pick_device(settings.device)
        precision = pick_precision(settings.precision, device)
        # The loop looks after each epoch for a loss that is not a number. With patience off,
        # nothing else hangs on it: a few of the images trained on will do.
        watched = train.take(np.arange(min(len(train), settings.training.batch_size)))
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(settings.seed)
            model = loop.fresh_model(
                settings, image_size=train.images.shape[1], num_classes=len(classes)
            )
            state = TrainingState(
                model, settings.training, seed=settings.seed, device=device, precision=precision
            )
            task = ClassificationTask(train, state, classes=classes, weights=weights)
            for record in loop.fit(state, task, watched):
                if self.verbose:
                    accuracy = record.figures["train_accuracy"]
                    Reporter().say(
                        f"epoch {record.epoch}/{settings.training.epochs}: train loss "
                        f"{record.train_loss:.4f}, train accuracy {accuracy:.4f}"
                    )
        return state.result.cpu()


def _flat(X: ArrayLike) -> ArrayLike:
    """Images as a table of numbers, a row for each; anything else as it is."""
    array: Any = np.asarray(X) if isinstance(X, list | tuple) else X
    shape = getattr(array, "shape", ())
    if len(shape) < 3:
        return array
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        raise ValueError(f"X must be {_EXPECTED}; got shape {tuple(shape)}.")
    return np.asarray(array).reshape(shape[0], math.prod(shape[1:]))


def _images_in(table: NDArray[Any]) -> NDArray[np.uint8]:
    """The images (N, H, H, 3) in a table (N, 3 * H * H)."""
    if table.dtype != np.uint8:
        if table.min() < 0:
            raise ValueError(f"Negative values in data: X must be {_EXPECTED}.")
        if table.max() > 255 or (table != np.floor(table)).any():
            raise ValueError(
                f"X must be {_EXPECTED}; multiply images in [0, 1] by 255 and round them."
            )
    if table.size and table.max() == 1:
        warnings.warn(
            f"no value in X is above 1, which is nearly black: X must be {_EXPECTED}.",
            stacklevel=3,
        )
    size = math.isqrt(table.shape[1] // 3)
    if size < _SMALLEST or table.shape[1] != 3 * size**2:
        raise ValueError(f"X must be {_EXPECTED}; got {table.shape[1]} numbers an image.")
    return table.astype(np.uint8, copy=False).reshape(-1, size, size, 3)


@contextmanager
def _as_value_errors() -> Generator[None]:
    """Says what this project's errors say as a ValueError, which names the argument."""
    try:
        yield
    except HemascopeError as error:
        raise ValueError(f"{error.field}: {error}" if error.field else str(error)) from error
