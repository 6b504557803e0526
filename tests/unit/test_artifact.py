import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hemascope.core.errors import DataError
from hemascope.core.image_spec import ImageSpec
from hemascope.data.collections import BLOOD_CELLS
from hemascope.inference.torch_engine import load_model
from hemascope.models import build_model
from hemascope.settings.run import load_preset
from hemascope.store.model_folder import (
    ArtifactInfo,
    TrainingData,
    load_artifact,
    save_artifact,
)

INFO = ArtifactInfo(
    hemascope_version="0",
    model=load_preset("paper-cnn").model,
    class_names=BLOOD_CELLS.names,
    image=ImageSpec(),
    num_parameters=4,
    trained_on=TrainingData(
        title="t",
        md5="0" * 32,
        num_images=1,
        channel_mean=(0.5, 0.5, 0.5),
        channel_std=(0.1, 0.1, 0.1),
    ),
    settings=load_preset("paper-cnn"),
    epoch=1,
)
WEIGHTS = {"w": np.arange(4, dtype=np.float32)}


def _saved(folder: Path) -> Path:
    save_artifact(folder, INFO, WEIGHTS)
    return folder


def _edit(folder: Path, **changes: object) -> None:
    path = folder / "artifact.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _flip_a_bit(folder: Path) -> None:
    (path,) = folder.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _remove_weights(folder: Path) -> None:
    next(folder.glob("*.safetensors")).unlink()


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    info, weights = load_artifact(_saved(tmp_path))
    assert info.classes == BLOOD_CELLS
    np.testing.assert_array_equal(weights["w"], WEIGHTS["w"])


def test_saving_again_replaces_the_model_and_leaves_one_weights_file(tmp_path: Path) -> None:
    _saved(tmp_path)
    save_artifact(tmp_path, INFO.model_copy(update={"epoch": 2}), {"w": np.ones(4, np.float32)})
    info, weights = load_artifact(tmp_path)
    assert info.epoch == 2
    assert weights["w"].tolist() == [1, 1, 1, 1]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip_a_bit, "SHA-256 differs"),
        (_remove_weights, "the model is incomplete"),
        (lambda f: _edit(f, format_version=99), "format version 99"),
        (lambda f: _edit(f, weights_file="../other"), "'weights_file'"),
        (lambda f: _edit(f, class_names=None), "'class_names'"),
        (lambda f: (f / "artifact.json").write_text("{"), "not readable JSON"),
        (lambda f: (f / "artifact.json").write_text("[]"), "no format_version"),
        (lambda f: (f / "artifact.json").unlink(), "holds no trained model"),
    ],
)
def test_a_damaged_model_is_refused_in_one_sentence(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    folder = _saved(tmp_path)
    damage(folder)
    with pytest.raises(DataError, match=message):
        load_artifact(folder)


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    model = build_model(INFO.model, image_size=28, num_classes=8)
    weights = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    weights["features.0.bias"][3] = np.nan
    save_artifact(tmp_path, INFO, weights)
    with pytest.raises(DataError, match="not finite numbers"):
        load_model(tmp_path)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not fit architecture 'cnn'"):
        load_model(_saved(tmp_path))
