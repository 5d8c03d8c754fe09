"""Process slots, with small real programs in them."""

from __future__ import annotations

import asyncio
import io
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stack.supervise.child import Probes, Spec
from stack.supervise.heartbeats import SILENCE_SECONDS
from stack.supervise.logs import Log
from stack.supervise.process import children_of
from stack.supervise.slot import ChildFailedError, ProcessSlot
from tests.support.processes import alive
from tests.support.slots import LIVES, Gate, Running, running
from tests.support.wait import aeventually

STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + LIVES
REFUSES = "import sys; sys.exit(2)"
DIES = "import sys; print('no'); sys.exit(1)"
PARENT = "trap '' TERM; sleep 60; exit 1"
NEVER_READY = "import time; time.sleep(60)"
REAL_TIME_SIGNAL = 35
WITHOUT_PROCESSES = """
import asyncio, os, pwd
from tests.integration.test_slot import no_more_processes
if os.geteuid() == 0:  # root has as many processes as it likes
    os.setgroups([])
    os.setuid(pwd.getpwnam("nobody").pw_uid)
asyncio.run(no_more_processes())
"""
ROOT = Path(__file__).parents[2]


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_dead_child_is_restarted() -> None:
    async def story() -> None:
        async with running(LIVES) as here:
            first = await here.another(0)
            os.kill(first, signal.SIGKILL)
            second = await here.another(first)
            assert gone(first)
            os.kill(second, signal.SIGKILL)
            third = await here.another(second, timeout=5)
        assert gone(third)
        assert "was killed by SIGKILL: restarting" in here.out.getvalue()
        assert re.search(r"child +\| \S+Z +\w+ +up\n", here.out.getvalue())

    asyncio.run(story())


def test_a_child_that_hangs_is_replaced() -> None:
    async def story() -> None:
        async with running(LIVES) as here:
            first = await here.another(0)
            begun = time.monotonic()
            os.kill(first, signal.SIGSTOP)
            await here.another(first)
            assert SILENCE_SECONDS - 1 < time.monotonic() - begun < 10
        assert "sent no heartbeat" in here.out.getvalue()

    asyncio.run(story())


def test_a_supervisor_that_was_suspended_kills_no_child() -> None:
    async def story() -> None:
        async with running(LIVES) as here:
            first = await here.another(0)
            time.sleep(SILENCE_SECONDS + 1)  # noqa: ASYNC251  # the loop stands still: that is it
            await asyncio.sleep(1)
            assert here.pid == first

    asyncio.run(story())


def test_a_child_that_is_never_ready_is_killed() -> None:
    async def story() -> None:
        async with running(NEVER_READY, ready_within=0.3) as here:
            first = await _pid(here)

            async def replaced() -> bool:
                return here.pid not in (0, first)

            await aeventually(replaced, 5)
        assert "was not ready after 0.3 s" in here.out.getvalue()

    asyncio.run(story())


async def _pid(here: Running) -> int:
    async def pid() -> int:
        return here.pid

    return await aeventually(pid, 5)


@pytest.mark.parametrize(("code", "tries"), [(REFUSES, None), (DIES, 2)])
def test_children_that_can_not_start(code: str, tries: int | None) -> None:
    async def story() -> None:
        async with running(code, tries=tries) as here:
            with pytest.raises(ChildFailedError, match="child does not start"):
                await asyncio.wait_for(here.task, 10)

    asyncio.run(story())


def test_a_program_that_is_not_there() -> None:
    async def story() -> None:
        spec = Spec(name="child", argv=("/nonexistent",), env={}, stop_seconds=1)
        log = Log(io.StringIO())
        with pytest.raises(ChildFailedError, match="can't be started"):
            await ProcessSlot(spec, log, lambda: None).run()
        log.close()

    asyncio.run(story())


def test_replace_starts_the_new_before_it_ends_the_old() -> None:
    async def story() -> None:
        async with running(LIVES) as here:
            first = await here.another(0)
            assert await here.slot.replace()
            second = here.pid
            assert second != first
            assert gone(first)
            os.kill(second, signal.SIGKILL)
            await here.another(second)
        assert "exited with code" not in here.out.getvalue()

    asyncio.run(story())


