"""`hemascope predict`: classes of any number of photographs, with what to think of them."""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np

from hemascope.core.errors import OutputError
from hemascope.core.fit import LaboratoryFit
from hemascope.core.framing import NUM_DECIDING, spread
from hemascope.core.packaged import FOR_PHOTOGRAPHS, FOR_TILES, TILE_SIZE
from hemascope.data.inputs import Item, count_again, count_items, items
from hemascope.data.pictures import BadPictureError
from hemascope.data.walk import PassedOver
from hemascope.inference.efficiency import cores
from hemascope.inference.predictor import NUM_MOVING, Predictor
from hemascope.inference.stream import Reply, answer_stream
from hemascope.report.answers import Outcome
from hemascope.report.overlays import draw_overlay
from hemascope.settings.compute import NumViews, OnnxPrecision
from hemascope.store.answers import (
    WRITERS,
    Journal,
    Row,
    columns_of,
    confidence_of,
    format_of,
    row_of,
)
from hemascope.store.files import explained
from hemascope.store.frames import read_fit, write_fit
from hemascope.workflows.progress import Reporter

_STDOUT = Path("-")
_NUM_TILES = 20  # pictures that say whether all are tiles, where the first is one
_MOST_BYTES = 64_000_000  # of pictures in archives, held to decide how all are framed


@dataclass(frozen=True)
class Asked:
    """What is asked of a model, and where the answers go.

    Attributes:
        paths: What `hemascope.data.inputs.items` takes.
        model: A packaged model or an exported one; "" for the packaged one that fits the first
            picture: one for tiles of 28 pixels, or the one for photographs.
        out: Gets the answers, in the format of its suffix, if given; `-` prints them as CSV.
        explain: A new folder that gets a figure of what speaks for each answer, if given.
        precision: Which graph of the model.
        views: How many views of each photograph; by default one, or eight where the last layer is
            moved.
        coverage: How often prediction sets are to contain the true class; by default the highest.
        crop: The share of each photograph to use, if not the model's own.
        frame: How the cells are framed, if not as the model says; see `asked_fit`.
        as_trained: Whether the last layer stays as it is; overlays explain none but that.
        threads: How many batches are read and answered at once; 0 for as many as there are cores.
        resume: Whether to resume an interrupted run into `out`.
        overwrite: Whether an older `out` may be replaced.
        output_format: Of what is written to standard output.
        by_confidence: Whether the least confident answers come first.
    """

    paths: Sequence[str]
    model: str = ""
    out: Path | None = None
    explain: Path | None = None
    precision: OnnxPrecision | None = None
    views: NumViews | None = None
    coverage: float | None = None
    crop: float | None = None
    frame: str = ""
    as_trained: bool = False
    threads: int = 0
    resume: bool = False
    overwrite: bool = False
    output_format: Literal["csv", "jsonl"] = "csv"
    by_confidence: bool = False


