"""Whole commands on small data: what they write, say and refuse."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from conftest import Outcome, save_cells, save_npz, small_arrays
from hemascope.core.predictions import Predictions
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render
from hemascope.settings.run import load_preset
from hemascope.store.predictions import read_predictions, write_predictions

Run = Callable[..., Outcome]

RUN_FILES = {
    "config.toml", "fingerprint.json", "history.csv", "training.log", "results.json",
    "results.txt", "predictions-val.csv", "predictions-test.csv", "figures", "model",
    "report.html",
}  # fmt: skip
RESULT_KEYS = {
    "accuracy", "balanced_accuracy", "f1_weighted", "f1_macro", "precision_macro", "recall_macro",
    "sensitivity_macro", "specificity_macro", "auroc_ovr_macro", "loss", "num_parameters",
    "size_bytes", "train_seconds", "latency_ms_batch1", "latency_ms_batch128",
    "peak_memory_bytes", "per_class", "confusion_matrix",
}  # fmt: skip


def test_a_run_folder_holds_everything(run_folder: Path) -> None:
    assert {path.name for path in run_folder.iterdir()} == RUN_FILES
    results = json.loads((run_folder / "results.json").read_text())
    assert results.keys() >= RESULT_KEYS
    assert results["num_parameters"] == 422_344
    assert results["size_bytes"] > 4 * 422_344
    assert results["notice"].startswith("Research use only")
    history = list(csv.DictReader((run_folder / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in history] == ["1", "2"]
    assert float(history[1]["test_accuracy"]) == pytest.approx(results["accuracy"], abs=1e-6)
    log = (run_folder / "training.log").read_text()
    assert "epoch 2/2" in log
    assert "md5" in log
    for stem in ("loss", "accuracy", "confusion", "confusion-normalized", "precision-recall"):
        png = run_folder / "figures" / f"{stem}.png"
        with Image.open(png) as image:
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        svg = png.with_suffix(".svg").read_text()
        assert svg.startswith("<?xml")


def test_saved_predictions_give_the_saved_results(run_folder: Path) -> None:
    from hemascope.metrics import evaluate_all

    results = json.loads((run_folder / "results.json").read_text())
    again = evaluate_all(read_predictions(run_folder / "predictions-test.csv"))
    for key, value in again.model_dump(mode="json").items():
        assert results[key] == value, key


def test_two_processes_give_the_same_bits(hemascope: Run, small_npz: Path, tmp_path: Path) -> None:
    config = tmp_path / "small.toml"
    settings = load_preset("paper-cnn")
    training = settings.training.model_copy(update={"batch_size": 10, "epochs": 2})
    config.write_text(settings.model_copy(update={"training": training}).to_toml())
    here, there = tmp_path / "here", tmp_path / "there"
    train = ["train", "--config", str(config), "--data", str(small_npz), "--out"]
    assert hemascope(*train, here).code == 0
    subprocess.run([sys.executable, "-m", "hemascope", *train, str(there)], check=True)
    for name in ("predictions-test.csv", "predictions-val.csv", "config.toml"):
        assert (there / name).read_bytes() == (here / name).read_bytes()
    (first,) = (here / "model").glob("weights-*.safetensors")
    (second,) = (there / "model").glob("weights-*.safetensors")
    assert first.name == second.name  # the name carries the SHA-256
    assert first.read_bytes() == second.read_bytes()


def test_evaluate_finds_the_training_s_own_figures_again(
    run_folder: Path, hemascope: Run, small_npz: Path, tmp_path: Path
) -> None:
    out = tmp_path / "evaluation"
    outcome = hemascope("evaluate", run_folder, "--data", small_npz, "--out", out)
    assert outcome.code == 0, outcome.err
    ours = json.loads((out / "results.json").read_text())
    theirs = json.loads((run_folder / "results.json").read_text())
    assert ours["confusion_matrix"] == theirs["confusion_matrix"]
    assert ours["loss"] == pytest.approx(theirs["loss"])
    assert (out / "figures" / "confusion.png").exists()
    assert "accuracy" in outcome.out


def test_evaluate_all_reads_every_image_and_warns_of_the_trained_ones(
    run_folder: Path, hemascope: Run, small_npz: Path
) -> None:
    outcome = hemascope("evaluate", run_folder / "model", "--data", small_npz, "--split", "all")
    assert outcome.code == 0
    assert "Warning: paper-cnn was trained on 64 of these images" in outcome.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda images: images.mean(axis=3, keepdims=True).repeat(3, axis=3), "no color"),
        (lambda images: images[..., ::-1], "perhaps red and blue are swapped"),
    ],
)
def test_evaluate_says_what_predict_would_note_of_colors(
    tmp_path: Path, hemascope: Run, change: Callable[[NDArray[np.uint8]], Any], said: str
) -> None:
    labels = np.arange(24) % 8
    images = np.ascontiguousarray(change(render(labels, seed=6))).astype(np.uint8)
    np.savez(tmp_path / "cells.npz", images=images, labels=labels)
    data = ("--data", tmp_path / "cells.npz", "--collection", "bloodmnist")
    outcome = hemascope("evaluate", "hemanet", *data)
    assert outcome.code == 0, outcome.err
    assert said in outcome.out + outcome.err


def test_evaluate_refuses_other_classes_and_reads_other_sizes(
    run_folder: Path, hemascope: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "cells"
    for name in ("blast", "smudge"):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (28, 28)).save(folder / name / f"{i}.png")
    outcome = hemascope("evaluate", run_folder, "--data", folder)
    assert outcome.code == 2
    assert "blast, smudge" in outcome.err
    arrays = small_arrays()
    for split in ("train", "val", "test"):
        images = arrays[f"{split}_images"]
        arrays[f"{split}_images"] = images.repeat(2, axis=1).repeat(2, axis=2)
    large = tmp_path / "large.npz"
    save_npz(large, arrays)
    outcome = hemascope("evaluate", run_folder, "--data", large)
    assert outcome.code == 2
    assert "nothing says what the labels" in outcome.err
    save_npz(large, {**arrays, "class_names": np.array(BLOOD_CELLS.names)})
    outcome = hemascope("evaluate", run_folder, "--data", large)
    assert outcome.code == 0, outcome.err
    assert "resized to 28x28" in outcome.err  # read as the model's images


def test_evaluate_never_deletes_the_model_it_evaluates(
    run_folder: Path, hemascope: Run, small_npz: Path
) -> None:
    args = ("evaluate", run_folder, "--data", small_npz, "--out", run_folder, "--overwrite")
    outcome = hemascope(*args)
    assert outcome.code == 2
    assert "which this command needs" in outcome.err
    assert (run_folder / "model" / "artifact.json").exists()


def test_a_folder_of_one_class_can_be_evaluated(
    run_folder: Path, hemascope: Run, tmp_path: Path
) -> None:
    (tmp_path / "cells" / "platelet").mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (40, 30)).save(tmp_path / "cells" / "platelet" / f"{i}.png")
    outcome = hemascope("evaluate", run_folder, "--data", tmp_path / "cells", "--split", "all")
    assert outcome.code == 0, outcome.err
    assert "4 image(s): not square: only the center was used." in outcome.err


@pytest.fixture
def few_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = dict.fromkeys(("train", "val", "test"), (6,) * 8)
    monkeypatch.setattr("hemascope.data.synthetic.COUNTS", counts)
    monkeypatch.setattr("hemascope.study.report.NUM_RESAMPLES", 300)


@pytest.mark.usefixtures("few_rendered")
def test_reproduce_reports_and_says_rendered_everywhere(
    hemascope: Run, tmp_path: Path, draw_pdfs: Callable[[], None]
) -> None:
    out = tmp_path / "study"
    outcome = hemascope(
        "reproduce", "--data", "synthetic", "--out", out, "--seeds", "0,1", "--epochs-scale", 0.01
    )
    assert outcome.code == 0, outcome.err
    said = "RENDERED CELLS, NOT BLOODMNIST"
    runs = [f"paper-{name}-seed{seed}" for name in ("cnn", "cnn-curve", "mlnn") for seed in (0, 1)]
    assert all((out / name).is_dir() for name in runs)
    pages = ["report.html", "report.md", "comparison.json"]
    logs = [
        f"{runs[0]}/{n}" for n in ("history.csv", "training.log", "results.json", "results.txt")
    ]
    for name in (*pages, *logs, f"{runs[0]}/fingerprint.json", f"{runs[0]}/model/artifact.json"):
        assert said in (out / name).read_text(), name
    assert said in outcome.out
    assert (out / "fingerprint.json").exists()  # written first, so that --overwrite knows it again
    page = (out / "report.html").read_text()
    assert 'src="http' not in page
    of_each = 5  # two curves, the confusion matrix twice, precision and recall
    of_all = 5 + 1 + 2 + 4  # curves; sensitivity; intervals; reliability of three, risk-coverage
    assert page.count("data:image/svg+xml;base64,") == of_all + 3 * of_each
    assert page.count('class="notice rendered"') == 1
    assert "86.5" not in page.replace("\xa0", " ") + (out / "report.md").read_text() + outcome.out
    comparison = json.loads((out / "comparison.json").read_text())
    assert comparison["certainty"]["statistics"]["networks"].keys() == comparison["networks"].keys()
    trust = comparison["certainty"]["trust"]
    assert trust["networks"].keys() == comparison["networks"].keys()
    assert trust["left_out"][0].startswith("Class-conditional prediction sets of 95 % are left out")
    assert trust["left_out"][0] in page
    assert comparison["networks"]["paper-cnn"]["n"] == 2
    accuracy = comparison["table_2"][0]
    assert accuracy["value"] == 0.8652
    ours = comparison["networks"]["paper-cnn"]["results"]["accuracy"]
    assert accuracy["difference"]["paper-cnn"] == pytest.approx(ours["mean"] - 0.8652)

    last = out / "paper-mlnn-seed1"
    weights = {path.name for path in last.glob("model/*.safetensors")}
    shutil.rmtree(last)  # as if it had been stopped before its last run
    kept = (out / runs[1] / "results.json").stat().st_mtime_ns
    again = hemascope(
        *("reproduce", "--data", "synthetic", "--out", out, "--seeds", "1"),
        *("--epochs-scale", 0.01, "--resume"),
    )
    assert again.code == 0, again.err
    assert (out / runs[1] / "results.json").stat().st_mtime_ns == kept
    assert {path.name for path in last.glob("model/*.safetensors")} == weights
    assert len(json.loads((out / "comparison.json").read_text())["networks"]) == 3

    page = (out / "report.html").read_text()
    (out / "report.html").unlink()
    draw_pdfs()
    assert hemascope("report", out).code == 0
    assert (out / "report.html").read_text() == page
    assert {path.suffix for path in (out / "figures").iterdir()} == {"", ".png", ".svg", ".pdf"}


@pytest.mark.usefixtures("few_rendered")
def test_demo_takes_what_is_at_hand(
    hemascope: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_npz: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEMASCOPE_BLOODMNIST", str(small_npz))
    outcome = hemascope("demo")
    assert outcome.code == 0, outcome.err
    assert "runs/demo/report.html" in outcome.out
    assert "small.npz" in (tmp_path / "runs/demo/report.md").read_text()


def test_report_leaves_unfinished_runs_out_and_names_them(run_folder: Path, hemascope: Run) -> None:
    other = run_folder.parent / "stopped"
    shutil.copytree(run_folder, other)
    (other / "results.json").unlink()
    outcome = hemascope("report", run_folder.parent)
    assert outcome.code == 0, outcome.err
    assert f"Left out, not finished: {other}" in outcome.out
    assert "<summary>Model card" in (run_folder.parent / "report.html").read_text()
    (run_folder / "results.json").unlink()
    outcome = hemascope("report", run_folder.parent)
    assert outcome.code == 2
    assert "no run in" in outcome.err


def test_a_class_of_one_image_costs_the_report_nothing_else(
    run_folder: Path, hemascope: Run, random_predictions: Predictions
) -> None:
    basophils = np.flatnonzero(random_predictions.labels == 0)
    kept = np.delete(np.arange(200), basophils[1:])
    test = Predictions(
        tuple(random_predictions.ids[i] for i in kept),
        random_predictions.logits[kept],
        random_predictions.labels[kept],
        random_predictions.classes,
    )
    write_predictions(run_folder / "predictions-test.csv", test)
    outcome = hemascope("report", run_folder.parent)
    assert outcome.code == 0, outcome.err
    comparison = json.loads((run_folder.parent / "comparison.json").read_text())
    figures = comparison["certainty"]["statistics"]["networks"]["paper-cnn"]["figures"]
    assert 0 < figures["accuracy"]["low"] < figures["accuracy"]["high"]
    page = (run_folder.parent / "report.html").read_text()
    assert "Every network with its intervals" in page
    (named,) = comparison["certainty"]["statistics"]["left_out"].items()
    assert named[0].startswith("sensitivity:")
    assert named[1] in page
    trust = comparison["certainty"]["trust"]["networks"]["paper-cnn"][0]
    assert 0 < trust["after"]["ece"] < 1
    assert trust["sets"] == []
    assert "Prediction sets of 95 % are left out: val has 16 images, and 19 are needed." in page


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", "[]"),
        ("results.json", "{"),
        ("fingerprint.json", "{}"),
        ("history.csv", ""),
    ],
)
def test_report_names_a_damaged_file(
    name: str, content: str, run_folder: Path, hemascope: Run
) -> None:
    (run_folder / name).write_text(content)
    outcome = hemascope("report", run_folder.parent)
    assert outcome.code == 2
    assert str(run_folder / name) in outcome.err


def test_data_commands(hemascope: Run, small_npz: Path) -> None:
    found = json.loads(hemascope("data", "info", small_npz, "--json").out)
    assert sum(found["counts"].values()) == sum(
        sum(c.values()) for c in found["class_counts"].values()
    )
    outcome = hemascope("data", "info", small_npz)
    assert found["md5"] in outcome.out
    assert outcome.code == 0
    assert "basophil" in outcome.out
    assert "channel mean  R 0." in outcome.out
    assert "is not a file of a published collection" in hemascope("data", "verify", small_npz).out
    assert hemascope("data", "download", "synthetic").code == 2


def test_verify_refuses_a_group_in_two_splits(hemascope: Run, tmp_path: Path) -> None:
    root = save_cells(tmp_path / "cells", {"ig": 3, "neutrophil": 3})
    rows = ["path,label,split,group"]
    for label in ("ig", "neutrophil"):
        for i, split in enumerate(("train", "val", "test")):
            rows.append(f"{root / label / f'{i}.png'},{label},{split},slide {min(i, 1)}")
    (tmp_path / "cells.csv").write_text("\n".join(rows))
    said = hemascope("data", "info", tmp_path / "cells.csv")
    assert said.code == 0
    assert "Note: 1 group(s) have images in two splits" in said.err
    outcome = hemascope("data", "verify", tmp_path / "cells.csv")
    assert outcome.code == 2
    assert "slide 1 (val and test)" in outcome.err


def test_report_refuses_files_that_do_not_fit_together(run_folder: Path, hemascope: Run) -> None:
    path = run_folder / "results.json"
    results = json.loads(path.read_text())
    names = [*results["class_names"][:-1], "thrombocyte"]
    per_class = dict(zip(names, results["per_class"].values(), strict=True))
    for change, part in (
        ({"per_class": {c: {} for c in names}}, "field 'per_class.basophil.support' is missing"),
        ({"per_class": per_class}, "its tables do not match its classes"),
        ({"per_class": per_class, "class_names": names}, "do not fit together"),
    ):
        path.write_text(json.dumps({**results, **change}))
        outcome = hemascope("report", run_folder.parent)
        assert outcome.code == 2
        assert part in outcome.err
        assert str(run_folder) in outcome.err


def test_output_inside_the_data_is_refused(hemascope: Run, tmp_path: Path) -> None:
    (tmp_path / "ig").mkdir()
    outcome = hemascope(
        "train", "--preset", "paper-cnn", "--data", tmp_path, "--out", tmp_path / "run"
    )
    assert outcome.code == 2
    assert "lies inside the data" in outcome.err


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("train", "--preset", "paper-cn", "--out", "x"), 2, "did you mean 'paper-cnn'"),
        (("train", "--preset", "paper-cnn"), 2, "Missing option '--out'"),
        (
            ("train", "--preset", "paper-cnn", "--config", "y", "--out", "x"),
            2,
            "give either --preset or --config, not both",
        ),
        (("train", "--preset", "paper-cnn", "--out", "x", "--epoch", "2"), 2, "--epochs"),
        (("train", "--preset", "paper-cnn", "--out", "x", "--epochs", "0"), 2, "--epochs"),
        (("train", "--config", "none.toml", "--out", "x"), 2, "cannot read none.toml"),
        (("train", "--preset", "paper-cnn", "--out", "x", "--data", "no.npz"), 2, "no.npz"),
        (("reproduce", "--out", "x", "--seeds", "a"), 2, "--seeds: it is 'a'"),
        (("reproduce", "--out", "x", "--epochs-scale", "1e308"), 2, "--epochs-scale: it is 1e+308"),
        (("data", "info", ""), 2, "--data: it is empty"),
        (("reproduc",), 2, "Did you mean 'reproduce'?"),
        (("evaluate", "x"), 2, "x holds no trained model"),
        (("report", "x"), 2, "x holds no run folders"),
    ],
)
def test_wrong_usage_is_one_sentence(
    args: tuple[str, ...],
    code: int,
    message: str,
    hemascope: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = hemascope(*args)
    assert outcome.code == code
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_path_the_system_refuses_is_one_sentence(hemascope: Run) -> None:
    outcome = hemascope("train", "--preset", "paper-cnn", "--out", "x" * 5000)
    assert outcome.code == 2
    assert "File name too long" in outcome.err


def test_help_and_usage_errors_import_no_torch() -> None:
    program = (
        "import sys\nfrom hemascope.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n"
        "    heavy = ('torch', 'matplotlib', 'medmnist')\n"
        "    print([m for m in heavy if m in sys.modules], end.code)"
    )
    for args, code in (
        (["--help"], 0),
        (["train", "--preset", "x", "--out", "y"], 2),
        (["train", "--preset", "paper-cnn", "--out", "y", "--data", "none.npz"], 2),
        (["reproduce", "--out", "y", "--epochs-scale", "-1"], 2),
        (["evaluate", "none"], 2),
        (["report", "none"], 2),
        (["data", "info", "none"], 2),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *args], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == f"[] {code}", args


def test_ctrl_c_keeps_the_last_finished_epoch(
    hemascope: Run, small_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hemascope.training import losses

    steps = 0
    real = losses.cross_entropy

    def interrupt(*args: object, **options: object) -> object:
        nonlocal steps
        steps += 1
        if steps == 2:  # one batch an epoch: in the middle of the second
            raise KeyboardInterrupt
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(losses, "cross_entropy", interrupt)
    out = tmp_path / "run"
    outcome = hemascope("train", "--preset", "paper-cnn", "--data", small_npz, "--out", out)
    assert outcome.code == 130
    assert outcome.err.splitlines()[-1] == "hemascope: interrupted; what was finished is kept."
    assert json.loads((out / "model" / "artifact.json").read_text())["epoch"] == 1
    assert len((out / "history.csv").read_text().splitlines()) == 2
    assert "stopped (KeyboardInterrupt())" in (out / "training.log").read_text()
    assert not (out / "results.json").exists()
    steps = -1000
    again = hemascope(
        "train",
        "--preset",
        "paper-cnn",
        "--data",
        small_npz,
        "--out",
        out,
        "--overwrite",
        "--epochs",
        1,
    )
    assert again.code == 0, again.err


def test_a_disk_that_fills_up_keeps_what_was_finished(small_npz: Path, tmp_path: Path) -> None:
    """A real limit of the system: no file of this process may grow beyond 1 MB."""
    program = (
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "from hemascope.__main__ import main\nmain()"
    )
    out = tmp_path / "run"
    args = ["train", "--preset", "paper-cnn", "--data", str(small_npz), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", program, *args], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "cannot write" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list((out / "model").glob("weights-*"))
    assert not (out / "model" / "artifact.json").exists()
    assert "stopped" in (out / "training.log").read_text()
