"""Entropies against scipy, the Laplace approximation against torch's own second derivatives."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from hemascope.core.predictions import log_softmax
from hemascope.inference.laplace import fit_curvature
from hemascope.metrics.uncertainty import entropy, mutual_information, together

RNG = np.random.default_rng(0)
ANSWERS = np.stack([log_softmax(RNG.normal(size=(50, 8)).astype(np.float32)) for _ in range(6)])


def test_entropy_is_scipys() -> None:
    np.testing.assert_allclose(
        entropy(ANSWERS[0]), scipy_entropy(np.exp(ANSWERS[0]), axis=1), rtol=1e-9
    )


def test_mutual_information_is_the_mean_divergence_from_the_mean() -> None:
    mean = np.exp(ANSWERS).mean(axis=0)
    expected = np.mean([scipy_entropy(np.exp(a), mean, axis=1) for a in ANSWERS], axis=0)
    np.testing.assert_allclose(mutual_information(ANSWERS), expected, atol=1e-5)
    np.testing.assert_allclose(np.exp(together(ANSWERS)), mean, rtol=1e-5)


def test_answers_that_agree_have_no_mutual_information() -> None:
    same = np.repeat(ANSWERS[:1], 4, axis=0)
    np.testing.assert_allclose(mutual_information(same), 0, atol=1e-6)


def test_the_curvature_is_the_hessian_of_the_cross_entropy() -> None:
    features = RNG.normal(size=(40, 3)).astype(np.float32)
    weight, bias = RNG.normal(size=(4, 3)), RNG.normal(size=4)
    labels = torch.from_numpy(RNG.integers(0, 4, 40))
    inputs = torch.from_numpy(np.concatenate([features, np.ones((40, 1))], axis=1))

    def loss(layer: torch.Tensor) -> torch.Tensor:
        logits = inputs @ layer.reshape(4, 4).T
        return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")

    layer = torch.from_numpy(np.concatenate([weight, bias[:, None]], axis=1).ravel())
    hessian = torch.autograd.functional.hessian(loss, layer)
    found = fit_curvature(features, weight.astype(np.float32), bias.astype(np.float32))
    np.testing.assert_allclose(found.matrix, np.asarray(hessian), atol=1e-4)


def test_samples_scatter_as_the_posterior_says() -> None:
    features = RNG.normal(size=(60, 2)).astype(np.float32)
    weight, bias = RNG.normal(size=(3, 2)).astype(np.float32), np.zeros(3, dtype=np.float32)
    curvature = fit_curvature(features, weight, bias)
    surer = curvature.samples(features[:5], prior=1e6, num_samples=50, seed=0)
    exact = log_softmax((features[:5] @ weight.T + bias).astype(np.float32))
    np.testing.assert_allclose(surer, np.repeat(exact[None], 50, axis=0), atol=0.02)
    drawn = curvature.samples(features[:5], prior=1.0, num_samples=4000, seed=0)
    covariance = np.linalg.inv(curvature.matrix + np.eye(9))
    given = np.concatenate([features[0], [1]])
    lift = np.kron(np.array([1.0, -1.0, 0.0]), given)  # the difference of two logits
    sd = float(np.sqrt(lift @ covariance @ lift))
    assert np.std(drawn[:, 0, 0] - drawn[:, 0, 1]) == pytest.approx(sd, rel=0.1)
