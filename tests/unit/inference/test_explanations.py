"""What explains a network must depend on the network, and find what was planted."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hemascope.data.rendered import render
from hemascope.inference.explanations import (
    METHODS,
    deletion_and_insertion,
    grad_cam,
    has_grad_cam,
    integrated_gradients,
)
from hemascope.models import build_model
from hemascope.settings.run import ModelSettings

IMAGES = render(np.arange(8), seed=3)
TARGETS = np.arange(8)


class _Corner(nn.Module):
    """Knows class 1 by how dark the upper left corner is."""

    grad_cam_layer = "convolution"

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(self.convolution.weight, 1 / 3)

    def forward(self, images: Tensor) -> Tensor:
        bright = self.convolution(images)[:, 0, :8, :8].mean(dim=(1, 2))
        return torch.stack([torch.zeros_like(bright), 9 * bright], dim=1)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return build_model(ModelSettings(name="cnn"), image_size=28, num_classes=8)


@pytest.mark.parametrize("name", METHODS)
def test_maps_are_of_the_images_size_and_from_0_to_1(name: str, model: nn.Module) -> None:
    maps = METHODS[name](model, IMAGES, TARGETS)
    assert maps.shape == (8, 28, 28)
    assert maps.min() >= 0
    assert maps.max() == 1


@pytest.mark.parametrize("name", METHODS)
def test_random_weights_change_the_map(name: str, model: nn.Module) -> None:
    """The sanity check of Adebayo et al., NeurIPS 2018: a map that does not is of the image."""
    torch.manual_seed(1)
    other = build_model(ModelSettings(name="cnn"), image_size=28, num_classes=8)
    ours, theirs = (METHODS[name](m, IMAGES, TARGETS).reshape(8, -1) for m in (model, other))
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.std() and b.std()]
    assert len(pairs) >= 4
    assert np.mean([abs(np.corrcoef(a, b)[0, 1]) for a, b in pairs]) < 0.7


def test_what_matters_is_found_and_changing_it_first_changes_the_answer_most() -> None:
    model, targets = _Corner(), np.ones(8, dtype=np.int64)
    maps = integrated_gradients(model, IMAGES, targets)
    assert maps[:, 8:].max() == 0
    assert maps[:, :, 8:].max() == 0
    deletion, insertion = deletion_and_insertion(model, IMAGES, targets, maps)
    np.testing.assert_allclose(deletion[:, 0], insertion[:, -1], atol=1e-6)
    np.testing.assert_allclose(deletion[:, -1], insertion[:, 0], atol=1e-6)
    steps = np.abs(np.diff(deletion, axis=1))
    assert steps[:, 3:].max() < 1e-6  # the corner is 64 of 784 pixels: gone within two steps


def test_an_ensemble_has_the_maps_of_its_members(model: nn.Module) -> None:
    members = [{"name": "cnn"}, {"name": "mlnn"}]
    settings = ModelSettings(name="ensemble", options={"members": members})
    ensemble = build_model(settings, image_size=28, num_classes=8)
    ensemble.get_submodule("members.0").load_state_dict(model.state_dict())
    np.testing.assert_allclose(
        grad_cam(ensemble, IMAGES, TARGETS), grad_cam(model, IMAGES, TARGETS), atol=1e-6
    )


def test_a_network_without_convolutions_has_gradients_alone() -> None:
    mlnn = build_model(ModelSettings(name="mlnn"), image_size=28, num_classes=8)
    assert not has_grad_cam(mlnn)
    assert integrated_gradients(mlnn, IMAGES, TARGETS).shape == (8, 28, 28)
    with pytest.raises(ValueError, match="no convolution"):
        grad_cam(mlnn, IMAGES, TARGETS)
