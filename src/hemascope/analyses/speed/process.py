"""One network in a process of its own: it loads there, and is timed there when it is asked.

Imports little, since what this process imports counts in its memory.
"""

import logging
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from hemascope.core.errors import HemascopeError, UsageError
from hemascope.inference import Engine
from hemascope.inference.efficiency import peak_memory_bytes, reset_peak_memory
from hemascope.settings.compute import OnnxPrecision
from hemascope.store.model_folder import load_graph

EngineKind = Literal["eager", "compile"] | OnnxPrecision
T = TypeVar("T")
Images = NDArray[np.uint8]

_MOST_LETTERS = 200  # of an error
_WARM_UP = 2  # more calls of each batch size after the first, before any is timed
_SETTLE = 0.1  # seconds: longer than the threads of the process asked before spin for more work


@dataclass(frozen=True)
class Job:
    """Which engine is timed, and how.

    Attributes:
        path: The folder of the model.
        kind: What runs it: PyTorch, or ONNX Runtime with a graph of this precision.
        threads: That every call is spread over.
        batch_sizes: Of the calls, in the order in which they are warmed up.
        cache: A new folder for what torch.compile keeps.
    """

    path: Path
    kind: EngineKind
    threads: int
    batch_sizes: tuple[int, ...]
    cache: Path


@dataclass(frozen=True)
class Ready:
    """What it took until the engine could be asked.

    Attributes:
        import_seconds: For its library.
        load_seconds: To read, verify and build the network.
        compile_seconds: Of torch.compile: to begin, and the first call of each batch size.
    """

    import_seconds: float | None = None
    load_seconds: float | None = None
    compile_seconds: float | None = None


def serve(connection: Connection, job: Job, images: Images) -> None:
    """Loads an engine and answers questions about it, until there are no more.

    Sends a `Ready` first. A question (batch size, seconds) is answered with the seconds of each
    call, None with the peak memory of all of them in bytes (None where it is not known), which is
    the last answer. Where something fails, the answer is the error.

    Args:
        connection: Whom to answer.
        job: What to load.
        images: RGB images (N, H, H, 3), repeated where a batch holds more.
    """
    # As in a program that was not spawned: else torch's locks are reported when this is killed.
    multiprocessing.set_start_method(None, force=True)
    logging.disable(logging.WARNING)  # what libraries say of this machine is not the user's to mend
    warnings.simplefilter("ignore")
    batches = {n: np.resize(images, (n, *images.shape[1:])) for n in job.batch_sizes}
    with suppress(EOFError, OSError):  # whoever asked is gone
        loaded = _tried(lambda: _load(job, batches))
        if isinstance(loaded, Exception):
            connection.send(loaded)
            return
        engine, ready = loaded
        reset_peak_memory()  # so that what loading and compiling took does not count
        connection.send(ready)
        while (question := connection.recv()) is not None:
            batch_size, seconds = question
            connection.send(_tried(lambda b=batches[batch_size], s=seconds: _timed(engine, b, s)))
        connection.send(peak_memory_bytes())


def _tried(work: Callable[[], T]) -> T | Exception:
    """What comes out of some work, or the error that another process can raise."""
    try:
        return work()
    except (HemascopeError, ModuleNotFoundError) as error:
        return error
    except Exception as error:  # whatever engines may raise, such as for memory
        return UsageError(f"it failed: {_brief(error)}")


def _load(job: Job, batches: Mapping[int, Images]) -> tuple[Engine, Ready]:
    """The engine after its first calls, in which libraries decide, allocate and compile."""
    start = time.perf_counter()
    if job.kind in ("eager", "compile"):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(job.cache)  # else compiling takes no time twice
        import torch

        from hemascope.inference.torch_engine import TorchEngine, load_model

        imported = time.perf_counter()
        torch.set_num_threads(job.threads)
        _, model = load_model(job.path)
        engine: Engine = TorchEngine(model, device=torch.device("cpu"), batch_size=max(batches))
        loaded = time.perf_counter()
        if job.kind == "compile":
            model.compile()
    else:
        from hemascope.inference.onnx_engine import OnnxEngine

        imported = time.perf_counter()
        _, graph, content = load_graph(job.path, job.kind)
        origin = f"{job.path} ({graph.file})"
        engine = OnnxEngine(content, origin=origin, threads=job.threads, batch_size=max(batches))
        loaded = time.perf_counter()
    for batch in batches.values():
        engine.logits(batch)
    compiling = time.perf_counter() - loaded if job.kind == "compile" else None
    for batch in batches.values():
        for _ in range(_WARM_UP):
            engine.logits(batch)
    return engine, Ready(imported - start, loaded - imported, compiling)


def _timed(engine: Engine, batch: Images, seconds: float) -> NDArray[np.float64]:
    """The seconds of each call, for as long as asked and at least once, after some untimed ones."""
    settled = time.perf_counter() + min(_SETTLE, seconds)
    engine.logits(batch)
    while time.perf_counter() < settled:
        engine.logits(batch)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end or not times:
        engine.logits(batch)
        times.append(time.perf_counter() - start)
    return np.array(times)


def _brief(error: Exception) -> str:
    """The first line of what an error says: compilers write pages."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:_MOST_LETTERS]}".strip(": ")
