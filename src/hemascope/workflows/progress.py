"""What a person sees while a command works: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

_SECONDS_BETWEEN_LINES = 10
Advance = Callable[[], None]


def as_options(text: str) -> str:
    """The same with the inputs that it names in backquotes spelled as options: `--image-size`."""
    return re.sub(r"`([a-z][a-z0-9_]*)`", lambda m: "--" + m[1].replace("_", "-"), text)


class Reporter:
    """Says what happens on standard error, so that standard output holds results alone."""

    def __init__(self, *, quiet: bool = False) -> None:
        from rich.console import Console  # late: most commands' help waits for this module

        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)

    def __reduce__(self) -> tuple[Callable[[], Reporter], tuple[()]]:
        """Pickles as how it was made: another process has a terminal of its own."""
        return partial(Reporter, quiet=self._quiet), ()

    def say(self, text: str) -> None:
        """One plain line."""
        self._console.print(as_options(text), markup=False)

    @contextmanager
    def steps(self, description: str, total: int) -> Generator[Advance]:
        """A bar of `total` steps; call what is yielded once a step."""
        with self._bar() as bar:
            task = bar.add_task(description, total=total)
            yield lambda: bar.advance(task)

    @contextmanager
    def counted(self, description: str, total: int | None) -> Generator[Callable[[int], None]]:
        """A bar of things done, whose number may not be known; elsewhere a line now and then.

        Call what is yielded with how many more are done.
        """
        with self._bar() as bar:
            task = bar.add_task(description, total=total)
            start = said = time.monotonic()
            done = 0

            def on_done(more: int) -> None:
                nonlocal said, done
                bar.advance(task, more)
                done += more
                now = time.monotonic()
                if now - said >= _SECONDS_BETWEEN_LINES and not self._console.is_terminal:
                    said = now
                    of = f" of {total:,}" if total else ""
                    self.say(f"{description}: {done:,}{of}, {now - start:.0f} s")

            yield on_done

    @contextmanager
    def download(self, description: str) -> Generator[Callable[[int, int], None]]:
        """A bar of bytes that appears with the first of them; elsewhere a line each quarter."""
        with self._bar(of_bytes=True) as bar:
            task = bar.add_task(description, visible=False)
            said = 0

            def on_bytes(done: int, total: int) -> None:
                nonlocal said
                bar.update(task, completed=done, total=total or None, visible=True)
                quarter = 4 * done // total if total else 0
                if quarter > said and not self._console.is_terminal:
                    said = quarter
                    self.say(f"{description}: {25 * quarter} % of {total / 1e6:.1f} MB")

            yield on_bytes

    def _bar(self, *, of_bytes: bool = False) -> Progress:
        from rich import progress

        return progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn() if of_bytes else progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
