"""The short messages between workers and aggregators, as JSON; frames are in `wire`.

A field that a later release added has a default, so that messages of the release before decode.
"""

from __future__ import annotations

from uuid import UUID

import msgspec


class Committed(msgspec.Struct, frozen=True):
    """What Postgres holds of a source: the last seq applied (0: none) and the clicks up to it.

    `closed`: its row says that no frame will follow. Aggregators of 0.1 never say so.
    """

    seq: int
    total: int
    closed: bool = False


class SourceStatus(msgspec.Struct, frozen=True):
    """A source's heartbeat: every click answered before `as_of` is in frames up to `seq`.

    `as_of` is Unix time in nanoseconds. `closed` says that no frame after `seq` will ever come.
    `created_at`, in the same unit: nothing was answered before it; 0 where the sender can't say.
    `node`: the machine, by CLICKMILL_NODE or its host name; "" from a worker of 0.1.
    `machine`: the boot ID of its kernel, which tells apart machines of the same name.
    """

    source: UUID
    seq: int
    as_of: int
    closed: bool = False
    created_at: int = 0
    node: str = ""
    machine: str = ""


class KeysRequest(msgspec.Struct, frozen=True):
    """Asks which of these idempotency keys are counted already."""

    keys: list[UUID]


class KeysReply(msgspec.Struct, frozen=True):
    """For each key, in the order asked: the digest of what was counted with it, or None."""

    digests: list[UUID | None]


class SourcesRequest(msgspec.Struct, frozen=True):
    """Asks for the open sources; with `give_up` (a node or a source) closes its silent ones.

    `by` is who gives up, for the record.
    """

    give_up: str = ""
    by: str = ""


class SourceRow(msgspec.Struct, frozen=True):
    """An open source. Times are Unix seconds; `complete_through` is 0 where nothing is known."""

    source: UUID
    node: str
    last_seen: float
    last_seq: int
    total: int
    complete_through: float
    silent: bool


class SourcesReply(msgspec.Struct, frozen=True):
    """The open sources, or those that were given up; `error` says why none was."""

    sources: list[SourceRow] = []
    error: str = ""


class AggregatorStatus(msgspec.Struct, frozen=True):
    """What an aggregator reports to `clickmill doctor`.

    `problem`: why it is not ready, or "". `newer_sources`: how many sources wait for a newer
    release. `shared_names`: node names that several machines have at the same time.
    """

    host: str
    version: str
    problem: str = ""
    newer_sources: int = 0
    shared_names: list[str] = []


class StatsRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A statistics request as it came over HTTP: the banner, the raw query and the body.

    `params` (each parameter's values) is what workers of 0.1 send instead of query and body.
    `pages`: the worker can ask for a table page by page; `more` is where the next one begins, as
    the header of the page before says. `client`: who asks, so that one can't hold up the others;
    "" from a worker of 0.2.
    """

    banner_id: int = msgspec.field(name="bannerID")
    query: str = ""
    body: bytes = b""
    params: dict[str, list[str]] = {}
    pages: bool = False
    more: str = ""
    client: str = ""
