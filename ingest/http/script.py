"""The file `clickmill.js`, which counts clicks from anybody's pages.

Apart from `responses`: it is compressed once, when the worker starts.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Final

from ingest.http.responses import Answer

NAME: Final = "clickmill.js"
MAX_AGE_S: Final = 3600
"""A page of many views fetches it once an hour; a new release is everywhere after that time."""

_PLAIN: Final = Path(__file__).with_name(NAME).read_bytes()
_ZIPPED: Final = gzip.compress(_PLAIN, mtime=0)
_HEADERS: Final = [
    ("content-type", "text/javascript; charset=utf-8"),
    ("cache-control", f"public, max-age={MAX_AGE_S}"),
    ("vary", "accept-encoding"),
    ("x-content-type-options", "nosniff"),
    # Pages that isolate themselves (COEP) run nothing from another origin without it.
    ("cross-origin-resource-policy", "cross-origin"),
]


def answer(accept_encoding: str) -> Answer:
    """The script, compressed if the client accepts that."""
    if "gzip" in accept_encoding:
        return Answer(200, _ZIPPED, [*_HEADERS, ("content-encoding", "gzip")])
    return Answer(200, _PLAIN, _HEADERS)
