"""`hemascope predict --engine ray`: images answered by many processes, on one machine or more.

Ray Data hands out parts of the images and bounds how many are on their way. A worker reads a part
itself, answers it with the stream that `predict` runs, and writes it as one Parquet file, whole or
not at all: a part whose file is there is never answered again, whoever asks for it.
"""

import json
import logging
import os
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, cast

from pydantic import TypeAdapter

from hemascope.core.errors import HemascopeError, OutputError, UnreachableError, UsageError
from hemascope.core.fit import LaboratoryFit
from hemascope.data.inputs import STDIN, Part, items, parts
from hemascope.data.remote import file_written_whole, filesystem, is_url
from hemascope.data.walk import PassedOver
from hemascope.inference.efficiency import cores
from hemascope.inference.predictor import Predictor
from hemascope.inference.stream import answer_stream
from hemascope.report.answers import Outcome
from hemascope.store.answers import WRITERS, Row, columns_of, read_parquet, row_of
from hemascope.store.files import claimed
from hemascope.workflows import predict as plain
from hemascope.workflows.progress import Reporter

# Readers of a folder of Parquet files pass over names that begin so.
_PLAN, _FRAME, _TRIED = "_plan.jsonl", "_frame.json", "_tried-"
_OURS = (_PLAN, _FRAME, _TRIED, "part-", ".part-", ".lock")
_PARTS = TypeAdapter(Part)
_TRIES = 4  # at a part whose workers are killed
_KEPT = "Finished parts are kept: add `resume`."
_AHEAD = 2  # parts that wait at a worker, the one in work among them
_STORE_BYTES = 200_000_000  # of Ray's shared memory: no picture goes through it


def predict(asked: plain.Asked, out: str, workers: int, reporter: Reporter) -> Outcome:
    """Answers images in processes of their own and writes Parquet files into a folder.

    Args:
        asked: What `predict` is asked; its `out` is not looked at, and `threads` are each worker's.
        out: A folder, or the URL of one; with `resume`, finished parts in it are kept.
        workers: How many processes; 0 for one a core.
        reporter: Told what happens.

    Raises:
        UsageError: If the engine cannot do what is asked, or workers are killed over and over.
        DataError: If there is no whole model, or no picture.
        OutputError: If the answers cannot be written.
    """
    _check(asked)
    folder = _Folder(out)
    with folder.claimed():
        is_new = folder.open(asked)
        passed = PassedOver()
        found = items(asked.paths, PassedOver())  # refused if there is none
        predictor, found = plain.open_model(asked, chain([next(found)], found), reporter)
        made_with = plain.made_with(predictor, asked)
        header: dict[str, object] = {"made_with": made_with, "paths": list(asked.paths)}
        if is_new:
            if fit := plain.decide_fit(predictor, found, asked.paths)[0]:
                folder.write(_FRAME, fit.model_dump_json(indent=2) + "\n")
            folder.write_plan(header, asked.paths, passed)
        offsets, num_images = folder.read_plan(header)
        if fit := folder.fit():
            reporter.say(predictor.told(fit))
        workers = workers or cores()
        if num_done := folder.count_done():
            reporter.say(f"Resuming after {num_done:,} of {len(offsets):,} parts.")
        folder.sweep()
        outcome = Outcome(passed, coverage=predictor.coverage)
        arguments = (predictor, fit, folder, asked.threads or 1, workers)
        with reporter.counted("images", num_images) as advance:
            for part in _answered(offsets, arguments, min(workers, len(offsets))):
                outcome.merge(part)
                advance(part.num_rows)
        folder.sweep()
    outcome.shift = predictor.shift(outcome.distances, outcome.predicted)
    return outcome


def _check(asked: plain.Asked) -> None:
    if STDIN in asked.paths:
        raise UsageError("it cannot hand standard input to workers; name files.", field="engine")
    if asked.explain or asked.by_confidence:
        field = "explain" if asked.explain else "sort"
        raise UsageError("it does not go with `engine` ray; ask for it without.", field=field)


