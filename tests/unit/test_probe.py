"""One request over HTTP to a port of our own: whatever is there, an answer and never an error."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stack import probe

CHUNKED = b"HTTP/1.1 503 x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


@contextmanager
def answering(data: bytes, *, then_hang: bool = False) -> Iterator[int]:
    """A port that answers one connection with these bytes."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(data)
                if then_hang:
                    done.wait(20)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize(
    ("data", "status", "text"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes", 200, "yes"),
        (CHUNKED, 503, "hello"),
        (b"SSH-2.0-x\r\n", 0, "the response is not HTTP"),
        (b"", 0, "Remote end closed connection without response"),
    ],
)
def test_an_answer_of_any_kind(data: bytes, status: int, text: str) -> None:
    with answering(data) as port:
        assert asyncio.run(probe.get("0.0.0.0", port, "/readyz")) == (status, text)


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        answer = asyncio.run(probe.get("127.0.0.1", taken.getsockname()[1], "/"))
    assert answer == (0, "Connection refused")


def test_a_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "ANSWER_SECONDS", 0.2)
    with answering(b"HTTP/1.1 200 OK\r\n", then_hang=True) as port:
        answer = asyncio.run(probe.get("127.0.0.1", port, "/"))
    assert (answer.status, answer.text) == (0, "no answer within 0.2 s")
