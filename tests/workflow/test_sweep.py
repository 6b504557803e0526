"""`sweep`: settings are chosen by val alone, by several processes, and again after a kill."""

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import Outcome, data_settings
from hemascope.core.classes import Split
from hemascope.core.images import LabeledImages
from hemascope.settings.output import Output
from hemascope.training.state import EpochRecord
from hemascope.workflows.progress import Reporter

pytest.importorskip("optuna")
from hemascope.scale import sweep as sweeps

Run = Callable[..., Outcome]
FILE = """
preset = "paper-mlnn"
trials = {trials}
startup = 2
fixed.training.epochs = 2
[search]
training.learning_rate = {{ low = 1e-4, high = 1, log = true }}
training.batch_size = {{ low = 16, high = 64 }}
training.optimizer = {{ choices = ["adam", "sgd"] }}
"""
# Optuna's and Ray's own; SQLAlchemy's of Optuna's
pytestmark = pytest.mark.filterwarnings("ignore")


def write(path: Path, text: str = FILE, trials: int = 4) -> Path:
    path.write_text(text.format(trials=trials))
    return path


def trials_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "folder"} for row in csv.DictReader(file)]


def searched(rows: list[dict[str, str]]) -> list[list[str]]:
    """What each trial tried, without what came of it."""
    return [[row[key] for key in row if key[:9] in ("trial", "training.")] for row in rows]


def search(file: Path, data: Path, out: Path, **asked: Any) -> str:
    output = Output(out, resume=asked.pop("resume", False))
    options: dict[str, Any] = {"engine": "process", "storage": "", **asked}
    reporter = Reporter(quiet=True)
    return sweeps.sweep(file, data_settings(data), output, reporter=reporter, **options)


def test_a_trial_is_judged_by_the_network_that_it_keeps() -> None:
    """With patience that of the best epoch, else of the last, whatever the search began with."""
    history = [
        EpochRecord(epoch, 1.0, 1.0, {"val_loss": loss, "val_accuracy": accuracy})
        for epoch, (loss, accuracy) in enumerate([(0.5, 0.7), (0.2, 0.8), (0.9, 0.9)], start=1)
    ]
    for figure, best, last in (("val_loss", 0.2, 0.9), ("val_accuracy", 0.8, 0.9)):
        assert sweeps.value_of(history, figure, 3) == best
        assert sweeps.value_of(history, figure, 0) == last


class WithoutTest(Mapping[Split, LabeledImages]):
    """Splits whose test split ends whoever looks at it."""

    def __init__(self, splits: Mapping[Split, LabeledImages]) -> None:
        self._splits = splits

    def __getitem__(self, split: Split) -> LabeledImages:
        assert split is not Split.TEST, "a trial reads test"
        return self._splits[split]

    def __iter__(self) -> Iterator[Split]:
        return iter(self._splits)

    def __len__(self) -> int:
        return len(self._splits)


