"""What every row of every table promises."""

import re
import warnings
from collections.abc import Callable
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import Outcome, read, small_arrays
from hemascope.core.classes import Split
from hemascope.core.images import LabeledImages
from hemascope.core.predictions import Predictions
from hemascope.data import DATASETS, load
from hemascope.data.bloodmnist import official_md5
from hemascope.data.collections import BLOOD_CELLS, collection, collections
from hemascope.data.source import Request
from hemascope.data.synthetic import COUNTS
from hemascope.inference.torch_engine import TorchEngine
from hemascope.metrics import METRICS, evaluate_all
from hemascope.models import MODELS, build_model, check_model, head_of
from hemascope.report.text import LABELS
from hemascope.settings.data import DataSettings
from hemascope.settings.run import ModelSettings, load_config, load_preset, preset_names
from hemascope.study import published as study
from hemascope.training.loop import fit, initialize
from hemascope.training.state import TrainingState
from hemascope.training.task import ClassificationTask
from hemascope.workflows.plan import STUDY_PRESETS

# One architecture of each row; a library's row has many.
ARCHITECTURES = {
    **{name: ModelSettings(name=name) for name in MODELS if not name.endswith("/")},
    "timm/": ModelSettings(name="timm/resnet10t"),
    "ensemble": ModelSettings(
        name="ensemble", options={"members": [{"name": "cnn"}, {"name": "cnn"}]}
    ),
}
ROOT = Path(__file__).parents[2]
PRESETS = ROOT / "src" / "hemascope" / "settings" / "presets"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("image_size", "num_classes"), [(28, 8), (64, 3)])
def test_every_model_maps_images_to_finite_logits(
    name: str, image_size: int, num_classes: int
) -> None:
    model = build_model(ARCHITECTURES[name], image_size=image_size, num_classes=num_classes)
    logits = model(torch.zeros(2, 3, image_size, image_size))
    assert logits.shape == (2, num_classes)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", MODELS)
def test_every_model_names_its_source_and_grad_cam_layer(name: str) -> None:
    row = MODELS[name]
    architecture = getattr(import_module(row.module), row.class_name)
    assert "Source:" in architecture.__doc__
    model: Any = build_model(ARCHITECTURES[name], image_size=28, num_classes=8)
    layer = model.grad_cam_layer
    assert layer is None or isinstance(model.get_submodule(layer), nn.Conv2d)
    assert model.head_layer is None or isinstance(head_of(model), nn.Linear)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_learns_a_handful_of_images(name: str) -> None:
    arrays = small_arrays()
    images = arrays["train_images"][:16]
    labels = arrays["train_labels"][:16].ravel().astype(np.int64)
    few = LabeledImages(images, labels, tuple(map(str, range(16))))
    torch.manual_seed(0)
    model = build_model(ARCHITECTURES[name], image_size=28, num_classes=8)
    initialize(model)
    settings = load_preset("paper-cnn").training.model_copy(update={"epochs": 60})
    state = TrainingState(model, settings, seed=0, device=torch.device("cpu"))
    *_, last = fit(state, ClassificationTask(few, state, classes=BLOOD_CELLS), few)
    assert last.figures["val_accuracy"] == 1.0


