"""What training minimizes: cross-entropy and its variants for rare and hard classes."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, one_hot

from hemascope.settings.run import TrainingSettings

_EFFECTIVE_BETA = 0.999  # Cui et al. find 0.999 to 0.9999 for data sets of this size


class LossFunction(Protocol):
    """The mean loss of a batch in nats."""

    def __call__(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Takes logits (N, C), targets, and where images are weighted, weights (N,).

        Targets are classes (N,) or probabilities (N, C). Each image's loss is multiplied by its
        weight before the mean is taken over N.
        """
        ...


def make_loss(settings: TrainingSettings, counts: Tensor) -> LossFunction:
    """The loss that the settings name.

    Args:
        settings: Which loss, and its options.
        counts: Images of each class in the train split, shape (C,).
    """
    smoothing, gamma = settings.label_smoothing, settings.focal_gamma
    per_class = class_weights(settings, counts)

    def loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        if settings.loss == "focal":
            losses = focal(logits, targets, gamma=gamma, smoothing=smoothing)
        elif per_class is not None:
            losses = weighted(logits, targets, weight=per_class, smoothing=smoothing)
        elif weights is None:  # torch's own mean, on whose rounding every published run depends
            return cross_entropy(logits, targets, label_smoothing=smoothing)
        else:
            losses = cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
        return (losses if weights is None else weights * losses).mean()

    return loss


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
    """Cross-entropy of each image, shape (N,), in which each target class counts by its weight."""
    target_probs = _smooth(targets, logits.shape[1], smoothing)
    return -(weight * target_probs * log_softmax(logits.float(), dim=1)).sum(dim=1)


def focal(logits: Tensor, targets: Tensor, *, gamma: float, smoothing: float) -> Tensor:
    """Cross-entropy, shape (N,), that counts an image less the more confident the network is.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, equation 4.
    """
    log_probs = log_softmax(logits.float(), dim=1)
    target_probs = _smooth(targets, logits.shape[1], smoothing)
    doubt = (1 - log_probs.exp()).clamp(min=1e-7)  # at 0 a small gamma has no gradient
    return -(target_probs * doubt**gamma * log_probs).sum(dim=1)


def distillation(
    logits: Tensor,
    teacher_logits: Tensor,
    weights: Tensor | None = None,
    *,
    temperature: float,
) -> Tensor:
    """How far the network is from its teacher, both softened by `temperature`.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015.
    """
    ours = log_softmax(logits.float() / temperature, dim=1)
    theirs = log_softmax(teacher_logits.float() / temperature, dim=1)
    if weights is None:
        return temperature**2 * kl_div(ours, theirs, reduction="batchmean", log_target=True)
    losses = kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * (weights * losses).mean()


def _smooth(targets: Tensor, num_classes: int, smoothing: float) -> Tensor:
    probs = one_hot(targets, num_classes).float() if targets.ndim == 1 else targets
    return probs * (1 - smoothing) + smoothing / num_classes
