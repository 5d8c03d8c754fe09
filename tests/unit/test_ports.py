"""The tests' own ports: no two processes may be given the same one."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

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