def predict(asked: Asked, reporter: Reporter) -> Outcome:
    """Answers photos one after another, whatever their number, and writes the answers if asked.

    Raises:
        UsageError: If the model cannot do what is asked.
        DataError: If there is no whole model, or no photograph.
        OutputError: If the answers cannot be written.
    """
    to_file = asked.out if asked.out != _STDOUT else None
    how = format_of(to_file) if to_file else None
    passed = PassedOver()
    stdin = sys.stdin.buffer if sys.stdin else None  # a program may have none
    found = items(asked.paths, passed, stdin)
    predictor, found = open_model(asked, found, reporter)
    if asked.explain:
        _check_explain(asked.explain, asked.paths, predictor)
    outcome = Outcome(passed, asked.by_confidence, coverage=predictor.coverage)
    journal = None
    columns = columns_of(predictor.class_names)
    if to_file:
        path = _journal_path(to_file, predictor, asked)
        journal = Journal(path, lambda row: outcome.add([row]))
        if journal.num_done:
            reporter.say(f"Resuming after {journal.num_done:,} images.")
    try:
        fit, found = _fit(predictor, found, asked, journal)
    except BaseException:
        if journal:
            journal.leave()
        raise
    if fit:
        kept = f" Kept in {_fit_file(to_file)}." if to_file else ""
        reporter.say(f"{predictor.told(fit)}{kept}")
    may_move = predictor.spec.is_undecided or asked.frame not in ("", "whole")
    if asked.explain and not asked.as_trained and may_move:
        reporter.say("Overlays explain the last layer as trained: it is not moved to these images.")
    pictures = _unanswered(found, journal)
    threads = asked.threads or cores()
    with (
        closing(journal) if journal else nullcontext(),
        reporter.counted("images", count_items(asked.paths)) as advance,
        closing(answer_stream(predictor, pictures, threads=threads, fit=fit)) as replies,
    ):
        advance(journal.num_done if journal else 0)

        def answered() -> Iterator[Row]:
            for batch in replies:
                rows = [row_of(one.path, one.answer, predictor.class_names) for one in batch]
                if asked.explain:
                    _explain(asked.explain, predictor, batch)
                if journal:
                    journal.add(rows)
                outcome.add(rows)
                advance(len(rows))
                yield from rows

        try:
            if asked.out == _STDOUT:
                found_rows = answered()
                if asked.by_confidence:
                    found_rows = iter(sorted(found_rows, key=confidence_of))
                WRITERS[asked.output_format](found_rows, sys.stdout.buffer, columns)
            else:
                deque(answered(), maxlen=0)  # taken one by one, none kept
        except BaseException:
            if journal and journal.leave():
                reporter.say(f"The answers so far are kept: add `resume` to resume {to_file}.")
            elif to_file:
                _fit_file(to_file).unlink(missing_ok=True)
            raise
    if journal and to_file and how:
        if journal.num_left:
            reporter.say(
                f"Note: {journal.num_left:,} of the answers, from before the interruption, are "
                "of images that are no longer there."
            )
        journal.finish(to_file, how, columns, by_confidence=asked.by_confidence)
    outcome.shift = predictor.shift(outcome.distances, outcome.predicted)
    return outcome


def open_model(
    asked: Asked, found: Iterator[Item], reporter: Reporter
) -> tuple[Predictor, Iterator[Item]]:
    """The model that is asked, and all images again; says what was chosen and what counts twice.

    Raises:
        UsageError: If it cannot do what is asked.
        DataError: If there is no whole model.
    """
    model, found = (asked.model, found) if asked.model else _fitting_model(found)
    predictor = Predictor(
        model,
        precision=asked.precision,
        views=asked.views,
        coverage=asked.coverage,
        crop=asked.crop,
        frame=asked.frame,
        as_trained=asked.as_trained or asked.explain is not None,
        threads=1,
    )
    if not asked.model:
        reporter.say(f"Model: {predictor.info.settings.name}.")
    if again := count_again(asked.paths):
        reporter.say(
            f"Note: {again:,} of the paths are named twice, or lie in a folder that is named as "
            "well; their images count twice."
        )
    return predictor, found


def _fitting_model(found: Iterator[Item]) -> tuple[str, Iterator[Item]]:
    """The packaged model for photographs like most of the first ones, and all of them again."""
    first = [next(found)]
    are_tiles = [_is_tile(first[0])]
    if are_tiles[0]:
        more = list(islice(found, _NUM_TILES - 1))
        are_tiles += map(_is_tile, more)
        first += more
    tiles = 2 * sum(are_tiles) > len(first)
    return FOR_TILES if tiles else FOR_PHOTOGRAPHS, chain(first, found)


def _is_tile(item: Item) -> bool:
    with suppress(BadPictureError, OSError):  # whose answer will say why
        return item.read().image.size == (TILE_SIZE, TILE_SIZE)
    return False


def _fit(
    predictor: Predictor, found: Iterator[Item], asked: Asked, journal: Journal | None
) -> tuple[LaboratoryFit | None, Iterator[Item]]:
    """What was decided for the photographs, kept beside the answers, and all of them again.

    A file that is there already belongs to these photographs only where some are answered.
    """
    kept = _fit_file(asked.out) if journal and asked.out else None
    if journal and kept and predictor.spec.is_undecided and journal.num_done and kept.is_file():
        return read_fit(kept), found
    fit, found = decide_fit(predictor, found, asked.paths)
    if kept and fit:
        write_fit(kept, fit)
    elif kept and kept.resolve() != Path(asked.frame).resolve():
        with explained(kept):
            kept.unlink(missing_ok=True)
    return fit, found


