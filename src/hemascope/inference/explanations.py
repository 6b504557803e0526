"""Where in an image a PyTorch network finds the class it answers."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from hemascope.inference.torch_engine import to_input
from hemascope.models.ensemble import Ensemble

Maps = NDArray[np.float32]  # (N, H, H), from 0 to 1 in each image: larger where it matters more

Method = Callable[[nn.Module, NDArray[np.uint8], NDArray[np.int64]], Maps]

_STEPS = 16  # of the path from a blurred image to the image
_BLUR = 9  # pixels of 28
_BATCH = 64  # images at a time


def grad_cam(model: nn.Module, images: NDArray[np.uint8], targets: NDArray[np.int64]) -> Maps:
    """Which regions of RGB images (N, H, H, 3) speak for the target classes (N,).

    Of an ensemble, the mean over its members that have maps.

    Raises:
        ValueError: If the network has no convolution whose output is a map; see `has_grad_cam`.

    Source: Selvaraju et al., Grad-CAM, ICCV 2017, as in `captum.attr.LayerGradCam`.
    """
    from captum.attr import LayerGradCam

    if isinstance(model, Ensemble):
        maps = [grad_cam(m, images, targets) for m in model.members if has_grad_cam(m)]
        return _to_unit(np.mean(maps, axis=0))
    name = getattr(model, "grad_cam_layer", None)
    if name is None:
        raise ValueError("this network has no convolution that ends in a map")
    model.eval()
    inputs, classes = _tensors(model, images, targets)
    maps = LayerGradCam(model, model.get_submodule(name)).attribute(
        inputs.requires_grad_(), target=classes, relu_attributions=True
    )
    assert isinstance(maps, Tensor)  # noqa: S101 - one layer, one tensor
    whole = interpolate(maps.detach(), size=images.shape[1:3], mode="bilinear")
    return _to_unit(whole.squeeze(1).cpu().numpy())


def has_grad_cam(model: nn.Module) -> bool:
    """Whether `grad_cam` can explain this network."""
    if isinstance(model, Ensemble):
        return any(has_grad_cam(member) for member in model.members)
    return getattr(model, "grad_cam_layer", None) is not None


def integrated_gradients(
    model: nn.Module, images: NDArray[np.uint8], targets: NDArray[np.int64]
) -> Maps:
    """Which pixels of RGB images (N, H, H, 3) speak for the target classes (N,), or against.

    Along the path from a blurred copy of the image; the size of the effect, over the channels.

    Source: Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017, as in
    `captum.attr.IntegratedGradients`.
    """
    from captum.attr import IntegratedGradients

    model.eval()
    inputs, classes = _tensors(model, images, targets)
    effects = IntegratedGradients(model).attribute(
        inputs,
        baselines=blurred(inputs),
        target=classes,
        n_steps=_STEPS,
        internal_batch_size=max(len(images), 256),
    )
    return _to_unit(effects.detach().sum(dim=1).abs().float().cpu().numpy())


# To add a method: its function, and its row here.
METHODS: dict[str, Method] = {
    "Grad-CAM": grad_cam,
    "integrated gradients": integrated_gradients,
}


def explain_all(
    method: Method, model: nn.Module, images: NDArray[np.uint8], targets: NDArray[np.int64]
) -> Maps:
    """The maps of a method for any number of images, a batch at a time."""
    starts = range(0, len(images), _BATCH)
    parts = [method(model, images[i : i + _BATCH], targets[i : i + _BATCH]) for i in starts]
    return np.concatenate(parts)


@torch.inference_mode()
def deletion_and_insertion(
    model: nn.Module,
    images: NDArray[np.uint8],
    targets: NDArray[np.int64],
    maps: Maps,
    *,
    num_steps: int = 14,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The target's probability as the pixels that matter most are blurred, or given back first.

    Args:
        model: The network.
        images: RGB images (N, H, H, 3).
        targets: The classes (N,).
        maps: What matters.
        num_steps: In how many equal steps all pixels are changed.

    Returns:
        Two arrays (N, num_steps + 1): deletion, which falls fast where the map is right, and
        insertion, which rises fast.

    Source: Petsiuk et al., RISE, BMVC 2018.
    """
    model.eval()
    inputs, classes = _tensors(model, images, targets)
    without = blurred(inputs)
    count, size = len(images), images.shape[1]
    rank = np.argsort(np.argsort(-maps.reshape(count, -1), axis=1, kind="stable"), axis=1)
    place = torch.from_numpy(rank.reshape(count, 1, size, size)).to(inputs.device)
    curves: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for step in range(num_steps + 1):
        first = place < round(size * size * step / num_steps)
        probs = [
            model(torch.where(first, one, other)).float().softmax(dim=1)
            for one, other in ((without, inputs), (inputs, without))
        ]
        chosen = [p[torch.arange(count), classes].double().cpu().numpy() for p in probs]
        curves.append((chosen[0], chosen[1]))
    deletion, insertion = (np.stack(part, axis=1) for part in zip(*curves, strict=True))
    return deletion, insertion


def blurred(inputs: Tensor) -> Tensor:
    """Inputs (N, 3, H, H) without the detail of cells, and with the colors around."""
    reach = max(_BLUR * inputs.shape[-1] // 56, 1)
    for _ in range(2):
        padded = nn.functional.pad(inputs, [reach] * 4, mode="replicate")
        inputs = avg_pool2d(padded, 2 * reach + 1, stride=1)
    return inputs


def _tensors(
    model: nn.Module, images: NDArray[np.uint8], targets: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    device = next(model.parameters()).device
    return to_input(torch.from_numpy(images).to(device)), torch.from_numpy(targets).to(device)


def _to_unit(maps: NDArray[np.floating]) -> Maps:
    largest = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0).astype(np.float32)
