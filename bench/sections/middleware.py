"""Redirects against plain clicks, and the latency of honest clients beside slow ones.

One worker on one core; wrk, the slow sockets and everything else on the other, where wrk goes
first: what it waits for that core would be taken for the server's delay. Half of what wrk reports
at 64 connections is waiting for the core, so latencies are taken at 4.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from bench.harness.measure import Plan, ratios, spread
from bench.harness.servers import LOAD_CORE, ServerError
from bench.harness.system import CALM_NICENESS, Clickmill
from bench.load import wrk

BANNER: Final = 17
TARGET: Final = "https://example.org/landing?from=banner"
CONNECTIONS: Final = 4
SLOW_SOCKETS: Final = 2_000
TICK_S: Final = 0.1
PLAIN: Final = "plain click, POST"
SLOW: Final = "plain click, POST, among slow sockets"
REDIRECT: Final = "redirect, GET"

Rounds = list[dict[str, wrk.Round]]


def middleware(plan: Plan) -> dict[str, Any]:
    """p50 and p99 of each kind of request, and their ratios to a plain click."""
    rounds: Rounds = []
    with Clickmill({"LOG_LEVEL": "warning"}) as system:
        system.calm()
        register(system.stats_port)
        for number in range(1, plan.rounds + 1):
            rounds.append(one_round(system.port, plan.seconds))
            shown = ", ".join(f"{name} {r.p99_us:,.0f} µs" for name, r in rounds[-1].items())
            plan.say(f"round {number} of {plan.rounds}  p99: {shown}")
    rows = {name: _row([found[name] for found in rounds], rounds) for name in rounds[0]}
    return {
        "slow_sockets": SLOW_SOCKETS,
        "rows": [{"name": name, **row} for name, row in rows.items()],
        "redirect_ratio": rows[REDIRECT]["p50_ratio"],
        "slow_ratio": rows[SLOW]["p99_ratio"],
    }


def _row(mine: list[wrk.Round], rounds: Rounds) -> dict[str, Any]:
    plain = [found[PLAIN] for found in rounds]
    return {
        "p50_us": spread([r.p50_us for r in mine]),
        "p99_us": spread([r.p99_us for r in mine]),
        "p50_ratio": ratios(mine, plain, lambda r: r.p50_us),
        "p99_ratio": ratios(mine, plain, lambda r: r.p99_us),
    }


def one_round(port: int, seconds: float) -> dict[str, wrk.Round]:
    """Each kind of request once."""
    load = wrk.Load(port, LOAD_CORE, seconds, "path", connections=CONNECTIONS)

    def measured(method: str, path: str) -> wrk.Round:
        return wrk.run(msgspec.structs.replace(load, method=method, path=path))

    found = {
        PLAIN: measured("POST", f"/counter/{BANNER}"),
        "plain click, GET": measured("GET", f"/counter/{BANNER}"),
        REDIRECT: measured("GET", f"/click/{BANNER}"),
    }
    with slow_sockets(port, SLOW_SOCKETS) as slow:
        found[SLOW] = measured("POST", f"/counter/{BANNER}")
        if slow.refused or len(slow) <= SLOW_SOCKETS / 2:
            raise ServerError(
                f"{slow.refused} connections were refused, {len(slow)} slow sockets are open: "
                f"there should be {SLOW_SOCKETS}"
            )
    return found


def register(stats_port: int) -> None:
    """Gives the banner its target, and waits until every worker must know it."""
    body = json.dumps({"target_url": TARGET}).encode()
    url = f"http://127.0.0.1:{stats_port}/banners/{BANNER}"
    with urllib.request.urlopen(urllib.request.Request(url, body, method="PUT"), timeout=5):
        time.sleep(2)


class SlowSockets:
    """Keeps so many connections open that send next to nothing; closed ones are opened again."""

    STARTS: Final = (
        b"",
        b"POST /counter/1 HTTP/1.1\r\nHost: a\r\nX: ",
        b"POST /clicks HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n[",
    )

    def __init__(self, port: int, wanted: int) -> None:
        self.refused = 0
        self._port, self._wanted, self._made = port, wanted, 0
        self._open = selectors.DefaultSelector()
        self._stop = threading.Event()
        self._fill()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._open.get_map() or ())

    def _fill(self) -> None:
        while len(self) < self._wanted:
            try:
                sock = socket.create_connection(("127.0.0.1", self._port), timeout=2)
                sock.sendall(self.STARTS[self._made % len(self.STARTS)])
            except OSError:
                self.refused += 1
                return
            self._made += 1
            self._open.register(sock, selectors.EVENT_READ)

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), CALM_NICENESS)
        while not self._stop.wait(TICK_S):
            for key, _ in self._open.select(0):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                self._open.unregister(sock)
                sock.close()
            self._fill()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for key in list((self._open.get_map() or {}).values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()


@contextmanager
def slow_sockets(port: int, n: int) -> Iterator[SlowSockets]:
    """So many of them, for a while."""
    slow = SlowSockets(port, n)
    try:
        yield slow
    finally:
        slow.close()
