"""An error of the contract: a status, a code for programs, and a sentence that says what to do."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec

QUOTE_CHARS: Final = 60
"""How much of a wrong value is shown back."""
RETRY_AFTER_S: Final = 2

Headers = list[tuple[str, str]]


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every error answer, on both ports."""

    error: str
    code: str


class Problem(Exception):  # noqa: N818  # RFC 9457's word
    """A request that can't be answered as asked. The sentence says what to do instead."""

    def __init__(
        self, status: int, code: str, sentence: str, headers: Headers | None = None
    ) -> None:
        """`headers` are those that this error needs besides the ones of every answer."""
        super().__init__(sentence)
        self.status, self.code, self.sentence = int(status), code, sentence
        self.headers = headers or []

    @property
    def body(self) -> bytes:
        """The JSON body of the answer."""
        return msgspec.json.encode(ErrorBody(self.sentence, self.code))


def bad(code: str, sentence: str) -> Problem:
    """A 400: the request itself is wrong."""
    return Problem(HTTPStatus.BAD_REQUEST, code, sentence)


def unavailable(code: str, sentence: str) -> Problem:
    """A 503: the same request can succeed after RETRY_AFTER_S seconds."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, code, sentence, retry_after())


def too_many(code: str, sentence: str) -> Problem:
    """A 429: the same request can succeed after RETRY_AFTER_S seconds."""
    return Problem(HTTPStatus.TOO_MANY_REQUESTS, code, sentence, retry_after())


def too_many_requests() -> Problem:
    """The 429 of a client that waits for more statistics than its share."""
    return too_many(
        "too_many_requests",
        "too many of your requests for statistics are waiting: send the next when one is answered",
    )


def retry_after() -> Headers:
    """The header of an error that passes by itself."""
    return [("Retry-After", str(RETRY_AFTER_S))]


def unauthorized() -> Problem:
    """The 401 of every request without a valid token."""
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        "unauthorized",
        "a token is needed: send the header Authorization: Bearer <token>",
        [("WWW-Authenticate", "Bearer")],
    )


def no_read_token() -> Problem:
    """The 401 of a port that others can reach, while no token is set that may read."""
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        "unauthorized",
        "statistics and metrics need a token on a port that others can reach, and none is set: set "
        "CLICKMILL_STATS_TOKEN and send it as Authorization: Bearer <token>",
        [("WWW-Authenticate", "Bearer")],
    )


def read_only() -> Problem:
    """The 403 of a write request with a token that may only read."""
    sentence = "this token may only read: send one of CLICKMILL_WRITE_TOKEN"
    return Problem(HTTPStatus.FORBIDDEN, "read_only_token", sentence)


def not_local() -> Problem:
    """The 403 of a write request from elsewhere, while no write token is set."""
    return Problem(
        HTTPStatus.FORBIDDEN,
        "write_token_not_set",
        "without a write token only this machine may write, and not through a proxy: set "
        "CLICKMILL_WRITE_TOKEN and send it as Authorization: Bearer <token>",
    )


def foreign_origin() -> Problem:
    """The 403 of a write request that a page of another origin sent."""
    return Problem(
        HTTPStatus.FORBIDDEN,
        "foreign_origin",
        "pages of other origins may not write: send it from a server, or add the page's host to "
        "CLICKMILL_ALLOWED_HOSTS",
    )


def foreign_host() -> Problem:
    """The 421 of a request for a host name that is not ours."""
    return Problem(
        HTTPStatus.MISDIRECTED_REQUEST,
        "unknown_host",
        "Host is no name of this server: use its IP address or localhost, or add the name to "
        "CLICKMILL_ALLOWED_HOSTS",
    )


def body_too_large(limit: int) -> Problem:
    """A 413. `limit` in bytes."""
    sentence = f"the body is too large: at most {limit:,} bytes are read here"
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", sentence)


def body_timeout(seconds: float) -> Problem:
    """A 408: the whole body must arrive within `seconds`."""
    sentence = f"the body did not arrive within {seconds:g} s: send it at once"
    return Problem(HTTPStatus.REQUEST_TIMEOUT, "body_timeout", sentence)


def body_cut() -> Problem:
    """The 400 of a body that broke off."""
    return bad("body_cut", "the body ended before its Content-Length: send all of it")


def stats_unreachable() -> Problem:
    """The 503 of the ingest port while no aggregator answers."""
    return unavailable(
        "stats_unavailable",
        "no aggregator answers: ask again in a few seconds, or see its /readyz; clicks are "
        "counted meanwhile",
    )


def stats_unreadable() -> Problem:
    """The 503 of an aggregator that can't read Postgres."""
    sentence = "the statistics can't be read just now: ask again in a few seconds"
    return unavailable("stats_unavailable", sentence)


def change_unknown() -> Problem:
    """The 503 of a change that Postgres may not have stored."""
    sentence = "the change may not have been stored: look whether it is there before you try again"
    return unavailable("stats_unavailable", sentence)


def completeness_unknown() -> Problem:
    """The 503 of tsTo=complete while completeThrough is not known."""
    sentence = "how far statistics are complete is not known just now: ask again in a few seconds"
    return unavailable("stats_unavailable", f"{sentence}, or give a time as tsTo")


def answer_too_large(limit: int) -> Problem:
    """A 400 of the ingest port: its answers come over NATS, in messages of `limit` bytes."""
    return bad(
        "answer_too_large",
        f"the answer is larger than the {limit:,} bytes that NATS lets through here: ask the "
        "statistics port (8081), or for fewer points, or with format=ndjson",
    )


def quote(value: object) -> str:
    """A wrong value as it may stand in a sentence: printable and short."""
    text = ascii(value)
    return text if len(text) <= QUOTE_CHARS else text[:QUOTE_CHARS] + "…"
