"""Where the results of a command go."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Output:
    """A folder for results.

    Attributes:
        folder: The folder.
        overwrite: Whether an older folder of ours there may be deleted.
        resume: Whether an interrupted run there is to be resumed.
    """

    folder: Path
    overwrite: bool = False
    resume: bool = False
