"""The sender against a real socket that breaks: no request is sent twice, and none is missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bench.load import sender
from bench.load.sender import Outcome, Sender, Shot

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
REFUSAL = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
HEAD_ANSWER = b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 99\r\n\r\n"


class Breaker:
    """Answers by banner: 7 breaks after the request, 8 in the middle of the answer, 9 is 404."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path = head.split(" ")[:2]
                self.heard.append(f"{method} {path}")
                writer.write(self.answer(method, path))
                if path.endswith(("/7", "/8", "/9")):
                    break
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    def answer(self, method: str, path: str) -> bytes:
        if method == "HEAD":
            return HEAD_ANSWER
        return {"7": b"", "8": ANSWER[:-1], "9": REFUSAL}.get(path[-1], ANSWER)


async def send(*wanted: tuple[str, int]) -> tuple[Outcome, list[str]]:
    breaker = Breaker()
    server = await asyncio.start_server(breaker.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def shots() -> AsyncIterator[Shot]:
        for method, banner in wanted:
            yield Shot(0.0, method, banner, method in ("GET", "POST"))

    async with server:
        outcome = await Sender("127.0.0.1", port, 2, lambda: None).run(shots())
    return outcome, breaker.heard


def test_broken_clicks_are_in_flight_and_not_sent_again() -> None:
    wanted = [("POST", 1), ("GET", 7), ("POST", 8), ("GET", 9), ("POST", 1), ("GET", 2)]
    outcome, heard = asyncio.run(send(*wanted))
    assert outcome.ledger.answered == {1: 2, 2: 1}
    assert outcome.ledger.in_flight == {7: 1, 8: 1}
    assert len(outcome.broken) == 2
    assert outcome.statuses["GET", 404] == 1
    assert sorted(heard) == sorted(f"{method} /counter/{banner}" for method, banner in wanted)
    assert outcome.ledger.refused == {404: 1}


def test_a_head_answer_has_no_body_to_wait_for() -> None:
    outcome, _ = asyncio.run(send(("HEAD", 1), ("GET", 1), ("HEAD", 1)))
    assert outcome.statuses["HEAD", 405] == 2
    assert outcome.ledger.answered == {1: 1}


def test_a_server_that_is_not_there_is_unsent_not_in_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender, "CONNECT_PAUSE", 0.001)

    async def nobody() -> Outcome:
        async def shots() -> AsyncIterator[Shot]:
            yield Shot(0.0, "GET", 1, True)

        return await Sender("127.0.0.1", 1, 1, lambda: None).run(shots())

    outcome = asyncio.run(nobody())
    assert outcome.unsent == 1
    assert not outcome.ledger.in_flight