@pytest.mark.parametrize("name", MODELS)
def test_every_prediction_is_independent_of_its_batch(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(ARCHITECTURES[name], image_size=28, num_classes=8)
    images = small_arrays()["test_images"]
    cpu = torch.device("cpu")
    together = TorchEngine(model, device=cpu).logits(images)
    apart = TorchEngine(model, device=cpu, batch_size=5).logits(images)
    np.testing.assert_allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_complete_and_states_command_result_and_cost(name: str) -> None:
    settings = load_preset(name)
    assert settings.name == name
    check_model(settings.model)
    text = (resources.files("hemascope.settings") / "presets" / f"{name}.toml").read_text("utf-8")
    assert f"--preset {name}" in text
    expected = next(line for line in text.splitlines() if "Expected:" in line)
    assert "n = " in expected


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_survives_its_own_config_toml(name: str, tmp_path: Path) -> None:
    settings = load_preset(name)
    path = tmp_path / "config.toml"
    path.write_text(settings.to_toml(), "utf-8")
    assert load_config(path) == settings


def test_the_study_is_made_of_presets() -> None:
    assert set(STUDY_PRESETS) <= set(preset_names())


def test_every_metric_is_in_the_results_and_in_the_report(random_predictions: Predictions) -> None:
    results = evaluate_all(random_predictions)
    assert set(METRICS) <= results.model_fields_set
    shown = {key for rows in LABELS.values() for key in rows}
    assert set(METRICS) <= shown
    assert {row.key for row in study.TABLE_2} <= shown | {"num_parameters"}


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_has_three_splits_of_labeled_images(
    name: str, small_npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEMASCOPE_BLOODMNIST", str(small_npz))
    monkeypatch.setattr("hemascope.data.synthetic.COUNTS", dict.fromkeys(Split, (2,) * 8))
    dataset = load(Request(DataSettings(sources=(name,))))
    assert set(dataset.splits) == set(Split)
    for images in dataset.splits.values():
        assert images.images.shape == (len(images), 28, 28, 3)
        assert images.images.dtype == np.uint8
        assert images.labels.dtype == np.int64
        assert len(set(images.ids)) == len(images)
        assert set(images.labels) == set(range(8))
    assert len(dataset.md5) == 32


@pytest.fixture
def medmnist_info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What MedMNIST's library says of its data sets; importing it warns, and makes a folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from medmnist import INFO
    return dict(INFO)


def test_classes_counts_and_md5_are_medmnist_s_own(medmnist_info: dict[str, Any]) -> None:
    info = medmnist_info["bloodmnist"]
    names = [info["label"][str(i)].split("(")[0].rstrip("s") for i in range(8)]
    assert tuple(names) == BLOOD_CELLS.names == collection("bloodmnist").classes
    assert info["MD5"] == official_md5()
    assert -(-sum(COUNTS[Split.TRAIN]) // 128) == 94  # the study's batches an epoch
    assert info["n_samples"] == {split.value: sum(COUNTS[split]) for split in Split}


@pytest.mark.parametrize("key", collections())
def test_every_collection_is_medmnist_s_own(key: str, medmnist_info: dict[str, Any]) -> None:
    known, info = collection(key), medmnist_info[key]
    assert len(known.classes) == len(set(known.classes)) == len(info["label"])
    assert known.url == info["url"]
    assert known.license == info["license"]
    md5s = {28: "MD5", 64: "MD5_64", 128: "MD5_128", 224: "MD5_224"}
    assert known.md5s == {size: info[field] for size, field in md5s.items()}
    assert {known.class_set.index(name) for name in known.classes} == set(range(len(known.classes)))
    assert set(known.aliases.values()) <= set(known.classes)
    assert known.source
    assert known.limits


def test_every_two_dimensional_set_of_one_label_is_a_collection(
    medmnist_info: dict[str, Any],
) -> None:
    wanted = {
        key
        for key, info in medmnist_info.items()
        if not key.endswith("3d") and info["task"] != "multi-label, binary-class"
    }
    assert set(collections()) == wanted


@pytest.mark.filterwarnings("ignore")
def test_medmnist_reads_the_same_pixels(small_npz: Path, tmp_path: Path) -> None:
    from medmnist import BloodMNIST

    root = tmp_path / "cache"
    root.mkdir()
    (root / "bloodmnist.npz").write_bytes(small_npz.read_bytes())
    ours = read(small_npz)
    for split in Split:
        theirs = BloodMNIST(split=split.value, root=str(root), download=False)
        np.testing.assert_array_equal(ours.splits[split].images, theirs.imgs)
        np.testing.assert_array_equal(ours.splits[split].labels, theirs.labels.ravel())


def test_class_3_is_the_immature_granulocyte_and_2_the_erythroblast() -> None:
    assert BLOOD_CELLS.names[3] == "immature granulocyte"
    assert BLOOD_CELLS.names[2] == study.CLASS_3_IN_THE_STUDY.lower()


def test_every_preset_is_named_in_the_help(hemascope: Callable[..., Outcome]) -> None:
    help_text = "".join(hemascope("train", "--help").out.split())  # lines break at hyphens
    assert all(name in help_text for name in preset_names())


def _commands(hemascope: Callable[..., Outcome], *group: str) -> dict[str, str]:
    """The one-line help of every command."""
    text = hemascope(*group, "-h").out.partition("Commands:")[2]
    return dict(line.split(None, 1) for line in text.strip().splitlines())


def test_every_command_explains_itself(hemascope: Callable[..., Outcome]) -> None:
    groups = ("data", "review")
    every = {(name,): text for name, text in _commands(hemascope).items() if name not in groups}
    for group in groups:
        every |= {(group, name): text for name, text in _commands(hemascope, group).items()}
    assert len(every) > 20
    for command, text in every.items():
        assert len(text) <= 50, command
        assert text.endswith("."), command  # not cut off
        help_text = hemascope(*command, "-h").out
        assert "Usage: hemascope" in help_text
        shown = " ".join(help_text.split())
        assert f"Example: hemascope {' '.join(command)}" in shown, command
        assert not re.search(r"<[^|<>]+>", help_text), command  # no types of Python
        example = shown.partition("Example: ")[2].partition(" Arguments:")[0]
        for option in re.findall(r"--[a-z0-9-]+", example.partition(" Options:")[0]):
            assert f" {option} " in shown, (command, option)
