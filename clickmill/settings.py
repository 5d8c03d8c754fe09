"""Every setting, once: its type, default, bounds and what it does.

The class `Settings` is the table. Flags, environment names (`CLICKMILL_` + the name in
capitals), the help texts, the README's table and the environment that the supervisor hands to
its children are all made from it; `configuration` reads them. Outer modules read settings; inner
ones get values as arguments.
"""

from __future__ import annotations

import os
import socket
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from clickmill.fields import GIB, KIB, MIB, fields_of, size_meta, text_meta, token_meta


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of one run. `configuration.load` makes one, from allowed values only."""

    host: Annotated[
        str,
        text_meta("address of the ingest port", r"[0-9A-Za-z.:%_-]+", "a host or address"),
    ] = "127.0.0.1"
    stats_host: Annotated[
        str,
        text_meta("address of the statistics port", r"[0-9A-Za-z.:%_-]+", "a host or address"),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="port of ingest: clicks")] = 8080
    stats_port: Annotated[
        int, Meta(ge=1, le=65535, description="port of the aggregator: statistics, live page")
    ] = 8081
    workers: Annotated[
        int, Meta(ge=0, le=256, description="number of ingest processes; 0: one per core")
    ] = 0
    data_dir: Annotated[str, text_meta("directory for all data that must last")] = "data"
    nats_url: Annotated[
        str,
        text_meta(
            "NATS servers to use; if empty, `up` starts one",
            r"((nats|tls|ws|wss)://[^\s,]+)(,(nats|tls|ws|wss)://[^\s,]+)*",
            "nats://host:port, several separated by commas",
        ),
    ] = ""
    postgres_dsn: Annotated[
        str,
        text_meta(
            "Postgres to use; if empty, `up` starts one",
            r"postgres(ql)?://\S+|.*\w+\s*=.*",
            "postgresql://user@host/database or key=value pairs",
            secret=True,
        ),
    ] = ""
    max_banner_id: Annotated[
        int, Meta(ge=0, le=67_108_863, description="highest banner ID that is counted")
    ] = 99_999
    flush_interval: Annotated[
        float, Meta(ge=0.05, le=60, description="seconds between two frames of a worker")
    ] = 1.0
    spool_max_bytes: Annotated[
        int, size_meta(MIB, 1024 * GIB, "maximum size of a worker's spool on disk")
    ] = GIB
    spool_keep_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="seconds to keep frames after their commit, in case Postgres loses it",
        ),
    ] = 900
    resend_after_seconds: Annotated[
        float,
        Meta(ge=0.2, le=3600, description="seconds without progress before frames are sent again"),
    ] = 30
    stats_token: Annotated[
        str, token_meta("bearer tokens for reading statistics; if empty, anyone may read them")
    ] = ""
    write_token: Annotated[
        str,
        token_meta(
            "bearer tokens for writing banners and batches; if empty, only this machine may"
        ),
    ] = ""
    allowed_hosts: Annotated[
        str,
        text_meta(
            "host names of the statistics port, in addition to localhost and IP addresses",
            r"[0-9A-Za-z._-]+(,[0-9A-Za-z._-]+)*,?",
            "host names without port, separated by commas",
        ),
    ] = ""
    open: Annotated[
        bool,
        Meta(description="start without a token even where others can reach a port"),
    ] = False
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="lowest level that is logged"),
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"], Meta(description="format of log lines (docs/logs.md)")
    ] = "text"
    retention_days: Annotated[
        int, Meta(ge=0, le=36_500, description="days that minutes are kept; 0 is forever")
    ] = 400
    retention_rollup_days: Annotated[
        int, Meta(ge=0, le=36_500, description="days that rollups are kept; 0 is forever")
    ] = 0
    cors_origin: Annotated[
        str,
        text_meta(
            "origin from which browsers may count clicks; none omits the CORS header",
            r"\*|none|https?://[^\s/,]+",
            "*, none, or one origin such as https://example.org",
        ),
    ] = "*"
    commit_interval_max: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="most seconds between two commits, where very many banners are clicked",
        ),
    ] = 10.0
    prefix: Annotated[
        str,
        text_meta(
            "path under which pages can count clicks, besides the root; such as /c",
            r"(?!/(counter|stats|pixel|click|clicks|clickmill\.js|livez|readyz|metrics)(/|$))"
            r"(/[A-Za-z0-9._~-]+)+",
            "a path such as /c, of letters, digits and . _ ~ -, and not one that exists already",
        ),
    ] = ""
    click_url: Annotated[
        str,
        text_meta(
            "address of the ingest port for browsers, shown on /start; empty: this host and --port",
            r"https?://[A-Za-z0-9.:_\[\]-]+(/[A-Za-z0-9._~/-]*)?",
            "an address such as https://clicks.example.org/c",
        ),
    ] = ""
    nats_max_bytes: Annotated[
        int, size_meta(MIB, 1024 * GIB, "maximum size of the stream on the NATS server's disk")
    ] = GIB
    nats_replicas: Annotated[
        int,
        Meta(
            ge=0,
            le=5,
            description="replicas of a new stream; 0 is 3 in a cluster of three or more, else 1",
        ),
    ] = 0
    nats_placement_tags: Annotated[
        str,
        text_meta(
            "tags that NATS servers must have to store a new stream; empty: any server",
            r"[^\s,]+(,[^\s,]+)*",
            "tags such as ssd or zone:a, several with commas between",
        ),
    ] = ""
    fastpath: Annotated[
        bool,
        Meta(
            description="answer clicks without the event loop (see ingest/http/granian_server.py)"
        ),
    ] = True
    node: Annotated[
        str, text_meta("name of this machine in `clickmill sources`; empty: its host name")
    ] = ""
    counters_dir: Annotated[
        str,
        text_meta("directory of the counter files, if not the data directory; may be a tmpfs"),
    ] = ""
    body_timeout: Annotated[
        float, Meta(ge=0.1, le=60, description="seconds to wait for a request's body")
    ] = 2.0
    body_max_bytes: Annotated[int, size_meta(KIB, 64 * MIB, "largest accepted request body")] = MIB
    batch_max_clicks: Annotated[
        int, Meta(ge=1, le=10**10, description="most clicks that one `POST /clicks` may count")
    ] = 10_000_000
    max_backdate_days: Annotated[
        int,
        Meta(
            ge=0,
            le=3660,
            description="days that the `ts` of a click may be in the past (docs/batches.md)",
        ),
    ] = 32
    max_connections: Annotated[
        int,
        Meta(
            ge=16,
            le=1_000_000,
            description="maximum open connections per worker; the limit of open files may lower it",
        ),
    ] = 8192
    max_pending_stats: Annotated[
        int, Meta(ge=1, le=100_000, description="maximum concurrent statistics requests per worker")
    ] = 256
    stop_timeout: Annotated[
        float, Meta(ge=1, le=300, description="seconds that each process has to stop cleanly")
    ] = 10.0
    drain_timeout: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="seconds that `ingest` has when it stops to send all clicks to Postgres",
        ),
    ] = 30.0
    failpoints: Annotated[str, text_meta("for tests only: steps at which a process fails")] = ""

    @property
    def worker_count(self) -> int:
        """Number of ingest processes: the setting, or one for each core that we may use."""
        return self.workers or len(os.sched_getaffinity(0))

    @property
    def click_address(self) -> str:
        """Where browsers count clicks: the setting, or "{host}" for the host of the statistics."""
        return self.click_url.rstrip("/") or f"http://{{host}}:{self.port}{self.prefix}"

    @property
    def node_name(self) -> str:
        """The name of this machine: the setting, or the host name."""
        return self.node or socket.gethostname()

    @property
    def backdate_days(self) -> int:
        """Days that the time of a click may be in the past: at most as long as minutes are kept."""
        return min(self.max_backdate_days, self.retention_days or self.max_backdate_days)

    def to_env(self) -> dict[str, str]:
        """These settings as environment variables, for a child; unset strings stay out."""
        values = ((field.env, field.show(getattr(self, field.name))) for field in FIELDS)
        return {name: value for name, value in values if value}


FIELDS: Final = fields_of(Settings)
