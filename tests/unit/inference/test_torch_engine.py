import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hemascope.core.errors import UsageError
from hemascope.inference.efficiency import latency_ms, peak_memory_bytes, reset_peak_memory
from hemascope.inference.torch_engine import TorchEngine, pick_device, to_input


def test_pixels_become_channels_in_zero_to_one() -> None:
    images = torch.randint(0, 256, (2, 5, 5, 3), dtype=torch.uint8)
    inputs = to_input(images)
    assert inputs.shape == (2, 3, 5, 5)
    torch.testing.assert_close(inputs[1, 2, 3, 4], images[1, 3, 4, 2] / 255)


def test_prediction_is_in_eval_mode_without_gradients() -> None:
    class Probe(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            assert not self.training
            assert not torch.is_grad_enabled()
            return images.flatten(1)[:, :8]

    model = Probe().train()
    engine = TorchEngine(model, device=torch.device("cpu"), batch_size=2)
    logits = engine.logits(np.full((5, 4, 4, 3), 255, np.uint8))
    np.testing.assert_allclose(logits, np.ones((5, 8)), atol=1e-6)


@pytest.mark.parametrize(
    ("mps", "cuda", "expected"),
    [(True, True, "mps"), (False, True, "cuda"), (False, False, "cpu")],
)
def test_auto_takes_mps_then_cuda_then_cpu(
    mps: bool, cuda: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert pick_device("auto").type == expected
    assert pick_device("cpu").type == "cpu"
    if not cuda:
        with pytest.raises(UsageError, match="this machine has no cuda"):
            pick_device("cuda")


def test_latency_is_counted_per_image_of_full_batches() -> None:
    sizes: list[int] = []

    class Spy:
        def logits(self, images: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
            sizes.append(len(images))
            return np.zeros((len(images), 8), np.float32)

    assert latency_ms(Spy(), np.zeros((3, 4, 4, 3), np.uint8), batch_size=128) > 0
    assert set(sizes) == {128}


def test_peak_memory_sees_a_large_array() -> None:
    reset_peak_memory()
    before = peak_memory_bytes()
    block = np.ones(200_000_000, np.uint8)
    after = peak_memory_bytes()
    assert before is not None
    assert after is not None
    assert after - before > 0.9 * block.nbytes
