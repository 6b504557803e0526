"""The commands that the package promises for cells of one's own, on real ones; one epoch each."""

import csv
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from conftest import Outcome, save_npz
from hemascope.core.classes import Split
from hemascope.core.errors import DataError
from hemascope.core.images import Dataset, concatenate
from hemascope.data import load
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.source import Request
from hemascope.inference.predictor import Predictor
from hemascope.settings.data import DataSettings
from hemascope.store.predictions import read_predictions

pytestmark = pytest.mark.real

Run = Callable[..., Outcome]
QUICK = ("--preset", "hemanet-tiny", "--epochs", "1", "--views", "1")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _sampled(real_data: Path, out: Path, laboratories: Sequence[str], most: int = 30) -> Path:
    """A table of some cells of each class of some laboratories, of many groups, by whole paths."""
    rows: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in _rows(real_data / "labs" / "labs.csv"):
        if row["laboratory"] in laboratories:
            whole = {**row, "path": str(real_data / "labs" / row["path"])}
            rows.setdefault((row["laboratory"], row["label"]), []).append(whole)
    kept = [row for own in rows.values() for row in own[:: max(1, len(own) // most)]]
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(kept[0]))
        writer.writeheader()
        writer.writerows(kept)
    return out


def _load(source: Path, *, as_found: bool = False, **options: Any) -> Dataset:
    settings = DataSettings(sources=(str(source),), **options)
    return load(Request(settings, as_found=as_found))


def _torn(dataset: Dataset) -> set[str]:
    """The groups that are in two splits."""
    groups = [set(part.groups or ()) for part in dataset.splits.values()]
    assert all(groups)
    return {g for i, own in enumerate(groups) for other in groups[:i] for g in own & other}


@pytest.mark.parametrize("model", ["hemanet", "hemanet-64-labs"])
def test_evaluate_answers_row_by_row_as_predict(
    model: str, real_data: Path, tmp_path: Path, hemascope: Run
) -> None:
    cells = real_data / "cells_360"
    outcome = hemascope("evaluate", model, "--data", cells, "--out", tmp_path / "e")
    assert outcome.code == 0, outcome.err
    assert hemascope("predict", cells, "--model", model, "--out", tmp_path / "p.csv").code == 0
    [file] = (tmp_path / "e").glob("predictions-all*.csv")
    evaluated = read_predictions(file)
    names = evaluated.classes.names
    ours = dict(zip(evaluated.ids, evaluated.logits.argmax(axis=1), strict=True))
    theirs = {str(Path(r["path"]).relative_to(cells)): r for r in _rows(tmp_path / "p.csv")}
    assert len(ours) == len(theirs) == 200
    assert {i: names[label] for i, label in ours.items()} == {
        i: row["predicted_class"] for i, row in theirs.items()
    }
    right = np.mean([BLOOD_CELLS.index(i.split("/")[0]) == label for i, label in ours.items()])
    assert right >= 0.97
    assert json.loads((tmp_path / "e" / "results.json").read_text())["accuracy"] == right


def _tiles(real_data: Path, size: int) -> tuple[NDArray[np.uint8], list[str]]:
    """Cells cropped already, as their owner would, and their classes."""
    tiles: list[NDArray[np.uint8]] = []
    names: list[str] = []
    for file in sorted((real_data / "cells_360").glob("*/*.jpg")):
        image = Image.open(file).convert("RGB")
        left, top = round((image.width - 200) / 2), round((image.height - 200) / 2)
        square = image.crop((left, top, left + 200, top + 200))
        tiles.append(np.asarray(square.resize((size, size), Image.Resampling.BILINEAR)))
        names.append(file.parent.name)
    return np.stack(tiles), names


def test_tiles_are_known_as_cropped_already(
    real_data: Path, tmp_path: Path, hemascope: Run
) -> None:
    tiles, names = _tiles(real_data, 64)
    np.savez(tmp_path / "tiles.npz", images=tiles)
    args = ("predict", tmp_path / "tiles.npz", "--model", "hemanet")
    outcome = hemascope(*args, "--out", tmp_path / "p.csv")
    assert outcome.code == 0, outcome.err
    rows = _rows(tmp_path / "p.csv")
    right = [
        BLOOD_CELLS.index(name) == BLOOD_CELLS.index(row["predicted_class"])
        for name, row in zip(names, rows, strict=True)
    ]
    assert np.mean(right) >= 0.97
    assert all("already cropped" in row["note"] for row in rows)
    with pytest.warns(UserWarning, match="200 of 200: taken as already cropped"):
        answers = Predictor("hemanet").predict(tiles)
    assert [a.predicted_class for a in answers] == [row["predicted_class"] for row in rows]


def test_train_on_another_laboratory_without_its_one_basophil(
    real_data: Path, tmp_path: Path, hemascope: Run
) -> None:
    cells, out = real_data / "tecom_wbc", tmp_path / "run"
    outcome = hemascope("train", "--data", cells, "--skip-rare", *QUICK, "--out", out)
    assert outcome.code == 0, outcome.err
    assert "Left out, with fewer than 3 images: basophil (1 image(s))." in outcome.err
    results = json.loads((out / "results.json").read_text())
    assert results["class_names"] == ["eosinophil", "lymphocyte", "monocyte", "neutrophil"]
    assert len(results["per_class"]) == 4
    mean = np.mean([figures["f1"] for figures in results["per_class"].values()])
    assert results["f1_macro"] == pytest.approx(mean)
    assert "monocyte" in (out / "report.html").read_text()
    refused = hemascope("train", "--data", cells, *QUICK, "--out", tmp_path / "no")
    assert refused.code == 2
    assert "--skip-rare" in refused.err


def test_groups_of_the_laboratories_table_are_kept_apart(
    real_data: Path, tmp_path: Path, hemascope: Run
) -> None:
    whole = _load(real_data / "labs" / "labs.csv")
    assert not _torn(whole)
    assert sum(len(part) for part in whole.splits.values()) == 5_898
    table = _sampled(real_data, tmp_path / "some.csv", ("raabin", "jhu", "bccd"))
    outcome = hemascope("train", "--data", table, *QUICK, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "groups were kept apart" in outcome.err


def test_groups_are_found_in_the_file_names(
    real_data: Path, tmp_path: Path, hemascope: Run
) -> None:
    for file in sorted((real_data / "labs" / "jhu").glob("*/*.jpg"))[::4]:
        link = tmp_path / "jhu" / file.parent.name / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    pattern = r"^([^_]+_\d+)__"
    assert not _torn(_load(tmp_path / "jhu", group_from=pattern, skip_rare=True))
    outcome = hemascope(
        *("train", "--data", tmp_path / "jhu", "--group-from", pattern, "--skip-rare"),
        *(*QUICK, "--out", tmp_path / "run"),
    )
    assert outcome.code == 0, outcome.err
    assert "groups were kept apart" in outcome.err


def test_each_of_two_laboratories_is_left_out_in_turn(
    real_data: Path, tmp_path: Path, hemascope: Run
) -> None:
    table, out = _sampled(real_data, tmp_path / "two.csv", ("raabin", "jhu")), tmp_path / "out"
    outcome = hemascope("train", "--data", table, "--leave-out", "laboratory", *QUICK, "--out", out)
    assert outcome.code == 0, outcome.err
    found = json.loads((out / "folds.json").read_text())
    folds = {fold["name"]: fold for fold in found["folds"]}
    assert set(folds) == {"raabin", "jhu"}
    assert folds["raabin"]["left_out"] == {}
    assert set(folds["jhu"]["left_out"]) == {"erythroblast", "immature granulocyte", "platelet"}
    assert "not trained on" in outcome.out
    assert "mean ± sd, n = 2" in outcome.out


def test_other_medmnist_data_needs_names(real_npz: Path, tmp_path: Path, hemascope: Run) -> None:
    """Seven classes, RGB, 28 pixels: what looks like BloodMNIST and is not."""
    arrays: dict[str, Any] = {}
    with np.load(real_npz) as whole:
        for split in Split:
            labels = whole[f"{split}_labels"].ravel()[:400]
            kept = np.flatnonzero(labels < 7)
            arrays[f"{split}_images"] = whole[f"{split}_images"][kept]
            arrays[f"{split}_labels"] = labels[kept, None]
    path = tmp_path / "dermamnist.npz"
    save_npz(path, arrays)
    outcome = hemascope("train", "--data", path, *QUICK, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert all(way in outcome.err for way in ("class_names", "--classes", "--collection"))
    assert not (tmp_path / "run").exists()
    names = tuple("abcdefg")
    outcome = hemascope(
        "train", "--data", path, "--classes", ",".join(names), *QUICK, "--out", tmp_path / "run"
    )
    assert outcome.code == 0, outcome.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert tuple(results["class_names"]) == names


def test_larger_images_of_a_known_collection(
    real_data: Path, tmp_path: Path, hemascope: Run
) -> None:
    tiles, names = _tiles(real_data, 64)
    labels = np.array([BLOOD_CELLS.index(name) for name in names])
    mixed = np.random.default_rng(0).permutation(len(labels))
    parts = dict(zip(Split, (mixed[:120], mixed[120:160], mixed[160:]), strict=True))
    arrays = {f"{s}_images": tiles[rows] for s, rows in parts.items()}
    arrays |= {f"{s}_labels": labels[rows] for s, rows in parts.items()}
    save_npz(tmp_path / "tiles.npz", arrays)
    out = tmp_path / "run"
    outcome = hemascope(
        *("train", "--data", tmp_path / "tiles.npz", "--collection", "bloodmnist"),
        *(*QUICK, "--out", out),
    )
    assert outcome.code == 0, outcome.err
    image = json.loads((out / "model" / "artifact.json").read_text())["image"]
    assert (image["size"], image["photo_size"], image["jpeg_quality"]) == (64, 360, 0)
    assert image["crop"] == pytest.approx(200 / 360)
    outcome = hemascope("evaluate", out, "--data", real_data / "cells_360")
    assert outcome.code == 0, outcome.err
    assert "cropped to 55.6 % of the middle and resized to 64x64" in outcome.err


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as people have them, made from the real cells by the script beside these."""
    import os

    data = Path(os.environ.get("HEMASCOPE_DATA", "none"))
    script = data.parent / "cases" / "make_cases.py"
    if not script.is_file():
        pytest.skip("the script that makes the cases is not there")
    spec = importlib.util.spec_from_file_location("make_cases", script)
    assert spec is not None
    assert spec.loader is not None
    made: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    out = tmp_path_factory.mktemp("cases")
    made.folders(data, out)
    made.arrays(data, out)
    return out


@pytest.mark.parametrize("kind", ["appledouble", "nested", "jfif"])
def test_every_photograph_of_an_untidy_folder_is_read(cases: Path, kind: str) -> None:
    dataset = _load(cases / "folders" / kind, as_found=True)
    assert set(dataset.class_counts(Split.TEST).values()) == {25}
    assert dataset.classes == BLOOD_CELLS
    if kind == "nested":
        assert any("10 image(s)" in note and "`group_from`" in note for note in dataset.notes)


@pytest.mark.parametrize("kind", ["valid", "upper", "no_val", "absent_class"])
def test_split_folders_as_people_name_them(cases: Path, kind: str) -> None:
    dataset = _load(cases / "folders" / kind)
    assert set(dataset.splits) == set(Split)
    counts = {split: dataset.class_counts(split) for split in Split}
    assert all(counts[Split.TRAIN].values())
    assert len(dataset.splits[Split.TEST]) == (35 if kind == "absent_class" else 40)
    assert (counts[Split.TEST]["basophil"] == 0) == (kind == "absent_class")


def test_damaged_photographs_are_named_or_left_out(cases: Path) -> None:
    with pytest.raises(DataError) as error:
        _load(cases / "folders" / "damaged")
    assert "2 damaged file(s)" in str(error.value)
    assert "empty.jpg" in str(error.value)
    assert "cut.jpg" in str(error.value)
    dataset = _load(cases / "folders" / "damaged", skip_bad=True)
    assert len(dataset.bad) == 2
    assert sum(len(part) for part in dataset.splits.values()) == 200


def test_a_table_with_a_byte_order_mark(cases: Path) -> None:
    dataset = _load(cases / "folders" / "table" / "labels.csv", as_found=True)
    assert set(dataset.class_counts(Split.TEST).values()) == {25}


def test_arrays_as_people_save_them(cases: Path) -> None:
    folder = cases / "npz"
    with pytest.raises(DataError, match="nothing says what the labels"):
        _load(folder / "cleaned.npz")
    cleaned = _load(folder / "cleaned.npz", collection="bloodmnist")
    assert len(cleaned.splits[Split.TRAIN]) == 11_959 - 17
    assert cleaned.spec.crop == pytest.approx(200 / 360)
    order = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
    own = _load(folder / "own_order.npz")
    assert own.classes.names == order
    with pytest.raises(DataError, match="nothing says what the labels"):
        _load(folder / "own_order_unnamed.npz")
    unnamed = _load(folder / "own_order_unnamed.npz", classes=order)
    known = [
        load(Request(DataSettings(sources=(str(folder / f"{kind}.npz"),)), classes=BLOOD_CELLS))
        for kind in ("own_order", "channels_first", "one_hot")
    ]
    assert unnamed.classes.names == order
    first, hot = (concatenate(list(one.splits.values())) for one in known[1:])
    np.testing.assert_array_equal(first.images, hot.images)
    np.testing.assert_array_equal(first.labels, hot.labels)
    part = concatenate(list(known[0].splits.values()))
    theirs = concatenate(list(unnamed.splits.values()))
    assert [order[label] for label in theirs.labels] == [
        BLOOD_CELLS.names[label] for label in part.labels
    ]
