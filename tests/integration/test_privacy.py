"""The paragraph of docs/privacy.md: of a visitor nothing is kept, in no file and no table."""

from __future__ import annotations

import socket
import subprocess
import sys

from tests.support.fix_system import System, SystemFactory
from tests.support.raw import ask

VISITOR = "127.7.7.7"
"""An address of the loopback interface that nothing else has."""
MARK = "visitorsmark"
HEADERS = [
    "Host: 127.0.0.1", f"User-Agent: {MARK}-agent", f"Cookie: id={MARK}-cookie",
    f"Referer: https://example.org/{MARK}-page", f"Accept-Language: {MARK}-language",
    f"X-Forwarded-For: {MARK}-address", f"Origin: https://{MARK}-origin.example",
    f"From: {MARK}@example.org", f"X-Request-Id: {MARK}-request",
]  # fmt: skip
REQUESTS = (
    ("POST", f"/counter/17?q={MARK}-query", f"{MARK}-body"),
    ("GET", f"/counter/17?q={MARK}-query", ""),
    ("GET", f"/pixel/17.gif?q={MARK}-query", ""),
    ("GET", f"/click/17?q={MARK}-query", ""),
    ("POST", f"/stats/17?q={MARK}-query", "{}"),
    ("POST", f"/counter/{MARK}-id", ""),
    ("GET", f"/{MARK}-path", ""),
)
CLICKS = 5


def click(port: int, method: str, target: str, body: str) -> bytes:
    """One request from the visitor's address; the whole answer."""
    length = [f"Content-Length: {len(body)}"] if body else []
    lines = [f"{method} {target} HTTP/1.1", *HEADERS, *length, "Connection: close", "", body]
    with socket.create_connection(("127.0.0.1", port), 10, (VISITOR, 0)) as connection:
        connection.sendall("\r\n".join(lines).encode())
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    return answer


def dump(dsn: str) -> str:
    """All rows of all tables, as text."""
    program = (
        "import sys, psycopg\n"
        "with psycopg.connect(sys.argv[1]) as c:\n"
        "    tables = c.execute(\"SELECT schemaname || '.' || tablename FROM pg_tables WHERE\"\n"
        "        \" schemaname NOT IN ('pg_catalog', 'information_schema')\").fetchall()\n"
        "    for (table,) in tables:\n"
        "        print(table, c.execute(f'SELECT t::text FROM {table} t').fetchall())\n"
    )
    command = [sys.executable, "-c", program, dsn]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def containing(running: System, text: str) -> list[str]:
    """The files of the system, its logs among them, that have this text in them."""
    files = [path for path in running.data_dir.rglob("*") if path.is_file()]
    return [str(path) for path in files if text.encode() in path.read_bytes()]


def test_nothing_of_a_visitor_is_kept(system: SystemFactory) -> None:
    running = system(log_level="debug")
    target = b'{"name": "known mark", "target_url": "https://example.org/"}'
    put = ask(
        running.stats_port, "PUT", "/banners/17", target, [("Content-Type", "application/json")]
    )
    assert put.status == 200
    clicks = 0
    while clicks < 1:  # the target is on its way to the worker
        answer = click(running.port, *REQUESTS[3])
        clicks += answer.startswith(b"HTTP/1.1 302 ")
    for request in REQUESTS:
        answer = click(running.port, *request)
        assert b"set-cookie" not in answer.lower()
        assert b"etag" not in answer.lower(), "an ETag can be used as a cookie"
        clicks += answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 302 "))
    running.wait_counts(17, clicks)
    tables = dump(running.address("postgres"))
    assert "known mark" in tables
    assert (MARK in tables, VISITOR in tables) == (False, False)
    running.stop()
    assert containing(running, "known mark"), "what is kept can be found in the files"
    assert containing(running, MARK + "-") == []
    assert containing(running, VISITOR) == []
