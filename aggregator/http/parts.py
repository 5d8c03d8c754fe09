"""What the handlers of the statistics port work with: one typed object, given to each by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from litestar.di import NamedDependency
from litestar.params import SkipValidation
from prometheus_client import CollectorRegistry

from aggregator.corrections.ledger import Ledger
from aggregator.reading.answers import Answers
from aggregator.reading.banners import Register
from aggregator.reading.live import Live
from clickmill import messages


class File(NamedTuple):
    """A file of the pages as it is sent."""

    content_type: str
    body: bytes
    zipped: bytes
    etag: str


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
    document: bytes
    """The OpenAPI document."""


FromParts: TypeAlias = NamedDependency[SkipValidation[Parts]]
"""The type of a handler's argument `parts`."""
