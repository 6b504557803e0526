"""`hemascope benchmark`: what it measures and writes, and what it refuses."""

import json
import logging
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

from conftest import Outcome
from hemascope.analyses.speed.process import EngineKind, Job, Ready, serve
from hemascope.analyses.speed.words import Benchmark, Speed, benchmark_text
from hemascope.core.errors import UsageError
from hemascope.inference.onnx_engine import OnnxEngine
from hemascope.store.model_folder import find_artifact, load_info
from hemascope.store.provenance import Machine

Run = Callable[..., Outcome]
QUICK = ("--seconds", 0.01, "--no-compile")


def test_a_packaged_model_is_timed_in_every_graph(hemascope: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ("benchmark", "hemanet", "--batch", "4,1", "--threads", "1,all", *QUICK, "--out", out)
    outcome = hemascope(*args)
    assert outcome.code == 0, outcome.err
    found = json.loads((out / "benchmark.json").read_text())
    graphs = load_info(Path("hemanet")).onnx
    names = [f"hemanet, ONNX {graph.precision}" for graph in graphs]
    assert found["reference"] == names[0]
    threads = {row["threads"] for row in found["engines"]}
    assert 1 in threads
    assert len(found["engines"]) == len(names) * len(threads)
    assert len(found["speeds"]) == len(names) * len(threads) * 2
    for row in found["speeds"]:
        assert row["num_calls"] >= found["rounds"] == len(row["images_per_second_by_round"])
        assert (
            row["p99_ms"]
            >= row["p50_ms"]
            == pytest.approx(row["batch_size"] * row["p50_ms_per_image"])
        )
        assert row["images_per_second"] == np.median(row["images_per_second_by_round"])
        assert (row["ratio"] == 1) == (row["engine"] == names[0])
    sizes = {row["engine"]: row["size_bytes"] for row in found["engines"]}
    assert sizes == {name: graph.size_bytes for name, graph in zip(names, graphs, strict=True)}
    for row in found["engines"]:
        assert row["load_seconds"] > 0
        assert row["peak_memory_bytes"] is None or row["peak_memory_bytes"] > 2e7
    text = (out / "benchmark.md").read_text()
    assert text.strip() == outcome.out.strip()
    assert all(name in text for name in names)
    assert "Research use only" in text
    with Image.open(out / "figures" / "benchmark.png") as image:
        assert min(image.size) > 1000
    assert (out / "figures" / "benchmark.svg").is_file()
    outcome = hemascope(*args)
    assert outcome.code == 2
    assert "exists and is not empty" in outcome.err


def test_torch_is_what_others_are_compared_with(
    hemascope: Run, trained: Path, run_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    models = ("hemanet", trained, run_folder)  # two of them in folders of one name
    args = ("benchmark", *models, "--batch", "2", "--threads", "1", *QUICK, "--out", out)
    outcome = hemascope(*args)
    assert outcome.code == 0, outcome.err
    found = json.loads((out / "benchmark.json").read_text())
    assert found["reference"] == f"{trained.parent.name}/run, torch eager"
    first, *_, last = found["engines"]
    assert first["engine"] == "hemanet, ONNX fp32"
    assert last["engine"] == f"{tmp_path.name}/run, torch eager"
    (weights,) = (run_folder / "model").glob("weights-*")
    assert last["size_bytes"] == weights.stat().st_size
    assert last["size_ratio"] == 1
    rounds = {row["engine"]: row["images_per_second_by_round"] for row in found["speeds"]}
    ratios = {row["engine"]: row["ratio"] for row in found["speeds"]}
    for name, speeds in rounds.items():
        each = np.divide(speeds, rounds[found["reference"]])
        assert ratios[name] == pytest.approx(np.median(each))


def test_exported_models_need_no_torch(
    hemascope: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('no torch', name='torch')")
    monkeypatch.syspath_prepend(str(tmp_path))  # which the processes inherit
    args = ("--batch", "1", "--threads", "1", *QUICK)
    outcome = hemascope("benchmark", "hemanet", *args)
    assert outcome.code == 0, outcome.err
    outcome = hemascope("benchmark", trained, *args)
    assert outcome.code == 2
    assert "this needs torch: install it" in outcome.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--batch", "0"), "--batch: it is '0'; give integers from 1 to 65,536"),
        (("--batch", "x"), "--batch: it is 'x'; give integers"),
        (("--batch", "all"), "--batch: it is 'all'; give integers"),
        (("--batch", "1,"), "give integers"),
        (("--batch", "9" * 5000), "give integers"),
        (("--batch", "8,8"), "--batch: it is '8,8': duplicate value"),
        (("--threads", "0"), "--threads: it is '0'; give 'all' or integers from 1 to"),
        (("--threads", "1,1"), "--threads: it is '1,1': duplicate value"),
        (("--threads", "100000"), "give 'all' or integers"),
        (("--seconds", "0"), "--seconds: it is 0.0; give a number above 0"),
        (("--seconds", "nan"), "--seconds: it is nan; give a number above 0"),
        (("nothing",), "nothing holds no trained model"),
        (("hemanet",), "the same model is given twice"),
    ],
)
def test_wrong_use_is_said_at_once(hemascope: Run, args: tuple[str, ...], said: str) -> None:
    outcome = hemascope("benchmark", "hemanet", *args)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def test_the_model_is_never_overwritten(hemascope: Run, run_folder: Path) -> None:
    outcome = hemascope("benchmark", run_folder, "--out", run_folder, "--overwrite")
    assert outcome.code == 2
    assert "which this command needs" in outcome.err


def test_a_damaged_model_and_a_process_that_dies_are_one_sentence(
    hemascope: Run, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("--threads", "1", "--batch", "1", *QUICK)
    (weights,) = (run_folder / "model").glob("weights-*")
    weights.write_bytes(weights.read_bytes()[:-1])
    outcome = hemascope("benchmark", run_folder, *args)
    assert outcome.code == 2
    assert "SHA-256 differs" in outcome.err
    assert outcome.err.count("\n") == 1
    monkeypatch.setattr("hemascope.analyses.speed.run.serve", slice)  # takes all, and is done
    outcome = hemascope("benchmark", "hemanet", *args)
    assert outcome.code == 2
    assert "hemanet, ONNX fp32, 1 thread: its process ended (exit code 0)" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[Any]]:
    """Asks `serve` in a thread, since another process would not see what a test changes."""
    monkeypatch.setattr(logging.root.manager, "disable", 0)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))

    def ask(path: Path, kind: EngineKind, *questions: tuple[int, float] | None) -> list[Any]:
        ours, theirs = Pipe()
        images = np.zeros((2, 28, 28, 3), np.uint8)
        job = Job(path, kind, threads=1, batch_sizes=(1, 3), cache=tmp_path)
        with ours, theirs:
            thread = Thread(target=serve, args=(theirs, job, images))
            thread.start()
            for question in questions:
                ours.send(question)
            answers = [ours.recv() for _ in range(1 + len(questions))]
            if None not in questions and isinstance(answers[0], Ready):
                ours.send(None)
            thread.join()
        return answers

    return ask


