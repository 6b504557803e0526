"""Several networks that answer as one."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hemascope.models import build_model
from hemascope.settings.run import ModelSettings


class Ensemble(nn.Module):
    """Answers with the mean of its members' probabilities.

    Maps images (N, 3, H, H) in [0, 1] to logits (N, C): the logarithm of that mean, whose softmax
    it is.

    Source: Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty Estimation using
    Deep Ensembles, NeurIPS 2017.
    """

    grad_cam_layer = None  # each member has its own
    head_layer = None

    def __init__(
        self, *, image_size: int, num_classes: int, members: Sequence[dict[str, Any]]
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            build_model(
                ModelSettings.model_validate(member),
                image_size=image_size,
                num_classes=num_classes,
                weights_follow=True,
            )
            for member in members
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, 3, H, H)."""
        log_probs = [member(images).float().log_softmax(dim=1) for member in self.members]
        return torch.logsumexp(torch.stack(log_probs), dim=0) - math.log(len(log_probs))
