"""How fast the review station answers under load, and how much of it the load generator takes.

    python benchmarks/review_load.py [--seconds 60] [--clients 50] [--images 2000]

Starts `hemascope serve` on loopback with rendered cells of 96 pixels, and measures in turns:

1. One-image requests (`POST /api/v1/predict`): latency at rest, the saturated rate, and the latency
   at half of it (requests sent on a clock, whether earlier ones are answered or not).
   Goal: p99 at half the rate at most 5 times the median at rest.
2. Clients that do what readers do, each in a case of 20 cells (a page of cells, a thumbnail, a
   correction, now and then an image to be predicted; up to 0.8 s to think) for --seconds.
   Goal: none fails, p99 at most 1 s.
3. 32 images a request, with the frame of the first answer, against `hemascope predict` on the
   same files (without its start), in turns in the same run.
   Goal: at least 60 % of its rate.

Ends with 1 if a goal is missed. Everything stays on this machine.
"""

import argparse
import asyncio
import gc
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from stations import Server, cell_files, served

_MOST_RATIO, _MOST_SECONDS, _LEAST_SHARE = 5.0, 1.0, 0.6
_BATCH = 32
_ROUNDS = 3
_THINK = (0.2, 0.8)  # seconds between a reader's requests
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Timed:
    """How long answers took, in seconds, and what failed."""

    seconds: list[float] = field(default_factory=list[float])
    failed: list[str] = field(default_factory=list[str])

    def at(self, share: float) -> float:
        """A quantile."""
        ordered = sorted(self.seconds) or [float("nan")]
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    async def of(self, asked: Awaitable[httpx2.Response]) -> httpx2.Response | None:
        """An answer, timed."""
        start = time.perf_counter()
        try:
            answer = await asked
        except httpx2.HTTPError as error:
            self.failed.append(repr(error))
            return None
        self.seconds.append(time.perf_counter() - start)
        if answer.status_code >= 400:
            self.failed.append(f"{answer.status_code} {answer.text[:200]}")
        return answer


def cpu_seconds(pid: int) -> float:
    """Of a process so far."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / _TICKS


class Shares:
    """The processor time of the server and of this process over a block."""

    def __init__(self, server: Server) -> None:
        self._pid = server.process.pid

    def __enter__(self) -> Self:
        self._start = time.perf_counter(), cpu_seconds(self._pid), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        wall, of_server, mine = self._start
        self.wall = time.perf_counter() - wall
        self.server = cpu_seconds(self._pid) - of_server
        self.mine = time.process_time() - mine

    def __str__(self) -> str:
        """What each took, in cores."""
        return (
            f"server {self.server / self.wall:.2f} cores, load generator "
            f"{self.mine / self.wall:.2f}"
        )


def client(server: Server, most: int = 200) -> httpx2.AsyncClient:
    """Connections that are kept."""
    limits = httpx2.Limits(max_connections=most, max_keepalive_connections=most)
    return httpx2.AsyncClient(base_url=server.api, limits=limits, timeout=60)


def question(
    client: httpx2.AsyncClient, files: Sequence[tuple[str, bytes]], frame: str = ""
) -> Any:
    """A request for answers to images."""
    data = {"frame": frame} if frame else None
    return client.post("/predict", files=[("file", one) for one in files], data=data)


async def repeated(ask: Callable[[], Awaitable[Any]], seconds: float, at_once: int) -> int:
    """Asks without a pause; how often."""
    until, count = time.perf_counter() + seconds, 0

    async def one() -> None:
        nonlocal count
        while time.perf_counter() < until:
            await ask()
            count += 1

    await asyncio.gather(*(one() for _ in range(at_once)))
    return count


async def one_image(server: Server, files: Sequence[tuple[str, bytes]], seconds: float) -> bool:
    """Latency at rest and at half the saturated rate."""
    rng = random.Random(0)  # noqa: S311 - which image
    async with client(server) as asker:

        def ask(timed: Timed) -> Awaitable[Any]:
            return timed.of(question(asker, [rng.choice(files)]))

        await repeated(lambda: ask(Timed()), 2, 4)  # warm
        rest, full, half = Timed(), Timed(), Timed()
        await repeated(lambda: ask(rest), seconds, 1)
        with Shares(server) as shares:
            count = await repeated(lambda: ask(full), seconds, 16)
        rate = count / shares.wall
        print(f"at rest: median {1000 * rest.at(0.5):.1f} ms, p99 {1000 * rest.at(0.99):.1f} ms")
        print(f"saturated: {rate:.0f} requests/s ({shares})")
        with Shares(server) as shares:
            await clocked(lambda: ask(half), rate / 2, seconds)
    ratio = half.at(0.99) / rest.at(0.5)
    print(
        f"half of it: median {1000 * half.at(0.5):.1f} ms, p99 {1000 * half.at(0.99):.1f} ms, "
        f"{ratio:.1f} times the median at rest ({shares})"
    )
    failed = [*rest.failed, *full.failed, *half.failed]
    print(*failed[:3], sep="\n")
    return not failed and ratio <= _MOST_RATIO


async def clocked(ask: Callable[[], Awaitable[Any]], rate: float, seconds: float) -> None:
    """Asks at random moments, so many in a second, whether or not the others are answered."""
    rng, start, at = random.Random(1), time.perf_counter(), 0.0  # noqa: S311 - moments
    asked: list[asyncio.Task[Any]] = []
    while at < seconds:
        at += rng.expovariate(rate)
        await asyncio.sleep(max(0.0, start + at - time.perf_counter()))
        asked.append(asyncio.ensure_future(ask()))
    await asyncio.gather(*asked)


async def many_readers(
    server: Server, files: Sequence[tuple[str, bytes]], seconds: float, clients: int
) -> bool:
    """Readers at work, each in a case of their own."""
    timed = Timed()
    async with client(server) as asker:
        cases = [await _case(asker, files, number) for number in range(clients)]
        until = time.perf_counter() + seconds
        with Shares(server) as shares:
            await asyncio.gather(*(_reader(asker, files, timed, *one, until) for one in cases))
    print(
        f"{clients} clients, {seconds:.0f} s: {len(timed.seconds):,} requests, {len(timed.failed)} "
        f"failed, median {1000 * timed.at(0.5):.1f} ms, p99 {1000 * timed.at(0.99):.1f} ms "
        f"({shares})"
    )
    print(*timed.failed[:3], sep="\n")
    return not timed.failed and timed.at(0.99) <= _MOST_SECONDS


async def _case(
    asker: httpx2.AsyncClient, files: Sequence[tuple[str, bytes]], number: int
) -> tuple[str, dict[str, str]]:
    """A reader's case of 20 cells, made before the clock runs."""
    made = await asker.post("/readers", json={"name": f"reader {number}"})
    params = {"reader": made.json()["id"]}
    case = (await asker.post("/cases", json={"name": f"{number}", **params})).json()["id"]
    sent = [("file", files[(7 * number + i) % len(files)]) for i in range(20)]
    await asker.post(f"/cases/{case}/files", params=params, files=sent)
    (await asker.post(f"/cases/{case}/analysis", json=params)).raise_for_status()
    return case, params


