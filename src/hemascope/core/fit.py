"""What was decided for the photographs of one laboratory by some of them."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hemascope.core.framing import Frame


class MovedLayer(BaseModel):
    """A last layer that was moved to a laboratory's cells, of which no label was known.

    Attributes:
        weights: The C x K weights, row by row, as float32 (little-endian); base64 in JSON.
        biases: The C biases.
        num_images: How many images decided.
        num_changed: How many of them get another class than from the layer as trained.
        made_for: Digest of that layer.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )

    weights: bytes
    biases: tuple[float, ...] = Field(min_length=2)
    num_images: int = Field(gt=0)
    num_changed: int = Field(ge=0)
    made_for: str

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.weights) % (4 * len(self.biases)):
            raise ValueError("there are not as many weights for each bias")
        return self

    def describe(self) -> str:
        """A sentence about it."""
        share = 100 * self.num_changed / self.num_images
        return (
            f"This laboratory's images are unlike those of training: the last layer was moved to "
            f"{self.num_images:,} of them, which changes the class of {share:.0f} %."
        )


class LaboratoryFit(BaseModel):
    """How a laboratory's photographs are framed and answered, decided by some of them.

    Attributes:
        frame: How they are framed; None where that is known without them.
        layer: The last layer that answers them; None for the model's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    frame: Frame | None = None
    layer: MovedLayer | None = None

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, given: Any) -> Any:
        """A frame alone, as older versions wrote it."""
        is_frame = isinstance(given, Mapping) and "share" in given
        return {"frame": given} if is_frame else given

    def describe(self) -> str:
        """Sentences about it."""
        return " ".join(part.describe() for part in (self.frame, self.layer) if part)