class _Folder:
    """Where the answers go: parts by number, the plan of parts, and the frame."""

    def __init__(self, out: str) -> None:
        self.out, self.at = out, Path.cwd()
        self._files: Any
        self._files, self._root = filesystem(out)

    def place(self, name: str) -> str:
        return f"{self._root}/{name}"

    def claimed(self) -> AbstractContextManager[None]:
        """Keeps others from writing into it, on this machine."""
        if self._files.isfile(self._root):
            raise OutputError(f"{self.out} is a file; give the name of a folder.", field="out")
        return nullcontext() if is_url(self.out) else claimed(Path(self.out))

    def open(self, asked: plain.Asked) -> bool:
        """Makes or takes the folder, and says whether it is a new one."""
        has_plan = bool(self._files.exists(self.place(_PLAN)))
        if has_plan and asked.resume:
            return False
        held = self._files.ls(self._root, detail=False) if self._files.isdir(self._root) else []
        if any(not name.rpartition("/")[2].startswith(_OURS) for name in held):
            raise OutputError(
                f"{self.out} exists and holds other things; choose another folder.", field="out"
            )
        if has_plan and not asked.overwrite:
            raise OutputError(
                f"{self.out} holds answers: add `resume` to continue, or `overwrite` to begin "
                "again.",
                field="out",
            )
        for name in sorted(held, key=lambda name: name.endswith(_PLAN)):  # by which it is ours
            if not name.endswith("/.lock"):
                self._files.rm_file(name)
        return True

    def whole(self, name: str) -> AbstractContextManager[IO[bytes]]:
        return file_written_whole(f"{self.out.rstrip('/')}/{name}")

    def write(self, name: str, text: str) -> None:
        with self.whole(name) as file:
            file.write(text.encode())

    def read(self, name: str) -> IO[bytes] | None:
        place = self.place(name)
        return self._files.open(place, "rb") if self._files.exists(place) else None

    def fit(self) -> LaboratoryFit | None:
        if not (file := self.read(_FRAME)):
            return None
        with file:
            return LaboratoryFit.model_validate_json(file.read())

    def write_plan(
        self, header: dict[str, object], paths: Sequence[str], passed: PassedOver
    ) -> None:
        """Writes which part is which, once and for all: a line each."""
        with self.whole(_PLAN) as file:
            file.write(json.dumps(header).encode() + b"\n")
            for part in parts(paths, passed):
                file.write(_PARTS.dump_json(part) + b"\n")

    def read_plan(self, header: dict[str, object]) -> tuple[list[int], int | None]:
        """Where the lines of the parts begin, and how many images there are, if that is known."""
        offsets, counts = list[int](), list[int | None]()
        with cast("IO[bytes]", self.read(_PLAN)) as file:
            if json.loads(file.readline()) != header:
                raise OutputError(
                    f"{self.out} was begun with another model, other settings or other images; "
                    "take those, or leave `resume` out and add `overwrite`.",
                    field="resume",
                )
            place = file.tell()
            for line in file:
                offsets.append(place)
                counts.append(_PARTS.validate_json(line).num_images)
                place += len(line)
        known = [count for count in counts if count is not None]
        return offsets, sum(known) if len(known) == len(counts) else None

    def part(self, offset: int) -> Part:
        with cast("IO[bytes]", self.read(_PLAN)) as file:
            file.seek(offset)
            return _PARTS.validate_json(file.readline())

    def count_done(self) -> int:
        return len(self._files.glob(self.place("part-*.parquet")))

    @contextmanager
    def tried(self, number: int, part: Part, workers: int) -> Generator[None]:
        """Keeps count of the workers that a part was the end of: Ray would try without end."""
        name = f"{_TRIED}{number:06d}"
        with self.read(name) or BytesIO() as file:
            tries = len(file.read())
        if tries == _TRIES:
            raise UsageError(
                f"it is {workers}; {tries} workers were killed at {part.name}, most likely out "
                f"of memory: lower it. {_KEPT}",
                field="workers",
            )
        self.write(name, "x" * (tries + 1))
        yield
        with suppress(FileNotFoundError):
            self._files.rm_file(self.place(name))

    def sweep(self) -> None:
        """Takes away what killed workers left."""
        for left in self._files.glob(self.place(f"{_TRIED}*")):
            self._files.rm_file(left)
        if not is_url(self.out):
            for left in Path(self.out).glob(".part-*"):
                left.unlink(missing_ok=True)


