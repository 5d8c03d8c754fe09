"""Runs inside a network namespace with an address that is not loopback: see test_exposed.py.

Starts a worker on all addresses with the settings of its environment, asks it from this machine and
from "elsewhere", and prints the answers as JSON.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile

from tests.support.wait import eventually

ELSEWHERE = "192.0.2.7"
PORT = 8080
READY_S = 20.0
BATCH = b'[{"bannerID": 17}]'
JSON = {"Content-Type": "application/json"}
ASKED = {
    "click": ("POST", "/counter/17", b""),
    "click as statistics": ("POST", "/stats/17", b"{}"),
    "batch": ("POST", "/clicks", BATCH),
    "statistics": ("GET", "/stats/17", b""),
    "statistics by POST": ("POST", "/stats/17", b'{"tsFrom": 1}'),
    "metrics": ("GET", "/metrics", b""),
    "alive": ("GET", "/livez", b""),
}


def ask(address: str, what: str, token: str = "") -> tuple[int, str]:
    """Status and code of the answer; peer and host are the same address."""
    method, path, body = ASKED[what]
    headers = {**JSON, **({"Authorization": f"Bearer {token}"} if token else {})}
    connection = http.client.HTTPConnection(address, PORT, timeout=10)
    try:
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        text = answer.read()
    except OSError:
        return 0, ""
    finally:
        connection.close()
    found = json.loads(text) if text.startswith(b"{") else {}
    return answer.status, found.get("code", "")


def main() -> None:
    """The answers by address, question and token."""
    with tempfile.TemporaryDirectory() as home:
        env = os.environ | {"CLICKMILL_DATA_DIR": home, "CLICKMILL_NATS_URL": "nats://127.0.0.1:1"}
        worker = subprocess.Popen(
            [sys.executable, "-m", "ingest"], env=env, stdout=sys.stderr, cwd=home
        )
        try:
            eventually(lambda: ask("127.0.0.1", "alive")[0] == 200, READY_S, "the worker serves")
            answers = {
                f"{what} from {name}": ask(address, what)
                for what in ASKED
                for name, address in (("here", "127.0.0.1"), ("elsewhere", ELSEWHERE))
            }
            answers["batch with the token"] = ask(ELSEWHERE, "batch", "may-write")
            answers["statistics with the token"] = ask(ELSEWHERE, "statistics", "may-read")
        finally:
            worker.kill()
            worker.wait()
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
