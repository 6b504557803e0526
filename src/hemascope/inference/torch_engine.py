"""Runs a PyTorch network: device, precision, preprocessing and batches in one place."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hemascope.core.errors import DataError, UsageError
from hemascope.core.predictions import log_softmax
from hemascope.models import build_model, head_of
from hemascope.settings.compute import Device, Precision, PrecisionChoice
from hemascope.store.model_folder import ArtifactInfo, load_artifact

_SCALE = 1 / 255
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d)


def pick_device(name: Device) -> torch.device:
    """The device to compute on; "auto" takes MPS, then CUDA, then the CPU.

    Raises:
        UsageError: If this machine does not have the one asked for.
    """
    available = {
        "mps": torch.backends.mps.is_available(),
        "cuda": torch.cuda.is_available(),
        "cpu": True,
    }
    chosen = next(device for device, there in available.items() if there)
    if name != "auto":
        chosen = name
    if not available[chosen]:
        raise UsageError(f"this machine has no {name}; take cpu or auto.", field="device")
    if chosen == "cuda":  # fp32 is to mean fp32: cuDNN rounds convolutions unless told not to
        torch.backends.cudnn.allow_tf32 = False
    return torch.device(chosen)


def pick_precision(choice: PrecisionChoice, device: torch.device) -> Precision:
    """What to compute in; "auto" takes bf16 where the processor has it, else fp32.

    Raises:
        UsageError: If bf16 is asked for and would be emulated, which takes ten times as long.
    """
    native = _has_bf16(device)
    if choice == "bf16" and not native:
        raise UsageError(
            f"this {device.type} does not compute in bfloat16 and would be slower than in fp32; "
            "take auto or fp32.",
            field="precision",
        )
    return "bf16" if native and choice != "fp32" else "fp32"


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return False  # autocast on MPS is not checked by anyone here
    abilities = torch.cpu.get_capabilities()
    return any(abilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context in which the network runs: exact fp32, or bf16 where an operation allows it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def to_input(images: Tensor) -> Tensor:
    """Turns uint8 pixels (N, H, H, 3) into what networks take: float (N, 3, H, H) in [0, 1].

    The permuted view is already in the channels-last memory format, in which CPUs convolve faster.
    """
    return images.permute(0, 3, 1, 2).to(torch.float32).mul_(_SCALE)


class TorchEngine:
    """Answers images with the logits of a PyTorch network; leaves the network in eval mode."""

    def __init__(
        self,
        model: nn.Module,
        *,
        device: torch.device,
        precision: Precision = "fp32",
        batch_size: int = 128,
    ) -> None:
        self._model = model.to(device)
        self._model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's stubs
        self._device = device
        self._precision: Precision = precision
        self._batch_size = batch_size

    @torch.inference_mode()
    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, C) of RGB images (N, H, H, 3)."""
        self._model.eval()
        with autocast(self._device, self._precision):
            return _outputs(self._model, images, self._device, self._batch_size)


def _outputs(
    model: nn.Module, images: NDArray[np.uint8], device: torch.device, batch_size: int = 256
) -> NDArray[np.float32]:
    """What a network says of images, a batch at a time."""
    firsts = range(0, max(len(images), 1), batch_size)
    batches = (torch.from_numpy(images[i : i + batch_size]).to(device) for i in firsts)
    return torch.cat([model(to_input(batch)).float().cpu() for batch in batches]).numpy()


@torch.no_grad()
def features(
    model: nn.Module,
    images: NDArray[np.uint8],
    *,
    device: torch.device,
) -> NDArray[np.float32]:
    """What a network's last layer is given of RGB images (N, H, H, 3), in fp32, shape (N, D).

    Raises:
        UsageError: If the architecture has no single last layer.
    """
    given: list[Tensor] = []

    def keep(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        given.append(inputs[0].flatten(1).cpu())

    handle = head_of(model).register_forward_pre_hook(keep)
    try:
        model.eval()
        _outputs(model, images, device)
    finally:
        handle.remove()
    return torch.cat(given).numpy()


@torch.inference_mode()
def dropout_samples(
    model: nn.Module,
    images: NDArray[np.uint8],
    *,
    device: torch.device,
    num_samples: int,
    seed: int,
) -> NDArray[np.float64]:
    """Log-probabilities with dropout left on, as in training, shape (S, N, C); the rest is fixed.

    Raises:
        UsageError: If the network has no dropout.

    Source: Gal & Ghahramani, Dropout as a Bayesian Approximation, ICML 2016.
    """
    model.eval()
    layers = [part for part in model.modules() if isinstance(part, _DROPOUTS) and part.p > 0]
    if not layers:
        raise UsageError("this network has no dropout to leave on.")
    for layer in layers:
        layer.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        samples = [log_softmax(_outputs(model, images, device)) for _ in range(num_samples)]
    model.eval()
    return np.stack(samples)


def load_model(path: Path) -> tuple[ArtifactInfo, nn.Module]:
    """The trained network in a run or model folder, on the CPU.

    Raises:
        DataError: If the folder is not a whole model, or the weights fit another architecture.
    """
    info, weights = load_artifact(path)
    try:
        model = build_model(
            info.model,
            image_size=info.image.size,
            num_classes=len(info.classes),
            weights_follow=True,
        )
    except UsageError as error:
        raise DataError(f"the model {path} cannot be built: {error}") from error
    try:
        model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    except RuntimeError as error:
        raise DataError(
            f"{path}: the weights do not fit architecture '{info.model.name}' with its options; "
            "the artifact is damaged or was altered."
        ) from error
    if not all(np.isfinite(array).all() for array in weights.values()):
        raise DataError(f"{path}: some weights are not finite numbers; train the model again.")
    return info, model
