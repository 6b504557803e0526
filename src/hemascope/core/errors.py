"""What can go wrong, drawn in one place, and the words that every error and page shares.

Imports nothing, so that a usage error is said at once.
"""

from collections.abc import Iterable
from difflib import get_close_matches

RESEARCH_USE_ONLY = "Research use only. Not a medical device; no clinical claim is made."
NO_GUARD = (
    "This model cannot tell images unlike those of training: none is set apart, and its last layer "
    "is never moved."
)
_MOST_NAMES, _MOST_LETTERS = 20, 80  # that a sentence holds


class HemascopeError(Exception):
    """One clear sentence for the user; the tree below it decides the exit code.

    HemascopeError
    ├── UsageError        a command, option or setting is wrong            (exit 2)
    ├── DataError         an input file or folder is not what is needed    (exit 2)
    ├── OutputError       results cannot be written where they should go   (exit 2)
    ├── DivergedError     training that no longer yields numbers           (exit 2)
    └── UnreachableError  data that is elsewhere cannot be fetched         (exit 3)

    Attributes:
        field: Which input is wrong, by its name in Python, such as "image_size"; a front door
            spells it its own way (`--image-size`). "" where the sentence names it or a file. The
            sentence may name other inputs, as `image_size` in backquotes.
    """

    exit_code = 2

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class UsageError(HemascopeError):
    """A command, option or setting that cannot be carried out."""


class DataError(HemascopeError):
    """An input file or folder that is not what the command needs."""


class OutputError(HemascopeError):
    """A result that cannot be written where it should go."""


class DivergedError(HemascopeError):
    """Training whose loss is no longer a number."""


class UnreachableError(HemascopeError):
    """Data that lies elsewhere and could not be fetched."""

    exit_code = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Ends an error about an unknown word with the nearest known one, or with all of them.

    Of very many it names a few.
    """
    names = sorted(known)
    if not names:
        return "there are none here."
    if near := get_close_matches(word, names, n=1):
        return f"did you mean '{near[0]}'?"
    if len(names) > _MOST_NAMES:
        return f"there are {len(names)}, such as {', '.join(names[:: len(names) // 5][:5])}."
    return f"choose one of: {', '.join(names)}."


def shortened(value: object) -> str:
    """A value as it is written, cut where it is too long for a sentence."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number too long to be written, or too deeply nested
        return f"a very large {type(value).__name__}"
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}..."
