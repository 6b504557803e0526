"""Damaged, foreign and contested folders: one sentence, exit code 2, and nothing lost."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Outcome
from hemascope.core.errors import OutputError
from hemascope.data import load
from hemascope.data.source import Request
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.settings.run import load_preset
from hemascope.store.files import make_out
from hemascope.store.model_folder import (
    load_artifact,
    load_info,
    read_tensors,
    save_artifact,
    write_tensors,
)

Run = Callable[..., Outcome]
STORED = Path(__file__).parents[1] / "stored" / "run-0.1"


def _change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _refused(outcome: Outcome, *parts: str) -> None:
    assert outcome.code == 2, outcome.err
    sentence = outcome.err.splitlines()[-1]  # before it may stand what had been done
    assert "Traceback" not in outcome.err
    assert sentence.startswith("hemascope: ")
    assert len(sentence) < 600
    for part in parts:
        assert part in sentence


@pytest.fixture(scope="module")
def stopped_once(small_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs that was stopped after the first: not to be changed."""
    from hemascope.workflows.plan import choose_settings
    from hemascope.workflows.progress import Reporter
    from hemascope.workflows.train import train

    def interrupt(_run: object) -> None:
        raise KeyboardInterrupt

    out, data = tmp_path_factory.mktemp("stopped") / "run", DataSettings(sources=(str(small_npz),))
    settings = choose_settings("hemanet-tiny", None, {"training.epochs": 3, "precision": "fp32"})
    settings = settings.model_copy(update={"data": data})
    with pytest.raises(KeyboardInterrupt):
        train(settings, load(Request(data)), Output(out), Reporter(), watch=interrupt)
    return out


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A copy of it, to do with as a test likes."""
    return Path(shutil.copytree(stopped_once, tmp_path / "stopped"))


@contextmanager
def _claimed_elsewhere(folder: Path) -> Generator[None]:
    """Another process claims the folder for as long as the block takes."""
    program = (
        "import sys; from pathlib import Path; from hemascope.store.files import claimed\n"
        "with claimed(Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        yield
        other.communicate()


def _train(data: Path, out: Path) -> tuple[str | Path, ...]:
    preset = ("train", "--preset", "hemanet-tiny", "--precision", "fp32", "--epochs", "3")
    return (*preset, "--data", data, "--out", out)


def test_resume_goes_on_from_a_stopped_run(hemascope: Run, stopped: Path, small_npz: Path) -> None:
    shutil.rmtree(stopped / "figures")
    shutil.rmtree(stopped / "model")
    outcome = hemascope(*_train(small_npz, stopped), "--resume")
    assert outcome.code == 0, outcome.err
    assert load_info(stopped).epoch == 3


@pytest.mark.parametrize(
    ("file", "values", "part"),
    [
        ("fingerprint.json", {"data": []}, "holds no run of 'hemascope train'"),
        ("fingerprint.json", {"machine": 1}, "holds no run of 'hemascope train'"),
        ("checkpoint/checkpoint.json", {"history": []}, "does not fit these settings"),
        ("checkpoint/checkpoint.json", {"history": [{"epoch": 1}]}, "not a whole checkpoint"),
    ],
)
def test_resume_refuses_a_damaged_run(
    hemascope: Run, stopped: Path, small_npz: Path, file: str, values: dict[str, Any], part: str
) -> None:
    _change(stopped / file, **values)
    before = (stopped / "history.csv").read_bytes()
    _refused(hemascope(*_train(small_npz, stopped), "--resume"), part)
    assert (stopped / "history.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("figures", {"val_loss": float("nan")}),
        ("figures", {"val_accuracy": 0.5}),
        ("seconds", "x"),
        ("epoch", 7),
    ],
)
def test_resume_refuses_a_history_that_is_none(
    hemascope: Run, stopped: Path, small_npz: Path, field: str, value: object
) -> None:
    path = stopped / "checkpoint" / "checkpoint.json"
    (record,) = json.loads(path.read_text())["history"]
    _change(path, history=[{**record, field: value}])
    _refused(hemascope(*_train(small_npz, stopped), "--resume"), "not a whole checkpoint")


@pytest.mark.parametrize("what", ["no optimizer", "momentum", "random.num_steps", "random.order"])
def test_resume_refuses_the_tensors_of_another_run(
    hemascope: Run, stopped: Path, small_npz: Path, what: str
) -> None:
    folder = stopped / "checkpoint"
    content = json.loads((folder / "checkpoint.json").read_text())
    tensors = read_tensors(folder, content["tensors_file"], content["tensors_sha256"])
    if what == "no optimizer":
        tensors = {name: t for name, t in tensors.items() if not name.startswith("optimizer")}
    elif what == "momentum":
        tensors["optimizer0.0.momentum"] = np.zeros(3, dtype=np.float32)
    else:
        tensors[what] = np.zeros(2, dtype=np.float32)
    file, sha256 = write_tensors(folder, "state", tensors)
    _change(folder / "checkpoint.json", tensors_file=file, tensors_sha256=sha256)
    _refused(hemascope(*_train(small_npz, stopped), "--resume"), "does not fit these settings")


def test_resume_deletes_no_model_and_needs_the_settings(
    hemascope: Run, stopped: Path, small_npz: Path
) -> None:
    (stopped / "config.toml").rename(stopped / "kept.toml")
    _refused(hemascope(*_train(small_npz, stopped), "--resume"), "config.toml is missing")
    (stopped / "kept.toml").rename(stopped / "config.toml")
    shutil.rmtree(stopped / "checkpoint")
    (stopped / "history.csv").unlink()
    _refused(hemascope(*_train(small_npz, stopped), "--resume"), "no checkpoint to resume from")
    assert load_info(stopped).epoch == 1


def test_a_finished_run_without_its_model_is_not_finished(
    hemascope: Run, run_folder: Path, small_npz: Path
) -> None:
    resume = ("train", "--preset", "paper-cnn", "--epochs", "2", "--out", run_folder, "--resume")
    (run_folder / "results.txt").unlink()
    assert hemascope(*resume, "--data", small_npz).code == 0
    assert "accuracy" in (run_folder / "results.txt").read_text()
    _change(run_folder / "results.json", per_class=[])
    _refused(hemascope(*resume, "--data", small_npz), "per_class")
    shutil.rmtree(run_folder / "model")
    _refused(hemascope(*resume, "--data", small_npz), "holds no trained model")


def test_a_folder_that_another_command_writes_is_left_alone(
    hemascope: Run, run_folder: Path, stopped: Path, small_npz: Path
) -> None:
    for folder, flag in ((run_folder, "--overwrite"), (stopped, "--resume")):
        with _claimed_elsewhere(folder):
            outcome = hemascope(*_train(small_npz, folder), flag)
        _refused(outcome, "another process is writing")
    assert (run_folder / "results.json").exists()
    assert hemascope(*_train(small_npz, run_folder), "--overwrite").code == 0  # it was let go


def test_a_run_that_is_written_keeps_its_parent_from_being_emptied(
    run_folder: Path, tmp_path: Path
) -> None:
    parent = tmp_path / "study"
    inner = Path(shutil.copytree(run_folder, parent / "run"))
    shutil.copy(inner / "fingerprint.json", parent)
    with (
        _claimed_elsewhere(inner),
        pytest.raises(OutputError, match=r"another process is writing into .*run"),
    ):
        make_out(parent, overwrite=True)
    assert (inner / "results.json").exists()
    make_out(parent, overwrite=True)
    assert list(parent.iterdir()) == []


def test_overwriting_never_deletes_the_data_named_by_the_environment(
    hemascope: Run, run_folder: Path, small_npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = run_folder / "blood.npz"
    shutil.copy(small_npz, data)
    monkeypatch.setenv("HEMASCOPE_BLOODMNIST", str(data))
    for source in ("bloodmnist", "auto"):
        _refused(hemascope(*_train(Path(source), run_folder), "--overwrite"), "will not delete it")
    assert data.exists()


def test_table_refuses_other_images_and_damaged_results(
    hemascope: Run, run_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    results = other / "results.json"
    for values, part in (
        ({"data_md5": "0" * 32, "seed": 1}, "of different images"),
        ({"accuracy": "abc"}, "accuracy"),
        ({"accuracy": 7.5}, "accuracy"),
        ({"accuracy": float("nan")}, "accuracy"),
        ({"name": []}, "name"),
        ({"num_parameters": None}, "num_parameters"),
        ({"confusion_matrix": [[1]]}, "do not match its classes"),
    ):
        shutil.copy(run_folder / "results.json", results)
        _change(results, **values)
        _refused(hemascope("table", run_folder, other), part)


def test_a_run_of_version_0_1_is_refused_by_every_reader(
    hemascope: Run, small_npz: Path, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(STORED, tmp_path / "old"))
    again = "make it again: hemascope train --preset paper-cnn"
    _refused(hemascope("table", old), "was written by hemascope 0.1", again)
    _refused(hemascope("compare", old, "--out", tmp_path / "x"), again)
    _refused(hemascope(*_train(small_npz, old), "--resume"), again)


def test_a_model_that_answers_with_no_numbers_is_refused(
    hemascope: Run, run_folder: Path, small_npz: Path, tmp_path: Path
) -> None:
    info, weights = load_artifact(run_folder)
    ruined = {
        name: w * np.float32(1e25) if w.dtype == np.float32 else w for name, w in weights.items()
    }
    save_artifact(run_folder / "model", info, ruined)
    out = tmp_path / "evaluation"
    outcome = hemascope("evaluate", run_folder, "--data", small_npz, "--out", out)
    _refused(outcome, "not finite")
    assert not out.exists()
    taught = hemascope(*_train(small_npz, tmp_path / "pupil"), "--teacher", run_folder)
    _refused(taught, "The teacher answers")


def test_a_teacher_of_another_size_is_named(
    hemascope: Run, run_folder: Path, small_npz: Path, tmp_path: Path
) -> None:
    info, weights = load_artifact(run_folder)
    image = info.image.model_copy(update={"size": 32})
    save_artifact(run_folder / "model", info.model_copy(update={"image": image}), weights)
    out = tmp_path / "pupil"
    outcome = hemascope(*_train(small_npz, out), "--teacher", run_folder)
    assert outcome.code == 2
    assert str(run_folder) in outcome.err


def test_an_ensemble_is_of_different_networks(
    hemascope: Run, run_folder: Path, small_npz: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ensemble"
    command = ("ensemble", "--data", small_npz, "--out", out)
    _refused(hemascope(*command, run_folder), "2 to 100 members, not 1")
    _refused(hemascope(*command, run_folder, run_folder), "are the same network")
    assert not out.exists()


def test_names_that_no_file_can_hold_are_refused(
    hemascope: Run, run_folder: Path, small_npz: Path, tmp_path: Path
) -> None:
    strange = tmp_path / "o\udcff"
    _refused(hemascope(*_train(small_npz, strange)), "is not UTF-8")
    _refused(hemascope("prune", run_folder, "--out", strange), "is not UTF-8")
    shutil.copytree(run_folder, strange)
    out = tmp_path / "new"
    _refused(hemascope(*_train(small_npz, out), "--start", strange), "is not UTF-8")
    assert not out.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_grad_norm", "inf"),
        ("learning_rate", "1e308"),
        ("teacher_temperature", "1e200"),
        ("epochs", "1" + 400 * "0"),
        ("weight_decay", "nan"),
    ],
)
def test_settings_that_no_training_survives_are_refused(
    hemascope: Run, small_npz: Path, tmp_path: Path, field: str, value: str
) -> None:
    lines = load_preset("hemanet-tiny").to_toml().splitlines()
    changed = [f"{field} = {value}" if line.startswith(f"{field} =") else line for line in lines]
    assert changed != lines
    config, out = tmp_path / "config.toml", tmp_path / "run"
    config.write_text("\n".join(changed))
    outcome = hemascope("train", "--config", config, "--data", small_npz, "--out", out)
    _refused(outcome, field if field != "epochs" else "config.toml")
    assert not out.exists()


def test_a_long_value_is_cut(hemascope: Run, small_npz: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    _refused(hemascope(*_train(small_npz, out), "--name", "n" * 100_000), "field 'name'")
    _refused(hemascope(*_train(small_npz, out), "--model", "timm/../x"), "such as")


def test_an_ensemble_of_ensembles_of_ensembles_has_an_end(
    hemascope: Run, run_folder: Path, small_npz: Path
) -> None:
    model: dict[str, Any] = {"name": "cnn", "options": {}}
    for _ in range(200):
        model = {"name": "ensemble", "options": {"members": [model]}}
    _change(run_folder / "model" / "artifact.json", model=model)
    outcome = hemascope("evaluate", run_folder, "--data", small_npz)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
