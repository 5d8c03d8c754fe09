"""Real load balancers with the configurations of `deploy/proxy`, whose addresses alone differ.

with running("haproxy", home, nodes=[8080, 8090], aggregators=[8081, 8091]) as balancer:
    balancer.port, balancer.tls_port
"""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.ports import HOST, free_port
from tests.support.wait import eventually

CONFIGURATIONS: Final = Path(__file__).parents[2] / "deploy" / "proxy"
KINDS: Final = ("haproxy", "nginx", "caddy")
CLICKS_HOST: Final = "clicks.example.org"
STATS_HOST: Final = "stats.example.org"
READY_S: Final = 15.0
STOP_S: Final = 10.0
_PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"

# What a configuration of that kind needs around it to run from a directory of its own.
_NGINX: Final = """user {user}; daemon off; pid {home}/nginx.pid; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    include {home}/nginx.inc;
}}
"""
_CADDY: Final = """{{
    admin off
    default_bind 127.0.0.1
    http_port {port}
    https_port {tls_port}
    auto_https disable_redirects
}}
import {home}/caddy.inc
"""


class Balancer:
    """A running one. `log` is what it has written."""

    def __init__(
        self, kind: str, home: Path, nodes: Sequence[int], aggregators: Sequence[int]
    ) -> None:
        self.kind = kind
        self.port, self.tls_port = free_port(), free_port()
        self._home = home
        _certificate(home)
        self._addresses = dict(zip(("10.0.0.11:8080", "10.0.0.12:8080"), nodes, strict=True))
        self._addresses |= dict(zip(("10.0.0.21:8081", "10.0.0.22:8081"), aggregators, strict=True))
        argv = {"haproxy": self._haproxy, "nginx": self._nginx, "caddy": self._caddy}[kind]()
        argv[0] = program(argv[0])
        self._log = (home / f"{kind}.log").open("wb")
        self._process = subprocess.Popen(
            argv,
            env={"PATH": _PATH, "HOME": str(home), "XDG_DATA_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text("utf-8", "replace")

    def listens(self) -> bool:
        """Whether both ports take connections; the test fails if it has ended."""
        if self._process.poll() is not None:
            pytest.fail(f"it ended at once:\n{self.log[-4000:]}")
        for port in (self.port, self.tls_port):
            socket.create_connection((HOST, port), timeout=2).close()
        return True

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._log.close()

    def _configuration(self, name: str, changes: dict[str, str]) -> str:
        """The committed file with other addresses; each of them must be in it."""
        text = (CONFIGURATIONS / name).read_text()
        addresses = {old: f"{HOST}:{port}" for old, port in self._addresses.items()}
        for old, new in (addresses | changes).items():
            assert old in text, f"{name} has no {old!r}"
            text = text.replace(old, new)
        return text

    def _haproxy(self) -> list[str]:
        changes = {
            "bind :80\n": f"bind {HOST}:{self.port}\n",
            "bind :443 ": f"bind {HOST}:{self.tls_port} ",
            "/etc/haproxy/clickmill.pem": f"{self._home}/both.pem",
        }
        path = self._home / "haproxy.cfg"
        path.write_text(self._configuration("haproxy.cfg", changes))
        return ["haproxy", "-W", "-f", str(path)]

    def _nginx(self) -> list[str]:
        changes = {
            "listen 80;": f"listen {HOST}:{self.port};",
            "listen 443 ": f"listen {HOST}:{self.tls_port} ",
            "/etc/nginx/clickmill.": f"{self._home}/clickmill.",
        }
        (self._home / "nginx.inc").write_text(self._configuration("nginx.conf", changes))
        path = self._home / "nginx.conf"
        path.write_text(_NGINX.format(home=self._home, user=getpass.getuser()))
        return ["nginx", "-c", str(path), "-e", "stderr"]

    def _caddy(self) -> list[str]:
        changes = {"/etc/caddy/clickmill.": f"{self._home}/clickmill."}
        (self._home / "caddy.inc").write_text(self._configuration("Caddyfile", changes))
        path = self._home / "Caddyfile"
        path.write_text(_CADDY.format(home=self._home, port=self.port, tls_port=self.tls_port))
        return ["caddy", "run", "--config", str(path), "--adapter", "caddyfile"]


def program(name: str) -> str:
    """The path of a program, in sbin too; the test fails where it is missing."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        pytest.fail(f"{name} is missing: `scripts/os-packages test` gets it")
    return path


def _certificate(home: Path) -> None:
    """clickmill.crt and clickmill.key, and both in one file as HAProxy wants it."""
    subprocess.run(
        [
            program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "clickmill.key", "-out",
            "clickmill.crt", "-days", "2", "-subj", f"/CN={CLICKS_HOST}", "-addext",
            f"subjectAltName=DNS:{CLICKS_HOST},DNS:{STATS_HOST}",
        ],
        cwd=home, check=True, capture_output=True,
    )  # fmt: skip
    both = (home / "clickmill.crt").read_text() + (home / "clickmill.key").read_text()
    (home / "both.pem").write_text(both)


@contextmanager
def running(
    kind: str, home: Path, nodes: Sequence[int], aggregators: Sequence[int]
) -> Iterator[Balancer]:
    """One that takes connections, until the end of the block."""
    balancer = Balancer(kind, home, nodes, aggregators)
    try:
        eventually(balancer.listens, READY_S, f"{kind} listens")
        yield balancer
    finally:
        balancer.stop()
