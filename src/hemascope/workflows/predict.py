"""`hemascope predict`: classes of any number of pictures, with what to think of them."""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from PIL import Image

from hemascope.core.answers import Answer
from hemascope.core.errors import OutputError
from hemascope.data.inputs import Item, count_items, items
from hemascope.data.pictures import BadPictureError
from hemascope.inference.efficiency import cores
from hemascope.inference.predictor import Predictor
from hemascope.report.answers import Outcome
from hemascope.report.overlays import draw_overlay
from hemascope.settings.run import OnnxPrecision
from hemascope.store.answers import Journal, columns_of, format_of, row_of
from hemascope.store.files import explained
from hemascope.workflows.progress import Reporter

_BATCH = 64  # pictures that one thread reads, asks about and answers
_BATCH_BYTES = 16_000_000  # of those held already, such as members of an archive
_AHEAD = 2  # batches for each thread that wait their turn


def predict(
    paths: Sequence[str],
    *,
    model: str,
    out: Path | None,
    explain: Path | None,
    precision: OnnxPrecision | None,
    views: int,
    coverage: float | None,
    crop: float | None,
    threads: int,
    resume: bool,
    overwrite: bool,
    reporter: Reporter,
) -> Outcome:
    """Answers pictures one after another, whatever their number, and writes the answers if asked.

    Args:
        paths: What `hemascope.data.inputs.items` takes.
        model: A packaged model or an exported one.
        out: Gets the answers, in the format of its suffix, if given.
        explain: A new folder that gets a picture of what speaks for each answer, if given.
        precision: Which graph of the model.
        views: How many views of each picture.
        coverage: How often prediction sets are to hold the true class; by default the most fitted.
        crop: The share of each picture to keep, if not the model's own.
        threads: How many pictures are read and answered at once; 0 for as many as there are cores.
        resume: Whether to go on where an interrupted run into `out` was stopped.
        overwrite: Whether an older `out` may be replaced.
        reporter: Whom to tell.

    Raises:
        UsageError: If the model cannot do what is asked.
        DataError: If there is no whole model.
        OutputError: If the answers cannot be written.
    """
    how = format_of(out) if out else None
    predictor = Predictor(
        model, precision=precision, views=views, coverage=coverage, crop=crop, threads=1
    )
    if explain:
        _check_explain(explain, paths, predictor)
    worker = _Worker(predictor, explain)
    outcome = Outcome()
    journal = None
    if out:
        journal = Journal(_journal_path(out, predictor, views, resume=resume, overwrite=overwrite))
        outcome.num_failed = journal.num_failed
        if journal.num_done:
            reporter.say(f"Going on after {journal.num_done:,} pictures.")
    threads = threads or cores()
    waiting = deque[Future[tuple[list[dict[str, Any]], int]]]()
    numbered = _unanswered(items(paths, sys.stdin), journal)
    with (
        closing(journal) if journal else nullcontext(),
        reporter.counted("pictures", count_items(paths)) as advance,
        ThreadPoolExecutor(threads) as pool,
    ):
        advance(journal.num_done if journal else 0)

        def take() -> None:
            rows, num_guessed = waiting.popleft().result()
            if journal:
                journal.add(rows)
            outcome.add(rows, num_guessed)
            advance(len(rows))

        try:
            for batch in _batches(numbered):
                waiting.append(pool.submit(worker.answer, batch))
                if len(waiting) >= _AHEAD * threads:
                    take()
            while waiting:
                take()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            if journal and journal.leave():
                reporter.say(f"The answers so far are kept: add --resume to go on with {out}.")
            raise
    if journal and out and how:
        journal.finish(out, how, columns_of(predictor.class_names))
    return outcome


