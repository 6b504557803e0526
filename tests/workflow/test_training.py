"""What `train` can be asked for beyond the study, and what comes of a trained model."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Never

import numpy as np
import pytest
import torch

from conftest import Outcome, read, save_cells, save_npz, small_arrays
from hemascope.core.classes import Split
from hemascope.core.errors import DataError
from hemascope.core.images import Dataset, LabeledImages
from hemascope.data import load
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.source import Request
from hemascope.inference.torch_engine import TorchEngine, load_model
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.settings.run import load_config
from hemascope.store.model_folder import load_artifact, load_info, save_artifact
from hemascope.store.predictions import read_predictions
from hemascope.workflows.progress import Reporter
from hemascope.workflows.train import TrainingRun, finish, fit, train

Run = Callable[..., Outcome]
ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")

TINY = """
name = "tiny"
views = 8
[model]
name = "hemanet"
[model.options]
stem = 4
widths = [8, 8]
strides = [2, 1]
[training]
epochs = 3
learning_rate = 0.01
batch_size = 16
optimizer = "muon"
schedule = "one-cycle"
average = 0.9
max_grad_norm = 1.0
[training.augmentation]
turns = true
mixup = 0.2
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def tiny_run(small_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of it, trained once: not to be changed."""
    folder, data = tmp_path_factory.mktemp("tiny"), DataSettings(sources=(str(small_npz),))
    (folder / "tiny.toml").write_text(TINY)
    settings = load_config(folder / "tiny.toml").model_copy(update={"data": data})
    return train(settings, load(Request(data)), Output(folder / "run"), Reporter()).path


def _logits(path: Path, data: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    _, model = load_model(path)
    return TorchEngine(model, device=CPU).logits(read(data).splits[Split.TEST].images)


def test_a_killed_run_resumes_to_the_same_bits() -> None:
    script = ROOT / "benchmarks" / "resume.py"
    program = (  # without PDFs, as all tests
        "import runpy, sys; from hemascope.report import plots; del plots._FILES['pdf']; "
        "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", program, str(script), "--kills", "6"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "different after 6 kills: nothing"


def test_resume_goes_on_only_with_the_same_run(
    hemascope: Run, run_folder: Path, small_npz: Path, tmp_path: Path
) -> None:
    resume = ("train", "--preset", "paper-cnn", "--out", run_folder, "--resume", "--epochs")
    before = (run_folder / "results.json").read_bytes()
    outcome = hemascope(*resume, 2, "--data", small_npz)
    assert outcome.code == 0, outcome.err
    assert (run_folder / "results.json").read_bytes() == before  # finished: nothing left to do
    outcome = hemascope(*resume, 3, "--data", small_npz)
    assert outcome.code == 2
    assert "was started with other settings" in outcome.err
    arrays = small_arrays()
    arrays["train_images"][0] += 1
    save_npz(tmp_path / "changed.npz", {**arrays, "class_names": np.array(BLOOD_CELLS.names)})
    outcome = hemascope(*resume, 2, "--data", tmp_path / "changed.npz")
    assert outcome.code == 2
    assert "was started with other data" in outcome.err
    shutil.copy(small_npz, tmp_path / "moved.npz")
    assert hemascope(*resume, 2, "--data", tmp_path / "moved.npz").code == 0  # it may move
    (run_folder / "results.json").unlink()
    outcome = hemascope(*resume, 2, "--data", small_npz)
    assert outcome.code == 2
    assert "has no checkpoint to resume from" in outcome.err
    assert load_info(run_folder).epoch == 2  # nothing was deleted
    outcome = hemascope(*resume, 2, "--data", small_npz, "--overwrite")
    assert outcome.code == 2
    assert "use either --resume or --overwrite, not both" in outcome.err
    folder = tmp_path / "evaluation"
    evaluate = ("evaluate", run_folder, "--data", small_npz, "--out", folder)
    assert hemascope(*evaluate).code == 0
    outcome = hemascope(
        "train", "--preset", "paper-cnn", "--out", folder, "--resume", "--data", small_npz
    )
    assert outcome.code == 2
    assert "holds no run of 'hemascope train'" in outcome.err
    assert (folder / "results.json").exists()


def test_a_damaged_checkpoint_is_refused_and_kept(
    hemascope: Run, tiny: Path, small_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hemascope.workflows import train as workflow

    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "run"
    command = ("train", "--config", tiny, "--data", small_npz, "--out", out, "--resume")
    monkeypatch.setattr(workflow, "write_results", interrupt)
    assert hemascope(*command).code == 130
    (tensors,) = (out / "checkpoint").glob("state-*.safetensors")
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    outcome = hemascope(*command)
    assert outcome.code == 2
    assert "SHA-256 differs" in outcome.err
    assert tensors.read_bytes() == content


def test_a_recipe_with_everything_trains_and_is_evaluated_with_views(
    hemascope: Run, tiny_run: Path, small_npz: Path, tmp_path: Path
) -> None:
    out = tiny_run
    results = json.loads((out / "results.json").read_text())
    assert results["with_views"]["num_views"] == 8
    assert "accuracy, 8 views" in (out / "results.txt").read_text()
    with_views = read_predictions(out / "predictions-test-views.csv")
    plain = read_predictions(out / "predictions-test.csv")
    assert not np.allclose(with_views.probs, plain.probs, atol=1e-6)
    again = hemascope("evaluate", out, "--data", small_npz, "--views", 8, "--out", tmp_path / "e")
    assert again.code == 0, again.err
    evaluated = json.loads((tmp_path / "e" / "results.json").read_text())
    assert evaluated["confusion_matrix"] == results["with_views"]["confusion_matrix"]
    assert not (out / "checkpoint").exists()


def test_patience_stops_and_keeps_the_best_epoch(
    hemascope: Run, small_npz: Path, tmp_path: Path
) -> None:
    config = tmp_path / "patient.toml"
    text = TINY.replace("epochs = 3", "epochs = 60\npatience = 2").replace("views = 8", "")
    config.write_text(text.replace("0.01", "0.3"))  # too fast to get better for long
    out = tmp_path / "run"
    outcome = hemascope("train", "--config", config, "--data", small_npz, "--out", out)
    assert outcome.code == 0, outcome.err
    rows = [line.split(",") for line in (out / "history.csv").read_text().splitlines()]
    losses = [float(row[rows[0].index("val_loss")]) for row in rows[1:]]
    best = int(np.argmin(losses)) + 1
    assert len(losses) == best + 2 < 60
    assert load_info(out).epoch == best
    on_val = read_predictions(out / "predictions-val.csv")
    rows_of_truth = np.arange(len(on_val.labels))
    kept = -on_val.log_probs[rows_of_truth, on_val.labels].mean()
    assert kept == pytest.approx(min(losses), abs=1e-5)


def test_a_model_of_ours_is_a_start_and_only_the_last_layer_moves_when_frozen(
    hemascope: Run, tiny: Path, tiny_run: Path, small_npz: Path, tmp_path: Path
) -> None:
    start, out = tiny_run, tmp_path / "tuned"
    outcome = hemascope(
        *("train", "--config", tiny, "--data", small_npz, "--out", out, "--epochs", 1),
        *("--start", start, "--freeze", "--name", "tuned", "--loss", "focal", "--balanced"),
    )
    assert outcome.code == 0, outcome.err
    _, before = load_artifact(start)
    _, after = load_artifact(out)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {"head.weight", "head.bias"}  # and no statistics of a normalization
    fingerprint = json.loads((out / "fingerprint.json").read_text())
    assert fingerprint["models"] == {"start": load_info(start).weights_sha256}
    settings = load_config(out / "config.toml")
    assert (settings.training.loss, settings.training.balanced) == ("focal", True)


def test_a_start_of_another_architecture_is_refused(
    hemascope: Run, run_folder: Path, small_npz: Path, tmp_path: Path
) -> None:
    train = ("train", "--out", tmp_path / "x", "--start", run_folder)
    outcome = hemascope(*train, "--preset", "paper-mlnn", "--data", small_npz)
    assert outcome.code == 2
    assert "is a 'cnn'" in outcome.err
    assert not (tmp_path / "x").exists()


def test_a_start_with_other_options_is_refused_though_its_weights_fit(
    hemascope: Run, tmp_path: Path
) -> None:
    """Else a network with a white point inside would go on without it, in silence."""
    cells = save_cells(tmp_path / "cells", {"blast": 6, "smudge": 6}, size=64)
    train = ("train", "--data", cells, "--out", tmp_path / "x", "--start", "hemanet-64-labs")
    outcome = hemascope(*train, "--preset", "hemanet-64")
    assert outcome.code == 2
    assert "white_point True" in outcome.err
    assert not (tmp_path / "x").exists()


def test_other_classes_get_a_new_last_layer_and_keep_the_rest(
    hemascope: Run, run_folder: Path, tmp_path: Path
) -> None:
    cells, out = save_cells(tmp_path / "cells", {"blast": 6, "smudge": 6}), tmp_path / "x"
    outcome = hemascope(
        *("train", "--start", run_folder, "--freeze", "--preset", "paper-cnn"),
        *("--epochs", "1", "--data", cells, "--out", out),
    )
    assert outcome.code == 0, outcome.err
    info, after = load_artifact(out)
    before = load_artifact(run_folder)[1]
    assert info.class_names == ("blast", "smudge")
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {"classifier.5.weight", "classifier.5.bias"}
    assert len(after["classifier.5.bias"]) == 2


def test_the_packaged_network_is_a_start_for_other_classes(hemascope: Run, tmp_path: Path) -> None:
    cells, out = save_cells(tmp_path / "cells", {"blast": 6, "smudge": 6}), tmp_path / "x"
    train = ("train", "--start", "hemanet", "--freeze", "--epochs", 1)
    outcome = hemascope(*train, "--data", cells, "--out", out)
    assert outcome.code == 0, outcome.err
    packaged = Path(str(resources.files("hemascope") / "pretrained" / "hemanet"))
    before, after = load_artifact(packaged)[1], load_artifact(out)[1]
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {"head.weight", "head.bias"}
    assert len(after["head.bias"]) == 2


class _NoTest(dict[Split, LabeledImages]):
    """Splits of which nobody may look at test."""

    def __getitem__(self, split: Split) -> LabeledImages:
        assert split != Split.TEST
        return super().__getitem__(split)

    def values(self) -> Never:
        raise AssertionError

    items = values


def test_fit_never_reaches_the_test_split_and_finish_gives_the_results_of_train(
    trained: Path, small_npz: Path, tmp_path: Path
) -> None:
    settings = load_config(trained / "config.toml")
    dataset = load(Request(settings.data))
    guarded = replace(dataset, splits=_NoTest(dataset.splits))
    out = tmp_path / "run"

    def fit_it(data: Dataset, *, resume: bool) -> TrainingRun:
        return fit(settings, data, Output(out, resume=resume), Reporter())

    fitted = fit_it(guarded, resume=False)
    assert not (out / "results.json").exists()
    assert not list(out.glob("*test*"))
    assert "test" not in json.loads((out / "fingerprint.json").read_text())["data"]["counts"]
    two = {split: dataset.splits[split] for split in (Split.TRAIN, Split.VAL)}
    resumed = fit_it(replace(dataset, splits=two), resume=True)
    assert resumed.history == fitted.history
    with pytest.raises(DataError, match="was trained on other data"):
        finish(fitted, replace(dataset, md5="0"))
    finish(fitted, dataset)
    assert not (out / "checkpoint").exists()
    fingerprint = json.loads((out / "fingerprint.json").read_text())
    assert fingerprint["data"] == json.loads((trained / "fingerprint.json").read_text())["data"]
    ours, whole = (json.loads((path / "results.json").read_text()) for path in (out, trained))
    for key in ("loss", "accuracy", "confusion_matrix", "epochs", "num_seen"):
        assert ours[key] == whole[key]
    again = fit_it(guarded, resume=True)
    assert [r.val_loss for r in again.history] == pytest.approx(
        [r.val_loss for r in fitted.history], abs=1e-6
    )


def test_folds_say_that_images_of_one_are_in_another(
    hemascope: Run, tiny: Path, tmp_path: Path
) -> None:
    """Every cell is there twice, and no group says so."""
    cells = small_arrays()["train_images"][:48]
    labels = small_arrays()["train_labels"][:48]
    arrays = {"train_images": np.concatenate([cells] * 2), "train_labels": np.vstack([labels] * 2)}
    save_npz(tmp_path / "twice.npz", {**arrays, "class_names": np.array(BLOOD_CELLS.names)})
    out, data = tmp_path / "folds", tmp_path / "twice.npz"
    args = ("--config", tiny, "--data", data, "--folds", 2, "--epochs", 1, "--views", 1)
    outcome = hemascope("train", *map(str, args), "--out", out)
    assert outcome.code == 0, outcome.err
    found = json.loads((out / "folds.json").read_text())
    [warning] = found["warnings"]
    num_seen = sum(fold["num_seen"] for fold in found["folds"])
    assert num_seen > 0
    assert warning.startswith(f"tiny was trained on {num_seen} of these images")
    assert warning in (out / "folds.md").read_text()
    assert warning in outcome.out
    # A fold is other data than the whole, and than a fold of another number.
    again = hemascope(*("train", *args[:5], 3, *args[6:]), "--out", out, "--resume")
    assert again.code == 2
    assert "other data" in again.err
    exported = hemascope("export", out / "fold-1", "--out", tmp_path / "model")
    assert exported.code == 2
    assert "was trained on other data" in exported.err


def test_a_teacher_is_followed(run_folder: Path, small_npz: Path, tmp_path: Path) -> None:
    """The teacher answers with the wrong class, always the next one: the pupil learns that."""
    info, weights = load_artifact(run_folder)
    for name in ("classifier.5.weight", "classifier.5.bias"):
        weights[name] = np.roll(weights[name], 1, axis=0)
    save_artifact(run_folder / "model", info, weights)
    agreement: list[float] = []
    for share in (1.0, 0.0):
        out = tmp_path / f"pupil-{share}"
        settings = load_config(run_folder / "config.toml")
        training = settings.training.model_copy(update={"teacher_weight": share, "epochs": 12})
        changes = {"training": training, "teacher": str(run_folder), "seed": 5}
        dataset = load(Request(settings.data))
        fit(settings.model_copy(update=changes), dataset, Output(out), Reporter())
        teacher, pupil = _logits(run_folder, small_npz), _logits(out, small_npz)
        agreement.append(float((teacher.argmax(1) == pupil.argmax(1)).mean()))
    assert agreement[0] > agreement[1] + 0.2


def test_an_ensemble_answers_with_the_mean_of_its_members(
    hemascope: Run, run_folder: Path, tiny_run: Path, small_npz: Path, tmp_path: Path
) -> None:
    other, out = tiny_run, tmp_path / "ensemble"
    outcome = hemascope("ensemble", run_folder, other, "--data", small_npz, "--out", out)
    assert outcome.code == 0, outcome.err
    members = [_logits(path, small_npz) for path in (run_folder, other)]
    probs = [np.exp(m - m.max(1, keepdims=True)) for m in members]
    mean = sum(p / p.sum(1, keepdims=True) for p in probs) / 2
    np.testing.assert_allclose(np.exp(_logits(out, small_npz)), mean, atol=1e-5)
    info = load_info(out)
    assert info.num_parameters == sum(load_info(p).num_parameters for p in (run_folder, other))
    table = hemascope("table", run_folder, other, out, "--class", "monocyte")
    assert table.code == 0, table.err
    assert "| ensemble-paper-cnn-tiny | 1 |" in table.out
    assert "monocyte, sensitivity" in table.out
    assert "Research use only" in table.out


def test_a_pruned_network_is_smaller_and_can_be_trained_on(
    hemascope: Run, tiny_run: Path, small_npz: Path, tmp_path: Path
) -> None:
    whole, pruned, tuned = tiny_run, tmp_path / "pruned", tmp_path / "tuned"
    outcome = hemascope("prune", whole, "--keep", 0.5, "--out", pruned)
    assert outcome.code == 0, outcome.err
    assert load_info(pruned).model.options["inner"] == [4, 4]
    assert load_info(pruned).num_parameters < 0.6 * load_info(whole).num_parameters
    train = ("train", "--config", pruned / "train-on.toml", "--data", small_npz, "--out", tuned)
    outcome = hemascope(*train, "--resume")
    assert outcome.code == 0, outcome.err
    assert hemascope(*train, "--resume").code == 0  # finished: the settings are found the same
    assert load_info(tuned).settings.name == "tiny-pruned-50"
    assert load_info(tuned).num_parameters == load_info(pruned).num_parameters
    weights = [next((p / "model").glob("weights-*.safetensors")) for p in (whole, tuned)]
    assert weights[1].stat().st_size < weights[0].stat().st_size
    assert hemascope("prune", tuned, "--keep", 1, "--out", tmp_path / "x").code == 2


def test_overwriting_never_deletes_the_teacher_named_in_a_config(
    hemascope: Run, run_folder: Path, small_npz: Path, tmp_path: Path
) -> None:
    config = tmp_path / "pupil.toml"
    settings = load_config(run_folder / "config.toml")
    config.write_text(settings.model_copy(update={"teacher": str(run_folder)}).to_toml())
    outcome = hemascope(
        *("train", "--config", config, "--data", small_npz, "--out", run_folder, "--overwrite")
    )
    assert outcome.code == 2
    assert "which this command needs" in outcome.err
    assert load_info(run_folder)


def test_table_gives_mean_and_spread_over_seeds(
    hemascope: Run, run_folder: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    for seed, accuracy in enumerate((0.5, 0.6, 0.7)):
        (runs / str(seed)).mkdir(parents=True)
        results = json.loads((run_folder / "results.json").read_text())
        results |= {"seed": seed, "accuracy": accuracy}
        (runs / str(seed) / "results.json").write_text(json.dumps(results))
    outcome = hemascope("table", runs)
    assert outcome.code == 0, outcome.err
    assert re.search(r"\| paper-cnn \| 3 \| 60\.00 ± 10\.00 \|", outcome.out)
    assert "422,344" in outcome.out
    assert hemascope("table", runs, "--class", "monocite").code == 2
    results = json.loads((runs / "0" / "results.json").read_text())
    for change, message in (
        ({"num_parameters": 1}, "are not of one network"),
        ({"seed": 2}, "are not of one network"),
        ({"split": "val", "name": "other"}, "are of different images"),
    ):
        (runs / "0" / "results.json").write_text(json.dumps({**results, **change}))
        outcome = hemascope("table", runs)
        assert outcome.code == 2
        assert message in outcome.err
    outcome = hemascope("table", tmp_path / "tiny")
    assert outcome.code == 2
    assert "holds no results.json" in outcome.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--model", "timm/resnet81"), "did you mean 'resnet"),
        (("--model", "timm/"), "names no architecture"),
        (("--model", "resnet18"), "no architecture is called 'resnet18'"),
        (("--pretrained",), "unknown field 'pretrained'"),
        (("--start", "none"), "none holds no trained model"),
        (("--teacher", "none"), "none holds no trained model"),
        (("--name", "a/b"), "field 'name'"),
        (("--augment-only", "monocyte"), "only_classes needs turns"),
        (("--preset", "hemanet", "--augment-only", "monocite"), "did you mean 'monocyte'"),
        (("--model", "timm/resnet18", "--precision", "bf17"), "--precision"),
    ],
)
def test_wrong_options_are_one_sentence(
    args: tuple[str, ...], message: str, hemascope: Run, small_npz: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x"
    train = ("train", "--preset", "paper-cnn", "--data", small_npz, "--out", out, *args)
    outcome = hemascope(*train)
    assert outcome.code == 2
    assert message in outcome.err
    assert not out.exists()


def test_pretrained_weights_that_cannot_be_fetched_are_said_so(
    hemascope: Run, small_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", refuse)
    outcome = hemascope(
        *("train", "--preset", "paper-cnn", "--data", small_npz, "--out", tmp_path / "x"),
        *("--model", "timm/resnet18", "--pretrained"),
    )
    assert outcome.code == 3
    assert "cannot be fetched from the Hugging Face hub" in outcome.err


def test_bf16_is_refused_where_it_would_be_emulated(
    hemascope: Run, small_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    train = ("train", "--preset", "paper-mlnn", "--data", small_npz, "--out", tmp_path / "x")
    options = ("--device", "cpu", "--epochs", 1, "--precision")
    outcome = hemascope(*train, *options, "bf16")
    assert outcome.code == 2
    assert "does not compute in bfloat16" in outcome.err
    assert hemascope(*train, *options, "auto").code == 0
    assert json.loads((tmp_path / "x" / "results.json").read_text())["precision"] == "fp32"