def test_a_replacement_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    code = f"import os, sys; os.path.exists({str(flag)!r}) and sys.exit(3)\n" + LIVES

    async def story() -> None:
        async with running(code) as here:
            first = await here.another(0)
            flag.touch()
            assert not await here.slot.replace()
            assert here.pid == first
            assert not gone(first)

    asyncio.run(story())


def test_a_child_that_does_not_stop_is_killed_in_time() -> None:
    async def story() -> None:
        async with running(STUBBORN) as here:
            first = await here.another(0)
            begun = time.monotonic()
            await here.slot.stop()
            assert time.monotonic() - begun < 3
            await here.task
        assert gone(first)
        assert "did not stop within 0.5 s: killed" in here.out.getvalue()

    asyncio.run(story())


def test_killing_a_child_kills_its_stopped_children() -> None:
    async def story() -> None:
        async with running("", argv=("sh", "-c", PARENT), probes=Probes(yes, yes)) as here:
            parent = await here.another(0)
            (child,) = children_of(parent)
            os.kill(child, signal.SIGSTOP)
            await here.slot.stop()
            assert not alive(child)
        assert "did not stop within 0.5 s: killed" in here.out.getvalue()

    asyncio.run(story())


def test_a_death_by_a_real_time_signal_is_handled() -> None:
    async def story() -> None:
        async with running(LIVES) as here:
            first = await here.another(0)
            os.kill(first, REAL_TIME_SIGNAL)
            await here.another(first)
        assert f"was killed by signal {REAL_TIME_SIGNAL}" in here.out.getvalue()

    asyncio.run(story())


def test_a_replacement_that_is_ready_while_the_old_one_is_restarted_is_the_only_child() -> None:
    async def story() -> None:
        gate = Gate()
        others = set(children_of(os.getpid()))  # of tests before this one
        async with running(LIVES, before_start=gate) as here:
            first = await here.another(0)
            gate.opened.clear()
            os.kill(first, signal.SIGKILL)
            await gate.sees(2)
            assert await here.slot.replace()
            second = here.pid
            gate.opened.set()
            for _ in range(10):  # turns of the loop: the restart goes on, or sees that it need not
                await asyncio.sleep(0)
            assert (here.pid, set(children_of(os.getpid())) - others) == (second, {second})
            os.kill(second, signal.SIGKILL)
            await here.another(second)
            assert set(children_of(os.getpid())) - others == {here.pid}

    asyncio.run(story())


def test_a_replacement_that_dies_while_the_old_one_stops_is_replaced_at_once() -> None:
    async def story() -> None:
        async with running(STUBBORN, stop_seconds=30) as here:
            first = await here.another(0)
            replacing = asyncio.create_task(here.slot.replace())
            second = await here.another(first)
            os.kill(second, signal.SIGKILL)
            await here.another(second)
            assert not gone(first)
            os.kill(first, signal.SIGKILL)
            assert await replacing
            here.slot.end_now()

    asyncio.run(story())


def test_a_system_that_can_not_start_another_process_for_a_while() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PROCESSES], cwd=ROOT, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


async def no_more_processes() -> None:
    """The limit of processes is reached: the old child goes on, a dead one comes back later."""
    gate = Gate()
    ready = Probes(yes, yes)
    async with running("", argv=("sleep", "60"), probes=ready, before_start=gate) as here:
        first = await here.another(0)
        usual, most = resource.getrlimit(resource.RLIMIT_NPROC)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, most))
        replacing = asyncio.create_task(here.slot.replace())
        await here.says("child can't be started ([Errno 11]")
        assert here.pid == first
        os.kill(first, signal.SIGKILL)
        await gate.sees(5)
        assert here.pid == 0
        assert not here.task.done()
        resource.setrlimit(resource.RLIMIT_NPROC, (usual, most))
        assert await replacing
        await here.another(first)


async def yes() -> bool:
    return True
