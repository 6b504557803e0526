"""The study's multi-layer neural network."""

from collections.abc import Sequence

from torch import Tensor, nn


class MLNN(nn.Module):
    """Fully connected layers on the flattened image: 2,785,988 parameters with one hidden layer.

    `hidden_layers` = n gives the study's n layers of (inputs + classes) / 2 units; `hidden_widths`
    gives any others. Maps images (N, 3, H, H) in [0, 1] to logits (N, C).

    Source: Pinto & Silva, University of Coimbra.
    """

    grad_cam_layer = None  # no convolution, no map

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int,
        hidden_layers: int = 1,
        hidden_widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        inputs = 3 * image_size**2
        widths = hidden_widths or [(inputs + num_classes) // 2] * hidden_layers
        layers: list[nn.Module] = [nn.Flatten()]
        for width in widths:
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, num_classes))
        self.head_layer = f"layers.{len(layers)}"

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, 3, H, H)."""
        return self.layers(images)
