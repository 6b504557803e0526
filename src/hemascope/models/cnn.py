"""The study's convolutional network."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from hemascope.models.links import Link


class CNN(nn.Module):
    """Three convolution blocks and three linear layers: 422,344 parameters at 28x28, 8 classes.

    `channels` and `hidden` are the widths of the convolutions and of the hidden linear layers. Maps
    images (N, 3, H, H) in [0, 1] to logits (N, C).

    Source: Pinto & Silva, University of Coimbra.
    """

    grad_cam_layer = "features.6"  # the last convolution
    head_layer = "classifier.5"

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int,
        channels: tuple[int, int, int] = (32, 64, 128),
        hidden: tuple[int, int] = (256, 128),
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for inputs, outputs in zip((3, *channels), channels, strict=False):
            blocks += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels[2] * (image_size // 8) ** 2, hidden[0]),
            nn.ReLU(),
            nn.Linear(hidden[0], hidden[1]),
            nn.ReLU(),
            nn.Linear(hidden[1], num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, 3, H, H)."""
        return self.classifier(self.features(images))

    def links(self) -> list[Link]:
        """What pruning may make narrower: every layer but the last."""
        weighted = [f"features.{i}" for i in (0, 3, 6)] + [f"classifier.{i}" for i in (1, 3, 5)]
        return [Link(a, None, b) for a, b in pairwise(weighted)]

    @staticmethod
    def pruned_options(options: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
        """The options of the network whose links are `kept` wide."""
        return {**options, "channels": list(kept[:3]), "hidden": list(kept[3:])}
