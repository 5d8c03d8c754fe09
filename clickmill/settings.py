"""Every setting, once: its type, default, bounds and what it does.

The class `Settings` is the table. Flags, environment names (`CLICKMILL_` + the name in
capitals), the help texts, the README's table and the environment that the supervisor hands to
its children are all made from it. Flags override the environment, which overrides `.env`; an
empty value counts as unset. Outer modules read settings; inner ones get values as arguments.
"""

from __future__ import annotations

import argparse
import difflib
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from dotenv import dotenv_values
from msgspec import Meta

from clickmill import wire
from clickmill.fields import GIB, KIB, MIB, PREFIX, fields_of, size_meta, text_meta

# Not settings: what a supervisor hands to its child (heartbeat.py), and switches of the build.
INTERNAL: Final = frozenset(
    {"CLICKMILL_PARENT_PID", "CLICKMILL_HEARTBEAT_FD", "CLICKMILL_LINETRACE"}
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of one run. `load()` makes one; a bad value never gets this far."""

    host: Annotated[
        str,
        text_meta("address that both ports listen on", r"[0-9A-Za-z.:%_-]+", "a host or address"),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="port of ingest: clicks")] = 8080
    stats_port: Annotated[
        int, Meta(ge=1, le=65535, description="port of the aggregator: statistics, live page")
    ] = 8081
    workers: Annotated[
        int, Meta(ge=0, le=256, description="ingest processes; 0 is one for each core")
    ] = 0
    data_dir: Annotated[str, text_meta("where everything that must last is kept")] = "data"
    nats_url: Annotated[
        str,
        text_meta(
            "NATS servers in use; without it `up` starts one of its own",
            r"((nats|tls|ws|wss)://[^\s,]+)(,(nats|tls|ws|wss)://[^\s,]+)*",
            "nats://host:port, several with commas between",
        ),
    ] = ""
    postgres_dsn: Annotated[
        str,
        text_meta(
            "Postgres in use; without it `up` starts one of its own",
            r"postgres(ql)?://\S+|.*\w+\s*=.*",
            "postgresql://user@host/database or key=value pairs",
            secret=True,
        ),
    ] = ""
    max_banner_id: Annotated[
        int, Meta(ge=0, le=10_000_000, description="highest banner ID that is counted")
    ] = 99_999
    flush_interval: Annotated[
        float, Meta(ge=0.05, le=60, description="seconds between two frames of a worker")
    ] = 1.0
    spool_max_bytes: Annotated[
        int, size_meta(MIB, 1024 * GIB, "most that a worker's spool may hold on disk")
    ] = GIB
    spool_keep_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="seconds that committed frames are kept for a Postgres that loses commits",
        ),
    ] = 900
    resend_after_seconds: Annotated[
        float,
        Meta(ge=0.2, le=3600, description="seconds without progress before frames are sent again"),
    ] = 30
    stats_token: Annotated[
        str,
        text_meta(
            "bearer tokens that open the statistics, with commas between; empty: open to all",
            r"[!-+\--~]+(,[!-+\--~]+)*",
            "printable characters without spaces, several tokens with commas between",
            secret=True,
        ),
    ] = ""
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least level that is logged")
    ] = "info"
    retention_days: Annotated[
        int, Meta(ge=0, le=36_500, description="days that minutes are kept; 0 is forever")
    ] = 400
    retention_rollup_days: Annotated[
        int, Meta(ge=0, le=36_500, description="days that hours and days are kept; 0 is forever")
    ] = 0
    cors_origin: Annotated[
        str,
        text_meta(
            "origin that browsers may count clicks from; none sends no such header",
            r"\*|none|https?://[^\s/,]+",
            "*, none, or one origin such as https://example.org",
        ),
    ] = "*"
    nats_max_bytes: Annotated[
        int, size_meta(MIB, 1024 * GIB, "most that the stream may hold on the NATS server's disk")
    ] = GIB
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
        text_meta("where counter files lie, if not in the data directory; same machine, same boot"),
    ] = ""
    body_timeout: Annotated[
        float, Meta(ge=0.1, le=60, description="seconds that a request's body is waited for")
    ] = 2.0
    body_max_bytes: Annotated[int, size_meta(KIB, 64 * MIB, "largest body that is read")] = MIB
    max_connections: Annotated[
        int,
        Meta(
            ge=16,
            le=1_000_000,
            description="open connections of one worker, if it may open that many files",
        ),
    ] = 8192
    max_pending_stats: Annotated[
        int, Meta(ge=1, le=100_000, description="statistics requests of one worker under way")
    ] = 256
    stop_timeout: Annotated[
        float, Meta(ge=1, le=300, description="seconds that each process has for a clean stop")
    ] = 10.0
    drain_timeout: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="seconds that `ingest` has at its end to bring all clicks to Postgres",
        ),
    ] = 30.0
    failpoints: Annotated[str, text_meta("for tests alone: steps at which a process dies")] = ""

    @property
    def worker_count(self) -> int:
        """Number of ingest processes: the setting, or one for each core that we may use."""
        return self.workers or len(os.sched_getaffinity(0))

    @property
    def node_name(self) -> str:
        """The name of this machine: the setting, or the host name."""
        return self.node or socket.gethostname()

    def to_env(self) -> dict[str, str]:
        """These settings as environment variables, for a child; unset strings stay out."""
        values = ((field.env, field.show(getattr(self, field.name))) for field in FIELDS)
        return {name: value for name, value in values if value}


class SettingsError(ValueError):
    """One or more settings are wrong; the text has a sentence for each."""


FIELDS: Final = fields_of(Settings)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds an option for every setting. Values stay text: `load` reads all sources alike."""
    for field in FIELDS:
        default = field.show(field.default) or "none"
        help_text = f"{field.meta.description} (default {default}; {field.env})"
        parser.add_argument(field.flag, dest=field.name, metavar="X", help=help_text)


def load(
    flags: Mapping[str, str | None] | None = None,
    environ: Mapping[str, str] | None = None,
    dotenv: Path | None = None,
) -> Settings:
    """The settings from flags, then environment, then `.env` (default: in the working directory).

    Raises SettingsError with one sentence for each wrong value.
    """
    environ = os.environ if environ is None else environ
    in_file = read_dotenv(dotenv or Path(".env"))
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field in FIELDS:
        sources = (
            (field.flag, (flags or {}).get(field.name)),
            (field.env, environ.get(field.env)),
            (f"{field.env} in .env", in_file.get(field.env)),
        )
        for name, text in sources:
            if text is None or not text.strip():
                continue
            try:
                values[field.name] = field.parse(text.strip())
            except ValueError:
                problems.append(f"{name} is {field.quote(text)}: it must be {field.allowed}.")
            break
    settings = Settings(**values) if not problems else Settings()
    problems += [] if problems else _across(settings)
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def _across(settings: Settings) -> list[str]:
    """A sentence for each pair of settings that can't both hold."""
    problems = []
    if settings.port == settings.stats_port:
        problems.append(
            f"CLICKMILL_PORT and CLICKMILL_STATS_PORT are both {settings.port}: use two ports."
        )
    minutes, rollups = settings.retention_days, settings.retention_rollup_days
    # Hours and days stand in for minutes that are gone, so they must not go before them.
    if rollups and not 0 < minutes <= rollups:
        least = f"{minutes} or more, or 0" if minutes else "0"
        problems.append(
            f"CLICKMILL_RETENTION_ROLLUP_DAYS is {rollups} and CLICKMILL_RETENTION_DAYS is "
            f"{minutes}: hours and days must be kept as long as minutes are, so take {least}."
        )
    epoch = wire.frames_bytes(settings.max_banner_id + 1)
    if epoch > settings.spool_max_bytes:
        size = next(field for field in FIELDS if field.name == "spool_max_bytes")
        problems.append(
            f"{size.env} is {size.show(settings.spool_max_bytes)} and CLICKMILL_MAX_BANNER_ID is "
            f"{settings.max_banner_id}: one click on each banner takes {epoch} bytes, and could "
            f"never be written. Set {size.env} to {-(-epoch // KIB)}KiB or more, or "
            f"CLICKMILL_MAX_BANNER_ID to {wire.pairs_in(settings.spool_max_bytes) - 1} or less."
        )
    return problems


def read_dotenv(path: Path) -> dict[str, str]:
    """Names and values of a `.env` file; empty if there is none. SettingsError if unreadable."""
    if not path.is_file():
        return {}
    try:
        pairs = dotenv_values(path, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} can't be read ({error}): repair or remove it.") from error
    return {name: value for name, value in pairs.items() if value is not None}


def unknown(names: Sequence[str]) -> list[str]:
    """A sentence for each name that looks like a setting and is none: a typing slip, mostly."""
    known = {field.env for field in FIELDS}
    sentences = []
    for name in sorted(set(names) - known - INTERNAL):
        if not name.startswith(PREFIX):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "it has no effect."
        sentences.append(f"{name} is not a setting of Clickmill: {hint}")
    return sentences
