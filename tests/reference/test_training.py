"""Losses, optimizer and schedule against independent implementations."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torchvision.ops import sigmoid_focal_loss

from hemascope.settings.run import TrainingSettings
from hemascope.training.losses import class_weights, distillation, make_loss
from hemascope.training.optimizers import Muon, orthogonal, rate_factor

COUNTS = torch.tensor([852, 2181, 1085, 2026, 849, 993, 2330, 1643])
BASE = {"epochs": 1, "learning_rate": 0.01}


def _settings(**values: object) -> TrainingSettings:
    return TrainingSettings.model_validate({**BASE, **values})


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(32, 8, generator=torch.Generator().manual_seed(0)) * 2


@pytest.fixture
def labels() -> Tensor:
    return torch.arange(32) % 8


def test_weighted_loss_agrees_with_torch_s_weight(logits: Tensor, labels: Tensor) -> None:
    """torch divides by the weights of the batch, ours by its images."""
    settings = _settings(loss="weighted")
    weight = class_weights(settings, COUNTS)
    assert weight is not None
    ours = make_loss(settings, COUNTS)(logits, labels)
    theirs = cross_entropy(logits, labels, weight=weight) * weight[labels].mean()
    torch.testing.assert_close(ours, theirs)


def test_weighted_loss_of_mixed_targets_agrees_with_torch(logits: Tensor, labels: Tensor) -> None:
    settings = _settings(loss="weighted", label_smoothing=0.1)
    targets = 0.3 * one_hot(labels, 8) + 0.7 * one_hot(labels.flip(0), 8)
    weight = class_weights(settings, COUNTS)
    theirs = cross_entropy(logits, targets, weight=weight, label_smoothing=0.1)
    torch.testing.assert_close(make_loss(settings, COUNTS)(logits, targets), theirs)


@pytest.mark.parametrize("loss", ["cross-entropy", "focal", "weighted", "class-balanced"])
@pytest.mark.parametrize("mixed", [False, True])
def test_an_image_of_weight_two_is_the_image_twice(
    logits: Tensor, labels: Tensor, loss: str, *, mixed: bool
) -> None:
    settings = _settings(loss=loss, label_smoothing=0.1)
    targets = 0.3 * one_hot(labels, 8) + 0.7 * one_hot(labels.flip(0), 8) if mixed else labels
    function = make_loss(settings, COUNTS)
    repeats = torch.arange(32) % 3
    repeated = function(logits.repeat_interleave(repeats, 0), targets.repeat_interleave(repeats, 0))
    ours = function(logits, targets, repeats.float() / repeats.float().mean())
    torch.testing.assert_close(ours, repeated)
    torch.testing.assert_close(function(logits, targets, torch.ones(32)), function(logits, targets))


def test_a_teacher_is_followed_by_weight(logits: Tensor) -> None:
    repeats, teacher = torch.arange(32) % 3, logits.flip(0)
    repeated = distillation(
        logits.repeat_interleave(repeats, 0), teacher.repeat_interleave(repeats, 0), temperature=2
    )
    weights = repeats.float() / repeats.float().mean()
    torch.testing.assert_close(distillation(logits, teacher, weights, temperature=2), repeated)


def test_inverse_weights_are_scikit_learn_s_balanced_ones() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat(np.arange(8), COUNTS.numpy())
    theirs = compute_class_weight("balanced", classes=np.arange(8), y=labels)
    ours = class_weights(_settings(loss="weighted"), COUNTS)
    assert ours is not None
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5)


def test_class_balanced_weights_lie_between_equal_and_inverse() -> None:
    balanced = class_weights(_settings(loss="class-balanced"), COUNTS)
    inverse = class_weights(_settings(loss="weighted"), COUNTS)
    assert balanced is not None
    assert inverse is not None
    assert 1 < balanced.max() / balanced.min() < inverse.max() / inverse.min()
    for weight in (balanced, inverse):
        assert ((weight * COUNTS).sum() / COUNTS.sum()).item() == pytest.approx(1)


def test_focal_loss_of_two_classes_agrees_with_torchvision() -> None:
    """Softmax over (0, z) is the sigmoid of z; torchvision's alpha is left out."""
    z = torch.linspace(-4, 4, 33)
    labels = torch.arange(33) % 2
    logits = torch.stack([torch.zeros(33), z], dim=1)
    ours = make_loss(_settings(loss="focal"), torch.tensor([17, 16]))(logits, labels)
    theirs = sigmoid_focal_loss(z, labels.float(), alpha=-1, gamma=2, reduction="mean")
    torch.testing.assert_close(ours, theirs)


def test_focal_loss_without_gamma_is_cross_entropy(logits: Tensor, labels: Tensor) -> None:
    loss = make_loss(_settings(loss="focal", focal_gamma=0), COUNTS)
    torch.testing.assert_close(loss(logits, labels), cross_entropy(logits, labels))


def test_distillation_is_zero_for_a_perfect_pupil_and_follows_the_teacher(logits: Tensor) -> None:
    shifted = logits + 3.0  # the same probabilities
    assert distillation(logits, shifted, temperature=2.0).item() == pytest.approx(0, abs=1e-6)
    pupil = torch.zeros_like(logits, requires_grad=True)
    distillation(pupil, logits, temperature=1.0).backward()
    assert pupil.grad is not None
    expected = (pupil.softmax(1) - logits.softmax(1)) / len(logits)
    torch.testing.assert_close(pupil.grad, expected)


def test_orthogonal_keeps_the_singular_vectors_and_levels_the_values() -> None:
    matrix = torch.randn(24, 60, generator=torch.Generator().manual_seed(1))
    for given in (matrix, matrix.T):
        values = torch.linalg.svdvals(orthogonal(given))
        assert values.min() > 0.5
        assert values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    along = (u.T @ orthogonal(matrix) @ v.T).diagonal()
    assert (along > 0.5).all()


def test_muon_agrees_with_torch_s_own_on_a_matrix() -> None:
    """torch's runs Newton-Schulz in bfloat16 and one step more; directions agree closely."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(16, 40, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([ours], rate=0.01, decay=0.1)
    other = torch.optim.Muon(
        [theirs], lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(3):
        gradient = torch.randn(16, 40, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        other.step()
    moved, expected = (ours - start).flatten(), (theirs - start).flatten()
    assert torch.cosine_similarity(moved, expected, dim=0) > 0.97
    assert (moved.norm() / expected.norm()).item() == pytest.approx(1, abs=0.15)


def test_one_cycle_rises_falls_to_nothing_and_agrees_with_torch() -> None:
    settings = _settings(schedule="one-cycle", warmup=0.2)
    factors = np.array([rate_factor(settings, step, 100) for step in range(100)])
    assert factors.argmax() == 20
    assert factors.max() == 1
    assert (np.diff(factors[:20]) > 0).all()
    assert (np.diff(factors[20:]) < 0).all()
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=80)
    for factor in factors[20:]:
        assert factor == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        schedule.step()


def test_a_constant_rate_stays() -> None:
    assert {rate_factor(_settings(), step, 10) for step in range(10)} == {1.0}
