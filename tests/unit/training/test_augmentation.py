"""What augmentation may and may not do to an image."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import small_arrays
from hemascope.data.collections import BLOOD_CELLS
from hemascope.inference.torch_engine import to_input
from hemascope.settings.run import AugmentationSettings
from hemascope.training.augmentation import Augmentation

ARRAYS = small_arrays()
IMAGES = torch.from_numpy(ARRAYS["train_images"])
LABELS = torch.from_numpy(ARRAYS["train_labels"].ravel().astype(np.int64))


def _augmentation(seed: int = 0, **settings: object) -> Augmentation:
    generator = torch.Generator().manual_seed(seed)
    values = AugmentationSettings.model_validate(settings)
    return Augmentation(values, BLOOD_CELLS.names, generator)


def test_without_settings_images_are_only_scaled() -> None:
    inputs = _augmentation()(IMAGES, LABELS)
    assert torch.equal(inputs, to_input(IMAGES))


def test_turns_are_the_eight_symmetries_and_no_more() -> None:
    plain = to_input(IMAGES[:1])
    symmetries = [torch.rot90(base, k, (2, 3)) for base in (plain, plain.flip(3)) for k in range(4)]
    augmentation = _augmentation(turns=True)
    seen: set[int] = set()
    for _ in range(60):
        (variant,) = augmentation(IMAGES[:1], LABELS[:1]).split(1)
        found = [i for i, symmetry in enumerate(symmetries) if torch.equal(variant, symmetry)]
        assert len(found) == 1
        seen |= set(found)
    assert seen == set(range(8))


def test_shifts_move_by_whole_pixels_and_mirror_the_edge() -> None:
    image = torch.arange(784, dtype=torch.int64).remainder(251).to(torch.uint8)
    images = image.view(1, 28, 28, 1).expand(-1, -1, -1, 3)
    padded = np.pad(images[0].numpy(), ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = [
        to_input(torch.from_numpy(padded[None, y : y + 28, x : x + 28].copy()))
        for y in range(5)
        for x in range(5)
    ]
    augmentation = _augmentation(shift=2)
    seen: set[int] = set()
    for _ in range(200):
        variant = augmentation(images, LABELS[:1])
        found = [i for i, window in enumerate(windows) if torch.equal(variant, window)]
        assert len(found) == 1
        seen |= set(found)
    assert len(seen) == 25


def test_lengths_scale_with_the_image() -> None:
    """Twice the pixels a side: shifts, squares and blur are twice as long."""
    rows = torch.arange(56, dtype=torch.uint8).view(1, 56, 1, 1).expand(400, 56, 56, 3)
    labels = torch.zeros(400, dtype=torch.int64)
    shifted = 255 * _augmentation(shift=2)(rows, labels)[:, 0, 28, 28] - 28
    assert set(shifted.round().int().tolist()) == set(range(-4, 5))
    painted = _augmentation(cutout=8)(torch.zeros_like(rows), labels)[:, 0] != 0
    assert painted.any(dim=2).sum(dim=1).max() == 16
    small = _augmentation(shift=1)(rows[:, :8, :8], labels)  # a third of a pixel is none
    assert torch.equal(small, to_input(rows[:, :8, :8]))


def test_blur_is_as_wide_for_the_cell_in_larger_images() -> None:
    edge = torch.zeros(64, 28, 28, 3, dtype=torch.uint8)
    edge[:, :, 14:] = 255
    larger = edge.repeat_interleave(4, 1).repeat_interleave(4, 2)
    blurred = _augmentation(blur=1.0)(edge, LABELS)
    of_larger = torch.nn.functional.avg_pool2d(_augmentation(blur=1.0)(larger, LABELS), 4)
    assert (blurred - of_larger).abs().mean() < 0.2 * (blurred - to_input(edge)).abs().mean()


def test_affine_changes_about_its_share_of_the_images() -> None:
    inputs = _augmentation(affine=0.5)(IMAGES, LABELS)
    changed = (inputs != to_input(IMAGES)).flatten(1).any(dim=1)
    assert 0.25 < changed.float().mean() < 0.75
    assert torch.isfinite(inputs).all()


@pytest.mark.parametrize("zoom", [0.0, 0.3])
def test_zoom_is_bounded_by_its_setting(zoom: float) -> None:
    place = torch.arange(28) - 13.5
    disk = torch.full((200, 28, 28, 3), 255, dtype=torch.uint8)
    disk[:, (place[:, None] ** 2 + place**2) < 49] = 0
    labels = torch.zeros(200, dtype=torch.int64)
    shown = _augmentation(affine=1.0, zoom=zoom)(disk, labels)
    radii = ((shown[:, 0] < 0.5).sum(dim=(1, 2)) / torch.pi).sqrt()
    assert (radii / 7).log().abs().max() < zoom + 0.05
    assert float((radii / 7).log().std()) == pytest.approx(zoom / 3**0.5, abs=0.03)


def test_cutout_paints_one_gray_square() -> None:
    black = torch.zeros(64, 28, 28, 3, dtype=torch.uint8)
    painted = _augmentation(cutout=8)(black, LABELS)[:, 0] != 0
    for image in painted:
        rows, columns = image.any(dim=1).nonzero(), image.any(dim=0).nonzero()
        assert 1 <= len(rows) <= 8
        assert image.sum() == len(rows) * len(columns)


def test_color_changes_channels_as_a_whole() -> None:
    plain, varied = to_input(IMAGES), _augmentation(color=0.1)(IMAGES, LABELS)
    for image in range(4):
        for channel in range(3):
            x, y = plain[image, channel].ravel(), varied[image, channel].ravel()
            slope, offset = np.polyfit(x, y, 1)
            torch.testing.assert_close(y, x * slope + offset, atol=1e-4, rtol=0)
            assert slope != pytest.approx(1, abs=1e-6)


def test_only_the_classes_named_are_changed() -> None:
    augmentation = _augmentation(
        turns=True, shift=2, affine=1.0, color=0.1, cutout=8, only_classes=["monocyte"]
    )
    changed = (augmentation(IMAGES, LABELS) != to_input(IMAGES)).flatten(1).any(dim=1)
    monocytes = LABELS.eq(BLOOD_CELLS.names.index("monocyte"))
    assert torch.equal(changed, monocytes)


@pytest.mark.parametrize("settings", [{"mixup": 0.5}, {"cutmix": 1.0}])
def test_mixed_targets_say_how_much_of_each_image_is_there(settings: dict[str, float]) -> None:
    """With images that are black or white by class, the mean pixel is the share of a class."""
    labels = torch.arange(32) % 2
    images = (labels * 255).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 28, 28, 3)
    augmentation = _augmentation(0, **settings)
    for _ in range(10):
        inputs, targets, _ = augmentation.mix(to_input(images), labels, 2)
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(32))
        torch.testing.assert_close(inputs.mean(dim=(1, 2, 3)), targets[:, 1], atol=1e-5, rtol=0)


def test_without_mixing_targets_stay_classes() -> None:
    inputs = to_input(IMAGES)
    weights = torch.rand(64)
    same, targets, same_weights = _augmentation(turns=True).mix(inputs, LABELS, 8, weights)
    assert same is inputs
    assert targets is LABELS
    assert same_weights is weights


@pytest.mark.parametrize("settings", [{"mixup": 0.5}, {"cutmix": 1.0}])
def test_each_image_keeps_its_weight_in_what_is_mixed(settings: dict[str, float]) -> None:
    labels, weights = torch.arange(8), torch.arange(8) / 4  # each image is of its own class
    inputs = to_input(IMAGES[:8])
    plain = _augmentation(0, **settings).mix(inputs, labels, 8)
    mixed, targets, mixed_weights = _augmentation(0, **settings).mix(inputs, labels, 8, weights)
    assert torch.equal(mixed, plain[0])
    assert mixed_weights is not None
    torch.testing.assert_close(mixed_weights.unsqueeze(1) * targets, plain[1] * weights)


def test_the_same_seed_draws_the_same_variants() -> None:
    everything = {"turns": True, "shift": 3, "affine": 0.3, "color": 0.1, "cutout": 6, "mixup": 0.2}
    results: list[Tensor] = []
    for seed in (1, 1, 2):
        augmentation = _augmentation(seed, **everything)
        results.append(augmentation.mix(augmentation(IMAGES, LABELS), LABELS, 8)[0])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("change", ["stain", "blur", "noise", "isolate"])
def test_changes_of_color_and_sharpness_keep_to_their_share_and_to_pixels(change: str) -> None:
    plain = to_input(IMAGES)
    settings: dict[str, Any] = {change: 0.5}
    inputs = _augmentation(**settings)(IMAGES, LABELS)
    changed = (inputs != plain).flatten(1).any(dim=1)
    assert 0.25 < changed.float().mean() < 0.75
    assert torch.equal(inputs[~changed], plain[~changed])
    assert inputs.min() >= 0
    assert inputs.max() <= 1 + 1e-6
    again = _augmentation(**settings)(IMAGES, LABELS)
    assert torch.equal(again, inputs)


def test_blur_takes_detail_and_no_light_away() -> None:
    plain = to_input(IMAGES)
    blurred = _augmentation(blur=1.0)(IMAGES, LABELS)
    detail = (blurred[..., 1:] - blurred[..., :-1]).abs().mean()
    assert detail < 0.8 * (plain[..., 1:] - plain[..., :-1]).abs().mean()
    assert torch.allclose(blurred.mean(dim=(1, 2, 3)), plain.mean(dim=(1, 2, 3)), atol=0.02)


def test_blur_of_one_image_does_not_leak_into_another() -> None:
    images = torch.zeros(2, 28, 28, 3, dtype=torch.uint8)
    images[1] = 255
    blurred = _augmentation(blur=1.0)(images, LABELS[:2])
    assert torch.allclose(blurred, to_input(images), atol=1e-5)


def test_isolate_paints_the_corners_and_leaves_the_middle() -> None:
    plain = to_input(IMAGES)
    inputs = _augmentation(isolate=1.0)(IMAGES, LABELS)
    corners = inputs[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].flatten(1)
    assert ((corners == 0).all(dim=1) | (corners == 1).all(dim=1)).all()
    assert torch.equal(inputs[:, :, 10:18, 10:18], plain[:, :, 10:18, 10:18])


def test_stain_keeps_what_is_dark_and_what_is_bright_in_order() -> None:
    """Another stain changes colors, not the picture: gray levels stay strongly correlated."""
    plain = to_input(IMAGES).mean(dim=1).flatten(1)
    stained = _augmentation(stain=1.0)(IMAGES, LABELS).mean(dim=1).flatten(1)
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(plain, stained, strict=True)]
    assert np.median(correlation) > 0.9
    assert (stained.mean(dim=1) - plain.mean(dim=1)).abs().max() > 0.05
