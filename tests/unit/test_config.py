import os
from pathlib import Path

import pytest

from hemascope.core.errors import UsageError
from hemascope.models import check_model
from hemascope.settings.run import ModelSettings, load_config, load_preset
from hemascope.workflows.plan import choose_settings, next_free, parse_seeds, scaled_presets

GOOD = """
name = "mine"
[model]
name = "mlnn"
[training]
epochs = 3
learning_rate = 0.01
"""


def _config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_defaults_are_the_study_s(tmp_path: Path) -> None:
    settings = load_config(_config(tmp_path, GOOD))
    assert settings.training.batch_size == 128
    assert settings.training.betas == (0.9, 0.999)
    assert settings.training.init == "he"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("epochs", "epoch"), "unknown field 'training.epoch'; did you mean 'epochs'"),
        (GOOD.replace("epochs = 3", ""), "field 'training.epochs' is missing"),
        (
            GOOD.replace("= 3", "= 0"),
            r"'training.epochs' \(got 0\): input should be greater than or equal to 1",
        ),
        (GOOD.replace("= 3", "= 'ten'"), r"'training.epochs' \(got 'ten'\)"),
        (GOOD + "betas = [0.9, 1.0]", r"betas must lie in \[0, 1\)"),
        (GOOD.replace('"mine"', '"../mine"'), r"'name' \(got '\.\./mine'\)"),
        ("a = " + "[" * 5000, "cannot be read as TOML"),
        (GOOD.replace("[model]", "[model"), "is not valid TOML"),
        (GOOD.replace('name = "mine"', "nam = 1"), "unknown field 'nam'; did you mean 'name'"),
    ],
)
def test_a_wrong_config_is_one_sentence_that_names_the_field(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        load_config(_config(tmp_path, text))
    assert "mine.toml" in str(error.value)
    assert "\n" not in str(error.value).strip()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "cn"}, "did you mean 'cnn'"),
        ({"name": "cnn", "options": {"depth": 3}}, "unknown field 'depth'"),
        ({"name": "mlnn", "options": {"hidden_layer": 3}}, "did you mean 'hidden_layers'"),
        ({"name": "mlnn", "options": {"hidden_layers": 0}}, "greater than or equal to 1"),
        (
            {"name": "mlnn", "options": {"hidden_widths": [5], "hidden_layers": 1}},
            "give one of hidden_layers and hidden_widths",
        ),
        ({"name": "mlnn", "options": {"hidden_widths": []}}, "at least 1 item"),
    ],
)
def test_a_wrong_architecture_or_option_is_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_model(ModelSettings.model_validate(settings))


def test_a_config_that_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    for path in (tmp_path / "pipe.toml", tmp_path):
        with pytest.raises(UsageError, match="is not a file"):
            load_config(path)


def test_an_unknown_preset_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'paper-cnn'"):
        load_preset("paper-cnnn")


def test_the_command_line_overrides_the_preset() -> None:
    settings = choose_settings(
        "paper-cnn",
        None,
        {"training.epochs": 2, "seed": 7, "precision": "bf16", "device": None},
    )
    assert (settings.training.epochs, settings.seed, settings.precision) == (2, 7, "bf16")
    assert settings.device == "auto"
    assert settings.training.learning_rate == 0.001


def test_preset_and_config_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give either `preset` or `config`, not both"):
        choose_settings("paper-cnn", _config(tmp_path, GOOD))
    assert choose_settings(None, None).name == "hemanet"


def test_epochs_scale_keeps_at_least_one_epoch() -> None:
    settings = scaled_presets(["paper-cnn", "paper-mlnn"], epochs_scale=0.1)
    assert [s.training.epochs for s in settings] == [2, 1]
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="give a number above 0") as error:
            scaled_presets(["paper-cnn"], epochs_scale=scale)
        assert error.value.field == "epochs_scale"


def test_seeds() -> None:
    assert parse_seeds("0, 7,12") == (0, 7, 12)
    for text in ("", "1,,2", "-1", "a", "1.5", "4294967296", "²"):
        with pytest.raises(UsageError, match="give integers") as error:
            parse_seeds(text)
        assert error.value.field == "seeds"
    with pytest.raises(UsageError, match="duplicate value"):
        parse_seeds("1,01")


def test_next_free_never_names_an_existing_folder(tmp_path: Path) -> None:
    assert next_free(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert next_free(tmp_path / "demo") == tmp_path / "demo-3"
