"""`kill -9` at random moments under load: what the review station acknowledged is there afterwards.

    python benchmarks/review_kill.py [--kills 30] [--database sqlite|postgresql] [--seed 0]

Three clients correct groups of cells, one uploads, has analyzed and deletes cases. At a random
moment the server is killed and started again; with PostgreSQL two servers share a database and a
folder, and one of them is killed while the other carries on. After each kill: every acknowledged
correction is in the trail and none twice, the last one of a group or the one that was under way is
what its cells are, all of them; every cell has its image; acknowledged uploads are whole, and
acknowledged deletions are deletions; what was not analyzed can be. Ends with 1 if that fails.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from stations import cell_files, postgres_programs, running_postgres, served_many

_GROUPS, _IN_GROUP = 3, 4
_CLASSES = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")
_UPLOADED = 4  # images at a time
_LEAST = 5  # corrections before a kill
_LOAD_SECONDS = (0.0, 1.0)  # after them
_MOST_SECONDS = 60.0
_UNREACHED = (httpx2.TransportError,)


@dataclass
class Known:
    """What the clients were told, and what they do not know."""

    reader: str = ""
    case: str = ""
    groups: list[list[str]] = field(default_factory=list[list[str]])
    now: dict[str, str] = field(default_factory=dict[str, str])  # of each cell, acknowledged
    under_way: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    tokens: list[str] = field(default_factory=list[str])  # of acknowledged corrections
    uploaded: dict[str, int] = field(default_factory=dict[str, int])  # cells of cases
    deleted: list[str] = field(default_factory=list[str])
    maybe_deleted: set[str] = field(default_factory=set[str])
    refused: list[str] = field(default_factory=list[str])  # a correction, for no reason


class Clients:
    """The load."""

    def __init__(self, known: Known, urls: list[str], rng: random.Random) -> None:
        self._known, self._urls, self._rng = known, urls, rng
        self._files = list(cell_files(64, seed=11, size=64).items())

    def run(self, stopping: Event) -> None:
        """Until it is to stop; a server that is gone is asked no more in vain than needs be."""
        jobs: list[Callable[[httpx2.Client], None]] = [self._case]
        for i in range(_GROUPS):
            jobs.append(lambda client, i=i: self._correct(client, i))

        def work(job: Callable[[httpx2.Client], None]) -> None:
            clients = [httpx2.Client(base_url=url, timeout=30) for url in self._urls]
            while not stopping.is_set():
                try:
                    job(self._rng.choice(clients))
                except _UNREACHED:
                    time.sleep(0.02)
            for one in clients:
                one.close()

        with ThreadPoolExecutor(len(jobs)) as pool:
            for done in [pool.submit(work, job) for job in jobs]:
                done.result()

    def _correct(self, client: httpx2.Client, number: int) -> None:
        known, cells = self._known, self._known.groups[number]
        token = f"{number}-{self._rng.getrandbits(48):x}"
        was = known.now[cells[0]]
        to = self._rng.choice([name for name in _CLASSES if name != was])
        changes = [
            {"cell": one, "from": known.now[one], "to": to, "comment": token} for one in cells
        ]
        sent = {"reader": known.reader, "changes": changes}
        for one in cells:
            known.under_way.setdefault(one, set()).add(to)  # also of tries that got no answer
        answer = client.post(f"/cases/{known.case}/corrections", json=sent)
        if answer.status_code == 409:  # the one that was under way is there
            for one in answer.json()["conflicts"]:
                known.now[one["cell"]] = one["class"]
                known.under_way.pop(one["cell"], None)
            return
        if answer.status_code != 200:
            known.refused.append(answer.text)
        else:
            for one in cells:
                known.now[one] = to
                known.under_way.pop(one, None)
            known.tokens.append(token)

    def _case(self, client: httpx2.Client) -> None:
        known, params = self._known, {"reader": self._known.reader}
        made = client.post("/cases", json={"name": "load", **params})
        made.raise_for_status()
        case = made.json()["id"]
        known.uploaded[case] = 0
        chosen = self._rng.sample(self._files, _UPLOADED)
        sent = client.post(
            f"/cases/{case}/files", params=params, files=[("file", one) for one in chosen]
        )
        if sent.status_code == 200:
            known.uploaded[case] = sent.json()["added"]
        else:
            known.refused.append(sent.text)
        client.post(f"/cases/{case}/analysis", json=params)
        if self._rng.random() < 0.5:
            known.maybe_deleted.add(case)
            if client.delete(f"/cases/{case}").status_code == 204:
                known.deleted.append(case)


def check(known: Known, url: str) -> list[str]:
    """What is not as it was acknowledged."""
    wrong: list[str] = []
    with httpx2.Client(base_url=url, timeout=60) as client:

        def get(path: str, **params: Any) -> Any:
            answer = client.get(path, params=params)
            answer.raise_for_status()
            return answer.json()

        cells = {one["id"]: one for one in cells_of(get, known.case, known.reader)}
        trail = get(f"/cases/{known.case}/trail")["items"]
        last = {one["cell"]: one["to"] for one in trail if one["kind"] == "named"}
        tokens = Counter(one["to"] for one in trail if one["kind"] == "commented")
        for token in known.tokens:
            if tokens[token] != _IN_GROUP:
                wrong.append(f"correction {token} stands {tokens[token]} times in the trail")
        wrong += [f"{token} is half written" for token, n in tokens.items() if n != _IN_GROUP]
        for group in known.groups:
            found = {cells[one]["class"] for one in group}
            allowed = {known.now[group[0]]} | known.under_way.pop(group[0], set())
            if len(found) != 1 or not found <= allowed:
                wrong.append(f"a group is {found}, and {allowed} was said")
            if {last.get(one, cells[one]["class"]) for one in group} != found:
                wrong.append("the trail says another class")
            known.now |= {one: cells[one]["class"] for one in group}
        listed: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = get("/cases", limit=500, cursor=cursor)
            listed += [one["id"] for one in page["items"]]
            cursor = page["next_cursor"]
        for case, number in known.uploaded.items():
            if case not in listed:
                if case not in known.maybe_deleted:
                    wrong.append("a case that was made is gone")
                continue
            if case in known.deleted:
                wrong.append("a case that was deleted is there")
            inside = cells_of(get, case, known.reader)
            if len(inside) != number and (number or len(inside) != _UPLOADED):
                wrong.append(f"a case has {len(inside)} cells, {number} were acknowledged")
            for one in inside:
                if client.get(f"{url.partition('/api')[0]}{one['image']}").status_code != 200:
                    wrong.append("a cell has no image")
            client.post(f"/cases/{case}/analysis", json={"reader": known.reader}).raise_for_status()
            if any(not one["predicted_class"] for one in cells_of(get, case, known.reader)):
                wrong.append("a cell cannot be analyzed")
        for case in list(known.uploaded):  # the next ones begin anew
            client.delete(f"/cases/{case}")
        known.uploaded.clear()
        known.maybe_deleted.clear()
        known.deleted.clear()
    return wrong


def cells_of(get: Callable[..., Any], case: str, reader: str) -> list[dict[str, Any]]:
    """All of them, as a reader has them."""
    return get(f"/cases/{case}/cells", reader=reader)["items"]


def prepare(known: Known, url: str) -> None:
    """A case whose cells are analyzed."""
    with httpx2.Client(base_url=url, timeout=60) as client:
        known.reader = client.post("/readers", json={"name": "Ann"}).json()["id"]
        params = {"reader": known.reader}
        known.case = client.post("/cases", json={"name": "kept", **params}).json()["id"]
        files = cell_files(_GROUPS * _IN_GROUP, seed=5, size=64)
        sent = [("file", one) for one in files.items()]
        client.post(f"/cases/{known.case}/files", params=params, files=sent).raise_for_status()
        client.post(f"/cases/{known.case}/analysis", json=params).raise_for_status()
        cells = client.get(f"/cases/{known.case}/cells", params=params).json()["items"]
        changes = [{"cell": one["id"], "from": one["class"], "to": "basophil"} for one in cells]
        sent_all = {**params, "changes": changes}
        client.post(f"/cases/{known.case}/corrections", json=sent_all).raise_for_status()
        ids = [one["id"] for one in cells]
        known.now = dict.fromkeys(ids, "basophil")
        known.groups = [ids[i : i + _IN_GROUP] for i in range(0, len(ids), _IN_GROUP)]


def kill_often(folder: Path, url: str, *, kills: int, seed: int) -> tuple[Known, list[str]]:
    """Kills as often as asked: what was known at the end, and what was wrong."""
    rng, known, wrong = random.Random(seed), Known(), list[str]()  # noqa: S311 - moments
    options = ("--database", url) if url else ()
    count = 2 if url else 1
    with ExitStack() as stack:
        servers = stack.enter_context(served_many(folder, *options, count=count))
        prepare(known, servers[0].api)
        for number in range(kills):
            stopping = Event()
            with ThreadPoolExecutor(1) as pool:
                load = Clients(known, [one.api for one in servers], rng)
                running = pool.submit(load.run, stopping)
                least, until = len(known.tokens) + _LEAST, time.monotonic() + _MOST_SECONDS
                while len(known.tokens) < least and time.monotonic() < until:
                    time.sleep(0.01)
                time.sleep(rng.uniform(*_LOAD_SECONDS))
                victim = rng.randrange(count)
                servers[victim].kill()
                if count > 1:
                    time.sleep(rng.uniform(*_LOAD_SECONDS) / 2)  # the other carries on
                stopping.set()
                running.result()
            if count > 1:
                wrong += check(known, servers[1 - victim].api)
            [again] = stack.enter_context(served_many(folder, *options, count=1))
            servers[victim] = again
            wrong += check(known, again.api)
            wrong += known.refused
            known.refused.clear()
            print(f"kill {number + 1}: {len(known.tokens):,} corrections, {len(wrong)} wrong")
    return known, wrong


def main() -> int:
    """Prints a line for each kill, and what was wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = ""
        if args.database == "postgresql":
            programs = postgres_programs()
            if programs is None:
                print("PostgreSQL is not installed (Debian: postgresql)")
                return 3
            url = stack.enter_context(running_postgres(programs))()
        known, wrong = kill_often(folder / "station", url, kills=args.kills, seed=args.seed)
    print(f"{args.database}: {args.kills} kills, {len(known.tokens):,} acknowledged corrections")
    for one in wrong:
        print(one)
    print(f"findings {len(wrong)}")
    return int(bool(wrong))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
