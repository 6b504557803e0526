"""`audit`: what it writes of data with known faults."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Outcome, data_settings, save_npz, small_arrays

Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def faulty_arrays() -> dict[str, Any]:
    """A copy across splits, one with another label, a turned one, a blank one, and patients."""
    arrays: dict[str, Any] = dict(small_arrays())
    arrays["test_images"][2] = arrays["train_images"][10]
    arrays["test_labels"][2] = arrays["train_labels"][10]
    arrays["val_images"][3] = arrays["val_images"][4]  # of another class
    arrays["train_images"][20] = np.rot90(arrays["train_images"][12])
    arrays["train_images"][30] = 255
    for split in ("train", "val", "test"):
        size = len(arrays[f"{split}_labels"])
        arrays[f"{split}_names"] = np.array([f"{split}-{i}.jpg" for i in range(size)])
        arrays[f"{split}_groups"] = np.array([f"{split}-{i % 5}" for i in range(size)], "U9")
    arrays["test_groups"][7] = "train-1"
    return arrays


@pytest.fixture(scope="module")
def audited(
    faulty_arrays: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    from hemascope.analyses.audit.run import audit
    from hemascope.settings.output import Output
    from hemascope.workflows.progress import Reporter

    folder = tmp_path_factory.mktemp("audit")
    save_npz(folder / "faulty.npz", faulty_arrays)
    text = audit(data_settings(folder / "faulty.npz"), Output(folder / "out"), reporter=Reporter())
    return folder / "out", text


def test_every_fault_is_named(audited: tuple[Path, str]) -> None:
    found = json.loads((audited[0] / "audit.json").read_text())
    assert found["exact_duplicate_groups"] == [["train/10", "test/2"], ["val/3", "val/4"]]
    assert ["train/12", "train/20"] in found["near_duplicate_groups"]
    assert found["label_conflicts"] == [["val/3", "val/4"]]
    assert found["cross_split_groups"] == [["train/10", "test/2"]]
    assert found["blank"] == ["train/30"]
    assert found["names"]["test/2"] == "test-2.jpg"
    torn = {"group": "train-1", "counts": {"train": 13, "test": 1}}
    assert found["groups_in_several_splits"] == [torn]
    assert all(isinstance(image_id, str) for image_id in found["label_issue_candidates"])


def test_the_page_shows_the_images_and_says_what_it_is(audited: tuple[Path, str]) -> None:
    folder, text = audited
    page = (folder / "audit.html").read_text()
    assert page.count("data:image/png;base64,") >= 6
    assert "test-2.jpg" in page
    assert "Research use only" in page
    assert "2 groups of images that are the same pixel for pixel" in text
    assert "1 have images in more than one split" in text


def test_an_unsplit_folder_with_a_class_of_one(tmp_path: Path, hemascope: Run) -> None:
    from PIL import Image

    arrays = small_arrays()
    for i, image in enumerate(arrays["train_images"][:17]):
        folder = tmp_path / "cells" / f"class-{min(i % 3, 1) if i < 16 else 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    outcome = hemascope("audit", tmp_path / "cells", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "not split" in outcome.out
    assert "does not say which images come from the same patient" in outcome.out


def test_a_network_that_guesses_judges_no_label(tmp_path: Path, hemascope: Run) -> None:
    chance = np.random.default_rng(0)
    images = chance.integers(0, 256, (60, 28, 28, 3), dtype=np.uint8)
    labels, names = np.arange(60) % 3, np.array(["a", "b", "c"])
    save_npz(tmp_path / "noise.npz", {"images": images, "labels": labels, "class_names": names})
    done = hemascope("audit", tmp_path / "noise.npz", "--out", tmp_path / "out")
    assert "cannot tell these classes apart" in done.out
    assert "All classes have 20 images" in done.out
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert (found["label_issues"], found["cross_validated_accuracy"]) == ([], None)
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "cannot tell these classes apart" in page
    assert "Nothing wrong found in 60 images, whose labels were not judged" in page


def test_names_that_do_not_fit_are_refused(tmp_path: Path, hemascope: Run) -> None:
    arrays: dict[str, Any] = {**small_arrays(), "val_names": np.array(["a", "b"])}
    save_npz(tmp_path / "bad.npz", arrays)
    outcome = hemascope("audit", tmp_path / "bad.npz", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "val_names" in outcome.err
    assert not (tmp_path / "out").exists()
