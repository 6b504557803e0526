"""Which weight follows which optimizer, and with which decay."""

import pytest
import torch
from torch import nn

from hemascope.models import build_model
from hemascope.settings.run import ModelSettings, TrainingSettings
from hemascope.training.optimizers import Muon, make_optimizers


def _model() -> nn.Module:
    options = {"stem": 4, "widths": [8], "strides": [2]}
    return build_model(ModelSettings(name="hemanet", options=options), image_size=28, num_classes=8)


def _settings(optimizer: str, decay: float = 0.1) -> TrainingSettings:
    values = {"epochs": 1, "learning_rate": 0.01, "optimizer": optimizer, "weight_decay": decay}
    return TrainingSettings.model_validate(values)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "muon"])
def test_every_weight_has_one_optimizer_and_vectors_no_decay(name: str) -> None:
    model = _model()
    seen: list[int] = []
    for optimizer in make_optimizers(model, _settings(name)):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                seen.append(id(parameter))
                assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)
    assert sorted(seen) == sorted(id(parameter) for parameter in model.parameters())


def test_muon_takes_the_layers_between_the_first_and_the_last() -> None:
    model = _model()
    muon, others = make_optimizers(model, _settings("muon"))
    assert isinstance(muon, Muon)
    assert isinstance(others, torch.optim.AdamW)
    taken = {id(parameter) for parameter in muon.param_groups[0]["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in taken}
    assert names == {
        "blocks.0.conv1.weight",
        "blocks.0.conv2.weight",
        "blocks.0.shortcut.1.weight",
    }


def test_frozen_weights_have_no_optimizer() -> None:
    model = _model().requires_grad_(requires_grad=False)
    model.get_submodule("head").requires_grad_()
    (optimizer,) = make_optimizers(model, _settings("muon"))
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in model.get_submodule("head").parameters()}
