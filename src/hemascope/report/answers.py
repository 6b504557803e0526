"""Answers for a person at a terminal: a table of the first ones, and what all come to."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from sys import intern

from rich.console import Console
from rich.table import Column, Table

from hemascope.core.errors import NO_GUARD, RESEARCH_USE_ONLY
from hemascope.data.walk import PassedOver
from hemascope.metrics.two_samples import Shift
from hemascope.store.answers import Row, confidence_of

_SHOWN = 40  # rows of the table
_NARROW = 70  # columns of a terminal, below which answers are lines
_MOST_DISTANCES = 1_000_000  # of many processes' answers, compared with val's


@dataclass
class Outcome:
    """What a run of `predict` came to.

    Attributes:
        passed: The files that were passed over.
        by_confidence: Whether the rows that are kept are the least confident ones.
        rows: The first rows.
        num_rows: How many there were, those of an interrupted run counted.
        num_failed: How many photographs could not be read.
        num_abstained: How many of the answered ones are flagged for review.
        coverage: How often prediction sets are to hold the true class; None without such sets.
        notes: How many have each note.
        warnings: How many have each warning.
        distances: Of the answered ones from the training images, where the model can tell.
        predicted: The classes of those.
        counts: How many were answered with each class.
        shift: How the distances compare with those of val, where the model can tell.
    """

    passed: PassedOver
    by_confidence: bool = False
    rows: list[Row] = field(default_factory=list)
    num_rows: int = 0
    num_failed: int = 0
    num_abstained: int = 0
    coverage: float | None = None
    notes: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    distances: "array[float]" = field(default_factory=partial(array, "f"))
    predicted: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    shift: Shift | None = None

    def add(self, rows: Sequence[Row]) -> None:
        """Takes note of some rows."""
        if self.by_confidence:
            self.rows = sorted([*self.rows, *rows], key=confidence_of)[:_SHOWN]
        else:
            self.rows += rows[: _SHOWN - len(self.rows)]
        self.num_rows += len(rows)
        for row in rows:
            self.notes.update(note for note in row.note.split("; ") if note)
            if row.error:
                self.num_failed += 1
            else:
                self.counts[row.predicted_class] += 1
                self.num_abstained += row.abstain
                self.warnings.update(filter(None, [row.warning]))
                if row.distance is not None:
                    self.distances.append(row.distance)
                    self.predicted.append(intern(row.predicted_class))

    def merge(self, other: "Outcome") -> None:
        """Takes note of what another process came to; of its distances as long as there is room."""
        self.passed.merge(other.passed)
        for name in ("num_rows", "num_failed", "num_abstained"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("notes", "warnings", "counts"):
            getattr(self, name).update(getattr(other, name))
        room = _MOST_DISTANCES - len(self.distances)
        self.distances.extend(other.distances[:room])
        self.predicted += map(intern, other.predicted[:room])

    def print_table(self) -> None:
        """Prints the first rows, as a table where it has room, and how many more there are."""
        console = Console(highlight=False, markup=False)
        picture = Column("image", overflow="fold")
        table = Table(picture, "class", "confidence", "prediction set", "abstain")
        for row in self.rows:
            path = _printable(row.path)
            if row.error or row.confidence is None:
                cells, style = [path, f"unreadable: {_printable(row.error)}"], "red"
            else:
                none = "(empty)" if self.coverage else "(not fitted)"
                held = ", ".join(row.prediction_set) or none
                abstain = row.warning or ("yes" if row.abstain else "")
                cells, style = [path, row.predicted_class, f"{100 * row.confidence:.1f} %"], ""
                cells += [held, abstain]
            if console.width < _NARROW:
                abstains = ["abstain: " + cells[4]] if cells[4:] and cells[4] else []
                console.print("\n  ".join([path, " ".join(cells[1:3]), *abstains]), style=style)
            table.add_row(*cells, style=style)
        if console.width >= _NARROW:
            console.print(table)
        if more := self.num_rows - len(self.rows):
            console.print(f"... and {more:,} more: an output file holds all of them")

    def summary(self) -> str:
        """What the answers come to, in lines."""
        answered = sum(self.counts.values())
        lines = [f"{name:24s}{number:>10,}" for name, number in sorted(self.counts.items())]
        flagged = f"{answered:,} classified, {self.num_abstained:,} flagged for review"
        if self.num_abstained:
            in_doubt = Counter({"in doubt": self.num_abstained - self.warnings.total()})
            why = [*sorted(self.warnings.items()), *(+in_doubt).items()]
            flagged += f" ({100 * self.num_abstained / answered:.1f} %): "
            flagged += ", ".join(f"{number:,} {reason}" for reason, number in why)
        lines.append(f"{flagged}.")
        if self.num_failed:
            lines.append(f"{self.num_failed:,} could not be read: the column 'error' says why.")
        if self.coverage:
            lines.append(
                f"Prediction sets: made to hold the true class of {100 * self.coverage:g} % of "
                "cells like those that the sets were fitted to."
            )
        elif answered:
            lines.append("No prediction sets: the model had too few val images to fit them.")
        if answered and not self.distances:
            lines.append(NO_GUARD)
        if self.shift and (unlike := shift_sentence(self.shift)):
            lines.append(
                f"{unlike}: fit the model to it with 'hemascope adapt', best with a few "
                "labeled cells."
            )
        lines += [f"{count:,} image(s): {note}." for note, count in sorted(self.notes.items())]
        lines += self.passed.notes()
        return "\n".join([*lines, RESEARCH_USE_ONLY])


def shift_sentence(shift: Shift) -> str:
    """What to say of a laboratory unlike those of training, without a full stop; "" of others."""
    if not shift.is_unlike:
        return ""
    return (
        "This laboratory is unlike those that the model was trained on (Mann-Whitney test of the "
        f"distances from training, p = {shift.p_value:.1g})"
    )


def _printable(text: str) -> str:
    """Text without what would move a terminal's cursor or change its colors."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
