"""Running wrk, and rejecting its results when any answer was wrong."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import msgspec

from bench.load import programs

SCRIPT = Path(__file__).with_name("click.lua")
CONNECTIONS = 64
FIRST_ID, LAST_ID = 10, 100
"""The banners of the contract's scenario."""
GRACE_SECONDS = 30.0
"""To prepare up to a million requests before the run, and to end after it."""
READ_SIZE = 65536


class WrongAnswersError(Exception):
    """Some answers were not what they had to be: such a round has no result."""


class Round(msgspec.Struct, frozen=True):
    """What wrk saw in one run."""

    requests: int
    seconds: float
    bytes: int
    wrong: int
    over_399: int
    broken: int
    timeouts: int
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


class Load(msgspec.Struct, frozen=True):
    """What to send; from which core, or from any."""

    port: int
    core: int | None
    seconds: float
    mode: str = "click"
    first_id: int = FIRST_ID
    last_id: int = LAST_ID
    items: int = 0
    connections: int = CONNECTIONS
    method: str = "POST"
    path: str = "/"
    """The one request of the mode `path`."""


def program() -> str:
    """The path of wrk. Raises MissingProgramError."""
    return programs.find("wrk", "wrk")


def answer_length(port: int, path: str) -> int:
    """Bytes of one answer, head and body, to a POST without a body."""
    request = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request.encode())
        answer = b""
        while (head := answer.find(b"\r\n\r\n")) < 0 or len(answer) < head + 4 + _length(answer):
            block = connection.recv(READ_SIZE)
            if not block:
                raise WrongAnswersError(f"port {port} closed the connection before its answer")
            answer += block
    if not answer.startswith(b"HTTP/1.1 200"):
        raise WrongAnswersError(f"port {port} answered {answer[:60]!r} to POST {path}")
    return len(answer)


def _length(answer: bytes) -> int:
    head = answer.partition(b"\r\n\r\n")[0].lower()
    return int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)


def run(load: Load) -> Round:
    """Run wrk once. WrongAnswersError when an answer was wrong or a connection broke."""
    pinned = ["taskset", "-c", str(load.core)] if load.core is not None else []
    script = (load.mode, load.first_id, load.last_id, load.items, load.method, load.path)
    command = [
        *(*pinned, program(), "-t1", f"-c{load.connections}"),
        *(f"-d{max(1, round(load.seconds))}s", "-s", str(SCRIPT)),
        *(f"http://127.0.0.1:{load.port}", "--", *map(str, script)),
    ]
    longest = load.seconds + GRACE_SECONDS
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=longest, check=False)
    except subprocess.TimeoutExpired as error:
        raise WrongAnswersError(
            f"wrk did not end within {longest:.0f} s: is the machine busy, or does the server hang?"
        ) from error
    if done.returncode != 0:
        raise WrongAnswersError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    result = msgspec.json.decode(done.stderr.strip().splitlines()[-1], type=Round)
    if result.wrong or result.over_399 or result.broken or result.timeouts or not result.requests:
        raise WrongAnswersError(f"port {load.port}, {load.mode}: {result}")
    return result


def check_lengths(result: Round, length: int, connections: int = CONNECTIONS) -> None:
    """All answers together must be as long as that many right ones, except those under way.

    A wrong answer of another length shows; one of 400 or over is counted by wrk itself.
    """
    extra = result.bytes - result.requests * length
    if not 0 <= extra <= connections * length:
        raise WrongAnswersError(
            f"{result.requests:,} answers of {length} bytes came to {result.bytes:,} bytes: "
            "not all were the right one"
        )
