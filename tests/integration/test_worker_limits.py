"""One real worker at its limits: open files, the spool's bound, a disk that refuses to write."""

from __future__ import annotations

import contextlib
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from tests.support.fix_worker import Worker, Workers, counts
from tests.support.raw import Connection, ask, connected, request
from tests.support.wait import eventually

JSON: Final = [("Content-Type", "application/json")]
BATCH: Final = 10_000
FILES: Final = 256
HALF_OPEN: Final = 300
SMALL_FILE: Final = 64 << 10
WITHIN_S: Final = 20.0


def metric(worker: Worker, name: str) -> float:
    text = ask(worker.port, "GET", "/metrics").body.decode()
    for family in text_string_to_metric_families(text):
        if family.name == name:
            return family.samples[0].value
    raise AssertionError(f"no metric {name}")


def click_on_many(worker: Worker) -> None:
    """One click on each of 10,000 banners: a frame of 120 kB."""
    body = json.dumps([{"bannerID": banner} for banner in range(BATCH)]).encode()
    assert ask(worker.port, "POST", "/clicks", body, JSON).json["clicks"] == BATCH


def framed(worker: Worker, clicks: int) -> None:
    """Waits until so many clicks are in frames."""
    eventually(lambda: sum(worker.tap.clicks.values()) == clicks, WITHIN_S, "all are in frames")


def test_more_connections_than_files_end_nobody(workers: Workers) -> None:
    """Each half-open request is an open file; the flushes need some, and go on all the while."""
    worker = workers(files=FILES)
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(connected(worker.port))
        for _ in range(HALF_OPEN):
            stack.enter_context(connected(worker.port)).send(b"POST /counter/5 HTTP/1.1\r\nHo")
        for _ in range(5):
            flushed(worker, kept)
        open_files = len(list((worker.proc / "fd").iterdir()))
        assert open_files < FILES, "some are left for files"
    assert worker.alive, worker.text
    with counts(worker, {8: 1}):
        assert ask(worker.port, "POST", "/counter/8").status == 200
    assert "CLICKMILL_MAX_CONNECTIONS" in worker.text


def flushed(worker: Worker, connection: Connection) -> None:
    """Clicks on banner 7, each answered, until some of it is in a further frame."""
    before = worker.tap.clicks[7]

    def more_are_in_frames() -> bool:
        connection.send(request("POST", "/counter/7"))
        answer = connection.answer("POST")
        return answer is not None and answer.status == 200 and worker.tap.clicks[7] > before

    eventually(more_are_in_frames, WITHIN_S, "clicks are answered, and come in frames")


def test_at_the_spools_bound_committed_frames_make_room(workers: Workers) -> None:
    """Thirty frames of 120 kB, each committed at once, in a spool for nine of them."""
    worker = workers(SPOOL_MAX_BYTES="1173KiB")
    assert metric(worker, "clickmill_spool_keep_short_seconds") == 0
    for n in range(1, 31):
        click_on_many(worker)
        framed(worker, n * BATCH)
    assert ask(worker.port, "GET", "/readyz").status == 200
    eventually(lambda: metric(worker, "clickmill_spool_keep_short_seconds") > 800)
    assert metric(worker, "clickmill_spool_bytes") <= 1173 << 10
    assert metric(worker, "clickmill_spool_errors") == 0
    assert "instead of the 900 s" in worker.text


@contextmanager
def largest_file_of(worker: Worker, size: int) -> Iterator[None]:
    """A worker whose disk refuses to write: the kernel cuts its writes short (EFBIG)."""
    before = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, before)


def test_a_spool_that_cannot_be_written_makes_the_port_not_ready(workers: Workers) -> None:
    worker = workers()
    with largest_file_of(worker, SMALL_FILE):
        click_on_many(worker)
        eventually(lambda: ask(worker.port, "GET", "/readyz").status == 503, WITHIN_S)
        assert "can't be written" in ask(worker.port, "GET", "/readyz").body.decode()
        assert ask(worker.port, "POST", "/counter/7").status == 200, "clicks are counted"
    eventually(lambda: ask(worker.port, "GET", "/readyz").status == 200, WITHIN_S)
    assert sum(worker.clicks().values()) == BATCH + 1
