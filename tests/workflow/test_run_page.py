"""The page that every run ends with."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conftest import Outcome, save_cells
from hemascope.core.predictions import Predictions
from hemascope.report.run_page import write_run_page
from hemascope.store.predictions import read_predictions, write_predictions
from hemascope.store.run_folder import RunFolder

Run = Callable[..., Outcome]


def _text(page: Path) -> str:
    return re.sub(r"data:image[^\"]+", "", page.read_text("utf-8")).replace("\xa0", " ")


def _take(predictions: Predictions, rows: NDArray[np.intp]) -> Predictions:
    ids = tuple(predictions.ids[i] for i in rows)
    return Predictions(ids, predictions.logits[rows], predictions.labels[rows], predictions.classes)


def test_the_first_screen_has_the_headline_figures_and_the_confusion_matrix(
    run_folder: Path,
) -> None:
    results = RunFolder(run_folder).read_results()
    page = _text(run_folder / "report.html")
    first = page[page.index("<main>") : page.index("<h2>")]
    share = f"{100 * results.accuracy:.1f} %"
    assert f"<h1>paper-cnn classifies {share} of the test images correctly" in first
    assert "95 % interval" in first
    assert "trained on 64 images of small.npz" in first
    assert "in 8 classes and tested on 24 other images of it" in first
    assert f"<b>{share}</b>" in first
    assert "n = 24" in first
    assert "Macro F1" in first
    assert 'alt="Confusion matrix on test, in per cent of the true class"' in first
    worst = min(results.per_class, key=lambda name: results.per_class[name].recall or 0)
    assert f"Lowest sensitivity: {worst}</dt>" in first
    assert "n = 3</dd>" in first


def test_the_page_needs_no_other_file_and_holds_every_section(run_folder: Path) -> None:
    page = (run_folder / "report.html").read_text("utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert page.count("data:image/svg+xml;base64,") == 7
    results = RunFolder(run_folder).read_results()
    errors = results.num_images - results.confusion.trace()
    assert page.count("data:image/png;base64,") == min(errors, 24)
    for heading in (
        "By class", "Errors", "Training", "Confidence", "Metrics", "Data", "How to reproduce",
        "Model card and data card",
    ):  # fmt: skip
        assert f"<h2>{heading}</h2>" in page
    assert "Research use only" in page


def test_what_val_is_too_small_for_is_named_and_the_page_goes_on(run_folder: Path) -> None:
    folder = RunFolder(run_folder)
    val = read_predictions(folder.predictions("val"))
    write_predictions(folder.predictions("val"), _take(val, np.arange(5)))
    write_run_page(folder)
    page = _text(folder.page)
    assert "Prediction sets of 95 % are left out: val has 5 images, and 19 are needed" in page
    assert "ECE by chance" in page


def test_classes_of_one_s_own_have_their_page(hemascope: Run, tmp_path: Path) -> None:
    cells, out = tmp_path / "cells", tmp_path / "run"
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        for name, color in (("blast <a>", (200, 0, 0)), ("smudge", (0, 200, 0))):
            (cells / split / name).mkdir(parents=True)
            for i in range(count):
                path = cells / split / name / f"{i}.png"
                Image.new("RGB", (28, 28), (color[0] + i, color[1] + i, i)).save(path)
    train = ("train", "--preset", "paper-cnn", "--epochs", 1, "--data", cells, "--out", out)
    outcome = hemascope(*train)
    assert outcome.code == 0, outcome.err
    page = _text(out / "report.html")
    assert "blast &lt;a&gt;" in page
    assert "blast <a>" not in page
    assert "Barcelona" not in page


def test_classes_without_images_are_named_on_the_page(
    hemascope: Run, small_npz: Path, tmp_path: Path
) -> None:
    arrays = dict(np.load(small_npz))
    keep = arrays["test_labels"].ravel() < 5
    arrays |= {f"test_{what}": arrays[f"test_{what}"][keep] for what in ("images", "labels")}
    data, out = tmp_path / "five.npz", tmp_path / "run"
    np.savez(data, **arrays)
    outcome = hemascope(
        "train", "--preset", "paper-cnn", "--epochs", 1, "--data", data, "--out", out
    )
    assert outcome.code == 0, outcome.err
    page = _text(out / "report.html")
    assert "No images here of monocyte, neutrophil, platelet" in page
    assert "No images here of monocyte, neutrophil, platelet" in outcome.out
    assert RunFolder(out).read_results().absent_classes == ("monocyte", "neutrophil", "platelet")


def test_an_ensemble_has_its_page_and_no_learning_curve(
    hemascope: Run, run_folder: Path, small_npz: Path, tmp_path: Path
) -> None:
    other, out = tmp_path / "other", tmp_path / "ensemble"
    train = ("train", "--preset", "paper-cnn", "--epochs", 1, "--seed", 7, "--data", small_npz)
    assert hemascope(*train, "--out", other).code == 0
    outcome = hemascope("ensemble", run_folder, other, "--data", small_npz, "--out", out)
    assert outcome.code == 0, outcome.err
    page = _text(out / "report.html")
    assert "An ensemble of 2 networks" in page
    assert "<h2>Training</h2>" not in page


def test_a_page_names_what_the_run_began_from(
    hemascope: Run, run_folder: Path, small_npz: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned"
    train = ("train", "--preset", "paper-cnn", "--epochs", 1, "--data", small_npz)
    outcome = hemascope(*train, "--start", run_folder, "--name", "tuned", "--out", out)
    assert outcome.code == 0, outcome.err
    page = _text(out / "report.html")
    assert f"paper-cnn ({run_folder}), trained on 64 images of small.npz" in page


def test_a_page_counts_what_was_left_out_and_says_what_is_known_of_groups(
    hemascope: Run, tmp_path: Path
) -> None:
    cells, out = save_cells(tmp_path / "cells", {"blast": 12, "smudge": 12}), tmp_path / "run"
    for number in range(4):
        (cells / "blast" / f"damaged-{number}.png").write_bytes(b"no picture")
    train = ("train", "--preset", "paper-cnn", "--epochs", 1, "--data", cells, "--skip-bad")
    outcome = hemascope(*train, "--out", out)
    assert outcome.code == 0, outcome.err
    bad = RunFolder(out).read_fingerprint().data.bad
    assert [Path(one.path).name for one in bad] == [f"damaged-{n}.png" for n in range(4)]
    assert all(one.reason for one in bad)
    page = _text(out / "report.html")
    assert "Damaged files left out: 4;" in page
    assert "Groups: not known, so whether images of one patient" in page
    grouped = tmp_path / "grouped"
    outcome = hemascope(*train, "--group-from", r"(\d)\.png", "--out", grouped)
    assert outcome.code == 0, outcome.err
    assert "Groups: 10, kept apart: none is in two splits." in _text(grouped / "report.html")
