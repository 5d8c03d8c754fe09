"""nginx and HAProxy in front, which pass a body on as it comes, over connections that they keep.

Whatever a client sends, and however, gets its 200 through them, never a 502.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.clients.programs import program
from tests.support.bodies import SHAPES, asked
from tests.support.fix_worker import Worker, Workers, counts
from tests.support.ports import free_port
from tests.support.raw import HOST, ask, connected
from tests.support.wait import eventually

BANNER: Final = 72
CLIENTS, EACH = 4, 25
STOP_S: Final = 10

NGINX: Final = """
daemon off;
worker_processes 1;
user {user};
pid {directory}/pid;
error_log {directory}/log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/client;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream clickmill {{ server {upstream}; keepalive 16; }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://clickmill;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering off;
            proxy_next_upstream off;
        }}
    }}
}}
"""
HAPROXY: Final = """
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
    retries 0
    http-reuse always
frontend clicks
    bind {listen}
    default_backend clickmill
backend clickmill
    server worker {upstream}
"""


@pytest.fixture(scope="module")
def worker(module_workers: Workers) -> Worker:
    """The compiled way, which hands larger and chunked bodies on to the ordinary one."""
    return module_workers()


@pytest.fixture(params=["nginx", "haproxy"])
def proxy(request: pytest.FixtureRequest, worker: Worker, tmp_path: Path) -> Iterator[int]:
    """The port of a proxy in front of the worker."""
    name, port = str(request.param), free_port()
    config = tmp_path / "config"
    template = NGINX if name == "nginx" else HAPROXY
    config.write_text(
        template.format(
            directory=tmp_path, listen=f"{HOST}:{port}", upstream=f"{HOST}:{worker.port}",
            user=pwd.getpwuid(os.geteuid()).pw_name,
        )
    )  # fmt: skip
    arguments = ["-c", str(config), "-p", str(tmp_path)] if name == "nginx" else ["-db", "-f"]
    command = [program(name), *arguments, *([str(config)] if name == "haproxy" else [])]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=tmp_path)
    try:
        eventually(lambda: ask(port, "GET", "/livez").status == 200, 10, f"{name} serves")
        yield port
    finally:
        process.terminate()
        process.wait(STOP_S)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_click_is_answered_and_counted(worker: Worker, proxy: int, shape: str) -> None:
    """Several clients at once, each on one connection, as long as the proxy keeps it."""

    def click(_: int) -> list[int]:
        with connected(proxy) as connection:
            pieces = SHAPES[shape]
            return [
                asked(connection, pieces("POST", f"/counter/{BANNER}")).status for _ in range(EACH)
            ]

    with counts(worker, {BANNER: CLIENTS * EACH}), ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(click, range(CLIENTS)))
        assert answers == [[200] * EACH] * CLIENTS
