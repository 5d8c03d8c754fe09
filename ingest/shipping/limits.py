"""What the settings say of spools, frames, the stream and the name of this machine."""

from __future__ import annotations

from typing import NamedTuple

from clickmill.settings import Settings
from clickmill.stream import StreamOptions
from ingest.durable.outbox import Outbox


class Limits(NamedTuple):
    """Seconds and bytes."""

    flush_interval: float
    spool_max_bytes: int
    spool_keep_seconds: float
    resend_after_seconds: float
    stream: StreamOptions
    node_name: str

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The settings of these names."""
        return cls(
            settings.flush_interval, settings.spool_max_bytes, settings.spool_keep_seconds,
            settings.resend_after_seconds, StreamOptions.of(settings), settings.node_name,
        )  # fmt: skip

    def outbox(self, mark: int | None) -> Outbox:
        """An empty outbox of a source with this mark; None where it is not known."""
        return Outbox(self.spool_keep_seconds, self.resend_after_seconds, mark)
