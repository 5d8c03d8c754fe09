"""Fixture `nats`: a real nats-server with JetStream for each test; it starts in 20 ms."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from signal import SIGHUP

import pytest

from stack.embedded import nats as embedded_nats
from stack.embedded.server import LOOPBACK, Server
from tests.support.fix_servers import RealServer
from tests.support.ports import free_port
from tests.support.wait import eventually

MAX_BYTES = 256 << 20
RELOADED = "Reloaded server configuration"
RELOAD_S = 10


class NatsServer(RealServer):
    """A nats-server. `url` has user and password; `store` is its JetStream directory."""

    def __init__(self, data_dir: Path, max_bytes: int = MAX_BYTES) -> None:
        server = embedded_nats.prepare(data_dir, max_bytes, free_port())
        super().__init__(server, data_dir / "nats.log", greets)

    @property
    def url(self) -> str:
        return self.server.address

    @property
    def config(self) -> Path:
        return self.server.cwd / "nats.conf"

    def reload(self, old: str, new: str) -> None:
        """Replace a text of the configuration, and have the running server take it over."""
        text = self.config.read_text()
        assert old in text, text
        self.config.write_text(text.replace(old, new))
        reloaded = self.log.read_text().count(RELOADED)
        self.signal(SIGHUP)
        eventually(lambda: self.log.read_text().count(RELOADED) > reloaded, RELOAD_S, "reloaded")

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
