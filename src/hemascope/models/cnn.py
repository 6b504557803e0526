"""The study's convolutional network."""

from torch import Tensor, nn


class CNN(nn.Module):
    """Three convolution blocks and three linear layers: 422,344 parameters at 28x28, 8 classes.

    Maps images (N, 3, H, H) in [0, 1] to logits (N, C).

    Source: Pinto & Silva, University of Coimbra.
    """

    grad_cam_layer = "features.6"  # the last convolution

    def __init__(self, *, image_size: int, num_classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for inputs, outputs in ((3, 32), (32, 64), (64, 128)):
            blocks += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(128 * (image_size // 8) ** 2, 256),
            nn.ReLU(),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.Linear(128, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, 3, H, H)."""
        return self.classifier(self.features(images))
