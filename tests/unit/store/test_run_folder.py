"""What a run folder gives back of what was written into it, and what it refuses."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from conftest import results_of
from hemascope.core.errors import RESEARCH_USE_ONLY, DataError, OutputError
from hemascope.core.image_spec import ImageSpec
from hemascope.core.images import DataDescription
from hemascope.core.predictions import Predictions
from hemascope.settings.output import Output
from hemascope.store.files import write_json
from hemascope.store.provenance import Fingerprint, Machine, provenance, publish
from hemascope.store.run_folder import RunFolder, find_results

STORED = Path(__file__).parents[2] / "stored" / "run-0.1"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_results_come_back_as_they_were_written(
    folder: RunFolder, random_predictions: Predictions
) -> None:
    results = results_of(random_predictions, epochs=3)
    folder.write_results(results, "as text")
    assert folder.read_results() == results
    assert folder.results_text.read_text() == "as text"
    content = json.loads(folder.results.read_text())
    assert content["accuracy"] == results.accuracy  # at the top, as every reader expects
    assert content["epochs"] == 3
    assert "train_seconds" not in content  # not measured, so not written


def test_a_figure_that_is_not_defined_is_written_as_null(
    folder: RunFolder, random_predictions: Predictions
) -> None:
    keep = random_predictions.labels == 2
    ids = tuple(np.array(random_predictions.ids)[keep])
    one_class = Predictions(
        ids,
        random_predictions.logits[keep],
        random_predictions.labels[keep],
        random_predictions.classes,
    )
    folder.write_results(results_of(one_class), "")
    content = json.loads(folder.results.read_text())
    assert content["auroc_ovr_macro"] is None
    assert content["specificity_macro"] is None
    rows = content["per_class"]
    assert rows["platelet"]["auroc"] is rows["erythroblast"]["specificity"] is None
    assert rows["erythroblast"]["recall"] is not None
    assert rows["basophil"]["recall"] is rows["basophil"]["sensitivity"] is None
    assert rows["basophil"]["specificity"] is not None
    assert len(content["absent_classes"]) == 7
    assert folder.read_results().absent_classes == tuple(content["absent_classes"])


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"accuracy": 7.5}, "accuracy"),
        ({"seed": "0"}, "seed"),
        ({"acuracy": 0.5}, "acuracy"),
        ({"class_names": ["a"]}, "do not match its classes"),
        ({"format_version": 3}, "format_version"),
    ],
)
def test_altered_results_are_refused_by_field(
    folder: RunFolder, random_predictions: Predictions, change: dict[str, object], part: str
) -> None:
    folder.write_results(results_of(random_predictions), "")
    content = json.loads(folder.results.read_text())
    write_json(folder.results, {**content, **change})
    with pytest.raises(DataError, match=part) as error:
        folder.read_results()
    assert str(folder.results) in str(error.value)


def test_a_run_of_0_1_is_refused_with_the_command_that_makes_it_again(folder: RunFolder) -> None:
    for path in STORED.iterdir():
        shutil.copy(path, folder.path)
    command = "hemascope train --preset paper-cnn --data 'my cells' --out runs/cnn --overwrite"
    for read, path in (
        (folder.read_results, folder.results),
        (folder.read_fingerprint, folder.fingerprint),
    ):
        with pytest.raises(DataError) as error:
            read()
        sentence = str(error.value)
        assert sentence.startswith(f"{path} was written by hemascope 0.1")
        assert sentence.endswith(command)
    folder.fingerprint.unlink()
    with pytest.raises(DataError, match="hemascope train, or hemascope evaluate"):
        folder.read_results()


def test_the_history_comes_back_with_what_is_unknown_as_nan(folder: RunFolder) -> None:
    loss = {"train_loss": 0.123456789, "train_accuracy": 0.5, "val_loss": 1.5, "val_accuracy": 0.25}
    epochs = [{"epoch": number, **loss, "test_loss": None} for number in (1, 2)]
    folder.write_history(epochs, "cells, not blood")
    header, first, _ = folder.history.read_text().splitlines()
    assert header.endswith(",test_loss,data")
    assert first == '1,0.123457,0.500000,1.500000,0.250000,,"cells, not blood"'
    history = folder.read_history()
    assert len(history) == 2
    np.testing.assert_array_equal(history["epoch"], [1, 2])
    assert np.isnan(history["test_loss"]).all()
    assert "test_loss" not in history.known()
    folder.history.write_text("epoch,train_loss\n1,0.5\n")
    with pytest.raises(DataError, match="it has no train_accuracy"):
        folder.read_history()


def test_a_fingerprint_whose_counts_are_not_of_its_classes_is_refused(folder: RunFolder) -> None:
    data = DataDescription(
        title="t",
        kind="other",
        source="s",
        md5="0" * 32,
        md5_of="pixels",
        image=ImageSpec(size=28),
        image_size=28,
        collection="",
        bad=(),
        class_names=("a", "b"),
        counts={"test": 3},
        class_counts={"test": {"a": 1, "b": 2}},
        channel_mean=(0.5, 0.5, 0.5),
        channel_std=(0.1, 0.1, 0.1),
        notes=(),
    )
    machine = Machine(platform="p", processor="p", cores=None)
    fingerprint = Fingerprint(
        command="hemascope", date="d", versions={}, machine=machine, data=data
    )
    write_json(folder.fingerprint, fingerprint)
    assert folder.read_fingerprint() == fingerprint
    content = json.loads(folder.fingerprint.read_text())
    content["data"]["class_counts"] = {"test": {"a": 1}}
    write_json(folder.fingerprint, content)
    with pytest.raises(DataError, match="its counts are not of its splits and classes"):
        folder.read_fingerprint()


def test_results_are_found_in_folders_and_directly_inside_them(
    tmp_path: Path, random_predictions: Predictions
) -> None:
    folders = [RunFolder(tmp_path / name) for name in ("a", "b")]
    for folder in folders:
        folder.path.mkdir()
        folder.write_results(results_of(random_predictions), "")
    assert find_results([tmp_path, tmp_path / "b"]) == folders
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match=r"c holds no results\.json"):
        find_results([tmp_path / "c"])


def test_predictions_stay_inside_the_folder(folder: RunFolder) -> None:
    assert folder.predictions("test").name == "predictions-test.csv"
    assert folder.predictions("../../val", views=True) == folder.path / "predictions-val-views.csv"


@dataclass(frozen=True)
class Found:
    n: int


def test_publish_marks_the_folder_first_and_writes_text_json_and_figures(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def draw(figures: Path) -> None:
        assert (out / "fingerprint.json").is_file()
        (figures / "one.png").touch()

    contents = {"found.json": Found(1), "found.md": "# Found\n"}
    publish(Output(out), provenance(), contents=contents, draw=draw)
    assert json.loads((out / "found.json").read_text()) == {"notice": RESEARCH_USE_ONLY, "n": 1}
    assert (out / "found.md").read_text() == "# Found\n"
    assert (out / "figures" / "one.png").exists()
    assert json.loads((out / "fingerprint.json").read_text())["command"].startswith("hemascope")
    with pytest.raises(OutputError, match="add `overwrite`"):
        publish(Output(out), provenance(), contents={})
    publish(Output(out, overwrite=True), provenance(), contents={})
    assert [path.name for path in out.iterdir()] == ["fingerprint.json"]
