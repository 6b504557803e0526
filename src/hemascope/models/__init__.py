"""The MODELS table and the one function that builds a network from it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hemascope.core.errors import UsageError, did_you_mean
from hemascope.settings.base import explain
from hemascope.settings.run import ModelSettings

if TYPE_CHECKING:
    from torch import nn


class NoOptions(BaseModel):
    """An architecture that has no options of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


MOST_MEMBERS = 100
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


class CnnOptions(NoOptions):
    """Widths of the study's CNN, which pruning makes smaller."""

    channels: tuple[Width, Width, Width] = (32, 64, 128)
    hidden: tuple[Width, Width] = (256, 128)


class HemaNetOptions(NoOptions):
    """Widths and strides (1 or 2) of stem and blocks; whether backgrounds are made white."""

    stem: Width = 24
    stem_stride: Literal[1, 2] = 1
    block: Literal["basic", "bottleneck"] = "basic"
    widths: tuple[Width, ...] = Field(default=(48, 48, 96, 96), min_length=1, max_length=100)
    strides: tuple[Literal[1, 2], ...] = (2, 1, 2, 1)
    inner: tuple[Width, ...] | None = None
    dropout: float = Field(default=0.0, ge=0, lt=1)
    white_point: bool = False

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if {len(self.widths)} != {len(self.strides), len(self.inner or self.widths)}:
            raise ValueError("give as many strides, and inner widths if any, as widths")
        return self


class TimmOptions(NoOptions):
    """Whether to begin with weights learned on other images."""

    pretrained: bool = False


class EnsembleOptions(NoOptions):
    """The members' architectures."""

    members: tuple[ModelSettings, ...] = Field(min_length=1, max_length=MOST_MEMBERS)


class ModelRow(NamedTuple):
    """Where an architecture lives (named, not imported: its file needs torch) and its options."""

    module: str
    class_name: str
    options: type[NoOptions]


# To add a model: its file, and its row here. A name before a slash stands for a library, and what
# follows is passed on as the architecture's `variant`.
MODELS: dict[str, ModelRow] = {
    "cnn": ModelRow("hemascope.models.cnn", "CNN", CnnOptions),
    "mlnn": ModelRow("hemascope.models.mlnn", "MLNN", MlnnOptions),
    "hemanet": ModelRow("hemascope.models.hemanet", "HemaNet", HemaNetOptions),
    "timm/": ModelRow("hemascope.models.timm_adapter", "TimmModel", TimmOptions),
    "ensemble": ModelRow("hemascope.models.ensemble", "Ensemble", EnsembleOptions),
}


def _find(name: str) -> tuple[ModelRow, dict[str, Any]]:
    """The row of an architecture, and the variant where its name holds one."""
    library, slash, variant = name.partition("/")
    if library + slash not in MODELS:
        hint = did_you_mean(name, MODELS)
        raise UsageError(f"model.name: no architecture is called '{name}'; {hint}")
    if slash and not variant:
        raise UsageError(f"model.name: '{name}' names no architecture; write timm/resnet18.")
    return MODELS[library + slash], {"variant": variant} if slash else {}


def check_model(settings: ModelSettings) -> dict[str, Any]:
    """The architecture's options, validated without importing torch.

    Raises:
        UsageError: If there is no such architecture, or an option is unknown or wrong.
    """
    options = _find(settings.name)[0].options
    try:
        return options.model_validate(settings.options).model_dump(mode="json", exclude_none=True)
    except ValidationError as error:
        raise UsageError(f"model.options: {explain(error, options)}") from error
    except ValueError as error:  # pydantic's way of saying that it gives up
        raise UsageError(f"model.options: ensembles nested too deeply ({error}).") from error


def build_model(
    settings: ModelSettings, *, image_size: int, num_classes: int, weights_follow: bool = False
) -> nn.Module:
    """A freshly initialized network that maps (N, 3, H, H) images to (N, C) logits.

    Args:
        settings: The architecture and its options.
        image_size: Height and width of the images in pixels.
        num_classes: C.
        weights_follow: Whether weights will be loaded into it, so that none need to be fetched.

    Raises:
        UsageError: As `check_model`, or if it does not fit into memory.
        UnreachableError: If pretrained weights are asked for and cannot be fetched.
    """
    options = check_model(settings)
    if weights_follow and "pretrained" in options:
        options["pretrained"] = False
    row, variant = _find(settings.name)
    architecture = getattr(import_module(row.module), row.class_name)
    try:
        return architecture(image_size=image_size, num_classes=num_classes, **variant, **options)
    except (RuntimeError, MemoryError) as error:  # torch's way of saying that memory is short
        raise UsageError(
            f"model: '{settings.name}' with these options does not fit into memory ({error}); make "
            "it smaller."
        ) from error


def head_of(model: nn.Module) -> nn.Module:
    """The last layer, which turns features into logits.

    Raises:
        UsageError: If the architecture has no single one.
    """
    name = getattr(model, "head_layer", None)
    if name is None:
        raise UsageError(
            "this architecture has no single last layer, which training.freeze and the optimizer "
            "'muon' need; leave the first out, or take 'adamw'."
        )
    return model.get_submodule(name)
