"""The MODELS table and the one function that builds a network from it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hemascope.config import ModelSettings, explain
from hemascope.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import nn


class NoOptions(BaseModel):
    """An architecture that has no options of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Width = Annotated[int, Field(ge=1, le=100_000)]


class MlnnOptions(NoOptions):
    """Hidden layers of the MLNN: `hidden_layers` of the study's width, or a list of widths."""

    hidden_layers: int = Field(default=1, ge=1, le=100)
    hidden_widths: tuple[Width, ...] | None = Field(default=None, min_length=1, max_length=100)

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if {"hidden_layers", "hidden_widths"} <= self.model_fields_set:
            raise ValueError("give one of hidden_layers and hidden_widths")
        return self


@dataclass(frozen=True)
class ModelRow:
    """Where an architecture lives (named, not imported: its file needs torch) and its options."""

    module: str
    class_name: str
    options: type[NoOptions] = NoOptions


# To add a model: its file, and its row here.
MODELS: dict[str, ModelRow] = {
    "cnn": ModelRow("hemascope.models.cnn", "CNN"),
    "mlnn": ModelRow("hemascope.models.mlnn", "MLNN", MlnnOptions),
}


def check_model(settings: ModelSettings) -> dict[str, Any]:
    """The architecture's options, validated without importing torch.

    Raises:
        UsageError: If there is no such architecture, or an option is unknown or wrong.
    """
    if settings.name not in MODELS:
        hint = did_you_mean(settings.name, MODELS)
        raise UsageError(f"model.name: no architecture is called '{settings.name}'; {hint}")
    options = MODELS[settings.name].options
    try:
        return options.model_validate(settings.options).model_dump()
    except ValidationError as error:
        raise UsageError(f"model.options: {explain(error, options)}") from error


def build_model(settings: ModelSettings, *, image_size: int, num_classes: int) -> nn.Module:
    """A freshly initialized network that maps (N, 3, H, H) images to (N, C) logits.

    Raises:
        UsageError: As `check_model`, or if it does not fit into memory.
    """
    options = check_model(settings)
    row = MODELS[settings.name]
    architecture = getattr(import_module(row.module), row.class_name)
    try:
        return architecture(image_size=image_size, num_classes=num_classes, **options)
    except (RuntimeError, MemoryError) as error:  # torch's way of saying that memory is short
        raise UsageError(
            f"model: '{settings.name}' with these options does not fit into memory ({error}); make "
            "it smaller."
        ) from error
