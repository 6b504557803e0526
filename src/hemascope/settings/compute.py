"""Where and in what a network computes."""

import os
from typing import Literal

from hemascope.settings.base import Settings

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16"]
PrecisionChoice = Literal["auto", "fp32", "bf16"]
OnnxPrecision = Literal["fp32", "fp16", "int8"]  # of exported graphs
AnyPrecision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
NumViews = Literal[1, 8]


class Compute(Settings):
    """How a command asks a trained network.

    `device` "auto" takes MPS, then CUDA, then the CPU. `precision` None is what the model was
    trained in, or the exported graph it recommends. `views` 8 averages over an image's eight
    symmetries (test-time augmentation); None is one view, or eight where `predict` and `evaluate`
    move the last layer.
    """

    device: Device = "auto"
    precision: AnyPrecision | None = None
    views: NumViews | None = None

    @property
    def num_views(self) -> NumViews:
        """How many views of each image, where no last layer is moved."""
        return self.views or 1


def in_group() -> bool:
    """Whether torchrun, or `train` by it, started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def is_follower() -> bool:
    """Whether it is not the first of them, which alone writes."""
    return in_group() and os.environ["RANK"] != "0"
