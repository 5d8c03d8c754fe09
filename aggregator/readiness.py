"""Whether this aggregator does its work, and if not, why: the facts behind `/readyz`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from aggregator.postgres.migrations import SchemaError
from aggregator.writing.consumer import Consumer
from clickmill.connection import Connection

# The lease session talks to Postgres twice a second.
POSTGRES_SEEN_WITHIN_S: Final = 3.0
# A NATS that only restarts is back before this; its shards need not change hands.
NATS_GRACE_S: Final = 3.0


class Readiness:
    """Facts, set as they become true."""

    def __init__(
        self, nats: Connection, pulling: Consumer, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._nats, self._pulling, self._clock = nats, pulling, clock
        self._postgres_seen_at = -POSTGRES_SEEN_WITHIN_S
        self._nats_seen_at = -NATS_GRACE_S
        self.schema = False
        self._schema_error = ""

    def schema_error(self, error: Exception) -> None:
        """The tables can't be used. Only a reason that an operator has to remove is repeated."""
        self._schema_error = str(error) if isinstance(error, SchemaError) else ""

    def postgres_seen(self) -> None:
        """Postgres has answered just now."""
        self._postgres_seen_at = self._clock()

    def postgres_lost(self) -> None:
        """The session with Postgres has broken."""
        self._postgres_seen_at = -POSTGRES_SEEN_WITHIN_S

    @property
    def postgres_ok(self) -> bool:
        """Whether Postgres has answered lately."""
        return self._clock() - self._postgres_seen_at < POSTGRES_SEEN_WITHIN_S

    @property
    def nats_ok(self) -> bool:
        """Whether NATS is connected."""
        return self._nats.is_connected

    def can_pull(self) -> bool:
        """Whether NATS is connected, or was until a moment ago."""
        now = self._clock()
        if self.nats_ok:
            self._nats_seen_at = now
        return now - self._nats_seen_at < NATS_GRACE_S

    def reason(self) -> str | None:
        """Why this aggregator is not ready, as a sentence; None while it is."""
        if not self.schema:
            return self._schema_error or "Postgres has not answered yet: the schema is not applied"
        if not self.nats_ok:
            why = self._nats.reason
            return f"NATS can't be reached ({why}): clicks wait in the workers' spools"
        if not self.postgres_ok:
            return "Postgres can't be reached: clicks wait in NATS and in the workers' spools"
        if troubles := self._pulling.trouble:
            shard, why = next(iter(troubles.items()))
            return (
                f"{len(troubles)} shards can't be read from NATS (shard {shard}: {why}): see that "
                "it has JetStream, and room for CLICKMILL_NATS_MAX_BYTES"
            )
        return None