def decide_fit(
    predictor: Predictor, found: Iterator[Item], paths: Sequence[str]
) -> tuple[LaboratoryFit | None, Iterator[Item]]:
    """How the photographs of some paths are framed and answered, and all of them again.

    Those of folders are looked at all over, each once; of an archive or a list, the first.
    """
    if not predictor.spec.is_undecided:
        return None, found
    count = count_items(paths)
    if count is None:
        first, num_bytes = list[Item](), 0
        for item in islice(found, NUM_DECIDING):
            first.append(item)
            num_bytes += item.num_bytes
            if num_bytes > _MOST_BYTES:
                break
        looked_at, found = first, chain(first, found)
    else:
        wanted = set(spread(range(count), NUM_MOVING))
        every = enumerate(items(paths, PassedOver()))
        looked_at = [item for number, item in every if number in wanted]
    once = {str(Path(item.path)): item for item in looked_at}  # paths may be named twice
    return predictor.decide([item.read for item in once.values()]), found


def _fit_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.frame.json")


def _explain(folder: Path, predictor: Predictor, batch: Sequence[Reply]) -> None:
    """Draws what speaks for each answer of a batch that has one."""
    answered = [(reply, reply.image) for reply in batch if reply.image is not None]
    if not answered:
        return
    maps = predictor.maps(np.stack([image for _, image in answered]))
    for (reply, image), of_classes in zip(answered, maps, strict=True):
        label = predictor.class_names.index(reply.answer.predicted_class)
        draw_overlay(folder, reply.number, reply.path, image, of_classes[label], reply.answer)


def _check_explain(folder: Path, paths: Sequence[str], predictor: Predictor) -> None:
    """Makes the folder for overlays, if the model can explain and nothing is lost.

    Raises:
        UsageError: If the model has no maps.
        OutputError: If the folder holds something, lies among the photographs, or cannot be made.
    """
    predictor.check_maps()
    inside = [path for path in paths if Path(path).is_dir() and _lies_in(folder, Path(path))]
    if inside:
        raise OutputError(
            f"{folder} lies inside {inside[0]}; choose another place.", field="explain"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(
            f"{folder} exists and is not empty; choose a new folder.", field="explain"
        )
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _lies_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _unanswered(pictures: Iterator[Item], journal: Journal | None) -> Iterator[tuple[int, Item]]:
    """The photographs that the journal has no row of, with their numbers among all.

    Raises:
        OutputError: If one has changed since it has a row.
    """
    for number, item in enumerate(pictures):
        if not (journal and journal.take(item.path)):
            yield number, item
        elif journal.is_older_than(Path(item.path.partition("!/")[0])):
            raise OutputError(
                f"{item.path} was changed after the interrupted run had answered it; leave "
                "`resume` out and add `overwrite`."
            )


def made_with(predictor: Predictor, asked: Asked) -> str:
    """A digest of what answers depend on beside the images, and of where these are."""
    places = [str(Path(path).resolve()) if Path(path).exists() else path for path in asked.paths]
    parts = f"{predictor.digest} {asked.views} {predictor.coverage} {predictor.spec}"
    parts += f" as trained {predictor.as_trained} {predictor.layer} {places}"
    return blake2b(parts.encode(), digest_size=4).hexdigest()


def _journal_path(out: Path, predictor: Predictor, asked: Asked) -> Path:
    """Where the rows go until all are there; the name tells what they were made with.

    Raises:
        OutputError: If there are older ones that may be meant to stay.
    """
    key = made_with(predictor, asked)
    journal = out.with_name(f".{out.name}.{key}.part")
    if not out.parent.is_dir() or out.is_dir():
        place = f"{out} is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise OutputError(f"{out} cannot be written: {place}; choose another name.", field="out")
    if out.exists() and not asked.overwrite and not (asked.resume and journal.exists()):
        raise OutputError(f"{out} exists; choose another name, or add `overwrite`.", field="out")
    others = [path for path in out.parent.glob(f".{out.name}.*.part") if path != journal]
    if others and asked.resume:
        raise OutputError(
            f"{others[0]} was made with another model, settings or paths; take those, or leave "
            "`resume` out and add `overwrite`."
        )
    if not asked.resume and (others or journal.exists()):
        if not asked.overwrite:
            raise OutputError(
                f"an interrupted run left answers for {out}: add `resume` to continue, or "
                "`overwrite` to start over."
            )
        for path in (*others, journal):
            with explained(path):
                path.unlink(missing_ok=True)
    return journal
