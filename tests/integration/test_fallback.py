"""Where Granian is not as expected, the ordinary way serves, and a loud line says so."""

from __future__ import annotations

import asyncio
from typing import Any

import granian
import pytest

from ingest._fastpath import AnsweringLoop
from ingest.http import granian_server
from tests.support.ports import free_port
from tests.support.raw import HOST, Answer, ask


async def application(scope: Any, proto: Any) -> None:
    body = await proto()
    proto.response_bytes(200, [], body)


def serve_once(make: Any) -> Answer:
    """The answer of a server in this process that is given this fast path."""
    port = free_port()

    async def main() -> Answer:
        server = granian_server.Server(
            application, granian_server.Listener(HOST, port, 5, 2, 16), make
        )
        assert not server.is_fast
        try:
            return await asyncio.to_thread(ask, port, "POST", "/counter/1", b"a body")
        finally:
            await server.stop(5)

    with asyncio.Runner(loop_factory=AnsweringLoop) as runner:
        return runner.run(main())


def never(hand_over: Any) -> Any:
    raise AssertionError("the fast path is made for another version")


def changed(hand_over: Any) -> Any:
    raise AttributeError("CallbackScheduler has no _schedule_fn")


def test_another_version(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(granian, "__version__", "2.9.0")
    answer = serve_once(never)
    assert (answer.status, answer.body) == (200, b"a body")
    assert "Granian is 2.9.0 and the fast path is made for 2.8.7" in caplog.text


def test_other_internals(caplog: pytest.LogCaptureFixture) -> None:
    answer = serve_once(changed)
    assert (answer.status, answer.body) == (200, b"a body")
    assert "Granian is not as expected" in caplog.text
    assert "serving the ordinary, slower way" in caplog.text
