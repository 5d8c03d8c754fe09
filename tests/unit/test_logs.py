"""Lines of many processes in one stream."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickmill import logs
from stack.embedded.output import of_nats, of_postgres
from stack.supervise.logs import (
    KEPT_LINES,
    LINE_CHARS,
    QUEUE_LINES,
    ChildLog,
    LineSplitter,
    Log,
    Output,
)

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z|^T$"


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
    log.line("nats", "hello", "warning")
    log.line("ingest-1", "2026-11-26T01:02:03.456Z INFO     clickmill.ingest: serves")
    log.line("ingest-1", "Traceback")
    log.say("two\nlines")
    log.plain("bare\nlines")
    log.close()
    assert re.sub(TIME, "TIME", out.getvalue()).splitlines() == [
        "nats       | TIME WARNING  hello",
        "ingest-1   | TIME INFO     clickmill.ingest: serves",
        "ingest-1   | TIME ERROR    Traceback",
        "clickmill  | TIME INFO     two",
        "clickmill  | TIME INFO     lines",
        "bare",
        "lines",
    ]
    assert "2026-11-26T01:02:03.456Z" in out.getvalue()


def test_each_line_is_a_json_object_with_the_same_fields() -> None:
    out = io.StringIO()
    log = Log(out, "json")
    log.line("nats", "[ERR] no", "error")
    log.line(
        "ingest-1", '{"time":"T","level":"info","message":"serves","logger":"clickmill.ingest"}'
    )
    log.line("ingest-1", '{"time":"T","level":"info"')
    log.warn("restarting")
    log.plain("\nReady.\n  clicks  http://localhost")
    log.close()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert {re.sub(TIME, "T", line.pop("time")) for line in lines} == {"T"}
    assert lines == [
        {"level": "error", "message": "[ERR] no", "process": "nats"},
        {"level": "info", "message": "serves", "process": "ingest-1", "logger": "clickmill.ingest"},
        {"level": "error", "message": '{"time":"T","level":"info"', "process": "ingest-1"},
        {"level": "warning", "message": "restarting", "process": "clickmill"},
        {"level": "info", "message": "Ready. clicks http://localhost", "process": "clickmill"},
    ]


def logged(kind: str, *, long: str = "") -> str:
    """What a process writes that logs an error with its traceback."""
    code = (
        "import logging, sys, warnings; from clickmill import logs; "
        f"logs.configure('info', '{kind}'); log = logging.getLogger('clickmill.test')\n"
        "log.debug('hidden')\n"
        f"try: raise ValueError('why' + '{long}')\n"
        f"except ValueError: log.exception('two\\nlines' + '{long}')\n"
        "warnings.warn('careful')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stderr


def test_every_line_of_a_process_has_time_and_level() -> None:
    lines = logged("text").splitlines()
    records = [logs.parse(line, "text") for line in lines]
    assert None not in records
    levels = [record.level for record in records if record]
    warned = records[levels.index("warning")]
    assert warned is not None
    assert set(levels[: records.index(warned)]) == {"error"}
    assert set(levels[records.index(warned) :]) == {"warning"}  # from 3.13 with its source line
    assert [record and record.message for record in records[:3]] == [
        "two", "lines", "Traceback (most recent call last):",
    ]  # fmt: skip
    assert warned.logger == "py.warnings"


def test_a_traceback_is_a_field_of_its_record() -> None:
    first, second = (logs.parse(line, "json") for line in logged("json").splitlines())
    assert first is not None
    assert second is not None
    assert (first.level, first.logger, first.message) == ("error", "clickmill.test", "two\nlines")
    assert first.traceback.endswith("ValueError: why")
    assert (second.level, second.logger) == ("warning", "py.warnings")


@pytest.mark.parametrize("text", ["\u00fc" * 5000, "\x01" * 5000])
def test_a_long_record_is_one_line_that_a_supervisor_reads_whole(text: str) -> None:
    for line in (
        logs.as_json(logs.Record(logs.now(), "error", text, traceback=text)),
        logs.as_json(logs.Record(logs.now(), "error", "short", traceback=text)),
    ):
        [read] = LineSplitter().feed(line.encode() + b"\n")
        record = logs.parse(read, "json")
        assert record is not None
        assert record.message
        assert not record.traceback


@pytest.mark.parametrize(
    ("output", "line", "level"),
    [
        (of_nats(True), "[12] [ERR] store failed", "error"),
        (of_nats(True), "[12] [INF] ready", "info"),
        (of_postgres(True), "FATAL:  no", "error"),
        (of_postgres(True), "LOG:  checkpoint", "info"),
        (of_postgres(True), "initdb: what", "debug"),
    ],
)
def test_lines_of_the_embedded_servers_have_a_level(output: Output, line: str, level: str) -> None:
    assert output.level_of(line) == level


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
    routine = Output(lambda _: "info", lambda line: line.startswith("routine"))
    child = ChildLog(log, "nats", routine)
    child.feed(b"".join(b"routine %d\n" % n for n in range(KEPT_LINES + 5)) + b"important\nlast")
    child.feed(b"")
    child.show_kept()
    log.close()
    lines = [line.split("INFO     ")[1] for line in out.getvalue().splitlines()]
    assert lines == ["important", "last", *(f"routine {n}" for n in range(5, KEPT_LINES + 5))]


OF_OTHERS = {"_granian", "psycopg"}
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