def test_a_process_answers_until_it_is_asked_no_more(
    ask: Callable[..., list[Any]], trained: Path
) -> None:
    ready, times, one_call, peak = ask(trained, "eager", (1, 0.02), (3, 1e-9), None)
    assert ready.load_seconds > 0
    assert ready.compile_seconds is None
    assert 0.02 <= times.sum() < 1
    assert len(one_call) == 1
    assert peak is None or peak > 2e7


def test_compiling_takes_time_or_fails_in_one_line(
    ask: Callable[..., list[Any]], trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_(_: nn.Module) -> None:
        raise RuntimeError("no working compiler\nand pages more")

    monkeypatch.setattr(nn.Module, "compile", compile_)
    (error,) = ask(trained, "compile")
    assert str(error) == "it failed: RuntimeError: no working compiler"
    monkeypatch.setattr(nn.Module, "compile", lambda _: None)
    (ready,) = ask(trained, "compile")
    assert ready.compile_seconds > 0


def test_an_engine_that_fails_says_so(
    ask: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def logits(_: OnnxEngine, images: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(OnnxEngine, "logits", logits)
    (error,) = ask(find_artifact(Path("hemanet")), "fp32")
    assert isinstance(error, UsageError)
    assert str(error) == "it failed: MemoryError"


def test_without_torch_compile_the_others_are_timed(
    hemascope: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sympy.py").write_text("raise ImportError('no compiler')")  # which it rests on
    monkeypatch.syspath_prepend(str(tmp_path))
    args = ("--batch", "1", "--threads", "1", "--seconds", 0.01)
    outcome = hemascope("benchmark", trained, *args, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    said = "run, torch.compile, 1 thread: it failed: ImportError: no compiler"
    assert said in outcome.out
    rows = [line for line in outcome.out.splitlines() if line.startswith("| run, torch")]
    assert ["compile" in row for row in rows] == [False, False, True]
    assert (tmp_path / "out" / "figures" / "benchmark.svg").is_file()


def test_a_busy_machine_is_said() -> None:
    def text(load: float | None, *by_round: float) -> str:
        speed = Speed(
            engine="a",
            threads=1,
            batch_size=1,
            images_per_second=by_round[0],
            images_per_second_by_round=by_round,
            images_per_second_mean=by_round[0],
            ratio=1.0,
            p50_ms=1.0,
            p99_ms=1.0,
            p50_ms_per_image=1.0,
            p99_ms_per_image=1.0,
            num_calls=99,
        )
        content = Benchmark(
            machine=Machine(platform="O", processor="P", cores=2),
            versions={},
            load_average=load,
            rounds=2,
            seconds=1,
            reference="a",
            engines=[],
            speeds=[speed],
        )
        return benchmark_text(content)

    assert "Other programs" not in text(0.2, 100, 120)
    assert "Other programs" not in text(None, 100, 120)
    assert "the load average was 2.0 before, and 0 of 1 rows" in text(2, 100, 120)
    assert "and 1 of 1 rows were more than 1.5 times as fast" in text(None, 100, 160)
    assert "1.000*" in text(None, 100)
