"""Sends batches to the ingest port, each until it is answered: its key makes that harmless."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from clickmill.retry import Backoff
from stack.errors import StackError
from stack.imports.chunks import Chunk
from stack.probe import bearer

TIMEOUT_S: Final = 30.0
GIVE_UP_S: Final = 60.0
"""How long a batch is tried without an answer."""
AGAIN: Final = (408, 429, 502, 503, 504)


class Client:
    """One connection for each thread that sends."""

    def __init__(self, url: str, tokens: str) -> None:
        """Raises StackError where `url` is none of HTTP."""
        where = urlsplit(url)
        if where.scheme not in ("http", "https") or not where.hostname:
            raise StackError(f"--url is {url!r}: give the ingest port as http://HOST:PORT")
        self._secure = where.scheme == "https"
        self._host, self._port, self._path = where.hostname, where.port, where.path.rstrip("/")
        self._headers = {"Content-Type": "application/msgpack"} | bearer(tokens)
        self._of_thread = threading.local()

    def send(self, chunk: Chunk) -> None:
        """Returns once the batch is counted. Raises StackError."""
        body, backoff = msgspec.msgpack.encode(chunk.items), Backoff()
        give_up_at = time.monotonic() + GIVE_UP_S
        while True:
            try:
                status, answer = self._exchange(body, {"Idempotency-Key": chunk.key})
            except (OSError, http.client.HTTPException) as error:
                status, answer = 0, f"{self._host}:{self._port} can't be reached ({error})"
            if status == 200:
                return
            if status and status not in AGAIN:
                raise StackError(_refusal(status, answer))
            if time.monotonic() > give_up_at:
                raise StackError(f"{answer}. Run the same command again: it goes on from here.")
            time.sleep(backoff.pause())

    def _exchange(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        connection: http.client.HTTPConnection | None = getattr(self._of_thread, "it", None)
        if connection is None:
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            connection = self._of_thread.it = kind(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", f"{self._path}/clicks", body, {**self._headers, **headers})
            answer = connection.getresponse()
            return answer.status, _sentence(answer.read())
        except BaseException:
            connection.close()  # the next request opens it again
            raise


def _sentence(body: bytes) -> str:
    try:
        found: dict[str, Any] = msgspec.json.decode(body, type=dict)
    except msgspec.MsgspecError:
        return body.decode("utf-8", "replace")[:200]
    return str(found.get("error", ""))


def _refusal(status: int, answer: str) -> str:
    if status == 422:
        return (
            "a part of this file was imported before, in another way (another --pattern or "
            "--format): it is counted as it was then, and the rest was not imported"
        )
    hint = ": set CLICKMILL_WRITE_TOKEN to the token" if status in (401, 403) else ""
    return f"the ingest port answered {status}: {answer}{hint}"
