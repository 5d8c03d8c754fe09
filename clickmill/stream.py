"""The stream of frames in NATS: made where it is missing, otherwise left as its operator has it.

Why a module of its own: every worker and every aggregator may be the first to find it missing, and
must make the same one. NATS is transport only, but a stream whose one server is lost delays
statistics until somebody acts, so in a cluster it has three replicas.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final, NamedTuple

from nats.errors import Error as NatsError
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError

from clickmill import wire
from clickmill.retry import Backoff
from clickmill.settings import Settings

MAX_BYTES: Final = 1024**3
DUPLICATE_WINDOW_S: Final = 120.0
CLUSTER_REPLICAS: Final = 3
MADE_MEANWHILE_TRIES: Final = 5
"""Looks for the stream that another process is making."""
_TOO_FEW_SERVERS: Final = frozenset({10005, 10052, 10074})
"""Error codes of the server: no suitable servers, over the maximum of 5, and no cluster."""

log = logging.getLogger("clickmill.stream")


class ReplicasError(NatsError):
    """The cluster can't have as many replicas as the settings ask for."""


class StreamOptions(NamedTuple):
    """What the settings say of a stream that is made. An existing one gets only `max_bytes`.

    `replicas` 0: three in a cluster of three or more, else one.
    """

    max_bytes: int = MAX_BYTES
    replicas: int = 0
    tags: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> StreamOptions:
        """The settings of these names."""
        tags = tuple(tag for tag in settings.nats_placement_tags.split(",") if tag)
        return cls(settings.nats_max_bytes, settings.nats_replicas, tags)

    @property
    def where(self) -> str:
        """The servers that may store it, as part of a sentence."""
        return f" on servers with the tags {', '.join(self.tags)}" if self.tags else ""

    def config(self, replicas: int) -> api.StreamConfig:
        """A work queue in files that refuses new messages when it is full."""
        return api.StreamConfig(
            name=wire.STREAM,
            subjects=[f"{wire.DELTAS_PREFIX}.>"],
            retention=api.RetentionPolicy.WORK_QUEUE,
            storage=api.StorageType.FILE,
            discard=api.DiscardPolicy.NEW,
            max_bytes=self.max_bytes,
            duplicate_window=DUPLICATE_WINDOW_S,
            num_replicas=replicas,
            placement=api.Placement(tags=list(self.tags)) if self.tags else None,
        )


async def ensure_stream(js: JetStreamContext, options: StreamOptions) -> None:
    """Make the stream where it is missing; where it exists only its `max_bytes` is set again.

    Replicas and placement that an operator chose stay as they are. Raises nats.errors.Error
    where the server can't be reached or refuses (no room for `max_bytes`, no JetStream).
    """
    try:
        config = (await js.stream_info(wire.STREAM)).config
    except NotFoundError:
        await _create(js, options)
        return
    if config.max_bytes != options.max_bytes:
        await js.update_stream(config.evolve(max_bytes=options.max_bytes))


async def _create(js: JetStreamContext, options: StreamOptions) -> None:
    try:
        config = await (_add(js, options) if options.replicas else _add_default(js, options))
    except (APIError, ReplicasError):
        if not await _made_meanwhile(js):
            raise
    else:
        log.info("NATS stream %s made, of at most %d bytes, with %d replicas",
                 wire.STREAM, options.max_bytes, config.num_replicas or 1)  # fmt: skip


async def _add(js: JetStreamContext, options: StreamOptions) -> api.StreamConfig:
    """With exactly as many replicas as the settings ask for."""
    try:
        return (await js.add_stream(options.config(options.replicas))).config
    except APIError as error:
        if error.err_code not in _TOO_FEW_SERVERS:
            raise
        raise ReplicasError(
            f"the stream can't have {options.replicas} replicas{options.where} "
            f"({error.description}): start more NATS servers, or set CLICKMILL_NATS_REPLICAS to "
            "what the cluster can have"
        ) from error


async def _add_default(js: JetStreamContext, options: StreamOptions) -> api.StreamConfig:
    """Three replicas, also while one of three servers is down; where there are fewer, one."""
    try:
        return (await js.add_stream(options.config(CLUSTER_REPLICAS))).config
    except APIError as error:
        if error.err_code not in _TOO_FEW_SERVERS:
            raise
    return (await js.add_stream(options.config(1))).config


async def _made_meanwhile(js: JetStreamContext) -> bool:
    """Whether another process has made the stream: the name is then in use, and while it is being
    made the server says that there is no room for a second one."""
    backoff = Backoff()
    for _ in range(MADE_MEANWHILE_TRIES):
        with contextlib.suppress(NotFoundError):
            await js.stream_info(wire.STREAM)
            return True
        await asyncio.sleep(backoff.pause())
    return False
