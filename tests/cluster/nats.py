"""Three nats-servers that form a cluster, each on a machine of its own."""

from __future__ import annotations

import asyncio
import json
import secrets
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from nats.js.api import StreamInfo

from clickmill import bus, wire
from stack.embedded.nats import binary
from stack.embedded.server import Server
from tests.cluster.network import Machine
from tests.support.fix_nats import greets
from tests.support.fix_servers import RealServer
from tests.support.wait import eventually

PORT: Final = 4222
USER: Final = "clickmill"
FORMED_S: Final = 60.0
JSZ: Final = "http://127.0.0.1:8222/jsz"
STORE_BYTES: Final = 1 << 30

# The defaults of nats-server wherever there is one.
_CONFIG: Final = """\
server_name: {name}
server_tags: ["zone:{name}"]
listen: 0.0.0.0:4222
http: 0.0.0.0:8222
authorization {{ user: {user}, password: "{password}" }}
cluster {{ name: clickmill, listen: 0.0.0.0:6222, routes: [{routes}] }}
jetstream {{
  store_dir: {store}
  max_file_store: {bytes}
  {jetstream}
}}
"""


class NatsMember(RealServer):
    """One nats-server of the cluster."""

    def __init__(
        self, machine: Machine, home: Path, password: str, routes: str, jetstream: str = ""
    ) -> None:
        home.mkdir()
        self.machine = machine
        config = home / "nats.conf"
        config.write_text(_CONFIG.format(
            name=machine.name, user=USER, password=password, routes=routes,
            store=json.dumps(str(home / "store")), bytes=STORE_BYTES, jetstream=jetstream,
        ))  # fmt: skip
        server = Server(
            name=machine.name, argv=(str(binary()), "-c", str(config)), cwd=home, port=PORT,
            address=f"nats://{USER}:{password}@{machine.address}:{PORT}",
        )  # fmt: skip
        super().__init__(server, home / "nats.log", greets)

    def start(self, wait: bool = True) -> None:
        with self.machine.inside():
            super().start(wait)

    def jetstream(self) -> dict[str, Any]:
        """What the server says of JetStream; empty while it says nothing."""
        try:
            with self.machine.inside(), urllib.request.urlopen(JSZ, timeout=2) as answer:
                return dict(json.load(answer))
        except (OSError, ValueError):
            return {}


class NatsCluster:
    """All of them. `url` names every server."""

    def __init__(self, machines: Sequence[Machine], home: Path, jetstream: str = "") -> None:
        password = secrets.token_urlsafe(12)
        routes = ", ".join(f"nats://{machine.address}:6222" for machine in machines)
        self.members = [
            NatsMember(machine, home / machine.name, password, routes, jetstream)
            for machine in machines
        ]
        self.url = ",".join(member.server.address for member in self.members)

    def start(self) -> None:
        """Start all, and wait until JetStream has a leader that all others follow."""
        for member in self.members:
            member.start(wait=False)
        self.wait_formed()

    def wait_formed(self) -> None:
        eventually(self._formed, FORMED_S, f"{len(self.members)} nats-servers are one cluster")

    def _formed(self) -> bool:
        for member in self.members:
            found = member.jetstream().get("meta_cluster", {})
            followers = found.get("replicas") or []
            if found.get("leader") == member.machine.name:
                current = [
                    peer for peer in followers if peer["current"] and not peer.get("offline")
                ]
                return len(current) == len(self.members) - 1
        return False

    def stream(self) -> StreamInfo:
        """What the cluster says of the stream. Raises where it says nothing."""
        return asyncio.run(self._stream())

    async def _stream(self) -> StreamInfo:
        client = await asyncio.wait_for(bus.connect(self.url, "test"), 10)
        try:
            return await client.jetstream(timeout=5).stream_info(wire.STREAM)
        finally:
            await bus.close(client)

    def leader(self) -> NatsMember:
        """The server that leads the stream."""
        cluster = self.stream().cluster
        assert cluster is not None
        (member,) = [m for m in self.members if m.machine.name == cluster.leader]
        return member

    def stop(self) -> None:
        for member in self.members:
            member.stop()
