"""What the settings say of spools, frames, the stream and the name of this machine."""

from __future__ import annotations

from typing import NamedTuple

from clickmill.settings import Settings
from ingest.durable.outbox import Outbox


class Limits(NamedTuple):
    """Seconds and bytes."""

    flush_interval: float
    spool_max_bytes: int
    spool_keep_seconds: float
    resend_after_seconds: float
    nats_max_bytes: int
    node_name: str

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The settings of these names."""
        return cls(*(getattr(settings, name) for name in cls._fields))

    def outbox(self, mark: int | None) -> Outbox:
        """An empty outbox of a source with this mark; None where it is not known."""
        return Outbox(self.spool_keep_seconds, self.resend_after_seconds, mark)
