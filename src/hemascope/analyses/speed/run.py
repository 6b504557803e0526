"""`hemascope benchmark`: latency, throughput and size of models, timed in turn."""

import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from multiprocessing import get_context, resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hemascope.analyses.speed.process import EngineKind, Job, Ready, serve
from hemascope.analyses.speed.words import (
    Benchmark,
    EngineFigures,
    Speed,
    benchmark_text,
    draw_benchmark,
)
from hemascope.core.errors import RESEARCH_USE_ONLY, UsageError
from hemascope.data.rendered import render
from hemascope.settings.output import Output
from hemascope.store.model_folder import find_artifact, load_info, size_of_weights
from hemascope.store.provenance import provenance, publish
from hemascope.workflows.progress import Reporter

ROUNDS = 5
_NUM_IMAGES = 64  # different ones; a larger batch repeats them
_PATIENCE = 2  # seconds in which a process ends by itself
_TORCH: Sequence[tuple[EngineKind, str]] = (("eager", "torch eager"), ("compile", "torch.compile"))


def benchmark(
    paths: Sequence[Path],
    *,
    batch_sizes: tuple[int, ...],
    threads: Sequence[int],
    seconds: float,
    compiled: bool,
    output: Output | None,
    reporter: Reporter,
) -> str:
    """Times every engine of some models on the CPU, from uint8 pixels to logits.

    Each engine has a process of its own for each number of threads. They are timed in turn, several
    times over, so that a slow moment of the machine is shared by all, and never two at once.

    Args:
        paths: Run folders (PyTorch) and exported or packaged models (ONNX).
        batch_sizes: How many images a call holds.
        threads: How many threads a call is spread over.
        seconds: How long each engine is timed with each number of threads and batch size.
        compiled: Whether run folders are also tried with torch.compile.
        output: Gets benchmark.json, benchmark.md and figures/, if given.
        reporter: Gets progress and notes.

    Returns:
        The results as text.

    Raises:
        UsageError: If a model is named twice, or an engine fails.
        DataError: If a model is none, or damaged.
        OutputError: If results cannot be written.
    """
    if output is not None:
        import_module("hemascope.report.plots")  # if matplotlib is missing, it is to be said now
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # not on Windows
    engines = _engines(paths, compiled=compiled)
    reference = next((one for one in engines if one.kind == "eager"), engines[0])
    shown = {
        size: render(np.arange(_NUM_IMAGES) % 8, seed=0, image_size=size)
        for size in {one.image_size for one in engines}
    }
    with ExitStack() as stack:
        cache = stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True))
        processes: list[_Process] = []
        with reporter.counted("engines made ready", len(engines) * len(threads)) as advance:
            for count in threads:
                for one in engines:
                    own = Path(cache, str(len(processes)))
                    job = Job(one.path, one.kind, count, batch_sizes, own)
                    process = _Process(one, job, shown[one.image_size])
                    processes.append(stack.enter_context(process))
                    process.wait_until_ready()
                    advance(1)
        rounds = _asked([one for one in processes if not one.failure], seconds, reporter)
        rows = [process.describe() for process in processes]
    bases = {one.job.threads: one for one in processes if one.engine is reference}
    facts = provenance()
    content = Benchmark(
        machine=facts.machine,
        versions=facts.versions,
        load_average=load,
        rounds=ROUNDS,
        seconds=seconds,
        reference=reference.name,
        engines=_with_ratios(rows, reference.name),
        speeds=[
            _speed(one, batch_size, times, rounds[bases[one.job.threads], batch_size])
            for (one, batch_size), times in rounds.items()
        ],
    )
    text = "\n\n".join([benchmark_text(content), RESEARCH_USE_ONLY])
    if output is not None:
        publish(
            output,
            facts,
            contents={"benchmark.json": content, "benchmark.md": text},
            draw=partial(draw_benchmark, content),
        )
    return text


@dataclass(frozen=True)
class _Engine:
    """One row of the results: a model and what runs it."""

    name: str
    path: Path
    kind: EngineKind
    image_size: int
    size_bytes: int


def _engines(paths: Sequence[Path], *, compiled: bool) -> list[_Engine]:
    folders = [find_artifact(path).resolve() for path in paths]
    if len(set(folders)) < len(folders):
        raise UsageError("the same model is given twice; give each once.")
    engines: list[_Engine] = []
    for label, path in zip(_labels(paths), paths, strict=True):
        info = load_info(path)
        size = info.image.size
        for graph in info.onnx:
            name = f"{label}, ONNX {graph.precision}"
            engines.append(_Engine(name, path, graph.precision, size, graph.size_bytes))
        for kind, word in () if info.onnx else _TORCH[: 1 + compiled]:
            num_bytes = size_of_weights(path, info)
            engines.append(_Engine(f"{label}, {word}", path, kind, size, num_bytes))
    return engines


def _labels(paths: Sequence[Path]) -> list[str]:
    """Of each path its name, with as many folders before it as tell it from the others."""
    parts = [path.resolve().parts for path in paths]

    def is_own(names: Sequence[str]) -> bool:
        return sum(others[-len(names) :] == names for others in parts) == 1

    tails = [[names[-n:] for n in range(1, len(names) + 1)] for names in parts]
    return ["/".join(next(filter(is_own, each))) for each in tails]


