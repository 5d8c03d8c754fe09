"""Checks of what NATS connects: its servers, the stream, and the aggregators."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StreamInfo
from nats.js.errors import NotFoundError

from clickmill import bus, messages, wire
from clickmill.settings import Settings
from ingest.shipping.payload import largest_frame
from stack import probe
from stack.doctor.address import REACH_SECONDS, embedded_address, words
from stack.doctor.finding import Finding, Passed

ANSWERS_SECONDS: Final = 1.0
"""How long aggregators may take to answer."""
MONITORING_PORT: Final = 8222
NS: Final = 1_000_000_000


async def nats_server(settings: Settings) -> Passed:
    """NATS answers, has JetStream, and accepts the frames in the spools here."""
    client = await _reach(settings)
    try:
        jetstream = client.jetstream(timeout=REACH_SECONDS)
        account = await jetstream.account_info()
        stream = await _stream(client)
        config = await _jetstream_config(client)
    except (TimeoutError, nats.errors.Error) as error:
        raise Finding(
            f"has no JetStream ({words(error)}): enable JetStream in its configuration."
        ) from error
    finally:
        await client.close()
    _check_max_payload(settings, client.max_payload)
    exists = f"stream {wire.STREAM} exists" if stream else "the first start creates the stream"
    warnings = [*_about_payload(settings, client.max_payload)]
    if stream is not None:
        warnings += [*_about_replicas(settings, stream), *_about_sync(stream, config)]
    text = f"JetStream stores {account.storage >> 20} MiB, {exists}"
    return Passed(text, tuple(warnings))


async def _stream(client: Client) -> StreamInfo | None:
    try:
        return await client.jetstream(timeout=REACH_SECONDS).stream_info(wire.STREAM)
    except NotFoundError:
        return None


async def aggregators(settings: Settings) -> Passed:
    """The aggregators that answer are ready, and understand all frames."""
    try:
        client = await _reach(settings)
    except Finding:  # the check of NATS reports it
        return Passed("not asked, because NATS can't be reached")
    try:
        found = await _ask(client)
    finally:
        await client.close()
    if problems := list(_problems(found)):
        raise Finding(" ".join(problems))
    if not found:
        return Passed("none answers: start one, unless this machine is the first")
    return Passed(", ".join(sorted(f"{a.host} has release {a.version}" for a in found)))


async def _ask(client: Client) -> list[messages.AggregatorStatus]:
    """Every aggregator's status."""
    found: list[messages.AggregatorStatus] = []

    async def take(message: Msg) -> None:
        found.append(msgspec.json.decode(message.data, type=messages.AggregatorStatus))

    inbox = client.new_inbox()
    await client.subscribe(inbox, cb=take)
    await client.publish(wire.AGGREGATORS_SUBJECT, b"", reply=inbox)
    await asyncio.sleep(ANSWERS_SECONDS)
    return found


def _problems(found: list[messages.AggregatorStatus]) -> Iterator[str]:
    for a in found:
        if a.newer_sources:
            yield (
                f"{a.newer_sources} sources send frames that the aggregator on {a.host} (release "
                f"{a.version}) does not understand, and wait: upgrade this aggregator."
            )
        elif a.problem:
            yield f"the one on {a.host} is not ready: {a.problem}."
    for name in sorted({name for a in found for name in a.shared_names}):
        yield f"several machines have the node name {name}: give each its own CLICKMILL_NODE."


def _about_payload(settings: Settings, max_payload: int) -> Iterator[str]:
    largest = min(wire.frames_bytes(settings.max_banner_id + 1), wire.MAX_FRAME_BYTES)
    if largest + wire.HEADERS_BYTES > max_payload:
        yield (
            f"max_payload is {max_payload} bytes, so a frame of many banners is split: set it to "
            f"{largest + wire.HEADERS_BYTES} or more."
        )


def _about_replicas(settings: Settings, stream: StreamInfo) -> Iterator[str]:
    replicas = stream.config.num_replicas or 1
    wanted = settings.nats_replicas
    edit = f"change it with `nats stream edit {wire.STREAM} --replicas"
    if wanted and wanted != replicas:
        yield (
            f"the stream has {replicas} replicas and CLICKMILL_NATS_REPLICAS is {wanted}, which "
            f"is for new streams: {edit} {wanted}`."
        )
    elif not wanted and replicas == 1 and stream.cluster is not None and stream.cluster.name:
        yield (
            "the stream has one replica in a cluster, so statistics stop when the server that "
            f"stores it is lost: {edit} 3`."
        )


def _about_sync(stream: StreamInfo, config: dict[str, Any]) -> Iterator[str]:
    """Synced replicas are slow without need: the spools have every frame until its commit."""
    always = config.get("sync_always") or config.get("sync_interval", NS) < NS
    if always and (stream.config.num_replicas or 1) > 1:
        yield (
            "JetStream syncs each message (sync_interval: always) although the stream has "
            "replicas: remove that line of its configuration, for higher throughput."
        )


async def _jetstream_config(client: Client) -> dict[str, Any]:
    """JetStream's configuration, if the server's monitoring port is open to this machine."""
    url = client.connected_url
    host = url.hostname if url is not None else None
    answer = await probe.get(host or "127.0.0.1", MONITORING_PORT, "/varz")
    if answer.status != 200:
        return {}
    found: dict[str, Any] = msgspec.json.decode(answer.text).get("jetstream", {}).get("config", {})
    return found


async def _reach(settings: Settings) -> Client:
    """A connected client. Raises Finding, with the server's error message if there is one."""
    url = settings.nats_url or embedded_address(settings, "nats", "--nats-url")
    said: list[str] = []

    async def note(error: Exception) -> None:
        if isinstance(error, nats.errors.Error):
            said.append(bus.words(error))

    try:
        return await asyncio.wait_for(bus.connect(url, "clickmill-doctor", note), REACH_SECONDS)
    except (OSError, TimeoutError, nats.errors.Error) as error:
        why = said[-1] if said else words(error)
        raise Finding(f"can't be reached ({why}): start it, or correct --nats-url.") from error


def _check_max_payload(settings: Settings, max_payload: int) -> None:
    """Raises Finding if a frame in the spools here is too large for NATS."""
    largest = largest_frame(Path(settings.data_dir) / "ingest")
    needed = largest + wire.HEADERS_BYTES
    if largest and needed > max_payload:
        raise Finding(
            f"accepts at most {max_payload} bytes per message, and a frame in the spools here has "
            f"{largest}: set max_payload of the NATS server to {needed} or more."
        )
