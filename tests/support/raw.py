"""Plain bytes to a port and back: for requests that no decent HTTP client would send.

"Raw", because nothing here mends a request or hides an answer: what goes out is what was
written, and what comes back is parsed only as far as an answer's own framing.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

HOST = "127.0.0.1"
TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 4 << 20


class Answer(NamedTuple):
    """One HTTP answer: header names in lower case, in their order."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key == name]

    def get(self, name: str) -> str | None:
        """The value of a header that may stand once at most."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} stands {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Connection:
    """One TCP connection to a server under test."""

    def __init__(self, port: int, timeout: float = TIMEOUT_S) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._held = b""

    def send(self, data: bytes) -> None:
        """All of it; a server that has closed already is no error here."""
        with suppress(ConnectionError):
            self.socket.sendall(data)

    def half_close(self) -> None:
        """No more from our side."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a RST, as a client does that crashed."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def answer(self, method: str = "GET") -> Answer | None:
        """The next answer; None where the server closed instead. TimeoutError after `timeout`."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = tuple(_header(line) for line in lines)
        status = int(first.split(" ", 2)[1])
        return Answer(status, headers, self._body(method, status, dict(headers)))

    def _body(self, method: str, status: int, headers: dict[str, str]) -> bytes:
        if method == "HEAD" or status in (204, 304) or status < 200:
            return b""
        if headers.get("transfer-encoding") == "chunked":
            return self._chunks()
        return self._exactly(int(headers.get("content-length", "0")))

    def _chunks(self) -> bytes:
        body = b""
        while True:
            size = self._until(b"\r\n")
            assert size is not None, "the server closed within a chunked answer"
            data = self._exactly(int(size, 16))
            assert self._exactly(2) == b"\r\n"
            if not data:
                return body
            body += data

    def closed(self, within: float = TIMEOUT_S) -> bool:
        """Whether the server closes, or has closed, within so many seconds; what comes is lost."""
        deadline = time.monotonic() + within
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                if not self.socket.recv(65536):
                    return True
            except TimeoutError:
                return False
            except ConnectionError:
                return True
        return False

    def readable(self, within: float) -> bool:
        """Whether something has come within so many seconds."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            return bool(selector.select(within))

    def _until(self, end: bytes) -> bytes | None:
        while end not in self._held:
            if not self._more():
                return None
        part, _, self._held = self._held.partition(end)
        return part

    def _exactly(self, n: int) -> bytes:
        while len(self._held) < n:
            assert self._more(), f"the server closed {n - len(self._held)} bytes before the end"
        part, self._held = self._held[:n], self._held[n:]
        return part

    def _more(self) -> bool:
        assert len(self._held) < MAX_ANSWER_BYTES
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            return False
        self._held += data
        return bool(data)

    def close(self) -> None:
        self.socket.close()


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    assert colon, f"no header: {line!r}"
    return name.strip().lower(), value.strip()


@contextmanager
def connected(port: int, timeout: float = TIMEOUT_S) -> Iterator[Connection]:
    """A connection that is closed at the end."""
    connection = Connection(port, timeout)
    try:
        yield connection
    finally:
        connection.close()


def request(
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> bytes:
    """The bytes of a decent request; Content-Length is added where there is a body."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def ask(
    port: int,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> Answer:
    """One decent request on a connection of its own."""
    with connected(port) as connection:
        connection.send(request(method, target, body, headers))
        answer = connection.answer(method)
    assert answer is not None, f"no answer to {method} {target}"
    return answer