class _Worker:
    """A process with its own model, which answers one part after another."""

    def __init__(
        self,
        predictor: Predictor,
        fit: LaboratoryFit | None,
        folder: _Folder,
        threads: int,
        workers: int,
    ) -> None:
        os.chdir(folder.at)  # names may be relative
        warnings.filterwarnings("ignore", module="PIL")  # of damaged pictures, whose rows say it
        self._predictor, self._fit = predictor, fit
        self._folder, self._threads, self._workers = folder, threads, workers

    def __call__(self, batch: Any) -> dict[str, list[Outcome]]:
        [number], [offset] = batch["number"].tolist(), batch["offset"].tolist()
        name = f"part-{number:06d}.parquet"
        part = self._folder.part(offset)
        if not (outcome := self._written(name)):
            with self._folder.tried(number, part, self._workers):
                outcome = self._answer(name, part)
        outcome.rows = []
        return {"outcome": [outcome]}

    def _written(self, name: str) -> Outcome | None:
        """What a finished part came to; None where it is not there."""
        if not (file := self._folder.read(name)):
            return None
        outcome = Outcome(PassedOver())
        with file:
            rows = read_parquet(file)
            while some := list(islice(rows, 1000)):
                outcome.add(some)
        return outcome

    def _answer(self, name: str, part: Part) -> Outcome:
        outcome = Outcome(PassedOver())
        names = self._predictor.class_names
        pictures = enumerate(part.items(outcome.passed))
        stream = answer_stream(self._predictor, pictures, threads=self._threads, fit=self._fit)
        with closing(stream) as replies, self._folder.whole(name) as file:

            def rows() -> Iterator[Row]:
                for batch in replies:
                    answered = [row_of(one.path, one.answer, names) for one in batch]
                    outcome.add(answered)
                    yield from answered

            WRITERS["parquet"](rows(), file, columns_of(names))
        return outcome


def _answered(offsets: Sequence[int], args: tuple[Any, ...], workers: int) -> Iterator[Outcome]:
    """What each part came to, as they are finished."""
    import ray.data as rd
    from ray.exceptions import RayError

    context = rd.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    numbered = [{"number": i, "offset": offset} for i, offset in enumerate(offsets)]
    with ray_started(workers, object_store_memory=_STORE_BYTES):
        answers = rd.from_items(numbered, override_num_blocks=len(numbered)).map_batches(
            _Worker,
            fn_constructor_args=args,
            batch_size=1,
            compute=rd.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=_AHEAD),
            num_cpus=1,
        )
        try:
            for row in answers.iter_rows():
                yield row["outcome"]
        except RayError as error:
            raise _explained(error, workers) from error


@contextmanager
def ray_started(workers: int, **options: object) -> Generator[None]:
    """Has Ray on this machine, with these options, unless a cluster is named or there is one.

    Raises:
        UnreachableError: If it cannot be started or reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        yield
        return
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if "RAY_ADDRESS" not in os.environ:
        how |= {"num_cpus": workers, "include_dashboard": False, **options}
    try:
        ray.init(**how)
    except Exception as error:  # Ray raises bare ones, where a machine is too slow
        raise UnreachableError(f"Ray cannot be started or reached ({error}).") from error
    try:
        yield
    finally:
        ray.shutdown()


def _explained(error: Exception, workers: int) -> HemascopeError:
    """What ended the work, in a sentence."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, HemascopeError):
        return cause
    if isinstance(cause, MemoryError):
        return UsageError(
            f"it is {workers}; a worker ran out of memory: lower it. {_KEPT}", field="workers"
        )
    said = str(cause or error).strip().splitlines()[-1]
    return UsageError(f"Ray stopped ({said}). {_KEPT}", field="engine")
