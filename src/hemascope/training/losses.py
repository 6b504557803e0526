"""What training minimizes: cross-entropy and its variants for rare and hard classes."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, one_hot

from hemascope.settings.run import TrainingSettings

LossFunction = Callable[[Tensor, Tensor], Tensor]
_EFFECTIVE_BETA = 0.999  # Cui et al. find 0.999 to 0.9999 for data sets of this size


def make_loss(settings: TrainingSettings, counts: Tensor) -> LossFunction:
    """The loss of a batch: logits (N, C) and targets, classes (N,) or probabilities (N, C).

    Args:
        settings: Which loss, and its options.
        counts: Images of each class in the train split, shape (C,).

    Returns:
        A function that gives the mean loss in nats.
    """
    if settings.loss == "focal":
        return lambda logits, targets: focal(
            logits, targets, gamma=settings.focal_gamma, smoothing=settings.label_smoothing
        )
    weight = class_weights(settings, counts)
    smoothing = settings.label_smoothing
    if weight is None:
        return lambda logits, targets: cross_entropy(logits, targets, label_smoothing=smoothing)
    return lambda logits, targets: weighted(logits, targets, weight=weight, smoothing=smoothing)


def class_weights(settings: TrainingSettings, counts: Tensor) -> Tensor | None:
    """The weight of each class, shape (C,), or None where all count the same.

    The mean over the training images is one, so that a learning rate means the same with any loss.
    A class without images gets the weight of a class with one.
    """
    counts = counts.clamp(min=1).to(torch.float32)
    if settings.loss == "weighted":
        weight = 1 / counts
    elif settings.loss == "class-balanced":
        weight = (1 - _EFFECTIVE_BETA) / (1 - _EFFECTIVE_BETA**counts)
    else:
        return None
    return weight * counts.sum() / (weight * counts).sum()


def weighted(logits: Tensor, targets: Tensor, *, weight: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy in which each target class counts by its weight, averaged over images."""
    target_probs = _smooth(targets, logits.shape[1], smoothing)
    return -(weight * target_probs * log_softmax(logits.float(), dim=1)).sum(dim=1).mean()


def focal(logits: Tensor, targets: Tensor, *, gamma: float, smoothing: float) -> Tensor:
    """Cross-entropy in which an image counts the less the surer the network is of it.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, equation 4.
    """
    log_probs = log_softmax(logits.float(), dim=1)
    target_probs = _smooth(targets, logits.shape[1], smoothing)
    doubt = (1 - log_probs.exp()).clamp(min=1e-7)  # at 0 a small gamma has no gradient
    return -(target_probs * doubt**gamma * log_probs).sum(dim=1).mean()


def distillation(logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """How far the network is from its teacher, both softened by `temperature`.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015.
    """
    ours = log_softmax(logits.float() / temperature, dim=1)
    theirs = log_softmax(teacher_logits.float() / temperature, dim=1)
    return temperature**2 * kl_div(ours, theirs, reduction="batchmean", log_target=True)


def _smooth(targets: Tensor, num_classes: int, smoothing: float) -> Tensor:
    probs = one_hot(targets, num_classes).float() if targets.ndim == 1 else targets
    return probs * (1 - smoothing) + smoothing / num_classes
