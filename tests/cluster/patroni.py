"""Two Postgres servers under Patroni, with etcd: Debian's programs, and our own Postgres.

Each is on a machine of its own. Patroni promotes the standby about TTL_S after its leader is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo

from stack.embedded.postgres import install_dir
from tests.cluster.network import Machine, Network
from tests.support.sql import query
from tests.support.wait import eventually

TTL_S: Final = 20
"""The least that Patroni allows."""
FORMED_S: Final = 120.0
DATABASE: Final = "clickmill"

_CONFIG: Final = """\
scope: clickmill
name: {name}
restapi: {{listen: '0.0.0.0:8008', connect_address: '{address}:8008'}}
etcd3: {{host: '{etcd}:2379'}}
bootstrap:
  dcs:
    ttl: {ttl}
    loop_wait: 2
    retry_timeout: 5
    synchronous_mode: {sync}
    postgresql:
      use_pg_rewind: true
      parameters: {{wal_keep_size: 256MB, max_connections: 64}}
  initdb: [encoding: UTF8, data-checksums, {{locale: C}}]
  pg_hba: [local all all trust, host all all 10.77.0.0/24 scram-sha-256,
           host replication all 10.77.0.0/24 scram-sha-256]
postgresql:
  listen: '0.0.0.0:5432'
  connect_address: '{address}:5432'
  data_dir: {home}/data
  bin_dir: {programs}
  pgpass: {home}/pgpass
  authentication:
    superuser: {{username: postgres, password: {password}}}
    replication: {{username: replicator, password: {password}}}
  parameters: {{unix_socket_directories: {home}, shared_buffers: 64MB}}
"""


def missing() -> str:
    """What this machine lacks; "" where it has everything."""
    lacking = [name for name in ("patroni", "etcd") if shutil.which(name) is None]
    return f"{' and '.join(lacking)} must be installed: make soak-cluster" if lacking else ""


class Member:
    """Patroni and its Postgres on one machine."""

    def __init__(self, machine: Machine, home: Path, settings: dict[str, object]) -> None:
        self.machine, self._home = machine, home
        home.mkdir()
        self._account = pwd.getpwnam("postgres")
        os.chown(home, self._account.pw_uid, self._account.pw_gid)
        home.chmod(0o700)
        self._config = home / "patroni.yml"
        self._config.write_text(_CONFIG.format(
            name=machine.name, address=machine.address, home=home, ttl=TTL_S, **settings
        ))  # fmt: skip
        self._config.chmod(0o644)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.machine.inside(), (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/usr/bin/patroni", str(self._config)], cwd=self._home, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, user=self._account.pw_uid, group=self._account.pw_gid,
                extra_groups=[], start_new_session=True, env={"PATH": os.defpath, "LC_ALL": "C"},
            )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        """To Patroni alone: its Postgres goes on."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Everything at once, as when the machine loses its power."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None
        with contextlib.suppress(OSError, ValueError):
            pid = int((self._home / "data" / "postmaster.pid").read_text().splitlines()[0])
            children = subprocess.run(
                ["ps", "-o", "pid=", "--ppid", str(pid)],
                capture_output=True,
                text=True,
                check=False,
            ).stdout.split()
            for one in (pid, *map(int, children)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)

    def role(self) -> str:
        """What Patroni says: "master", "replica", or "" while it says nothing."""
        return str(self._get("/patroni").get("role", ""))

    def is_followed(self) -> bool:
        """Whether this leads, and a standby follows."""
        found = self._get("/patroni")
        states = [standby.get("state") for standby in found.get("replication", [])]
        return found.get("role") == "master" and "streaming" in states

    def _get(self, path: str) -> dict[str, Any]:
        try:
            url = f"http://127.0.0.1:8008{path}"
            with self.machine.inside(), urllib.request.urlopen(url, timeout=2) as answer:
                return dict(json.load(answer))
        except (OSError, ValueError):
            return {}

    def switch_to(self, other: Member) -> None:
        """Have this leader hand over."""
        body = json.dumps({"leader": self.machine.name, "candidate": other.machine.name}).encode()
        with self.machine.inside():
            request = urllib.request.Request("http://127.0.0.1:8008/switchover", body)
            urllib.request.urlopen(request, timeout=60).close()


class PostgresCluster:
    """Both members; `dsn` finds the one that can be written to. The account `postgres` must be able
    to enter `home`."""

    def __init__(self, network: Network, home: Path, *, synchronous: bool) -> None:
        self.etcd = network.machine("etcd")
        self._home = home
        password = secrets.token_hex(12)
        settings: dict[str, object] = {
            "etcd": self.etcd.address, "sync": str(synchronous).lower(), "password": password,
            "programs": install_dir() / "bin",
        }  # fmt: skip
        self.members = [
            Member(network.machine(name), home / name, settings) for name in ("db-1", "db-2")
        ]
        hosts = ",".join(f"{member.machine.address}:5432" for member in self.members)
        self._admin = (
            f"postgresql://postgres:{password}@{hosts}/postgres?target_session_attrs=read-write"
        )
        self.dsn = self._admin.replace("/postgres?", f"/{DATABASE}?")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Both, and etcd, within the block."""
        with self.etcd.inside(), (self._home / "etcd.log").open("wb") as log:
            etcd = subprocess.Popen(
                ["etcd", "--data-dir", str(self._home / "etcd"), "--listen-client-urls",
                 "http://0.0.0.0:2379", "--advertise-client-urls",
                 f"http://{self.etcd.address}:2379"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        try:
            for member in self.members:
                member.start()
            self.wait_formed()
            with psycopg.connect(self._admin, autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{DATABASE}"'.encode())
            yield
        finally:
            for member in self.members:
                member.kill()
            etcd.kill()
            etcd.wait()

    def wait_formed(self) -> None:
        """Until one leads and the other follows it."""
        eventually(
            lambda: any(member.is_followed() for member in self.members), FORMED_S,
            "one Postgres leads and the other follows",
        )  # fmt: skip

    def leader(self) -> tuple[Member, Member]:
        """(leader, standby)."""
        leader, standby = sorted(self.members, key=lambda member: member.role() != "master")
        assert leader.role() == "master"
        return leader, standby

    def clicks(self, member: Member) -> int:
        """Clicks that this server has, whatever its role."""
        dsn = make_conninfo(
            self.dsn, host=member.machine.address, port=5432, target_session_attrs="any"
        )
        return int(query(dsn, "SELECT coalesce(sum(total), 0) FROM source")[0][0])

    def wait_promoted(self, member: Member) -> None:
        """Until this one leads."""
        eventually(lambda: member.role() == "master", FORMED_S, f"{member.machine} leads")
