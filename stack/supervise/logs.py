"""Merges the output of all processes into one stream of log lines (clickmill/logs.py).

Each line has the name of its process: as text at its beginning, in colour, and as JSON in a field.

A separate thread writes the lines from a bounded queue, because a blocked terminal (Ctrl-S, a full
pipe) must not block the supervisor or, through their pipes, the workers. When the queue is full,
lines are dropped and counted.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TextIO

from clickmill import logs

QUEUE_LINES: Final = 10_000
LINE_CHARS: Final = 4096
KEPT_LINES: Final = 20
CLOSE_SECONDS: Final = 1.0
NAME_WIDTH: Final = 10
US: Final = "clickmill"
UNFORMATTED: Final = "error"  # our processes write such lines only when Python or Granian breaks
_COLOURS: Final = (36, 33, 35, 32, 34, 96, 93, 95)
_STOP: Final = object()


class Log:
    """The output of the system, as text or JSON. `say` writes the supervisor's own lines."""

    def __init__(self, out: TextIO | None = None, kind: str = logs.TEXT) -> None:
        self._out, self._kind = out or sys.stdout, kind
        self._coloured = self._out.isatty() and "NO_COLOR" not in os.environ
        self._lines: queue.Queue[object] = queue.Queue(QUEUE_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def say(self, text: str, level: str = "info") -> None:
        """Writes lines of the supervisor itself."""
        for line in text.splitlines():
            self._put(self._line(logs.Record(logs.now(), level, line), US))

    def warn(self, text: str) -> None:
        """Writes lines about a fault that the supervisor repairs."""
        self.say(text, "warning")

    def line(self, name: str, text: str, level: str = UNFORMATTED) -> None:
        """Writes a line of the named process. Never blocks.

        `level` is that of a line which is not in Clickmill's own format.
        """
        record = logs.parse(text, self._kind) or logs.Record(logs.now(), level, text)
        self._put(self._line(record, name))

    def plain(self, text: str) -> None:
        """Writes text for a reader at the terminal, such as the addresses."""
        if self._kind == logs.JSON:
            self.say(" ".join(text.split()))
            return
        for line in text.splitlines():
            self._put(line)

    def close(self) -> None:
        """Writes the remaining lines, for a second at most."""
        try:
            self._lines.put(_STOP, timeout=CLOSE_SECONDS)
        except queue.Full:
            return
        self._thread.join(CLOSE_SECONDS)

    def _put(self, line: str) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def _line(self, record: logs.Record, name: str) -> str:
        if self._kind == logs.JSON:
            record.process = name
            return logs.as_json(record)
        label = f"{name:<{NAME_WIDTH}} | "
        if self._coloured:
            colour = 1 if name == US else _COLOURS[zlib.crc32(name.encode()) % len(_COLOURS)]
            label = f"\x1b[{colour}m{label}\x1b[0m"
        return label + logs.as_text(record)

    def _write(self) -> None:
        while (item := self._lines.get()) is not _STOP:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                text = f"{dropped} lines were dropped: the output is blocked"
                item = f"{item}\n{self._line(logs.Record(logs.now(), 'warning', text), US)}"
            try:
                self._out.write(f"{item}\n")
                if self._lines.empty():
                    self._out.flush()
            except (OSError, ValueError):
                continue  # The reader is gone; the system continues without it.
        try:
            self._out.flush()
        except (OSError, ValueError):
            return


class LineSplitter:
    """Splits chunks of bytes into lines. A line is truncated at LINE_CHARS."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that these bytes complete."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_CHARS:
            whole, self._rest = [*whole, self._rest], b""
        return [_text(line) for line in whole]

    def end(self) -> list[str]:
        """The last line, if it has no line break."""
        rest, self._rest = self._rest, b""
        return [_text(rest)] if rest else []


def _text(line: bytes) -> str:
    text = line[:LINE_CHARS].decode("utf-8", "replace").rstrip("\r")
    # A child's output must not control the terminal.
    return "".join(char if char.isprintable() or char == "\t" else "?" for char in text)


@dataclass(frozen=True)
class Output:
    """How to read the output of a program that does not use Clickmill's format.

    Routine lines are only kept, in case it fails.
    """

    level_of: Callable[[str], str] = lambda _: UNFORMATTED
    is_routine: Callable[[str], bool] = lambda _: False


class ChildLog:
    """The output of one child."""

    def __init__(self, log: Log, name: str, output: Output | None = None) -> None:
        self._log = log
        self._name = name
        self._output = output or Output()
        self._splitter = LineSplitter()
        self._kept: deque[str] = deque(maxlen=KEPT_LINES)

    def feed(self, data: bytes) -> None:
        """Handles the child's output; empty data means that the output has ended."""
        for line in self._splitter.feed(data) if data else self._splitter.end():
            if self._output.is_routine(line):
                self._kept.append(line)
            else:
                self._show(line)

    def show_kept(self) -> None:
        """Writes the last routine lines: the child has failed, and they may say why."""
        while self._kept:
            self._show(self._kept.popleft())

    def _show(self, line: str) -> None:
        self._log.line(self._name, line, self._output.level_of(line))
