"""Bearer tokens, compared in constant time; `contract.access` says what they are for.

Several tokens may be set, so that one can be replaced while both work. A client without one learns
nothing: a missing, wrong, truncated or repeated token gets the same answer. Tokens are kept as
digests of one length, so that neither time nor an accident in a log gives one away.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Final

SCHEME: Final = b"bearer"
MAX_HEADER_BYTES: Final = 4_096


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


class Tokens:
    """The tokens of one kind; false where none is set."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._digests = tuple(_digest(token.encode()) for token in tokens if token)

    @classmethod
    def parse(cls, setting: str) -> Tokens:
        """Tokens of the setting's text, with commas between."""
        return cls(part.strip() for part in setting.split(","))

    def __bool__(self) -> bool:
        return bool(self._digests)

    def includes(self, authorization: Sequence[bytes]) -> bool:
        """Whether these values of the Authorization header (all of them) hold one of the tokens."""
        if len(authorization) != 1 or len(authorization[0]) > MAX_HEADER_BYTES:
            return False
        scheme, _, token = authorization[0].partition(b" ")
        given = _digest(token.strip(b" "))
        known = False
        for digest in self._digests:
            known |= hmac.compare_digest(given, digest)
        return known and scheme.lower() == SCHEME
