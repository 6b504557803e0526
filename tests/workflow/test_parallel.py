"""Training in several processes on this machine: what one gives, and what happens when one ends."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import Outcome, read, save_npz, small_arrays
from hemascope.core.classes import Split
from hemascope.data.collections import BLOOD_CELLS
from hemascope.models import build_model
from hemascope.settings.run import ModelSettings, TrainingSettings
from hemascope.store.model_folder import load_artifact
from hemascope.store.run_folder import RunFolder
from hemascope.training import loop, parallel
from hemascope.training.state import TrainingState
from hemascope.training.task import ClassificationTask

Run = Callable[..., Outcome]

# Its batches are of 21, 21, 21 images and 1, of which a process gets none.
CNN = """
name = "small"
[model]
name = "cnn"
options = {channels = [4, 8, 8], hidden = [16, 16]}
[training]
epochs = 3
learning_rate = 0.01
batch_size = 21
optimizer = "muon"
average = 0.9
max_grad_norm = 1.0
loss = "weighted"
[training.augmentation]
turns = true
stain = 0.5
mixup = 0.2
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(CNN)
    return path


def _place(number: int) -> dict[str, str]:
    """What torchrun tells one of two processes."""
    ranks = {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2"}
    return {**ranks, "TORCHELASTIC_RUN_ID": "test"}


def _port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _together(function: Callable[[int], None], *, in_group: bool = True) -> list[int]:
    """Runs a function in two processes with their numbers; their exit codes.

    They are forks, which need not import torch again.
    """
    import_module("torch._dynamo")  # which DistributedDataParallel imports
    context, port = multiprocessing.get_context("fork"), _port()

    def work(number: int) -> None:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        os.environ |= _place(number) if in_group else {"PET_MASTER_PORT": port}
        function(number)

    processes = [context.Process(target=work, args=(number,)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode or 0 for process in processes]


def _command(*args: object) -> None:
    from hemascope.__main__ import main

    sys.argv = ["hemascope", *map(str, args)]
    main()


def _weights_differ(one: Path, other: Path) -> float:
    (_, left), (_, right) = load_artifact(one), load_artifact(other)
    return max(float(np.abs(left[name] - right[name]).max()) for name in left)


def test_two_processes_give_what_one_gives(
    hemascope: Run, small: Path, small_npz: Path, tmp_path: Path
) -> None:
    command = ("train", "--config", small, "--data", small_npz, "--out")
    assert hemascope(*command, tmp_path / "one").code == 0
    codes = _together(lambda _: _command(*command, tmp_path / "two"))
    assert codes == [0, 0]
    assert _weights_differ(tmp_path / "one", tmp_path / "two") < 1e-6
    one, two = (RunFolder(tmp_path / name).read_history().columns for name in ("one", "two"))
    for name in set(one) - {"train_seconds"}:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-5)
    assert "device: 2 processes on cpu" in (tmp_path / "two" / "training.log").read_text()


def _train(folder: Path, data: Path, number: int) -> None:
    """Trains a network with batch statistics and dropout, and notes what the process ended with."""
    training = {"epochs": 2, "learning_rate": 0.01, "batch_size": 20, "average": 0.9}
    settings = TrainingSettings.model_validate({**training, "optimizer": "muon"})
    options = {"stem": 4, "widths": [8, 8], "strides": [2, 1], "dropout": 0.5}
    dataset = read(data)
    with parallel.joined("cpu"):
        torch.manual_seed(0)
        model = build_model(
            ModelSettings(name="hemanet", options=options), image_size=28, num_classes=8
        )
        model, note = parallel.synchronized(model, torch.device("cpu"))
        assert "share of a batch" in note
        state = TrainingState(model, settings, seed=0, device=torch.device("cpu"))
        task = ClassificationTask(dataset.splits[Split.TRAIN], state, classes=BLOOD_CELLS)
        histories = list(loop.fit(state, task, dataset.splits[Split.VAL]))
        kept = {k: v for k, v in state.tensors().items() if k != "random.dropout"}
        figures = [record.figures for record in histories]
        torch.save((kept, figures, torch.rand(1)), folder / f"{number}.pt")


def test_all_processes_hold_the_same_network_but_draw_their_own_dropout(
    small_npz: Path, tmp_path: Path
) -> None:
    assert _together(partial(_train, tmp_path, small_npz)) == [0, 0]
    first, second = (torch.load(tmp_path / f"{number}.pt") for number in range(2))
    assert first[0].keys() == second[0].keys()
    assert {name.partition(".")[0] for name in first[0]} >= {"model", "average", "optimizer0"}
    for name, tensor in first[0].items():
        assert torch.equal(tensor, second[0][name]), name
    assert first[1] == second[1]
    assert first[2] != second[2]


def test_a_batch_is_shared_to_the_last_image(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, size in ((1, 2), (7, 2), (2, 4), (128, 3)):
        monkeypatch.setattr(parallel, "size", lambda size=size: size)
        rows, weights = list[int](), 0.0
        for number in range(size):
            monkeypatch.setattr(parallel, "rank", lambda number=number: number)
            own, weight = parallel.part_of(count)
            assert len(range(count)[own]) >= 1  # so that every process has a gradient
            rows += range(count)[own] if weight else []
            weights += weight
        assert rows == list(range(count))
        assert weights == pytest.approx(size)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--devices", 3), "--devices: it is 3, but this machine has 2 core(s); give at most 2."),
        (("--devices", 1, "--nodes", 2), "--nodes: set PET_NODE_RANK"),
        (("--devices", 2, "--folds", 3), "--devices: folds are trained in one process"),
        (("--devices", 0), "'--devices': Input should be greater than or equal to 1"),
    ],
)
def test_a_group_that_cannot_be_is_refused_in_one_sentence(
    hemascope: Run,
    small_npz: Path,
    tmp_path: Path,
    options: tuple[str | int, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    outcome = hemascope(
        *("train", "--data", small_npz, "--out", tmp_path / "run", "--device", "cpu", *options)
    )
    assert outcome.code == 2
    assert said in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def _workers(launcher: int) -> list[int]:
    children = Path(f"/proc/{launcher}/task/{launcher}/children")
    return [int(pid) for pid in children.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds workers in /proc")
def test_a_killed_process_ends_the_job_and_the_run_resumes(
    hemascope: Run, small: Path, small_npz: Path, tmp_path: Path
) -> None:
    calm = CNN.replace("muon", "sgd").replace("0.01", "0.001")  # lest rounding grow
    small.write_text(calm.replace("epochs = 3", "epochs = 25"))
    command = ("train", "--config", small, "--data", small_npz, "--out")
    out, said = tmp_path / "run", tmp_path / "said"
    launched = [sys.executable, "-m", "hemascope", *map(str, command), str(out), "--devices", "2"]
    with said.open("w") as file:
        job = subprocess.Popen(launched, stdout=file, stderr=file, cwd=tmp_path)
    log, end = out / "training.log", time.monotonic() + 600
    while not (log.is_file() and "epoch 1/" in log.read_text()) and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(_workers(job.pid)[1], signal.SIGKILL)
    assert job.wait(60) == 2, said.read_text()
    last = said.read_text().splitlines()[-1]
    assert last.startswith("hemascope: process 1 was ended by SIGKILL, possibly out of memory")
    assert "continue with --resume" in last
    assert "Traceback" not in said.read_text()
    assert not RunFolder(out).is_finished
    assert hemascope(*command, out, "--resume").code == 0  # also with another number of processes
    assert "resumed after epoch" in log.read_text()
    assert hemascope(*command, tmp_path / "whole").code == 0
    assert _weights_differ(out, tmp_path / "whole") < 1e-4


def test_machines_with_other_data_are_refused(small: Path, small_npz: Path, tmp_path: Path) -> None:
    """Two that are this one, each with a process."""
    arrays = small_arrays()
    arrays["train_images"][0] += 1
    save_npz(tmp_path / "other.npz", {**arrays, "class_names": np.array(BLOOD_CELLS.names)})
    data = (small_npz, tmp_path / "other.npz")

    def launch(number: int) -> None:
        sys.stderr = (tmp_path / f"said-{number}").open("w")
        os.environ |= {"PET_NODE_RANK": str(number), "PET_MASTER_ADDR": "127.0.0.1"}
        _command(
            *("train", "--config", small, "--data", data[number], "--out", tmp_path / "run"),
            *("--nodes", 2),
        )

    assert _together(launch, in_group=False) == [2, 2]
    for number in range(2):
        said = (tmp_path / f"said-{number}").read_text()
        assert said == ("hemascope: process 1 has other data than process 0; give all the same.\n")
    assert not (tmp_path / "run").exists()
