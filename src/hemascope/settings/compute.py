"""Where and in what a network computes."""

import os
from typing import Literal, Self

from pydantic import Field, model_validator

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
    symmetries (test-time augmentation).
    """

    device: Device = "auto"
    precision: AnyPrecision | None = None
    views: NumViews = 1


class Processes(Settings):
    """How many processes train one network together: one for each of `devices` on each of `nodes`.

    On more than one machine, each runs the same command, with its number `node_rank`, from 0, and
    the address `master` (HOST:PORT) of number 0, which writes the run.
    """

    devices: int = Field(default=1, ge=1)
    nodes: int = Field(default=1, ge=1)
    node_rank: int = Field(default=0, ge=0)
    master: str = Field(default="", pattern=r"^(.+:\d+)?$")

    @model_validator(mode="after")
    def _one_place_each(self) -> Self:
        if self.node_rank >= self.nodes:
            raise ValueError("node_rank counts the nodes from 0; give one below their number")
        if (self.nodes > 1) != bool(self.master):
            raise ValueError("more than one node needs master (HOST:PORT), and one has none")
        return self


def in_group() -> bool:
    """Whether torchrun, or `train` by it, started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def is_follower() -> bool:
    """Whether it is not the first of them, which alone writes."""
    return in_group() and os.environ["RANK"] != "0"
