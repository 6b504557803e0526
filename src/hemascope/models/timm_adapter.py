"""Any architecture of timm, its stem fitted to small images."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

from hemascope.core.errors import UnreachableError, UsageError, did_you_mean

_MAP_DIMENSIONS = 4
_LARGE = 64  # pixels; the stems of ImageNet networks are left as they are above this
_POOLS = ("maxpool", "features.pool0", "stem.pool")  # what timm calls a stem's pooling


class TimmModel(nn.Module):
    """A network of timm: ResNet, DenseNet, Vision Transformer and hundreds of others.

    Up to 64 pixels, the first convolution's stride is halved and the pooling behind it left out
    (28-pixel images would be shrunk away), and transformers take patches of 4 pixels. `pretrained`
    fetches weights learned on other images from the Hugging Face hub; they keep their shapes. Maps
    images (N, 3, H, H) in [0, 1] to logits (N, C); scales them as the weights expect.

    Raises:
        UsageError: If timm has no such architecture, or it cannot take images of this size.
        UnreachableError: If pretrained weights cannot be fetched.

    Source: Wightman, PyTorch Image Models, doi 10.5281/zenodo.4414861.
    """

    grad_cam_layer: str | None
    head_layer: str | None

    def __init__(
        self, *, image_size: int, num_classes: int, variant: str, pretrained: bool = False
    ) -> None:
        super().__init__()
        if not timm.is_model(variant):
            hint = did_you_mean(variant, timm.list_models())
            raise UsageError(f"model.name: timm has no architecture '{variant}'; {hint}")
        self.network = _create(variant, pretrained, image_size, num_classes)
        config: Any = self.network.pretrained_cfg
        if image_size <= _LARGE:
            _fit_stem(self.network, config["first_conv"])
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1))
        names = {module: f"network.{name}" for name, module in self.network.named_modules()}
        head = self.network.get_classifier()  # a tuple where there are several
        self.head_layer = names.get(head) if isinstance(head, nn.Module) else None
        try:
            self.grad_cam_layer = self._last_map(torch.zeros(1, 3, image_size, image_size))
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            raise _unfit(variant, error) from error

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, 3, H, H)."""
        return self.network((images - self.get_buffer("mean")) / self.get_buffer("std"))

    def _last_map(self, images: Tensor) -> str | None:
        """The last convolution whose output still is a map; None if there is only the first."""
        maps: list[str] = []
        names = {part: name for name, part in self.named_modules()}

        def note(part: nn.Module, _inputs: Any, output: Tensor) -> None:
            if output.ndim == _MAP_DIMENSIONS and output.shape[-1] > 1:
                maps.append(names[part])

        hooks = [part.register_forward_hook(note) for part in names if isinstance(part, nn.Conv2d)]
        self.eval()(images)
        self.train()
        for hook in hooks:
            hook.remove()
        return maps[-1] if len(maps) > 1 else None


def _create(variant: str, pretrained: bool, image_size: int, num_classes: int) -> Any:  # noqa: FBT001
    options: dict[str, Any] = {"pretrained": pretrained, "num_classes": num_classes}
    try:
        config: Any = timm.get_pretrained_cfg(variant)
        if not config.fixed_input_size:
            return timm.create_model(variant, **options)
        options["img_size"] = image_size
        if image_size > _LARGE:
            return timm.create_model(variant, **options)
        try:
            return timm.create_model(variant, patch_size=4, **options)
        except TypeError:  # not every transformer can be told the size of its patches
            return timm.create_model(variant, **options)
    except Exception as error:
        if not pretrained:
            raise _unfit(variant, error) from error
        if "No pretrained weights" in str(error):
            raise UsageError(
                f"model.options.pretrained: there are no pretrained weights of '{variant}'; leave "
                "it out or choose another architecture."
            ) from error
        raise UnreachableError(
            f"the pretrained weights of '{variant}' cannot be fetched from the Hugging Face hub "
            f"({type(error).__name__}); check the connection, or train without "
            "model.options.pretrained."
        ) from error


def _unfit(variant: str, error: Exception) -> UsageError:
    return UsageError(
        f"model.name: timm's '{variant}' does not take these images ({error}); choose another "
        "architecture or larger images."
    )


def _fit_stem(network: nn.Module, first_conv: Any) -> None:
    first = first_conv[0] if isinstance(first_conv, tuple | list) else first_conv
    convolution = network.get_submodule(first) if first else None
    if isinstance(convolution, nn.Conv2d) and not first.startswith("patch_embed"):
        convolution.stride = (max(1, convolution.stride[0] // 2),) * 2
    for name in _POOLS:
        parent, _, last = name.rpartition(".")
        try:
            network.get_submodule(name)
        except AttributeError:
            continue
        setattr(network.get_submodule(parent), last, nn.Identity())
