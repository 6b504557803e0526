"""Structured pruning: whole channels go, so that the network is really smaller and faster."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hemascope.core.errors import UsageError
from hemascope.models import check_model
from hemascope.models.links import Link
from hemascope.settings.run import ModelSettings


def prune(
    settings: ModelSettings, model: nn.Module, keep: float
) -> tuple[ModelSettings, dict[str, Tensor]]:
    """Keeps the share `keep` of the channels of every link, those with the largest weights.

    Returns:
        The smaller architecture, and the weights that it keeps.

    Raises:
        UsageError: If the architecture does not say what may be pruned.

    Source: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017.
    """
    architecture: Any = model
    if not hasattr(model, "links"):
        raise UsageError(
            f"architecture '{settings.name}' cannot be pruned; prune a 'hemanet' or a 'cnn'."
        )
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    kept: list[int] = []
    for link in architecture.links():
        importance = _importance(weights, link)
        count = max(1, round(keep * len(importance)))
        chosen = importance.topk(count).indices.sort().values
        _cut(weights, link, chosen, len(importance))
        kept.append(count)
    options = architecture.pruned_options(check_model(settings), kept)
    return ModelSettings(name=settings.name, options=options), weights


def _importance(weights: Mapping[str, Tensor], link: Link) -> Tensor:
    """L1 norm of each output's weights, as the normalization behind them scales it."""
    size = weights[f"{link.producer}.weight"].abs().flatten(1).sum(dim=1)
    if link.norm:
        variance = weights[f"{link.norm}.running_var"]
        size = size * weights[f"{link.norm}.weight"].abs() / variance.clamp(min=1e-5).sqrt()
    return size


def _cut(weights: dict[str, Tensor], link: Link, chosen: Tensor, count: int) -> None:
    for name in (link.producer, link.norm):
        for part in ("weight", "bias", "running_mean", "running_var") if name else ():
            if f"{name}.{part}" in weights:
                weights[f"{name}.{part}"] = weights[f"{name}.{part}"][chosen]
    # A linear layer behind a flattened image reads every channel at each of its pixels.
    consumer = weights[f"{link.consumer}.weight"]
    by_channel = consumer.unflatten(1, (count, consumer.shape[1] // count))
    weights[f"{link.consumer}.weight"] = by_channel[:, chosen].flatten(1, 2)
