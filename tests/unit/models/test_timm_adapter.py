"""Networks of timm on small images."""

import pytest
import torch
from torch import nn

from hemascope.core.errors import UsageError
from hemascope.models import build_model, head_of
from hemascope.settings.run import ModelSettings


@pytest.mark.parametrize(
    ("name", "head"),
    [("resnet18", "fc"), ("densenet121", "classifier"), ("vit_tiny_patch16_224", "head")],
)
def test_the_networks_that_the_study_names_take_28_pixels(name: str, head: str) -> None:
    model = build_model(ModelSettings(name=f"timm/{name}"), image_size=28, num_classes=8)
    assert model.eval()(torch.rand(2, 3, 28, 28)).shape == (2, 8)
    assert head_of(model) is model.get_submodule(f"network.{head}")


def test_a_stem_keeps_small_images_large() -> None:
    model = build_model(ModelSettings(name="timm/resnet10t"), image_size=28, num_classes=8)
    sizes: list[int] = []
    model.get_submodule("network.layer1").register_forward_hook(
        lambda _module, _inputs, output: sizes.append(output.shape[-1])
    )
    model.eval()(torch.rand(1, 3, 28, 28))
    assert sizes == [28]
    assert isinstance(model.get_submodule("network.maxpool"), nn.Identity)


def test_a_network_that_cannot_take_the_images_is_refused() -> None:
    with pytest.raises(UsageError, match="does not take these images"):
        build_model(ModelSettings(name="timm/inception_v3"), image_size=28, num_classes=8)


def test_a_network_with_several_heads_has_no_single_last_layer() -> None:
    settings = ModelSettings(name="timm/deit_tiny_distilled_patch16_224")
    with pytest.raises(UsageError, match="no single last layer"):
        head_of(build_model(settings, image_size=28, num_classes=8))
