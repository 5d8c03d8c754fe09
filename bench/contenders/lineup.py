"""The line-up of `make bench`: every contender, what it does for a click, and how it is started.

A contender whose program is not here raises MissingProgramError, and the report names it so.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.harness.servers import ROOT, SERVER_CORE, CountingServer, Server
from bench.harness.system import Clickmill
from bench.load import programs
from bench.load.programs import MissingProgramError
from stack.ports import free_port

HERE = Path(__file__).parent
GO_SOURCES = HERE / "go"
BEFORE_DIR = "BENCH_BEFORE"
NGINX_MODULES = Path("/usr/lib/nginx/modules")


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the table."""

    key: str
    name: str
    does: str
    """What it does for a click, for the reader who judges whether it is fair."""
    start: Callable[[], Server]


def _module(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise MissingProgramError(
            f"the Python package {name} is missing: type "
            "`.venv/bin/pip install --require-hashes -r requirements-bench.lock`"
        )


def _go(name: str) -> Server:
    program = programs.build_go(GO_SOURCES, name)
    server = CountingServer(free_port())
    server.spawn([program, "-listen", f"127.0.0.1:{server.port}"], SERVER_CORE)
    server.wait_listening()
    return server


def _granian() -> Server:
    server = Server(free_port())
    options = ["--interface", "rsgi", "--http", "1", "--no-ws", "--workers", "1"]
    options += ["--loop", "uvloop", "--host", "127.0.0.1", "--port", str(server.port)]
    command = [sys.executable, "-m", "granian", *options, "bench.contenders.rsgi200:app"]
    server.spawn(command, SERVER_CORE)
    server.wait_listening()
    return server


def _nginx(kind: type[Server], template: str, needs: Path | None) -> Server:
    program = programs.find("nginx", "nginx")
    if needs is not None and not needs.exists():
        raise MissingProgramError(
            "nginx's Lua module is missing: type `sudo apt-get install libnginx-mod-http-lua`"
        )
    server = kind(free_port())
    text = (HERE / template).read_text()
    values = {"PORT": str(server.port), "DIR": str(server.dir), "MODULES": str(NGINX_MODULES)}
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    config = server.dir / "nginx.conf"
    config.write_text(text)
    server.dir.chmod(0o755)  # its worker is another user when we are root
    server.spawn([program, "-c", str(config), "-p", str(server.dir)], SERVER_CORE)
    server.wait_listening()
    return server


def _fastapi() -> Server:
    for module in ("fastapi", "uvicorn", "httptools", "redis", "hiredis"):
        _module(module)
    program = programs.find("redis-server", "redis-server")
    server = CountingServer(free_port())
    redis_port = str(free_port())
    options = ["--port", redis_port, "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
    server.spawn([program, *options, "--dir", str(server.dir)], SERVER_CORE)
    uvicorn = [sys.executable, "-m", "uvicorn", "bench.contenders.fastapi_redis:app"]
    uvicorn += ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    uvicorn += ["--log-level", "warning", "--port", str(server.port)]
    server.spawn(uvicorn, SERVER_CORE, {"REDIS_PORT": redis_port, "PYTHONPATH": str(ROOT)})
    server.wait_listening()
    return server


CLICKMILL = Contender(
    "clickmill", "Clickmill",
    "parses the ID, counts it in the mapped file of its minute, answers on Granian's thread; "
    "seals, syncs and publishes a frame a second, and NATS, aggregator and Postgres run beside it",
    Clickmill,
)  # fmt: skip
ORDINARY = Contender(
    "ordinary", "Clickmill, fast path off",
    "the same with CLICKMILL_FASTPATH=false: a coroutine on the event loop for each click",
    lambda: Clickmill({"FASTPATH": "false"}),
)  # fmt: skip
BEFORE = Contender(
    "before", "Clickmill of another commit",
    f"the same, from the installed checkout that {BEFORE_DIR} names",
    lambda: Clickmill(checkout=Path(os.environ[BEFORE_DIR]).resolve()),
)  # fmt: skip
CONTENDERS = (
    CLICKMILL,
    *([BEFORE] if BEFORE_DIR in os.environ else []),
    ORDINARY,
    Contender(
        "granian", "Granian RSGI, 200 only",
        "Granian's own server, one worker, HTTP/1, uvloop; looks at nothing, counts nothing",
        _granian,
    ),
    Contender(
        "go", "Go net/http, atomic counter",
        "parses the ID by hand, adds one to an atomic counter in an array", lambda: _go("counter"),
    ),
    Contender(
        "gin", "gin, atomic counter",
        "gin's router in release mode without its logger, the same array",
        lambda: _go("gincounter"),
    ),
    Contender(
        "nginx", "nginx, return 200",
        "one worker; looks at nothing, counts nothing",
        lambda: _nginx(Server, "nginx200.conf", None),
    ),
    Contender(
        "openresty", "nginx with Lua, shared dict",
        "as in OpenResty, with Debian's nginx: cuts the ID out of the path, incr in a shared dict",
        lambda: _nginx(CountingServer, "openresty.conf", NGINX_MODULES / "ngx_http_lua_module.so"),
    ),
    Contender(
        "fastapi", "FastAPI with Redis",
        "uvicorn with uvloop and httptools, INCR over redis-py and hiredis; Redis on the same core",
        _fastapi,
    ),
)  # fmt: skip