@dataclass(frozen=True)
class _Worker:
    """What one thread does with a batch."""

    predictor: Predictor
    explain: Path | None

    def answer(self, batch: Sequence[tuple[int, Item]]) -> tuple[list[dict[str, Any]], int]:
        """Rows for the pictures of a batch, and how many of them were cropped by guess."""
        sizes: dict[int, tuple[int, int]] = {}
        errors: dict[int, str] = {}

        def readable() -> Iterator[Image.Image]:
            for place, (_, item) in enumerate(batch):
                try:
                    picture = item.read()
                except (BadPictureError, OSError) as error:
                    errors[place] = getattr(error, "strerror", None) or str(error)
                    continue
                sizes[place] = picture.size
                yield picture

        images = self.predictor.shrink(readable())
        found = dict(zip(sizes, self.predictor.answer(images), strict=True))
        if self.explain and len(images):
            maps = self.predictor.maps(images)
            for i, (place, answer) in enumerate(found.items()):
                number, item = batch[place]
                label = self.predictor.class_names.index(answer.predicted_class)
                draw_overlay(self.explain, number, item.path, images[i], maps[i, label], answer)
        rows = [
            row_of(
                item.path,
                found.get(place) or Answer(error=errors[place]),
                self.predictor.class_names,
            )
            for place, (_, item) in enumerate(batch)
        ]
        guessed = sum(map(self._is_guess, sizes.values()))
        return rows, guessed

    def _is_guess(self, given: tuple[int, int]) -> bool:
        """Whether what is kept of a picture is a guess, since its size is unknown to the model."""
        size = self.predictor.info.preprocessing.image_size
        return given != (size, size) and not self.predictor.photographs.is_usual(min(given))


def _check_explain(folder: Path, paths: Sequence[str], predictor: Predictor) -> None:
    """Makes the folder for overlays, if the model can explain and nothing is lost.

    Raises:
        UsageError: If the model has no maps.
        OutputError: If the folder holds something, lies among the pictures, or cannot be made.
    """
    predictor.check_maps()
    inside = [path for path in paths if Path(path).is_dir() and _lies_in(folder, Path(path))]
    if inside:
        raise OutputError(f"--explain {folder} lies inside {inside[0]}; choose another place.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"--explain {folder} exists and is not empty; choose a new folder.")
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _lies_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _unanswered(pictures: Iterator[Item], journal: Journal | None) -> Iterator[tuple[int, Item]]:
    """The pictures that the journal has no row of, with their numbers among all."""
    for number, item in enumerate(pictures):
        if not (journal and journal.take(item.path)):
            yield number, item


def _batches(pictures: Iterator[tuple[int, Item]]) -> Iterator[list[tuple[int, Item]]]:
    batch: list[tuple[int, Item]] = []
    num_bytes = 0
    for number, item in pictures:
        batch.append((number, item))
        num_bytes += item.num_bytes
        if len(batch) == _BATCH or num_bytes >= _BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def _journal_path(
    out: Path, predictor: Predictor, views: int, *, resume: bool, overwrite: bool
) -> Path:
    """Where the rows go until all are there; the name tells what they were made with.

    Raises:
        OutputError: If there are older ones that may be meant to stay.
    """
    made_with = f"{predictor.graph.sha256} {views} {predictor.coverage} {predictor.photographs}"
    key = blake2b(made_with.encode(), digest_size=4).hexdigest()
    journal = out.with_name(f".{out.name}.{key}.part")
    if not out.parent.is_dir() or out.is_dir():
        place = f"{out} is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise OutputError(f"--out {out} cannot be written: {place}; choose another name.")
    if out.exists() and not overwrite:
        raise OutputError(f"--out {out} exists; choose another name, or add --overwrite.")
    others = [path for path in out.parent.glob(f".{out.name}.*.part") if path != journal]
    if others and resume:
        raise OutputError(
            f"{others[0]} was made with another model or other settings; take those, or leave "
            "--resume out and add --overwrite."
        )
    if not resume and (others or journal.exists()):
        if not overwrite:
            raise OutputError(
                f"an interrupted run left answers for {out}: add --resume to go on, or --overwrite "
                "to begin again."
            )
        for path in (*others, journal):
            with explained(path):
                path.unlink(missing_ok=True)
    return journal
