"""What a network is to learn: what the training loop needs to know of it, and classification."""

from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hemascope.core.classes import ClassSet
from hemascope.core.errors import DivergedError, UsageError
from hemascope.core.images import LabeledImages, StoredImages
from hemascope.inference import predict
from hemascope.inference.torch_engine import TorchEngine
from hemascope.metrics import METRICS
from hemascope.training.augmentation import Augmentation
from hemascope.training.losses import distillation, make_loss
from hemascope.training.state import TrainingState

_FIGURES = ("loss", "accuracy", "f1_weighted")

Batch = TypeVar("Batch")
Examples = TypeVar("Examples", contravariant=True)


class Task(Protocol[Batch, Examples]):
    """The training examples, their loss and their figures; the loop knows no metric by name.

    `Batch` is whatever `batch` hands to `loss`, and `Examples` whatever `evaluate` is given: the
    loop looks into neither. Random numbers are drawn from the generators of the `TrainingState`,
    so a resumed run continues with the same ones.
    """

    @property
    def chances(self) -> Tensor | None:
        """How often each example is drawn, relative to the others, shape (N,), on the CPU.

        None where an epoch shows each of them once.
        """
        ...

    def __len__(self) -> int:
        """The number of training examples, N."""
        ...

    def batch(self, chosen: Tensor, rows: slice) -> Batch:
        """Of the training examples at the indices `chosen`, in a new random variant, some rows.

        The variants of all of `chosen` are drawn, so that each is the same whoever asks for it.
        """
        ...

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """What is minimized, the mean over a batch; and sums over its examples, by name.

        The loop reports the sums of an epoch divided by N, as `train_<name>`.
        """
        ...

    def evaluate(self, model: nn.Module, examples: Examples) -> dict[str, float]:
        """Figures of a network on examples it is not trained on; one is called "loss"."""
        ...


@dataclass(frozen=True)
class ImageBatch:
    """A batch of images to classify.

    Attributes:
        inputs: Network inputs, shape (N, 3, H, H).
        targets: Classes, shape (N,), or probabilities, shape (N, C), where images are mixed.
        labels: The class of each image before any mixing, shape (N,).
        weights: How much each image counts in the loss, shape (N,), or None for all the same.
    """

    inputs: Tensor
    targets: Tensor
    labels: Tensor
    weights: Tensor | None


class ClassificationTask:
    """Tells classes of images apart: a `Task` whose examples are `LabeledImages`.

    Args:
        train: What the network is fitted to; kept as uint8, in memory or on disk, and scaled to
            [0, 1] a batch at a time.
        state: The network and how it is trained.
        classes: What the labels mean.
        teacher: A trained network to learn from as well, shown the same variants of the images.
        weights: How much the loss of each image counts, shape (N,), at least 0 and not all 0. Their
            scale does not matter: their mean counts as 1, so that learning rates keep their
            meaning.
    """

    def __init__(
        self,
        train: LabeledImages,
        state: TrainingState,
        *,
        classes: ClassSet,
        teacher: nn.Module | None = None,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        settings, device = state.settings, state.device
        self._state = state
        self._classes = classes
        images = cast("NDArray[np.uint8] | StoredImages", train.images)
        self._images = (
            images if isinstance(images, StoredImages) else torch.from_numpy(images).to(device)
        )
        self._labels = torch.from_numpy(train.labels).to(device)
        self._weights = (
            None
            if weights is None
            else torch.from_numpy(weights / weights.mean()).to(device, torch.float32)
        )
        counts = torch.bincount(self._labels, minlength=len(classes))
        self._augmentation = Augmentation(settings.augmentation, classes.names, state.variants)
        self._criterion = make_loss(settings, counts)
        self._teacher = teacher.to(device).eval() if teacher is not None else None
        self.chances: Tensor | None = None
        if settings.balanced or settings.by_laboratory:
            laboratories = np.array(train.laboratories or ("",) * len(train.labels))
            cells = train.labels if settings.balanced else _cells(train.labels, laboratories)
            power = 1 if settings.balanced else 0.5
            self.chances = torch.from_numpy(np.bincount(cells)[cells].astype(float) ** -power)

    def __len__(self) -> int:
        """The number of training images."""
        return len(self._labels)

    def batch(self, chosen: Tensor, rows: slice) -> ImageBatch:
        """Images at the indices `chosen`, augmented and mixed as the settings say; their `rows`."""
        labels = self._labels[chosen]
        if isinstance(self._images, StoredImages):
            images = torch.from_numpy(self._images[chosen.cpu().numpy()]).to(chosen.device)
        else:
            images = self._images[chosen]
        inputs = self._augmentation(images, labels)
        weights = None if self._weights is None else self._weights[chosen]
        inputs, targets, weights = self._augmentation.mix(
            inputs, labels, len(self._classes), weights
        )
        weights = None if weights is None else weights[rows]
        return ImageBatch(inputs[rows], targets[rows], labels[rows], weights)

    def loss(self, model: nn.Module, batch: ImageBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch in nats, with the teacher's share in it; counts correct predictions.

        Raises:
            UsageError: If the network cannot be trained on a batch of this size.
            DivergedError: If the teacher's logits are not finite.
        """
        try:
            logits = model(batch.inputs)
        except ValueError as error:  # batch normalization of one image without any area
            raise UsageError(
                "training.batch_size: this network cannot be trained on a batch of "
                f"{len(batch.inputs)} ({error}); choose one that leaves no single image over."
            ) from error
        loss = self._criterion(logits, batch.targets, batch.weights)
        if self._teacher is not None:
            loss = self._blend(loss, logits, self._teacher, batch)
        return loss, {"accuracy": (logits.argmax(dim=1) == batch.labels).sum()}

    def evaluate(self, model: nn.Module, examples: LabeledImages) -> dict[str, float]:
        """Loss in nats, accuracy and weighted F1 of a network on labeled images."""
        engine = TorchEngine(model, device=self._state.device, precision=self._state.precision)
        predictions = predict(engine, examples, self._classes)
        return {name: METRICS[name](predictions) for name in _FIGURES}

    def _blend(self, loss: Tensor, logits: Tensor, teacher: nn.Module, batch: ImageBatch) -> Tensor:
        """The loss with the teacher's share in it."""
        settings = self._state.settings
        with torch.no_grad():
            teacher_logits = teacher(batch.inputs)
        if not torch.isfinite(teacher_logits).all():
            raise DivergedError(
                "training diverged. The teacher answers with numbers that are not finite: choose "
                "another."
            )
        share, temperature = settings.teacher_weight, settings.teacher_temperature
        return (1 - share) * loss + share * distillation(
            logits, teacher_logits, batch.weights, temperature=temperature
        )


def _cells(labels: NDArray[np.int64], laboratories: NDArray[np.str_]) -> NDArray[np.int64]:
    """A number for each class of each laboratory, shape (N,)."""
    laboratory = np.unique(laboratories, return_inverse=True)[1]
    return laboratory * (labels.max() + 1) + labels
