"""A progress bar in a terminal, and a line now and then where there is none."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

from rich.console import Console
from rich.progress import Progress

LINE_EVERY_SECONDS: Final = 5.0


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields the function to call with each step, in the unit of `total`."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console, label, total).advance
        return
    with Progress(console=console) as bar:
        task = bar.add_task(label, total=total)
        yield lambda step: bar.advance(task, step)


class _Lines:
    """Prints the percentage every few seconds."""

    def __init__(self, console: Console, label: str, total: int) -> None:
        self._console, self._label, self._total = console, label, total
        self._done = 0
        self._due = time.monotonic() + LINE_EVERY_SECONDS

    def advance(self, step: int) -> None:
        """One more step."""
        self._done += step
        if time.monotonic() >= self._due and self._total:
            self._due = time.monotonic() + LINE_EVERY_SECONDS
            self._console.print(f"{self._label}: {100 * self._done // self._total} %")
