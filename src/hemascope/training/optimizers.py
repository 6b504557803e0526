"""How the weights move: optimizers and the learning rate over the steps."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hemascope.models import head_of
from hemascope.settings.run import TrainingSettings

_MOMENTUM = 0.9


def make_optimizers(model: nn.Module, settings: TrainingSettings) -> list[Optimizer]:
    """The optimizers of the weights that are trained; each weight belongs to one of them.

    Weight decay leaves out biases and normalization, whose size says nothing of complexity. With
    "muon", the matrices between the first and the last layer follow Muon, everything else AdamW.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "muon":
        inner = _inner_matrices(model)
        taken = {id(parameter) for parameter in inner}
        trained = [parameter for parameter in trained if id(parameter) not in taken]
        others = _adam(torch.optim.AdamW, trained, settings)
        return [Muon(inner, rate=rate, decay=decay), others] if inner else [others]
    if settings.optimizer == "sgd":
        parameters = _groups(trained, decay)
        return [torch.optim.SGD(parameters, lr=rate, momentum=_MOMENTUM, nesterov=True)]
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return [_adam(kind, trained, settings)]


def rate_factor(settings: TrainingSettings, step: int, num_steps: int) -> float:
    """By how much the learning rate is multiplied at a step, counted from 0: in [0, 1]."""
    if settings.schedule == "constant":
        return 1.0
    warm_up = settings.warmup * num_steps
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    return (1 + math.cos(math.pi * (step - warm_up) / (num_steps - warm_up))) / 2


class Muon(Optimizer):
    """Momentum whose every step is made orthogonal, so that no direction of a layer lags behind.

    A convolution counts as a matrix (outputs, inputs x height x width). Steps are scaled to the
    size that Adam's have, so that learning rate and weight decay mean the same as there.

    Notes:
        torch.optim.Muon takes matrices only, and computes in bfloat16 (docs/decisions/0006).

    Source: Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024; the
    scale, Liu et al., Muon is Scalable for LLM Training, arXiv 2502.16982.
    """

    def __init__(self, parameters: Iterable[Tensor], *, rate: float, decay: float) -> None:
        super().__init__(parameters, {"lr": rate, "weight_decay": decay, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Moves every weight that has a gradient."""
        del closure
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"]
                momentum.mul_(group["momentum"]).add_(weight.grad)
                ahead = weight.grad.add(momentum, alpha=group["momentum"])  # Nesterov's
                matrix = orthogonal(ahead.flatten(1))
                scale = 0.2 * math.sqrt(max(matrix.shape))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(matrix.view(weight.shape), alpha=-group["lr"] * scale)


def orthogonal(matrix: Tensor) -> Tensor:
    """Nearly the nearest matrix whose singular values are equal: shape (M, N) as given.

    Four steps of Newton and Schulz bring the singular values to between about 0.7 and 1.2.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(4):
        gram = wide @ wide.T
        wide = 3.4445 * wide + (-4.7750 * gram + 2.0315 * gram @ gram) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def _inner_matrices(model: nn.Module) -> list[Tensor]:
    """The trained weights between the first and the last layer, but for those of one channel."""
    layers = [part for part in model.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    last = head_of(model)
    return [
        layer.weight
        for layer in layers[1:]
        if layer is not last
        and layer.weight.requires_grad
        and not (isinstance(layer, nn.Conv2d) and layer.groups > 1)
    ]


def _adam(
    kind: type[torch.optim.Adam], parameters: list[nn.Parameter], settings: TrainingSettings
) -> Optimizer:
    groups = _groups(parameters, settings.weight_decay)
    return kind(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)


def _groups(parameters: list[nn.Parameter], decay: float) -> list[dict[str, object]]:
    groups: list[dict[str, object]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