async def _reader(
    asker: httpx2.AsyncClient,
    files: Sequence[tuple[str, bytes]],
    timed: Timed,
    case: str,
    params: dict[str, str],
    until: float,
) -> None:
    rng = random.Random(case)  # noqa: S311 - what a reader does next
    while time.perf_counter() < until:
        await asyncio.sleep(rng.uniform(*_THINK))
        page = await timed.of(asker.get(f"/cases/{case}/cells", params=params))
        if page is None or page.status_code != 200:
            continue
        cell = rng.choice(page.json()["items"])
        await timed.of(asker.get(str(httpx2.URL(asker.base_url).join(cell["thumbnail"]))))
        to = rng.choice(["monocyte", "neutrophil", "lymphocyte"])
        changes = [{"cell": cell["id"], "from": cell["class"], "to": to}]
        await timed.of(
            asker.post(f"/cases/{case}/corrections", json={**params, "changes": changes})
        )
        if rng.random() < 0.2:
            await timed.of(question(asker, [rng.choice(files)]))


async def batches(server: Server, files: Sequence[tuple[str, bytes]], folder: Path) -> bool:
    """The rate of 32 images a request, and of the command, in turns."""
    timed, rates = Timed(), {"station": list[float](), "predict": list[float]()}
    start_up = _predict(folder, list(files)[:1])
    async with client(server) as asker:
        parts = [files[i : i + _BATCH] for i in range(0, len(files), _BATCH)]
        waiting = asyncio.Semaphore(2 * (os.cpu_count() or 1))
        # Of a laboratory, the first 200 images decide how all are framed, as for the command.
        frame = (await question(asker, files[:200])).json()["frame_file"]

        async def ask(part: Sequence[tuple[str, bytes]]) -> None:
            async with waiting:
                await timed.of(question(asker, part, frame))

        for _ in range(_ROUNDS):
            with Shares(server) as shares:
                await asyncio.gather(*(ask(part) for part in parts))
            rates["station"].append(len(files) / shares.wall)
            print(f"station: {rates['station'][-1]:.0f} images/s ({shares})")
            seconds = _predict(folder, files) - start_up
            rates["predict"].append(len(files) / seconds)
            print(f"predict: {rates['predict'][-1]:.0f} images/s")
    share = statistics.median(rates["station"]) / statistics.median(rates["predict"])
    print(f"32 images a request: {100 * share:.0f} % of predict's rate")
    print(*timed.failed[:3], sep="\n")
    return not timed.failed and share >= _LEAST_SHARE


def _predict(folder: Path, files: Sequence[tuple[str, bytes]]) -> float:
    """Seconds of the command."""
    cells = folder / f"cells-{len(files)}"
    if not cells.is_dir():
        cells.mkdir()
        for i, (_, content) in enumerate(files):
            (cells / f"{i:05d}.png").write_bytes(content)
    command = [sys.executable, "-m", "hemascope", "predict", str(cells), "--quiet"]
    start = time.perf_counter()
    subprocess.run([*command, "--out", str(folder / "out.jsonl"), "--overwrite"], check=True)
    return time.perf_counter() - start


def main() -> int:
    """Prints the figures, and which goals are met."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--only", choices=["one", "many", "batches"])
    args = parser.parse_args()
    if not 0 < args.seconds <= 600:
        parser.error("--seconds: give a number above 0 and up to 600")
    gc.disable()  # a pause of the load generator, 90 ms each, would count as the station's
    different = list(cell_files(min(args.images, 256)).items())
    files = [different[i % len(different)] for i in range(args.images)]
    met: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as name, served(Path(name) / "station") as server:
        if args.only in (None, "one"):
            met["one image"] = asyncio.run(one_image(server, different, args.seconds / 4))
        if args.only in (None, "many"):
            done = many_readers(server, different, args.seconds, args.clients)
            met["many clients"] = asyncio.run(done)
        if args.only in (None, "batches"):
            met["32 images"] = asyncio.run(batches(server, files, Path(name)))
    for goal, is_met in met.items():
        print(f"{goal}: {'met' if is_met else 'missed'}")
    return int(not all(met.values()))


if __name__ == "__main__":
    sys.exit(main())
