"""Heartbeats, and dying with the parent, with real processes at both ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from clickmill.heartbeat import INTERVAL_SECONDS
from stack.supervise.heartbeats import SILENCE_SECONDS
from tests.support.processes import alive
from tests.support.wait import eventually

CHILD = """
import asyncio, os, sys
from clickmill import heartbeat
print(os.getpid(), heartbeat.attach(), flush=True)
assert not [n for n in os.environ if n.startswith("CLICKMILL_")]
heartbeat.ready()
async def main():
    beats = asyncio.create_task(heartbeat.send_forever())
    await asyncio.sleep(float(sys.argv[1]))
asyncio.run(main())
"""

PARENT = """
import os, subprocess, sys
env = dict(os.environ, CLICKMILL_PARENT_PID=str(os.getpid()))
subprocess.run([sys.executable, "-c", sys.argv[1], "60"], env=env)
"""


def start(code: str, *args: str, **env: str) -> subprocess.Popen[str]:
    fds = [int(env["CLICKMILL_HEARTBEAT_FD"])] if "CLICKMILL_HEARTBEAT_FD" in env else []
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        env=os.environ | env,
        pass_fds=fds,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_child_dies_with_its_parent() -> None:
    with start(PARENT, CHILD) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline().split()[0])
        assert alive(child)
        parent.kill()
        eventually(lambda: not alive(child), 2, "child is gone")


def test_a_child_of_a_dead_parent_ends_immediately() -> None:
    with start(CHILD, "60", CLICKMILL_PARENT_PID="1") as child:
        assert child.wait(10) == -signal.SIGKILL


def test_ready_then_heartbeats() -> None:
    """A heartbeat at once, then one each interval: a slow machine may delay them, and adds none."""
    read, write = os.pipe()
    began = time.monotonic()
    with start(CHILD, "60", CLICKMILL_HEARTBEAT_FD=str(write)) as child:
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            assert pipe.read(4) == b"R..."
            assert 2 * INTERVAL_SECONDS < time.monotonic() - began < SILENCE_SECONDS
            child.kill()
            assert set(pipe.read()) <= set(b".")


def test_without_a_supervisor_nothing_happens() -> None:
    with start(CHILD, "0") as child:
        out, err = child.communicate(timeout=10)
        assert (child.returncode, out.split()[1], err) == (0, "False", "")


def test_a_closed_pipe_does_not_break_the_child() -> None:
    read, write = os.pipe()
    os.close(read)
    with start(CHILD, "0.1", CLICKMILL_HEARTBEAT_FD=str(write)) as child:
        os.close(write)
        _, err = child.communicate(timeout=10)
        assert child.returncode == 0
        assert err.count("supervisor is gone") == 1
