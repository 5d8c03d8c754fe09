"""Real clients that send a click's body after its headers: what they sent is answered and counted.

Each client is a small program of its own here, which says how many clicks it sent and how many
were answered. None of them asks twice for a click, as far as its library can be told so.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import pytest

from tests.clients.programs import program
from tests.support.fix_worker import Worker, Workers, counts

HERE: Final = Path(__file__).parent
BANNER: Final = 70
IN_FLIGHT: Final = 20
"""Connections that a client opens at most, by its own setting."""
PROGRAM_S: Final = 60
BUILD_S: Final = 100


class Report(msgspec.Struct):
    """The last line of a client."""

    sent: int
    answered: int
    connections: int = 0


@pytest.fixture(scope="module")
def worker(module_workers: Workers) -> Worker:
    """The compiled way, which hands larger and chunked bodies on to the ordinary one."""
    return module_workers()


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    built = tmp_path_factory.mktemp("go") / "sender"
    run([program("go"), "build", "-o", str(built), str(HERE / "sender.go")], BUILD_S)
    return [str(built)]


@pytest.fixture(scope="module")
def node() -> list[str]:
    return [program("node"), str(HERE / "sender.js")]


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    built = tmp_path_factory.mktemp("java")
    run([program("javac"), "-d", str(built), str(HERE / "Sender.java")], BUILD_S)
    return [program("java"), "-cp", str(built), "Sender"]


def run(command: Sequence[str], seconds: float) -> str:
    """What it printed; the test fails with its complaints where it failed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stderr[-2000:]}"
    return done.stdout + done.stderr


def send(client: list[str], worker: Worker, shape: str, clicks: int) -> None:
    """Sent is answered, and answered is counted, on connections that stay open."""
    url = f"http://127.0.0.1:{worker.port}/counter/{BANNER}"
    with counts(worker, {BANNER: clicks}):
        printed = run([*client, url, shape, str(clicks)], PROGRAM_S)
        report = msgspec.json.decode(printed.splitlines()[0], type=Report)
        assert (report.sent, report.answered) == (clicks, clicks), printed[-2000:]
    assert report.connections <= IN_FLIGHT


@pytest.mark.parametrize(("shape", "clicks"), [("pipe", 2000), ("small", 500), ("large", 100)])
def test_go(go: list[str], worker: Worker, shape: str, clicks: int) -> None:
    send(go, worker, shape, clicks)


@pytest.mark.parametrize(("shape", "clicks"), [("write", 2000), ("small", 500), ("large", 100)])
def test_node(node: list[str], worker: Worker, shape: str, clicks: int) -> None:
    send(node, worker, shape, clicks)


@pytest.mark.parametrize(("shape", "clicks"), [("stream", 1000), ("small", 500), ("large", 500)])
def test_java(java: list[str], worker: Worker, shape: str, clicks: int) -> None:
    send(java, worker, shape, clicks)
