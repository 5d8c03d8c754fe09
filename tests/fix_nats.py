"""Fixture `nats`: a real nats-server with JetStream for each test; it starts in 20 ms."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import embedded_nats
from stack.embedded import LOOPBACK, Server
from tests.fix_servers import RealServer
from tests.ports import free_port

MAX_BYTES = 256 << 20


class NatsServer(RealServer):
    """A nats-server. `url` has user and password; `store` is its JetStream directory."""

    def __init__(self, data_dir: Path, max_bytes: int = MAX_BYTES) -> None:
        server = embedded_nats.prepare(data_dir, max_bytes, free_port())
        super().__init__(server, data_dir / "nats.log", greets)

    @property
    def url(self) -> str:
        return self.server.address

    @property
    def store(self) -> Path:
        return self.server.cwd / "store"


def greets(server: Server) -> bool:
    """The server says INFO to a client; never raises."""
    try:
        with socket.create_connection((LOOPBACK, server.port), timeout=1) as sock:
            return sock.recv(5) == b"INFO "
    except OSError:
        return False


@pytest.fixture
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()
