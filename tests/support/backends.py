"""A backend that a load balancer stands in front of, with the moment of its death chosen.

Real workers die at moments that no test can choose; between a request that was read and its answer
is the one that matters. It answers probes always, so that only the requests of clients decide.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, NamedTuple

from tests.support.ports import HOST, free_port

PROBES: Final = ("/livez", "/readyz")
ANSWERS = "answers"
DIES = "reads the whole request, then closes without an answer"
DIES_SECOND = "answers the first request of a connection, and dies at the next"
STREAMS = "sends an event, another when it is told `more`, and ends when it is released"
EVENT: Final = b"event: tick\n\n"


class Arrived(NamedTuple):
    """A request as it came in: header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Backend:
    """One HTTP/1.1 server on a free port; `behaviour` may be changed while it runs."""

    def __init__(self, behaviour: str = ANSWERS) -> None:
        self.behaviour = behaviour
        self.port = free_port()
        self.arrived: list[Arrived] = []
        self.more, self.release = threading.Event(), threading.Event()
        self._sockets: set[socket.socket] = set()
        self._server = _Server((HOST, self.port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def times(self, path: str) -> int:
        """How often a request of that path has come."""
        return sum(one.path == path for one in self.arrived)

    def end_streams(self) -> None:
        self.more.set()
        self.release.set()

    def close(self) -> None:
        """Its port refuses from now on, and every open connection is cut."""
        self.end_streams()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for one in list(self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], backend: Backend) -> None:
        self.backend = backend
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A balancer that hangs up is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    requests_before = 0

    def setup(self) -> None:
        super().setup()
        self.server.backend._sockets.add(self.connection)

    def finish(self) -> None:
        self.server.backend._sockets.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        backend = self.server.backend
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path in PROBES:
            self._answer(b"{}")
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        backend.arrived.append(Arrived(self.command, self.path, headers, body))
        self.requests_before += 1
        second = backend.behaviour == DIES_SECOND and self.requests_before > 1
        if backend.behaviour == DIES or second:
            self.close_connection = True
        elif backend.behaviour == STREAMS:
            self._stream()
        else:
            self._answer(b'{"status":"counted"}')

    def do_POST(self) -> None:
        self.do_GET()

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for go_on in (self.server.backend.more, self.server.backend.release):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
            go_on.wait(30)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Not to the terminal."""
