"""Lines of many processes in one stream."""

from __future__ import annotations

import io
import re
import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from stack.supervise.logs import KEPT_LINES, LINE_CHARS, QUEUE_LINES, ChildLog, LineSplitter, Log


class HeldUp(io.StringIO):
    """A terminal that takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        self.go.wait(10)
        return super().write(text)


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_each_line_starts_with_its_name() -> None:
    out = io.StringIO()
    log = Log(out)
    log.line("nats", "hello")
    log.say("two\nlines")
    log.plain("bare")
    log.close()
    assert out.getvalue().splitlines() == [
        "nats       | hello",
        "clickmill  | two",
        "clickmill  | lines",
        "bare",
    ]


def test_a_blocked_terminal_blocks_nothing_else() -> None:
    out = HeldUp()
    log = Log(out)
    for number in range(QUEUE_LINES + 50):
        log.line("nats", str(number))
    out.go.set()
    log.close()
    assert "lines were dropped" in out.getvalue()


def test_a_closed_pipe_is_no_error() -> None:
    log = Log(Gone())
    log.say("into the void")
    log.close()


@given(st.lists(st.binary(max_size=30)))
def test_lines_do_not_depend_on_the_chunks(pieces: list[bytes]) -> None:
    whole, parts = LineSplitter(), LineSplitter()
    data = b"".join(pieces)
    lines = [line for piece in pieces for line in parts.feed(piece)] + parts.end()
    assert lines == whole.feed(data) + whole.end()


def test_a_line_without_end_is_cut() -> None:
    splitter = LineSplitter()
    (line,) = splitter.feed(b"x" * (LINE_CHARS + 5))
    assert len(line) == LINE_CHARS


def test_a_child_cannot_steer_the_terminal() -> None:
    assert LineSplitter().feed(b"\x1b[2Jgone\x07\n") == ["?[2Jgone?"]


def test_unimportant_lines_are_shown_after_a_failure() -> None:
    out = io.StringIO()
    log = Log(out)
    child = ChildLog(log, "nats", lambda line: line.startswith("routine"))
    child.feed(b"".join(b"routine %d\n" % n for n in range(KEPT_LINES + 5)) + b"important\nlast")
    child.feed(b"")
    child.show_kept()
    log.close()
    lines = [line.split("| ")[1] for line in out.getvalue().splitlines()]
    assert lines == ["important", "last", *(f"routine {n}" for n in range(5, KEPT_LINES + 5))]


OF_OTHERS = {"_granian"}
"""Loggers of libraries, which we only make quieter."""


def test_every_logger_is_under_clickmill() -> None:
    """One name, `clickmill`, sets the level and the handler of all of them."""
    root = Path(__file__).parents[2]
    sources = [
        p
        for part in ("clickmill", "ingest", "aggregator", "stack")
        for p in (root / part).rglob("*.py")
    ]
    names = {n for p in sources for n in re.findall(r'getLogger\("([^"]+)"\)', p.read_text())}
    assert len(names) > 10
    assert {name.partition(".")[0] for name in names - OF_OTHERS} == {"clickmill"}
