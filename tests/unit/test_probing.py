"""How long an embedded server may be silent, or stopped, before it is taken to hang."""

from __future__ import annotations

import asyncio
import math
import signal
import subprocess
from collections.abc import Iterable

import pytest

from stack.supervise import probing
from stack.supervise.probing import Patience, wait_stopped, wait_unanswered
from stack.supervise.process import children_of
from tests.support.wait import eventually

DAY_S = 86_400.0
PAUSE_S = probing.PROBE_EVERY_SECONDS
SILENCE = (False, probing.ANSWER_SECONDS + PAUSE_S)
REFUSED = (False, PAUSE_S)
ANSWER = (True, PAUSE_S)
LATE_ANSWER = (True, probing.ANSWER_SECONDS + PAUSE_S)
ASLEEP = (False, DAY_S)
"""The supervisor itself was, or the whole machine, while a probe was on its way."""


def seconds_until_over(probes: Iterable[tuple[bool, float]]) -> float:
    """When the patience ends; inf where it does not."""
    patience, now = Patience(), 0.0
    for answered, seconds in probes:
        now += seconds
        patience.probed(answered, seconds)
        if patience.is_over:
            return now
    return math.inf


@pytest.mark.parametrize("probe", [SILENCE, REFUSED])
def test_a_server_that_never_answers_is_replaced_after_a_minute(probe: tuple[bool, float]) -> None:
    assert seconds_until_over([probe] * 100) == probing.UNANSWERED_SECONDS


@pytest.mark.parametrize(
    "probes",
    [
        [ANSWER] * 1000,
        [LATE_ANSWER] * 1000,
        [*[SILENCE] * 5, LATE_ANSWER] * 200,
        [*[SILENCE] * 4, ASLEEP, *[ANSWER] * 10],
        [ASLEEP, ANSWER] * 100,
    ],
    ids=["quick", "slow", "most-in-vain", "asleep-while-silent", "asleep-often"],
)
def test_a_busy_machine_is_waited_for(probes: list[tuple[bool, float]]) -> None:
    assert seconds_until_over(probes) == math.inf


def test_probes_continue_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "PROBE_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(probing, "UNANSWERED_SECONDS", 0.05)
    answers = iter([False, False, True] * 3 + [False] * 1000)

    async def probe() -> bool:
        return next(answers)

    async def story() -> str:
        return await asyncio.wait_for(wait_unanswered(probe), 10)

    assert asyncio.run(story()).startswith("answered no probe for")
    assert 900 < sum(1 for _ in answers) < 1000


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "LOOK_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(probing, "STOPPED_LOOKS", 20)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("child", [False, True], ids=["itself", "a-child"])
def test_a_stopped_server_is_replaced(child: bool) -> None:
    async def story(pid: int) -> str:
        return await asyncio.wait_for(wait_stopped(pid), 10)

    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"]) as parent:
        (sleeper,) = eventually(lambda: children_of(parent.pid))
        stopped = sleeper if child else parent.pid
        try:
            subprocess.run(["kill", "-STOP", str(stopped)], check=True)
            assert asyncio.run(story(parent.pid)) == "was stopped by a signal for 5 s"
        finally:
            subprocess.run(["kill", "-KILL", str(sleeper), str(parent.pid)], check=True)


@pytest.mark.usefixtures("soon")
def test_a_server_that_continues_in_time_is_kept() -> None:
    async def story(process: subprocess.Popen[bytes]) -> None:
        waiting = asyncio.create_task(wait_stopped(process.pid))
        for _ in range(5):
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(probing.LOOK_EVERY_SECONDS * 5)
            process.send_signal(signal.SIGCONT)
            await asyncio.sleep(probing.LOOK_EVERY_SECONDS * 3)
        assert not waiting.done()
        waiting.cancel()

    with subprocess.Popen(["sleep", "60"]) as process:
        asyncio.run(story(process))
        process.kill()