class _Process:
    """An engine in its own process; a context manager that ends it."""

    def __init__(self, engine: _Engine, job: Job, images: NDArray[np.uint8]) -> None:
        self.engine, self.job, self.ready, self.failure = engine, job, Ready(), ""
        context = get_context("spawn")
        self._ours, theirs = context.Pipe()
        with theirs, _without_interrupts():
            self._process = context.Process(target=serve, args=(theirs, job, images), daemon=True)
            self._process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._process.join(_PATIENCE)
        self._process.kill()
        self._process.join()
        self._process.close()

    @property
    def name(self) -> str:
        return f"{self.engine.name}, {self.job.threads} thread{'s'[: self.job.threads > 1]}"

    def wait_until_ready(self) -> None:
        """Waits until the engine can be asked, or torch.compile has failed; see `ask`."""
        try:
            self.ready = self._answer()
        except UsageError as error:
            if self.job.kind != "compile":
                raise
            self.failure = str(error)  # it needs a C++ compiler, and fails in many ways

    def ask(self, question: tuple[int, float] | None) -> Any:
        """The answer of `hemascope.analyses.speed.process.serve`.

        Raises:
            HemascopeError: If the engine fails, or the process ends.
        """
        with suppress(OSError):  # where nobody listens, nobody answers
            self._ours.send(question)
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self._ours.recv()
        except (EOFError, OSError) as error:
            self._process.join(_PATIENCE)
            raise UsageError(
                f"{self.name}: its process ended (exit code {self._process.exitcode}), possibly "
                "out of memory; try smaller batches or fewer models at once."
            ) from error
        if isinstance(answer, UsageError):
            raise UsageError(f"{self.name}: {answer}")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def describe(self) -> EngineFigures:
        """What it is and what it took, after everything else was asked."""
        return EngineFigures(
            engine=self.engine.name,
            threads=self.job.threads,
            model=str(self.engine.path),
            image_size=self.engine.image_size,
            size_bytes=self.engine.size_bytes,
            **vars(self.ready),
            peak_memory_bytes=None if self.failure else self.ask(None),
            failure=self.failure,
        )


@contextmanager
def _without_interrupts() -> Generator[None]:
    """Holds Ctrl-C back; a process that begins in the block never gets it."""
    if sys.platform == "win32":
        yield  # has no such thing
        return
    resource_tracker.ensure_running()  # which would let it through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _asked(
    processes: Sequence[_Process], seconds: float, reporter: Reporter
) -> dict[tuple[_Process, int], list[NDArray[np.float64]]]:
    """The seconds of each call in each round, by process and batch size; all timed in turn."""
    rounds: dict[tuple[_Process, int], list[NDArray[np.float64]]] = {
        (process, batch_size): []
        for threads in dict.fromkeys(process.job.threads for process in processes)
        for batch_size in processes[0].job.batch_sizes
        for process in processes
        if process.job.threads == threads
    }
    with reporter.counted("measurements", ROUNDS * len(rounds)) as advance:
        for _ in range(ROUNDS):
            for (process, batch_size), times in rounds.items():
                times.append(process.ask((batch_size, seconds / ROUNDS)))
                advance(1)
    return rounds


def _speed(
    process: _Process,
    batch_size: int,
    rounds: Sequence[NDArray[np.float64]],
    base: Sequence[NDArray[np.float64]],
) -> Speed:
    """Throughput and latency from the seconds of each call in each round, and of the reference's.

    The ratio is taken within each round, so that a slow one counts for both.
    """
    medians = np.array([np.median(times) for times in rounds])  # few calls are very long
    base_medians = np.array([np.median(times) for times in base])
    all_ms = 1000 * np.concatenate(rounds)
    p50 = float(np.median(all_ms))
    p99 = float(np.quantile(all_ms, 0.99, method="inverted_cdf"))  # a call there was
    return Speed(
        engine=process.engine.name,
        threads=process.job.threads,
        batch_size=batch_size,
        images_per_second=float(np.median(batch_size / medians)),
        images_per_second_by_round=(batch_size / medians).tolist(),
        images_per_second_mean=1000 * batch_size / float(all_ms.mean()),
        ratio=float(np.median(base_medians / medians)),
        p50_ms=p50,
        p99_ms=p99,
        p50_ms_per_image=p50 / batch_size,
        p99_ms_per_image=p99 / batch_size,
        num_calls=len(all_ms),
    )


def _with_ratios(rows: Sequence[EngineFigures], reference: str) -> list[EngineFigures]:
    """The same with size and memory over those of the reference with as many threads."""
    bases = {row.threads: row for row in rows if row.engine == reference}

    def ratio(value: int | None, base: int | None) -> float | None:
        return value / base if value and base else None

    return [
        replace(
            row,
            size_ratio=ratio(row.size_bytes, base.size_bytes),
            peak_memory_ratio=ratio(row.peak_memory_bytes, base.peak_memory_bytes),
        )
        for row in rows
        for base in [bases[row.threads]]
    ]
