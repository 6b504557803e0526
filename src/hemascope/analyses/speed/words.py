"""What `hemascope benchmark` found, as tables and one figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.report.text import markdown_table, over_runs
from hemascope.store.provenance import Machine

_ENOUGH_CALLS = 100  # for one of them to lie above the 99th percentile
_BUSY = 0.5  # programs that are computing, on average over a minute
_UNSTEADY = 1.5  # by which factor rounds differ where other programs take their share
_MEGA = 1e6


@dataclass(frozen=True)
class EngineFigures:
    """What an engine takes on disk, in memory and to begin.

    Attributes:
        engine: What runs which model.
        threads: How many threads each call is spread over.
        model: The folder of the model.
        image_size: H.
        size_bytes: Of its weights.
        import_seconds: To import its library; None where the engine failed, as the next two.
        load_seconds: To load the model.
        compile_seconds: For torch.compile; None for everything else.
        peak_memory_bytes: Of its process; None where that is not known.
        failure: Why it could not be timed; "" where it could.
        size_ratio: The size over that of the reference with as many threads.
        peak_memory_ratio: The memory over that of the reference.
    """

    engine: str
    threads: int
    model: str
    image_size: int
    size_bytes: int
    import_seconds: float | None
    load_seconds: float | None
    compile_seconds: float | None
    peak_memory_bytes: int | None
    failure: str
    size_ratio: float | None = None
    peak_memory_ratio: float | None = None


@dataclass(frozen=True)
class Speed:
    """How fast an engine is with batches of one size.

    Attributes:
        engine: What runs which model.
        threads: How many threads each call was spread over.
        batch_size: Images in a call.
        images_per_second: At the median call of each round, the median over rounds.
        images_per_second_by_round: At the median call of each round.
        images_per_second_mean: At the mean call.
        ratio: The throughput over that of the reference in the same round, the median over rounds.
        p50_ms: The median call.
        p99_ms: The 99th percentile of the calls.
        p50_ms_per_image: The median call over its images.
        p99_ms_per_image: The 99th percentile over its images.
        num_calls: The number of calls that were timed.
    """

    engine: str
    threads: int
    batch_size: int
    images_per_second: float
    images_per_second_by_round: Sequence[float]
    images_per_second_mean: float
    ratio: float
    p50_ms: float
    p99_ms: float
    p50_ms_per_image: float
    p99_ms_per_image: float
    num_calls: int


@dataclass(frozen=True)
class Benchmark:
    """Engines timed in turn on one machine.

    Attributes:
        machine: The machine.
        versions: Of Python and the libraries.
        load_average: Of the minute before; None where the system does not tell.
        rounds: The number of rounds.
        seconds: For each engine, number of threads and batch size.
        reference: The engine that ratios are over.
        engines: What each takes.
        speeds: How fast each is.
    """

    machine: Machine
    versions: Mapping[str, str]
    load_average: float | None
    rounds: int
    seconds: float
    reference: str
    engines: Sequence[EngineFigures]
    speeds: Sequence[Speed]


def benchmark_text(content: Benchmark) -> str:
    """How fast every engine was, and what it takes on disk, in memory and to begin."""
    speeds, engines, machine = content.speeds, content.engines, content.machine
    intro = (
        f"{machine.processor}, {machine.cores} cores. Rendered cells, from uint8 pixels to "
        "logits. Every engine has a process of its own, and all were timed in turn in "
        f"{content.rounds} rounds, {content.seconds:g} s in all for each row. images/s is at "
        "the median call of each round, the median of the rounds; ratio is that over "
        f"{content.reference} in the same round, with as many threads and images. p50 and p99 are "
        "of all calls; p50/image and p99/image, in ms, are these over the images of a call. p99 "
        f"with * is of fewer than {_ENOUGH_CALLS} calls: the slowest of them."
    )
    rest = (
        "Seconds: to import the library, to load the model, and for torch.compile to compile it "
        "for these batches. Peak memory is that of the whole process while it answers them, with "
        "Python and the libraries."
    )
    notes = [row.failure for row in engines if row.failure]
    load = content.load_average
    unsteady = sum(high > _UNSTEADY * low for low, high in map(_range, speeds))
    if unsteady or (load or 0) > _BUSY:
        notes.append(
            "Other programs may have used this machine: the load average was "
            f"{over_runs([load], 1)} before, and {unsteady} of {len(speeds)} rows were more than "
            f"{_UNSTEADY} times as fast in one round as in another. PyTorch with all "
            "threads suffers most; run it again when nothing else runs."
        )
    return "\n\n".join(
        [
            intro,
            _aligned(_speed_rows(speeds)),
            rest,
            _aligned(_engine_rows(engines)),
            *notes,
        ]
    )


def draw_benchmark(content: Benchmark, folder: Path) -> None:
    """Throughput and latency over batch size, a column for each number of threads."""
    from hemascope.report import plots  # here, so that tables need no matplotlib

    panels: dict[str, dict[str, list[plots.SpeedPoint]]] = {}
    for row in content.speeds:
        threads = f"{row.threads} thread{'s' if row.threads > 1 else ''}"
        point = plots.SpeedPoint(row.batch_size, row.images_per_second, row.p50_ms, row.p99_ms)
        panels.setdefault(threads, {}).setdefault(row.engine, []).append(point)
    figure = plots.speed_curves(
        panels,
        title="Speed on the CPU",
        caption=f"{content.machine.processor}, rendered cells\n{RESEARCH_USE_ONLY}",
    )
    plots.save_figure(figure, folder / "benchmark")


def _range(row: Speed) -> tuple[float, float]:
    return min(row.images_per_second_by_round), max(row.images_per_second_by_round)


def _speed_rows(speeds: Sequence[Speed]) -> list[list[str]]:
    header = ["engine", "threads", "batch", "images/s", "by round", "ratio", "p50, ms", "p99, ms"]
    rows = [[*header, "p50/image", "p99/image", "calls"]]
    for row in speeds:
        low, high = _range(row)
        mark = "" if row.num_calls >= _ENOUGH_CALLS else "*"
        rows.append(
            [
                row.engine,
                f"{row.threads}",
                f"{row.batch_size}",
                f"{row.images_per_second:,.0f}",
                f"{low:,.0f} to {high:,.0f}",
                f"{row.ratio:.2f}",
                f"{row.p50_ms:.3f}",
                f"{row.p99_ms:.3f}{mark}",
                f"{row.p50_ms_per_image:.3f}",
                f"{row.p99_ms_per_image:.3f}{mark}",
                f"{row.num_calls:,}",
            ]
        )
    return rows


def _engine_rows(engines: Sequence[EngineFigures]) -> list[list[str]]:
    header = ["engine", "threads", "size, MB", "ratio", "peak memory, MB", "ratio"]
    rows = [[*header, "import, s", "load, s", "compile, s"]]
    for row in engines:
        memory = row.peak_memory_bytes
        rows.append(
            [
                row.engine,
                f"{row.threads}",
                f"{row.size_bytes / _MEGA:.2f}",
                over_runs([row.size_ratio], 2),
                over_runs([memory and memory / _MEGA], 0),
                over_runs([row.peak_memory_ratio], 2),
                over_runs([row.import_seconds], 2),
                over_runs([row.load_seconds], 3),
                over_runs([row.compile_seconds], 1),
            ]
        )
    return rows


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns stand below one another in a terminal as well."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return markdown_table(
        [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    )
