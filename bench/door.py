"""The door's own figures: a redirect against a plain click, and honest clients among slow ones.

    python -m bench.door --rounds 5 --seconds 4

Rounds are interleaved, A B C A B C, and ratios are made within a round. One worker on one core;
wrk, the slow sockets and everything else on the other, where wrk goes first: what it waits for
that core would be taken for the server's delay. Half of what wrk reports at 64 connections is
waiting for the core, so latencies are taken at 4.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from bench import machine, wrk
from bench.measure import spread
from bench.servers import LOAD_CORE, end_on_sigterm
from bench.system import CALM_NICENESS, Clickmill

BANNER: Final = 17
TARGET: Final = "https://example.org/landing?from=banner"
CONNECTIONS: Final = 4
SLOW_SOCKETS: Final = 2_000
TICK_S: Final = 0.1
GOAL_REDIRECT: Final = 1.3
GOAL_SLOW: Final = 2.0
_UNITS: Final = {"us": 1.0, "ms": 1e3, "s": 1e6}


class Latency(NamedTuple):
    """Microseconds, and how many answers that is of."""

    p50: float
    p99: float
    requests: int


def measure(port: int, method: str, path: str, seconds: float) -> Latency:
    """One run of wrk. WrongAnswersError where any answer was wrong or a connection was refused."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f'wrk.method = "{method}"')
        script.flush()
        said = subprocess.run(
            ["taskset", "-c", str(LOAD_CORE), wrk.program(), "-t1", f"-c{CONNECTIONS}",
             f"-d{seconds:g}s", "--latency", "-s", script.name, f"http://127.0.0.1:{port}{path}"],
            capture_output=True, text=True, timeout=seconds + wrk.GRACE_SECONDS, check=True,
        ).stdout  # fmt: skip
    if "Non-2xx" in said or "Socket errors" in said:
        raise wrk.WrongAnswersError(said)
    requests = re.search(r"(\d+) requests in", said)
    assert requests, said
    return Latency(_percentile(said, 50), _percentile(said, 99), int(requests[1]))


def _percentile(said: str, percent: int) -> float:
    found = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)\b", said)
    assert found, said
    return float(found[1]) * _UNITS[found[2]]


class SlowSockets:
    """Keeps so many connections open that send next to nothing; closed ones are opened anew."""

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
    """So many for a while."""
    slow = SlowSockets(port, n)
    try:
        yield slow
    finally:
        slow.close()


def register(stats_port: int) -> None:
    """Gives the banner its target, and waits until it must be known everywhere."""
    body = json.dumps({"target_url": TARGET}).encode()
    url = f"http://127.0.0.1:{stats_port}/banners/{BANNER}"
    with urllib.request.urlopen(urllib.request.Request(url, body, method="PUT"), timeout=5):
        time.sleep(2)


def one_round(port: int, seconds: float) -> dict[str, Latency]:
    """Each figure once."""
    found = {
        "plain click, POST": measure(port, "POST", f"/counter/{BANNER}", seconds),
        "plain click, GET": measure(port, "GET", f"/counter/{BANNER}", seconds),
        "redirect": measure(port, "GET", f"/click/{BANNER}", seconds),
    }
    with slow_sockets(port, SLOW_SOCKETS) as slow:
        found["among slow sockets"] = measure(port, "POST", f"/counter/{BANNER}", seconds)
        assert len(slow) > SLOW_SOCKETS / 2, f"only {len(slow)} slow sockets are open"
        assert not slow.refused, f"{slow.refused} connections were refused"
    return found


def report(rounds: list[dict[str, Latency]]) -> bool:
    """Prints the table; whether the goals are met."""
    print(f"{'':22}{'p50 µs':>10}{'p99 µs':>10}   ratio to POST: p50; p99")
    ratios = {}
    for name in rounds[0]:
        p50, p99 = (statistics.median(r[name][i] for r in rounds) for i in (0, 1))
        ratios[name] = [
            spread([r[name][i] / r["plain click, POST"][i] for r in rounds]) for i in (0, 1)
        ]
        said = "; ".join(ratio.show() for ratio in ratios[name])
        print(f"{name:22}{p50:10.0f}{p99:10.0f}   {said}")
    redirect, slow = ratios["redirect"][0].median, ratios["among slow sockets"][1].median
    kept = redirect <= GOAL_REDIRECT and slow <= GOAL_SLOW
    print(
        f"goals: a redirect at most {GOAL_REDIRECT} times a click (p50); p99 among "
        f"{SLOW_SOCKETS:,} slow sockets at most {GOAL_SLOW:g} times: {'met' if kept else 'NOT MET'}"
    )
    return kept


def main() -> int:
    """0: the goals are met."""
    parser = argparse.ArgumentParser(description="redirects and slow clients, measured")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    given = parser.parse_args()
    end_on_sigterm()
    machine.pin([os.getpid()], {LOAD_CORE})
    system = Clickmill({"LOG_LEVEL": "warning"})
    try:
        system.calm()
        register(system.stats_port)
        rounds = [one_round(system.port, given.seconds) for _ in range(given.rounds)]
    finally:
        system.stop()
    return int(not report(rounds))


if __name__ == "__main__":
    sys.exit(main())
