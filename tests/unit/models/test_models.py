import pytest
import torch
from torch import nn

from hemascope.core.errors import UsageError
from hemascope.models import build_model
from hemascope.models.hemanet import on_white
from hemascope.settings.run import ModelSettings
from hemascope.study import published as study


def _parameters(settings: ModelSettings, *, image_size: int = 28) -> int:
    model = build_model(settings, image_size=image_size, num_classes=8)
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_study_s_networks_have_its_numbers_of_parameters() -> None:
    assert _parameters(ModelSettings(name="cnn")) == study.NUM_PARAMETERS_CNN == 422_344
    assert _parameters(ModelSettings(name="mlnn")) == study.NUM_PARAMETERS_MLNN == 2_785_988


@pytest.mark.parametrize("n", [1, 2, 5])
def test_n_hidden_layers_have_the_study_s_width(n: int) -> None:
    settings = ModelSettings(name="mlnn", options={"hidden_layers": n})
    model = build_model(settings, image_size=28, num_classes=8)
    widths = [layer.out_features for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert widths == [1180] * n + [8]


def test_a_network_larger_than_the_memory_is_refused() -> None:
    settings = ModelSettings(name="mlnn", options={"hidden_widths": [100_000] * 100})
    with pytest.raises(UsageError, match="does not fit into memory"):
        build_model(settings, image_size=28, num_classes=8)


def test_any_list_of_widths_is_built() -> None:
    settings = ModelSettings(name="mlnn", options={"hidden_widths": [300, 20, 7]})
    expected = 2352 * 300 + 300 + 300 * 20 + 20 + 20 * 7 + 7 + 7 * 8 + 8
    assert _parameters(settings) == expected


def test_the_cnn_keeps_the_study_s_layers() -> None:
    model = build_model(ModelSettings(name="cnn"), image_size=28, num_classes=8)
    shapes = [tuple(p.shape) for name, p in model.named_parameters() if name.endswith("weight")]
    assert shapes == [
        (32, 3, 3, 3),
        (64, 32, 3, 3),
        (128, 64, 3, 3),
        (256, 1152),
        (128, 256),
        (8, 128),
    ]
    assert model(torch.zeros(1, 3, 28, 28)).shape == (1, 8)


def test_a_white_point_undoes_the_color_of_the_light() -> None:
    generator = torch.Generator().manual_seed(0)
    cell = torch.rand(2, 3, 20, 20, generator=generator) * 0.5
    images = torch.ones(2, 3, 64, 64)
    images[:, :, 20:40, 20:40] = cell
    yellow = images * torch.tensor([0.95, 0.9, 0.45])[None, :, None, None]
    torch.testing.assert_close(on_white(yellow), images)
    torch.testing.assert_close(on_white(images), images)
    bluish = yellow.clone()
    bluish[:, :, 20:40, 20:40] = torch.tensor([0.5, 0.5, 0.7])[:, None, None]
    assert float(on_white(bluish)[:, :, 0, 0].min()) == pytest.approx(1.0)  # background, not cell


def test_paint_around_a_cell_is_no_background() -> None:
    images = torch.full((1, 3, 64, 64), 0.85)
    images[:, :, 24:40, 24:40] = 0.3
    painted = images.clone()
    painted[:, :, :8] = painted[:, :, -8:] = painted[:, :, :, :8] = painted[:, :, :, -8:] = 1
    inside = (..., slice(8, 56), slice(8, 56))
    torch.testing.assert_close(on_white(painted)[inside], on_white(images)[inside])


def test_the_white_point_is_inside_the_network() -> None:
    torch.manual_seed(0)
    options = {"white_point": True, "widths": [8], "strides": [2], "stem": 8, "stem_stride": 2}
    settings = ModelSettings(name="hemanet", options=options)
    model = build_model(settings, image_size=64, num_classes=3).eval()
    images = torch.rand(2, 3, 64, 64) * 0.3
    images[:, :, :16] = 0.6
    torch.testing.assert_close(model(images), model(images * 0.7))
