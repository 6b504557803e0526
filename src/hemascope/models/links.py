"""Which layers feed which: what structured pruning has to cut together."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """Layers that share channels, by name: whoever loses one, all do.

    Attributes:
        producer: The layer whose outputs they are.
        norm: The normalization between, if any.
        consumer: The layer whose inputs they are.
    """

    producer: str
    norm: str | None
    consumer: str
