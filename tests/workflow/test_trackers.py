"""`train --tracker`: the run is shown elsewhere too, and never depends on that."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import Outcome
from hemascope.scale import trackers
from hemascope.store.run_folder import RunFolder

Run = Callable[..., Outcome]
TRAIN = ("train", "--preset", "paper-mlnn", "--epochs", "2")
# MLflow's and TensorBoard's own
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def mlflow_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def test_both_trackers_hold_the_history_of_the_run_once(
    small_npz: Path, tmp_path: Path, mlflow_uri: str, hemascope: Run
) -> None:
    pytest.importorskip("tensorboard")
    client = pytest.importorskip("mlflow.tracking").MlflowClient(mlflow_uri)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    asked = (*TRAIN, "--data", small_npz, "--out", run, "--tracker", "tensorboard")
    done = hemascope(*asked, "--tracker", "mlflow")
    assert done.code == 0, done.err
    again = hemascope(*asked, "--tracker", "mlflow", "--resume")  # as if the trackers were late
    assert again.code == 0, again.err
    losses = RunFolder(run).read_history()["val_loss"]
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    shown = {event.step: event.value for event in events.Scalars("val/loss")}
    assert list(shown) == [1, 2]
    np.testing.assert_allclose(list(shown.values()), losses, rtol=1e-6)
    [experiment] = [e for e in client.search_experiments() if e.name == "hemascope"]
    [tracked] = client.search_runs([experiment.experiment_id])
    points = client.get_metric_history(tracked.info.run_id, "val_loss")
    assert {point.step: point.value for point in points} == dict(enumerate(losses, start=1))
    assert tracked.data.params["model.name"] == "mlnn"
    accuracy = RunFolder(run).read_results().accuracy
    assert tracked.data.metrics["results_accuracy"] == pytest.approx(accuracy)


def test_a_tracker_that_fails_midway_is_named_once_and_the_run_ends_whole(
    small_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hemascope: Run
) -> None:
    calls: list[RunFolder] = []

    def mirror(folder: RunFolder) -> None:
        calls.append(folder)
        if len(calls) > 1:
            raise ConnectionError("the server\nis gone")

    monkeypatch.setitem(trackers.MAKERS, "mlflow", lambda: lambda _folder: mirror)
    run = tmp_path / "run"
    done = hemascope(*TRAIN, "--data", small_npz, "--out", run, "--tracker", "mlflow")
    assert done.code == 0
    assert done.err.count("mlflow is left out from now on (the server is gone)") == 1
    assert len(calls) == 2  # of three
    assert RunFolder(run).is_finished


@pytest.mark.parametrize(
    ("name", "module"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow.tracking")]
)
def test_a_tracker_that_is_not_installed_is_named_before_training(
    name: str,
    module: str,
    small_npz: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hemascope: Run,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for loaded in [one for one in sys.modules if one.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, loaded)
    run = tmp_path / "run"
    done = hemascope(*TRAIN, "--data", small_npz, "--out", run, "--tracker", name)
    assert done.code == 2
    assert done.err.strip().endswith("pip install 'hemascope[scale]'.")
    assert not run.exists()


def test_an_unknown_tracker_is_refused(small_npz: Path, tmp_path: Path, hemascope: Run) -> None:
    run = tmp_path / "run"
    done = hemascope(*TRAIN, "--data", small_npz, "--out", run, "--tracker", "tensorbord")
    assert done.code == 2
    assert "did you mean 'tensorboard'?" in done.err
