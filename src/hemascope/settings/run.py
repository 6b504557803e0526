"""Frozen, validated settings of a training run, and the presets that ship with the package."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hemascope.core.errors import UsageError, did_you_mean
from hemascope.core.image_spec import ImageSpec
from hemascope.settings.base import Settings, load_toml, parse_toml
from hemascope.settings.compute import Device, NumViews, PrecisionChoice
from hemascope.settings.data import DataSettings

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"  # of a network; it names files as well
Loss = Literal["cross-entropy", "focal", "weighted", "class-balanced"]
Share = Annotated[float, Field(ge=0, le=1)]


class ModelSettings(Settings):
    """Which architecture, and its own options (checked against the MODELS table)."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class AugmentationSettings(Settings):
    """Random changes to the training images, drawn anew each time an image is seen.

    `turns` mirrors and turns by quarters (the eight symmetries of a square), `shift` moves by up to
    that many whole pixels: neither computes a new pixel value. `affine` is the share of images that
    are turned by any angle and zoomed by up to e^±`zoom`, which blurs them. `color` is the standard
    deviation of a gain and an offset of each channel. `stain`, `blur` and `noise` are the shares of
    images whose stains and background are colored otherwise (in optical density), that are blurred,
    and that get noise: for cells of other laboratories. `isolate` is the share in which all but a
    disk is painted, as around cells that were cut out. `cutout` is the side in pixels of a square
    that is painted gray. Pixels are those of images of 28: in images of S pixels, `shift`, `cutout`
    and the width of the blur are S / 28 times as large, rounded to whole pixels. `mixup` and
    `cutmix` are the alpha of Beta(alpha, alpha): a batch is mixed with itself; where both are
    given, each batch gets one of them. `only_classes` restricts all but the mixing to images of the
    classes named.

    Source: MixUp, Zhang et al., ICLR 2018; CutMix, Yun et al., ICCV 2019; Cutout, DeVries & Taylor,
    arXiv 1708.04552.
    """

    turns: bool = False
    shift: int = Field(default=0, ge=0, le=64)
    affine: Share = 0.0
    zoom: float = Field(default=0.2, ge=0, le=1)
    color: Share = 0.0
    stain: Share = 0.0
    blur: Share = 0.0
    noise: Share = 0.0
    isolate: Share = 0.0
    cutout: int = Field(default=0, ge=0, le=1024)
    mixup: float = Field(default=0.0, ge=0, le=100)
    cutmix: float = Field(default=0.0, ge=0, le=100)
    only_classes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _something_to_restrict(self) -> Self:
        pixels = (self.turns, self.shift, self.affine, self.cutout)
        colors = (self.color, self.stain, self.blur, self.noise, self.isolate)
        if self.only_classes and not any(pixels + colors):
            msg = "only_classes needs turns, shift or another change, which are all off here"
            raise ValueError(msg)
        return self


class TrainingSettings(Settings):
    """How the network is fitted; the defaults are the study's.

    `init` is "he" (Kaiming normal, fan-in, zero biases) or "default" (the architecture's own, which
    a library's always has); it is left aside where weights are given. `schedule` "one-cycle" warms
    up over the share `warmup` of the steps, then falls to zero as a cosine. `loss` "weighted"
    weights classes by the inverse of their number of images, "class-balanced" by the inverse of
    their effective number. `balanced` draws every class equally often, `by_laboratory` each class
    of each laboratory in proportion to the square root of its images. `max_grad_norm` clips the
    gradient, `average` is the decay of an exponential moving average of the weights, which is then
    what is evaluated and kept, and `patience` stops when the val loss has not fallen for that many
    epochs and keeps the best one; 0 leaves each of them out. `freeze` trains the last layer alone.
    `teacher_weight` is the share of the loss that follows the teacher, where one is given.
    `test_every_epoch` draws the study's curve of test accuracy per epoch; nothing is ever chosen by
    it.

    Source: focal loss, Lin et al., ICCV 2017; effective number, Cui et al., CVPR 2019; one-cycle,
    Smith & Topin, 2018; distillation, Hinton et al., 2015.
    """

    epochs: int = Field(ge=1, le=1_000_000)
    learning_rate: float = Field(gt=0, le=1000)
    batch_size: int = Field(default=128, ge=1, le=1_000_000)
    betas: tuple[float, float] = (0.9, 0.999)
    init: Literal["he", "default"] = "he"
    shuffle: bool = True
    test_every_epoch: bool = False
    optimizer: Literal["adam", "adamw", "sgd", "muon"] = "adam"
    weight_decay: float = Field(default=0.0, ge=0, le=1000)
    schedule: Literal["constant", "one-cycle"] = "constant"
    warmup: Share = 0.2
    max_grad_norm: float = Field(default=0.0, ge=0, le=1e9)
    average: float = Field(default=0.0, ge=0, lt=1)
    patience: int = Field(default=0, ge=0)
    loss: Loss = "cross-entropy"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    focal_gamma: float = Field(default=2.0, ge=0, le=10)
    balanced: bool = False
    by_laboratory: bool = False
    freeze: bool = False
    teacher_weight: Share = 0.7
    teacher_temperature: float = Field(default=2.0, ge=0.01, le=1000)
    augmentation: AugmentationSettings = AugmentationSettings()

    @model_validator(mode="after")
    def _betas_in_range(self) -> Self:
        if self.balanced and self.by_laboratory:
            msg = "give either balanced or by_laboratory"
            raise ValueError(msg)
        if not all(0 <= beta < 1 for beta in self.betas):
            msg = "betas must lie in [0, 1)"
            raise ValueError(msg)
        return self

    def scaled(self, epochs_scale: float) -> "TrainingSettings":
        """The same settings with the number of epochs multiplied, at least one."""
        return self.model_copy(update={"epochs": max(1, round(self.epochs * epochs_scale))})


class RunSettings(Settings):
    """Everything that decides a training run but the data; written to `config.toml`.

    `start` and `teacher` are paths of trained models: whose weights to begin with, and whom to
    learn from. `views` is how many of the eight symmetries of a square each image is also shown in
    when the finished network is evaluated. `data` is which data it is trained on and how that is
    read, `image` how a photograph becomes one of its images: what came of the data and its options.
    """

    name: str = Field(pattern=NAME_PATTERN)
    model: ModelSettings
    training: TrainingSettings
    seed: int = Field(default=0, ge=0, lt=2**32)
    device: Device = "auto"
    precision: PrecisionChoice = "fp32"
    views: NumViews = 1
    start: str = ""
    teacher: str = ""
    data: DataSettings = DataSettings()
    image: ImageSpec | None = None

    def to_toml(self) -> str:
        """The settings as TOML that `config` takes again."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(exclude_none=True))


def preset_names() -> tuple[str, ...]:
    """The names that `preset` takes."""
    files = resources.files("hemascope.settings") / "presets"
    return tuple(sorted(f.name.removesuffix(".toml") for f in files.iterdir()))


def load_preset(name: str) -> RunSettings:
    """The settings of a preset that ships with the package.

    Raises:
        UsageError: If there is no such preset.
    """
    if name not in preset_names():
        raise UsageError(f"no preset is called '{name}'; {did_you_mean(name, preset_names())}")
    text = (resources.files("hemascope.settings") / "presets" / f"{name}.toml").read_text("utf-8")
    return parse_toml(text, RunSettings, origin=f"preset {name}")


def load_config(path: Path) -> RunSettings:
    """The settings in a TOML file, such as a run's own `config.toml`.

    Raises:
        UsageError: If the file is missing, not TOML, or a field is missing, unknown or wrong.
    """
    return load_toml(path, RunSettings)
