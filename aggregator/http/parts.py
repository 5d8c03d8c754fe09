"""What the handlers of the statistics port work with: one typed object, given to each by name."""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from litestar.di import NamedDependency
from litestar.params import SkipValidation
from prometheus_client import CollectorRegistry

from aggregator.corrections.ledger import Ledger
from aggregator.reading.answers import Answers
from aggregator.reading.banners import Register
from aggregator.reading.live import Live
from clickmill import messages


@dataclass(frozen=True)
class File:
    """A file of the pages as it is sent."""

    content_type: str
    body: bytes
    etag: str

    @cached_property
    def zipped(self) -> bytes:
        """The body with gzip, compressed when first asked for, not at the start."""
        return gzip.compress(self.body, 6, mtime=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of the application."""

    answers: Answers
    register: Register
    ledger: Ledger
    live: Live
    not_ready: Callable[[], str | None]
    """Why this aggregator is not ready, as a sentence; None while it is."""
    registry: CollectorRegistry
    max_banner_id: int
    sources: Callable[[messages.SourcesRequest], Awaitable[messages.SourcesReply]]
    """Lists sources, or gives some up. Raises Problem."""
    files: Mapping[str, File]
    """The files of the pages, by name."""
    document: Callable[[], bytes]
    """Makes the OpenAPI document, once."""


FromParts: TypeAlias = NamedDependency[SkipValidation[Parts]]
"""The type of a handler's argument `parts`."""
