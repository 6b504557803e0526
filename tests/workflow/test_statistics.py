"""`compare` and `trust`: what they write from saved predictions alone, and what they refuse."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import Outcome, results_of, save_npz, small_arrays
from hemascope.core.predictions import Predictions
from hemascope.data.collections import BLOOD_CELLS
from hemascope.metrics.uncertainty import fit_temperature
from hemascope.store.files import write_json
from hemascope.store.model_folder import load_info
from hemascope.store.predictions import read_predictions, write_predictions

Run = Callable[..., Outcome]


def _predictions(split: str, size: int, *, seed: int, lean: float) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % 8
    logits = rng.normal(size=(size, 8)).astype(np.float32)
    logits[np.arange(size), labels] += lean
    ids = tuple(f"{split}/{i}" for i in range(size))
    return Predictions(ids, logits, labels, BLOOD_CELLS)


def _save(folder: Path, name: str, seed: int, *, lean: float) -> Path:
    """A finished run, as far as its predictions and results go."""
    folder.mkdir(parents=True)
    for split, size in (("val", 400), ("test", 800)):
        predictions = _predictions(split, size, seed=seed + size, lean=lean)
        write_predictions(folder / f"predictions-{split}.csv", predictions)
    test = _predictions("test", 800, seed=seed + 800, lean=lean)
    results = results_of(test, name=name, seed=seed, data="drawn numbers", num_seen_val=0)
    write_json(folder / "results.json", results)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed in (0, 1):
        _save(tmp_path / "runs" / f"good-{seed}", "good", seed, lean=4)
    _save(tmp_path / "runs" / "poor-0", "poor", 0, lean=2)
    return tmp_path / "runs"


def test_compare_says_which_network_is_better(
    hemascope: Run, runs: Path, tmp_path: Path, draw_pdfs: Callable[[], None]
) -> None:
    draw_pdfs()
    out = tmp_path / "comparison"
    outcome = hemascope("compare", runs, "--out", out, "--resamples", "300")
    assert outcome.code == 0, outcome.err
    found = json.loads((out / "comparison.json").read_text())
    (pair,) = found["pairs"]
    assert (pair["first"], pair["second"]) == ("good", "poor")
    assert pair["differences"]["accuracy"]["low"] > 0
    assert pair["mcnemar"]["p_holm"] < 0.001
    assert found["networks"]["good"]["n"] == 2
    accuracy = json.loads((runs / "good-0" / "results.json").read_text())["accuracy"]
    assert found["networks"]["good"]["figures"]["accuracy"]["values"][0] == pytest.approx(accuracy)
    text = (out / "comparison.md").read_text()
    assert text in outcome.out + "\n"
    assert "good - poor," in (out / "comparison.csv").read_text()
    assert (out / "comparison.tex").read_text().count(r"\toprule") == text.count("| --- |")
    args = ("compare", runs, "--out", out, "--overwrite", "--resamples", "300", "--format", "json")
    tables = json.loads(hemascope(*args).out)
    assert [row[0] for row in tables[0]["rows"]] == ["good", "poor"]
    [table] = json.loads(hemascope("table", runs, "--format", "json").out)
    assert {row[0] for row in table["rows"]} == {"good", "poor"}
    assert "| good - poor |" in text
    assert "Research use only" in text
    assert {path.name for path in (out / "figures").glob("*.png")} == {
        "networks.png", "differences.png", "sensitivity.png",
    }  # fmt: skip
    page = (out / "report.html").read_text()
    assert re.search(r"<h1>good beats poor by [\d.]+ points<small>95\s% interval", page)
    first, *_ = sorted((out / "figures").glob("*.pdf"))
    assert b"/FontFile2" in first.read_bytes()


def test_compare_says_that_networks_cannot_be_told_apart(hemascope: Run, tmp_path: Path) -> None:
    for seed, name in ((0, "one"), (1, "other")):
        _save(tmp_path / "runs" / name, name, 0, lean=3 + seed / 100)
    out = tmp_path / "comparison"
    assert hemascope("compare", tmp_path / "runs", "--out", out, "--resamples", "300").code == 0
    said = re.search("<h1>(.*?)<small>", (out / "report.html").read_text())
    assert said is not None
    assert said[1].endswith(
        "cannot be told apart: one is right and the other wrong on none of 800 images"
    )


def test_one_network_alone_gets_its_intervals(hemascope: Run, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    assert hemascope("compare", runs / "poor-0", "--out", out).code == 0
    assert json.loads((out / "comparison.json").read_text())["pairs"] == []
    assert not (out / "figures" / "differences.png").exists()


def test_compare_refuses_other_images_and_says_where_they_differ(
    hemascope: Run, runs: Path, tmp_path: Path
) -> None:
    path = runs / "poor-0" / "predictions-test.csv"
    lines = path.read_text().splitlines()
    out = tmp_path / "comparison"

    def refused(*parts: str) -> None:
        outcome = hemascope("compare", runs, "--out", out)
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
        for part in parts:
            assert part in outcome.err
        assert not out.exists()

    path.write_text("\n".join([lines[0], *lines[1:9][::-1], *lines[9:]]))
    refused("the same images", "row 1", "'test/7'", "'test/0'")
    path.write_text("\n".join(lines[:-8]))
    refused("792 rows", "800")
    path.write_text("\n".join(lines).replace("test/3,immature granulocyte", "test/3,monocyte"))
    refused("the same labels", "row 4")
    path.write_text("\n".join(lines))
    shutil.copytree(runs / "poor-0", runs / "again")
    refused("the second run called 'poor' with seed 0")
    results = json.loads((runs / "again" / "results.json").read_text())
    results |= {"seed": 99, "trained_on": "another laboratory's cells"}
    (runs / "again" / "results.json").write_text(json.dumps(results))
    refused("both called 'poor'", "more than the seed")
    table = hemascope("table", runs / "poor-0", runs / "again")
    assert table.code == 2
    assert "not of one network over several seeds" in table.err


def _keep_one(path: Path, class_name: str) -> None:
    """Leaves one image of a class in some predictions."""
    header, *rows = path.read_text().splitlines()
    of_class = [row for row in rows if row.split(",")[1] == class_name]
    path.write_text("\n".join([header, *(row for row in rows if row not in of_class[1:])]))


def test_a_class_of_one_image_has_no_interval_and_the_others_keep_theirs(
    hemascope: Run, runs: Path, tmp_path: Path
) -> None:
    _keep_one(runs / "poor-0" / "predictions-test.csv", "basophil")
    out = tmp_path / "comparison"
    outcome = hemascope("compare", runs / "poor-0", "--out", out, "--resamples", "300")
    assert outcome.code == 0, outcome.err
    assert "sensitivity of basophil (the class has a single image" in outcome.out
    found = json.loads((out / "comparison.json").read_text())
    assert list(found["left_out"]) == ["sensitivity:basophil"]
    figures = found["networks"]["poor"]["figures"]
    assert "sensitivity:basophil" not in figures
    assert figures["f1_macro"]["low"] < figures["f1_macro"]["value"] < figures["f1_macro"]["high"]
    assert figures["auroc_ovr_macro"]["value"] > 0.5


def test_compare_names_the_folders_it_passed_over(
    hemascope: Run, runs: Path, tmp_path: Path
) -> None:
    stopped = runs / "stopped"
    for folder in (stopped, runs / "figures", runs / ".cache", runs / "good-0" / "model"):
        folder.mkdir()
    out = tmp_path / "comparison"
    outcome = hemascope("compare", runs, runs / "good-0", "--out", out, "--resamples", "100")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("Passed over: ") == 1
    assert f"Passed over: {stopped} (no results.json)" in outcome.out
    assert json.loads((out / "comparison.json").read_text())["passed_over"] == [str(stopped)]


def test_trust_is_fitted_on_val_and_tried_on_test(
    hemascope: Run, runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "trust"
    outcome = hemascope("trust", runs, "--out", out, "--coverage", "0.9", "--accuracy", "0.97")
    assert outcome.code == 0, outcome.err
    found = json.loads((out / "trust.json").read_text())
    assert (found["num_val"], found["num_test"]) == (400, 800)
    for run in (*found["networks"]["good"], *found["networks"]["poor"]):
        assert run["after"]["nll"] <= run["before"]["nll"] + 0.01
        assert len(run["sets"]) == 6
        for sets in run["sets"]:
            assert sets["observed"] == pytest.approx(0.9, abs=0.06)
    good, poor = (found["networks"][name][0]["abstaining"] for name in ("good", "poor"))
    assert good["aurc"] < poor["aurc"]
    assert good["chosen_on_val"]["answered"] > 0.5
    assert good["chosen_on_val"]["accuracy"] == pytest.approx(0.97, abs=0.03)
    assert "| good, after | 2 |" in outcome.out
    assert {path.name for path in (out / "figures").glob("*.png")} == {
        "reliability-good.png", "reliability-poor.png", "risk-coverage.png",
    }  # fmt: skip


def test_what_is_fitted_depends_on_val_alone(hemascope: Run, runs: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert hemascope("trust", runs / "good-0", "--out", first, "--coverage", "0.9").code == 0
    path = runs / "good-0" / "predictions-test.csv"
    write_predictions(path, _predictions("test", 800, seed=99, lean=1))
    assert hemascope("trust", runs / "good-0", "--out", second, "--coverage", "0.9").code == 0
    one, other = (
        json.loads((out / "trust.json").read_text())["networks"]["good"][0]
        for out in (first, second)
    )
    assert one["temperature"] == other["temperature"]
    assert [s["thresholds"] for s in one["sets"]] == [s["thresholds"] for s in other["sets"]]
    assert one["after"] != other["after"]


def test_trust_leaves_out_by_name_what_val_is_too_small_for(
    hemascope: Run, runs: Path, tmp_path: Path
) -> None:
    for split in ("val", "test"):
        _keep_one(runs / "good-0" / f"predictions-{split}.csv", "basophil")
    out = tmp_path / "trust"
    arguments = ("--coverage", "0.9,0.99,0.999", "--accuracy", "0.97")
    outcome = hemascope("trust", runs / "good-0", "--out", out, *arguments)
    assert outcome.code == 0, outcome.err
    found = json.loads((out / "trust.json").read_text())
    (run,) = found["networks"]["good"]
    tried = {(one["score"], one["class_conditional"], one["coverage"]) for one in run["sets"]}
    scores = ("lac", "aps", "raps")
    rules = ((False, 0.9), (True, 0.9), (False, 0.99))
    assert tried == {(score, *rule) for score in scores for rule in rules}
    assert len(found["left_out"]) == 3
    for sentence, part in zip(
        found["left_out"],
        (
            "Class-conditional prediction sets of 99 % are left out: no class has the 99 images",
            "Prediction sets of 99.9 % are left out: val has 351 images, and 999 are needed",
            "Class-conditional prediction sets of 99.9 % are left out",
        ),
        strict=True,
    ):
        assert part in sentence
        assert part in outcome.out
    for one in run["sets"]:
        assert one["observed"] == pytest.approx(one["coverage"], abs=0.06)
        if one["class_conditional"]:
            assert one["left_out"] == {"basophil": "val has 1 images of it, and 9 are needed"}
            assert one["thresholds"][BLOOD_CELLS.names.index("basophil")] is None
            assert None not in one["thresholds"][1:]
            assert "basophil" not in one["per_class"]
        else:
            assert not one["left_out"]
            assert "basophil" in one["per_class"]
    assert "val has too few images of basophil" in outcome.out
    assert run["after"]["ece"] < run["before"]["ece"] + 0.01


def test_trust_needs_no_sets_to_judge_the_confidence(
    hemascope: Run, runs: Path, tmp_path: Path
) -> None:
    path = runs / "good-0" / "predictions-val.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:17]))
    out = tmp_path / "trust"
    outcome = hemascope("trust", runs / "good-0", "--out", out)
    assert outcome.code == 0, outcome.err
    found = json.loads((out / "trust.json").read_text())
    assert len(found["left_out"]) == 4
    (run,) = found["networks"]["good"]
    assert run["sets"] == []
    assert 0 < run["after"]["ece"] < 1
    assert "Prediction sets, after scaling" not in outcome.out


def test_trust_refuses_what_it_cannot_keep(hemascope: Run, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "trust"
    for arguments, part in (
        (
            ("--coverage", "0.999"),
            "Prediction sets of 99.9 % are left out: val has 400 images, and 999 are needed",
        ),
        (("--coverage", "0.999,0.9999"), "999 are needed"),
        (("--coverage", "high"), "--coverage: it is 'high'"),
        (("--accuracy", "1.5"), "--accuracy: it is 1.5"),
        (("--views", "8"), "was not evaluated with 8 views"),
    ):
        outcome = hemascope("trust", runs / "good-0", "--out", out, *arguments)
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
        assert part in outcome.err
    folder = runs / "good-0"
    shutil.copy(folder / "predictions-val.csv", folder / "predictions-test.csv")
    outcome = hemascope("trust", folder, "--out", out, "--coverage", "0.9")
    assert outcome.code == 2
    assert "hold the same predictions" in outcome.err
    assert not out.exists()


def test_training_leaves_the_temperature_in_the_artifact(run_folder: Path) -> None:
    calibration = load_info(run_folder).calibration
    assert calibration is not None
    val = read_predictions(run_folder / "predictions-val.csv")
    assert calibration.temperature == fit_temperature(val)
    assert calibration.num_images == len(val.labels)
    assert calibration.temperature_views is None


def test_images_that_were_trained_on_are_counted_and_said(
    hemascope: Run, run_folder: Path, small_npz: Path, tmp_path: Path
) -> None:
    arrays = small_arrays()
    arrays["test_images"][:3] = arrays["train_images"][10:13]
    arrays["test_images"][3, 0, 0, 0] ^= 1  # one that is only nearly the same
    save_npz(tmp_path / "leaky.npz", {**arrays, "class_names": np.array(BLOOD_CELLS.names)})
    for model in (run_folder, _pruned(hemascope, run_folder, tmp_path / "pruned")):
        out = tmp_path / f"evaluation-{model.name}"
        data = tmp_path / "leaky.npz"
        outcome = hemascope("evaluate", model, "--data", data, "--out", out)
        assert outcome.code == 0, outcome.err
        assert "was trained on 3 of these images" in outcome.err
        assert "was trained on 3 of these images" in (out / "results.txt").read_text()
        compared = hemascope("compare", out, "--out", tmp_path / f"compared-{model.name}")
        assert "was trained on 3 of these images" in compared.out
    clean = hemascope("evaluate", run_folder, "--data", small_npz)
    assert "was trained on" not in clean.err


def _pruned(hemascope: Run, run: Path, out: Path) -> Path:
    assert hemascope("prune", run, "--out", out).code == 0
    return out


def test_the_looks_of_trained_images_are_small_and_checked(
    hemascope: Run, run_folder: Path, small_npz: Path
) -> None:
    (seen,) = (run_folder / "model").glob("seen-*.npz")
    assert seen.stat().st_size < 64 * 18 + 800
    seen.write_bytes(seen.read_bytes()[:-1] + b"x")
    outcome = hemascope("evaluate", run_folder, "--data", small_npz)
    assert outcome.code == 2
    assert "SHA-256 differs" in outcome.err


@pytest.mark.filterwarnings("ignore")  # MedMNIST's own imports warn
def test_medmnist_s_own_evaluator_finds_our_figures(
    hemascope: Run,
    run_folder: Path,
    small_npz: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # importing medmnist makes a folder there
    medmnist = pytest.importorskip("medmnist")
    cache, folder = tmp_path / "cache", tmp_path / "official"
    cache.mkdir()
    shutil.copy(small_npz, cache / "bloodmnist.npz")
    out = tmp_path / "evaluation"
    command = ("evaluate", run_folder, "--data", small_npz, "--medmnist-csv", folder)
    assert hemascope(*command, "--out", out).code == 0
    ours = json.loads((out / "results.json").read_text())
    (path,) = folder.iterdir()
    scores = np.loadtxt(path, delimiter=",")
    evaluator = medmnist.Evaluator("bloodmnist", "test", root=str(cache))
    theirs = evaluator.evaluate(scores[:, 1:])
    assert ours["accuracy"] == theirs.ACC
    assert ours["auroc_ovr_macro"] == pytest.approx(theirs.AUC, abs=1e-15)
    assert path.name == evaluator.get_standard_evaluation_filename(theirs, "paper-cnn-0")
    evaluator.evaluate(scores[:, 1:], str(tmp_path), "paper-cnn-0")
    assert (tmp_path / path.name).read_text() == path.read_text()  # to the last digit
    again = hemascope(*command)
    assert again.code == 2
    assert "exists; add --overwrite" in again.err
    assert hemascope(*command, "--overwrite").code == 0
    assert hemascope(*command, "--split", "all").code == 2