def test_no_trial_reads_test_and_the_best_settings_train(
    small_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hemascope: Run
) -> None:
    load = sweeps.load_data

    def guarded(*args: Any, **options: Any) -> Any:
        dataset = load(*args, **options)
        return replace(dataset, splits=WithoutTest(dataset.splits))

    monkeypatch.setattr(sweeps, "load_data", guarded)
    file, out = write(tmp_path / "search.toml"), tmp_path / "out"
    text = search(file, small_npz, out)
    monkeypatch.undo()
    rows = trials_of(out)
    assert [row["trial"] for row in rows] == ["1", "2", "3", "4"]
    complete = [float(row["val_loss"]) for row in rows if row["state"] == "complete"]
    assert f"best val_loss {min(complete):.4f}" in (out / "best.toml").read_text()
    assert f"{min(complete):.4f}" in text
    assert {path.stem for path in (out / "figures").glob("*.png")} >= {"history"}
    done = hemascope("train", "--config", out / "best.toml", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert trials_of(out) == rows


def test_two_processes_and_a_kill_try_what_one_process_tries(
    small_npz: Path, tmp_path: Path
) -> None:
    file, out = write(tmp_path / "search.toml", trials=5), tmp_path / "out"
    command = [sys.executable, "-m", "hemascope", "sweep", file, "--data", small_npz, "--out", out]
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (out / "trial-0002").exists() and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    both = [
        subprocess.Popen([*command, "--resume"], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [one.communicate()[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], errors
    search(file, small_npz, tmp_path / "alone")
    assert searched(trials_of(out)) == searched(trials_of(tmp_path / "alone"))


def test_processes_that_share_only_postgresql_try_what_one_process_tries(
    postgres: Callable[[], str], small_npz: Path, tmp_path: Path
) -> None:
    file, url = write(tmp_path / "search.toml", trials=6), postgres()
    command = [sys.executable, "-m", "hemascope", "sweep", file, "--data", small_npz]

    def start(name: str, *options: str) -> subprocess.Popen[str]:
        words = [*command, "--storage", url, "--out", tmp_path / name, *options]
        return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)

    killed, other = start("killed"), start("other")
    while not list((tmp_path / "killed").glob("trial-*")) and killed.poll() is None:
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert other.wait() == 0, other.communicate()[1]
    last = start("killed", "--resume")
    assert last.wait() == 0, last.communicate()[1]
    made = [{one.name for one in tmp_path.glob(f"{n}/trial-*")} for n in ("killed", "other")]
    assert all(made)
    assert made[0].isdisjoint(made[1])
    assert made[0] | made[1] == {f"trial-{i:04}" for i in range(1, 7)}
    tried = trials_of(tmp_path / "killed")
    assert {row["state"] for row in tried} <= {"complete", "pruned"}
    search(file, small_npz, tmp_path / "alone")
    assert searched(tried) == searched(trials_of(tmp_path / "alone"))


def test_a_finished_sweep_goes_on_with_more_trials_and_another_is_refused(
    small_npz: Path, tmp_path: Path, hemascope: Run
) -> None:
    file, out = write(tmp_path / "search.toml", trials=2), tmp_path / "out"
    database = f"sqlite:///{tmp_path / 'trials.db'}"
    search(file, small_npz, out, storage=database)
    before = trials_of(out)
    search(write(file, trials=3), small_npz, out, storage=database, resume=True)
    assert trials_of(out)[:2] == before
    assert len(trials_of(out)) == 3
    search(file, small_npz, tmp_path / "journal")
    other = write(tmp_path / "other.toml", FILE.replace("high = 64", "high = 32"))
    done = hemascope("sweep", other, "--data", small_npz, "--out", tmp_path / "journal", "--resume")
    assert done.code == 2
    assert "started with another file or other data" in done.err


def test_rays_workers_try_the_same(small_npz: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    file, out = write(tmp_path / "search.toml", trials=2), tmp_path / "out"
    command = [sys.executable, "-m", "hemascope", "sweep", file, "--data", small_npz]
    done = subprocess.run(
        [*command, "--out", out, "--engine", "ray"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    search(file, small_npz, tmp_path / "alone")
    assert trials_of(out) == trials_of(tmp_path / "alone")


@pytest.mark.parametrize(
    ("changed", "into", "said"),
    [
        ("training.learning_rate", "training.learning_rat", "did you mean 'learning_rate'?"),
        ("training.learning_rate", "trainin.learning_rate", "did you mean 'training'?"),
        ("fixed.training.epochs", "fixed.training.epoch", "did you mean 'epochs'?"),
        ("trials = 4", "trials = 4\ntrails = 4", "did you mean 'trials'?"),
        ('["adam", "sgd"]', '["adam", "sgt"]', "sgt"),
        ("low = 16", "low = 0", "greater than or equal to 1"),
        ("low = 16", "low = 128", "correct it"),
        ("low = 16, ", "", "give low and high, or choices"),
        ("training.batch_size", "seed", "not of training or model"),
        ('"paper-mlnn"', '"paper-mln"', "did you mean 'paper-mlnn'?"),
    ],
)
def test_a_wrong_file_is_refused_before_any_trial(
    changed: str, into: str, said: str, small_npz: Path, tmp_path: Path, hemascope: Run
) -> None:
    file, out = write(tmp_path / "search.toml"), tmp_path / "out"
    file.write_text(file.read_text().replace(changed, into))
    done = hemascope("sweep", file, "--data", small_npz, "--out", out)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) <= 2  # after what was read
    assert not out.exists()


def test_what_is_not_installed_is_named(
    small_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hemascope: Run
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "hemascope.scale.sweep")
    file = write(tmp_path / "search.toml")
    done = hemascope("sweep", file, "--data", small_npz, "--out", tmp_path / "out")
    assert done.code == 2
    assert done.err.strip().endswith("pip install 'hemascope[scale]'.")
