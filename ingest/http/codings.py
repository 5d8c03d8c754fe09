"""Inflates the body of a batch: gzip and deflate, within the bound of a body.

Why bounded here: a megabyte of zeros takes a kilobyte in gzip. Inflating stops as soon as the bound
is passed, so what a client can make grow is one body of the largest size that may be sent anyway.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final

from clickmill.contract.problem import Problem, bad, body_too_large, quote

HEADER: Final = "content-encoding"
GZIP: Final = 16 + zlib.MAX_WBITS
ZLIB: Final = zlib.MAX_WBITS
RAW: Final = -zlib.MAX_WBITS
"""What some clients send as "deflate", without the header that RFC 9110 asks for."""
_ZLIB_METHOD: Final = 8


def codings_of(headers: Any) -> list[str]:
    """The values of Content-Encoding. Granian leaves out those that are not ASCII: one is then "?",
    because such a body must not be taken for one without a coding."""
    found: list[str] = headers.get_all(HEADER)
    return found or (["?"] if HEADER in headers else [])


def inflate(body: bytes, encodings: Sequence[str], limit: int) -> bytes:
    """The body without its coding. Raises Problem 400, 413 (over `limit` bytes) or 415."""
    names = [name.strip().lower() for value in encodings for name in value.split(",")]
    coding = names[0] if names else "identity"
    if len(names) > 1 or coding not in ("identity", "gzip", "x-gzip", "deflate"):
        raise Problem(
            415, "unsupported_encoding",
            f"the content encoding is {quote(', '.join(names))}: send gzip, deflate, or none",
            [("accept-encoding", "gzip, deflate")],
        )  # fmt: skip
    if coding == "identity":
        return body
    window = GZIP if coding != "deflate" else (ZLIB if _has_zlib_header(body) else RAW)
    try:
        return _inflated(body, window, limit)
    except zlib.error:
        raise bad("invalid_batch", f"the body is no whole {coding} stream") from None


def _has_zlib_header(body: bytes) -> bool:
    return len(body) > 1 and body[0] & 15 == _ZLIB_METHOD and (body[0] * 256 + body[1]) % 31 == 0


def _inflated(body: bytes, window: int, limit: int) -> bytes:
    """Raises zlib.error where the stream is damaged, cut, or not all of the body."""
    whole = bytearray()
    while body:
        stream = zlib.decompressobj(window)
        whole += stream.decompress(body, limit + 1 - len(whole))
        if len(whole) > limit:
            raise body_too_large(limit)
        if not stream.eof:
            raise zlib.error("cut")
        body = stream.unused_data  # gzip may have several members, one behind the other
        if body and window != GZIP:
            raise zlib.error("more than a stream")
    return bytes(whole)
