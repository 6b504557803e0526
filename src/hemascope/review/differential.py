"""The differential as a laboratory counts it, and how far two readers agree."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemascope.core.classes import Role
from hemascope.metrics import counts
from hemascope.review import schemas as told

TARGET = 200  # white cells, of each reader, after CLSI H20-A2
_LEAST = 100  # white cells, below which a differential is said to be small


@dataclass(frozen=True)
class Counted:
    """A cell of a count: what it is now ("" while unidentified), and what the model said of it."""

    id: str
    now: str
    predicted: str
    is_read: bool = False  # named or confirmed by the reader
    image: str | None = None  # what it shows: equal for equal images
    is_waiting: bool = False  # for the model
    is_unreadable: bool = False


def differential(classes: Sequence[told.ClassInfo], cells: Sequence[Counted]) -> told.Differential:
    """Percentages over white cells only; other kinds beside them, or outside the count."""
    by_role = {role: [one.name for one in classes if one.role is role] for role in Role}
    now, pre = Counter(one.now for one in cells), Counter(one.predicted for one in cells)
    white = [one for one in classes if one.role is Role.WHITE]
    total, pre_total = (sum(count[one.name] for one in white) for count in (now, pre))
    kept = [one for one in cells if one.now and one.predicted]
    guessed = [one.name for one in classes if one.guessed]
    few = f"Only {total}" if total else "No"
    warning = f"{few} white cells were counted: {TARGET} are the target."
    images = [one.image for one in cells if one.now and one.image]
    copies = len(images) - len(set(images))
    copied = f"{copies} image(s) are copies of others: such cells are counted twice."
    unknown = f"Counted as white cells, because their role is not known: {', '.join(guessed)}."
    notes = {copied: copies, unknown: guessed}
    return told.Differential(
        counted=total,
        target=TARGET,
        warning=warning if total < _LEAST else "",
        rows=[
            told.WhiteRow(
                **share(now[one.name], total).model_dump(),
                class_name=one.name,
                pre=share(pre[one.name], pre_total),
                reference=one.reference,
            )
            for one in white
        ],
        per_100=[
            _per_100(name, (now[name], total), (pre[name], pre_total))
            for name in by_role[Role.PER_100_WHITE]
        ],
        not_counted=[
            told.CountRow(class_name=name, count=now[name]) for name in by_role[Role.NOT_COUNTED]
        ],
        unidentified=now[""],
        read=sum(one.is_read for one in cells),
        kept=kept_of(sum(one.now == one.predicted for one in kept), len(kept)),
        notes=[note for note, is_so in notes.items() if is_so],
    )


def share(count: int, total: int) -> told.Share:
    """A share in percent."""
    low, high = counts.clopper_pearson(count, total)
    return told.Share(count=count, percent=_times_100(count, total), low=100 * low, high=100 * high)


def kept_of(count: int, total: int) -> told.Kept:
    """The same of cells whose class was kept."""
    return told.Kept(total=total, **share(count, total).model_dump())


def agreement(
    classes: Sequence[told.ClassInfo],
    cells: Sequence[tuple[str, str, str]],
    *,
    num_changed: int = 0,
) -> told.Agreement:
    """Two readers compared.

    Args:
        classes: All that they could name.
        cells: Id, first and second reader's class of each cell that both identified.
        num_changed: Of how many the first reader changed the class, knowing the second's.
    """
    names = [one.name for one in classes]
    first, second = [one[1] for one in cells], [one[2] for one in cells]
    table = counts.agreement_table(first, second, names)
    found = counts.kappa(table)
    white = [i for i, one in enumerate(classes) if one.role is Role.WHITE]
    totals = int(table[white].sum()), int(table[:, white].sum())
    compared: list[told.Compared] = []
    for label in white:
        one, other = int(table[label].sum()), int(table[:, label].sum())
        shares = one / max(totals[0], 1), other / max(totals[1], 1)
        limit = counts.largest_difference(one, totals[0], other, totals[1])
        compared.append(
            told.Compared(
                class_name=names[label],
                first_percent=100 * shares[0],
                second_percent=100 * shares[1],
                difference=100 * (shares[1] - shares[0]),
                limit=100 * limit,
                within=abs(shares[1] - shares[0]) <= limit,
            )
        )
    differing = [told.Differing(cell=key, first=a, second=b) for key, a, b in cells if a != b]
    known = f" The first reader changed {num_changed} cell(s) after the second had finished."
    return told.Agreement(
        n=len(cells),
        kappa=found.value,
        low=found.low,
        high=found.high,
        agree_percent=100 * int(table.trace()) / max(len(cells), 1),
        per_class=by_class(names, table),
        differing=differing,
        comparison=compared,
        note="Both readers saw the same cells, so they should differ by less than two counts of "
        f"different cells may; CLSI H20-A2 asks for {TARGET} cells of each reader."
        + (known if num_changed else ""),
    )


def by_class(names: Sequence[str], table: NDArray[np.int64]) -> list[told.ClassAgreement]:
    """Kappa of each class that either reader named."""
    return [
        told.ClassAgreement(
            class_name=name,
            kappa=counts.kappa(counts.of_one(table, label)).value,
            first=int(table[label].sum()),
            second=int(table[:, label].sum()),
        )
        for label, name in enumerate(names)
        if table[label].sum() + table[:, label].sum()
    ]


def _times_100(count: int, total: int) -> float | None:
    return 100 * count / total if total else None


def _per_100(name: str, now: tuple[int, int], pre: tuple[int, int]) -> told.Per100Row:
    """Cells per 100 white ones, from both counts; its interval is that of odds of two counts."""
    count, total = now
    low, high = counts.clopper_pearson(count, count + total)
    return told.Per100Row(
        class_name=name,
        count=count,
        per_100=_times_100(count, total),
        low=100 * low / (1 - low) if total else None,
        high=100 * high / (1 - high) if total else None,
        pre=told.PrePer100(count=pre[0], per_100=_times_100(*pre)),
    )
