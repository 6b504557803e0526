"""Answers to any number of photos, in order: what a command, a server or a batch engine calls."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemascope.core.answers import Answer
from hemascope.core.fit import LaboratoryFit
from hemascope.data.inputs import Item
from hemascope.inference.predictor import Predictor

_BATCH = 64  # pictures that one thread reads, asks about and answers
_BATCH_BYTES = 16_000_000  # of those held already, such as members of an archive
_AHEAD = 2  # batches for each thread that wait their turn


@dataclass(frozen=True, eq=False)
class Reply:
    """The answer to one photograph.

    Attributes:
        number: Its place among all photographs.
        path: What it is called.
        answer: What the model says, or why it could not be read.
        image: What the network saw, shape (H, H, 3); None where there is an error.
        features: As in `Answered`, shape (P + 1,); None where there is an error, or no guard.
    """

    number: int
    path: str
    answer: Answer
    image: NDArray[np.uint8] | None
    features: NDArray[np.float32] | None = None


def answer_stream(
    predictor: Predictor,
    pictures: Iterable[tuple[int, Item]],
    *,
    threads: int,
    fit: LaboratoryFit | None = None,
) -> Generator[list[Reply]]:
    """Answers numbered photographs a batch at a time, in order; a few batches are held, never more.

    Closing the iterator drops what was not yet answered.
    """
    waiting = deque[Future[list[Reply]]]()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for batch in _batches(pictures):
                waiting.append(pool.submit(answer_batch, predictor, batch, fit))
                if len(waiting) >= _AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def answer_batch(
    predictor: Predictor, batch: Sequence[tuple[int, Item]], fit: LaboratoryFit | None = None
) -> list[Reply]:
    """Answers to some numbered photographs."""
    found = predictor.answer_all([item.read for _, item in batch], fit)
    images = dict(zip(found.places, found.images, strict=True))
    features = (
        {} if found.features is None else dict(zip(found.places, found.features, strict=True))
    )
    return [
        Reply(number, item.path, answer, images.get(place), features.get(place))
        for place, ((number, item), answer) in enumerate(zip(batch, found.answers, strict=True))
    ]


def _batches(pictures: Iterable[tuple[int, Item]]) -> Iterator[list[tuple[int, Item]]]:
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
