"""What a request can be refused for: a status, a code for programs, a sentence for people.

"RefusedError", because none of these is a fault of ours: the sentence says what to do instead. The
shape of every error answer of the aggregator is made here and nowhere else.
"""

from __future__ import annotations

from http import HTTPStatus

import msgspec

BAD_REQUEST = HTTPStatus.BAD_REQUEST
NOT_FOUND = HTTPStatus.NOT_FOUND
UNAVAILABLE = HTTPStatus.SERVICE_UNAVAILABLE

# How much of a wrong value is shown back.
QUOTE_CHARS = 60


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every error answer."""

    error: str
    code: str


class RefusedError(Exception):
    """A request that gets no figures. `retry` says whether asking again later can help."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = int(status)
        self.code = code
        self.sentence = sentence

    @property
    def retry(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}

    @property
    def body(self) -> bytes:
        """The JSON body of the answer."""
        return msgspec.json.encode(ErrorBody(self.sentence, self.code))


def bad(code: str, sentence: str) -> RefusedError:
    """A 400: the request itself is wrong."""
    return RefusedError(BAD_REQUEST, code, sentence)


def unavailable() -> RefusedError:
    """The 503 of figures that can't be read just now."""
    sentence = "the statistics can't be read just now: ask again in a few seconds"
    return RefusedError(UNAVAILABLE, "stats_unavailable", sentence)


def quote(value: object) -> str:
    """A wrong value as it may stand in a sentence: printable and short."""
    text = ascii(value)
    return text if len(text) <= QUOTE_CHARS else text[:QUOTE_CHARS] + "…"
