"""Free ports: those of the supervisor, and the tests' own, which no two processes may share."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stack import ports as stack_ports
from tests.support import ports

ROOT = Path(__file__).parents[2]
TEN = "from tests.support.ports import free_port; print(*(free_port() for _ in range(10))); input()"


def test_each_process_has_its_own_block_of_ports() -> None:
    command = [sys.executable, "-c", TEN]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    others = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    drawn = [ports.free_port() for _ in range(10)]
    for other in others:
        drawn += [int(port) for port in other.stdout.readline().split()]
    for other in others:
        other.communicate("\n", timeout=10)
    assert len({port // ports.BLOCK for port in drawn}) == 3
    assert len(set(drawn)) == len(drawn) == 30
    assert min(drawn) >= ports.FIRST
    assert max(drawn) < ports.END


def test_a_port_with_a_listener_is_left_out_even_where_it_would_be_shared() -> None:
    taken = ports.free_port()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((ports.HOST, taken))
        listener.listen()
        assert taken not in {ports.free_port() for _ in range(ports.BLOCK)}


def test_no_outgoing_connection_can_take_the_port_of_an_embedded_server() -> None:
    first = int(stack_ports.CONNECTIONS.read_text().split()[0])
    assert all(ports.END <= stack_ports.free_port() < first for _ in range(50))


def test_of_two_ports_the_free_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    taken = next(port for port in iter(ports.free_port, 0) if is_free(port + 1))
    settings = tmp_path / "ip_local_port_range"
    settings.write_text(f"{taken + 2}\t60999\n")
    monkeypatch.setattr(stack_ports, "FIRST", taken)
    monkeypatch.setattr(stack_ports, "CONNECTIONS", settings)
    with socket.create_server((ports.HOST, taken)):
        assert {stack_ports.free_port() for _ in range(20)} == {taken + 1}


@pytest.mark.parametrize("text", ["1024\t65535\n", "?", None])
def test_any_free_port_where_connections_may_take_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    settings = tmp_path / "ip_local_port_range"
    if text is not None:
        settings.write_text(text)
    monkeypatch.setattr(stack_ports, "CONNECTIONS", settings)
    drawn = {stack_ports.free_port() for _ in range(5)}
    assert min(drawn) >= 1024
    assert all(map(is_free, drawn))


def is_free(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((ports.HOST, port)) != 0
