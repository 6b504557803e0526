"""Requests of every kind to the review station: what its OpenAPI allows, and what it forbids.

    python benchmarks/review_fuzz.py [--requests 20000] [--seed 0] [--url sqlite:///...]

Schemathesis makes them from the station's own description (examples, coverage, fuzzing and
sequences), against a station in this process with a signed case, an open one and a quiz, whose ids
it is told. A finding is an answer that the description does not have, any 5xx, a forbidden request
that is accepted, or an allowed one that is refused as malformed; what is as it is meant (`_MEANT`)
is not counted. Ends with 1 if there is one.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from sqlalchemy import select

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from hemascope.inference.predictor import Predictor
from hemascope.review.database import Quiz
from stations import PACKAGED, Desk, change, desk_at

_KNOWN = 0.7  # of ids, that are those of something there
_EXAMPLES = 40  # of each operation and phase in a round
# What the station's own rules decide, beyond the form of a request: 409 and the like.
_REFUSED = ["2xx", "304", "401", "403", "404", "409", "413", "422", "429"]

# As they are meant: the trail keeps that a case was deleted; bodies name readers and cells that are
# not there, of a case that is.
_MEANT = (
    "use_after_free: GET /api/v1/cases/{case_id}/trail",
    "ensure_resource_availability: POST /api/v1/cases/{case_id}/",
    "ensure_resource_availability: PUT /api/v1/cases/{case_id}/",
)


@dataclass
class Found:
    """What came of the requests."""

    statuses: Counter[int] = field(default_factory=Counter[int])
    operations: Counter[str] = field(default_factory=Counter[str])
    findings: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def num_requests(self) -> int:
        """How many were answered."""
        return self.statuses.total()


@contextmanager
def filled_station(folder: Path, predictor: Predictor, url: str = "") -> Generator[Desk]:
    """A station with something in it."""
    with desk_at(folder, predictor, url) as desk:
        desk.signed(6, seed=1, name="signed")
        case = desk.filled(6, seed=2, name="open")
        desk.correct(case, [change(desk.cells(case)[0], "basophil")])
        desk.act(case, "second", "Ben")
        desk.post("/quizzes", {"reader": desk.reader("Ben"), "size": 3}, 201)
        yield desk


def fuzz(desk: Desk, *, seed: int, examples: int, seconds: int | None = None) -> Found:
    """One round of requests."""
    config = SchemathesisConfig.from_dict(_settings(desk, seed, examples, seconds))
    app = desk.client.app
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, config=config)
    found = Found()
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            error = getattr(event, "value", None) or getattr(event, "exception", event)
            found.findings[f"error {error!r}"[:200]] = str(error)
        recorder = getattr(event, "recorder", None)
        if recorder is None or not isinstance(event, events.ScenarioFinished):
            continue
        for case_id, interaction in recorder.interactions.items():
            if interaction.response is not None:
                found.statuses[interaction.response.status_code] += 1
                found.operations[recorder.cases[case_id].value.operation.label] += 1
        for case_id, checks in recorder.checks.items():
            for check in checks:
                if check.failure_info is not None:
                    failure = check.failure_info.failure
                    label = recorder.cases[case_id].value.operation.label
                    if f"{check.name}: {label}".startswith(_MEANT):
                        continue
                    said = f"{failure.message}\n{check.failure_info.code_sample}"
                    found.findings.setdefault(f"{check.name}: {label}: {failure.title}", said)
    return found


def _settings(desk: Desk, seed: int, examples: int, seconds: int | None) -> dict[str, Any]:
    cases = [one["id"] for one in desk.get("/cases")["items"]]
    with desk.station.database.read() as session:
        quizzes = list(session.scalars(select(Quiz.id)))
    known = {
        "cases": cases,
        "cells": [cell["id"] for case in cases for cell in desk.cells(case)],
        "readers": [one["id"] for one in desk.get("/readers")["items"]],
        "quizzes": quizzes,
        "classes": [one["name"] for one in desk.get("/classes")["items"]],
    }
    places = {
        "cases": ["path.case_id"],
        "cells": ["path.cell_id", "body.changes[*].cell"],
        "readers": ["path.reader_id", "query.reader", "body.reader"],
        "quizzes": ["path.quiz_id"],
        "classes": ["query.of", "body.changes[*].to", "body.classes[*]", "body.class"],
    }
    settings: dict[str, Any] = {
        "seed": seed,
        "continue-on-failure": True,
        "dictionaries": {name: {"values": values} for name, values in known.items()},
        "parameters": {
            place: {"dictionary": name, "probability": _KNOWN}
            for name, where in places.items()
            for place in where
        },
        "generation": {"max-examples": examples, "database": "none", "no-shrink": True},
        "checks": {
            "positive_data_acceptance": {"expected-statuses": _REFUSED},
            "unsupported_method": {"enabled": False},  # asked once by the tests
        },
    }
    return settings | ({"max-time": seconds} if seconds else {})


def main() -> int:
    """Prints counts and findings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=_EXAMPLES)
    parser.add_argument("--url", default="", help="of an empty database; by default SQLite")
    args = parser.parse_args()
    total, start, seed = Found(), time.perf_counter(), args.seed
    predictor = Predictor(PACKAGED, threads=1)
    while total.num_requests < args.requests:
        with (
            tempfile.TemporaryDirectory() as name,
            filled_station(Path(name) / "station", predictor, args.url) as desk,
        ):
            found = fuzz(desk, seed=seed, examples=args.examples)
        total.statuses += found.statuses
        total.operations += found.operations
        total.findings |= found.findings
        seed += 1
        print(f"seed {seed - 1}: {total.num_requests:,} requests", flush=True)
    seconds = time.perf_counter() - start
    print(f"requests {total.num_requests:,} in {seconds:.0f} s, {len(total.operations)} operations")
    print("statuses", json.dumps(dict(sorted(total.statuses.items()))))
    for label, said in total.findings.items():
        print(f"\n{label}\n{said}")
    print(f"findings {len(total.findings)}")
    return int(bool(total.findings))


if __name__ == "__main__":
    sys.exit(main())
