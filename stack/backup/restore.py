"""`clickmill restore FILE`: into an empty database, once, and completely.

The dump is restored in one transaction. Then the frames are applied like those of a worker: the
marks decide, so a worker that sends the same frames again changes nothing. The table
`restore_pending` exists until the end; if a restore is interrupted, the same command completes it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final
from zipfile import ZipFile

import psycopg
from psycopg import sql

from aggregator.postgres import migrations
from aggregator.postgres.connection import LOCK_CLASS, LOCK_SCHEMA
from aggregator.writing.fold import MAX_BATCH_FRAMES, Arrival
from aggregator.writing.store import Store
from clickmill import wire
from clickmill.failpoints import failpoint
from clickmill.retry import first_line
from clickmill.settings import Settings
from stack.backup import archive, database, programs, spools
from stack.backup.archive import Manifest
from stack.errors import StackError
from stack.progress import progress

BATCH_FRAMES: Final = MAX_BATCH_FRAMES // 4
BATCH_BYTES: Final = 2 << 20
BATCH_SECONDS: Final = 300.0
MANY_DAYS: Final = 36_500
_TABLE: Final = re.compile(r"^CREATE TABLE IF NOT EXISTS (\w+)", re.MULTILINE)
_VIEW: Final = re.compile(r"^CREATE OR REPLACE VIEW (\w+)", re.MULTILINE)
_FUNCTION: Final = re.compile(r"^CREATE OR REPLACE FUNCTION (\w+)", re.MULTILINE)
_FILLED: Final = re.compile(r"^INSERT INTO (\w+)", re.MULTILINE)
_FILLED_BY_AGGREGATORS: Final = ("schema_version", "retention", "rollup_top")
_PENDING: Final = "restore_pending"
_SESSIONS: Final = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
AND application_name LIKE 'clickmill %' AND pid <> pg_backend_pid()
"""
_LOCK: Final = "SELECT pg_advisory_xact_lock(%s, %s)"
# A worker that is still running reports again, and its source is then reopened.
_CLOSE_SOURCES: Final = """
WITH ended AS (
    UPDATE source SET closed = true WHERE NOT closed
    RETURNING source, node, total, sealed_at, updated_at
)
INSERT INTO source_given_up (source, node, given_up_by, last_seen, missing_from, total)
SELECT source, node, %s, updated_at, sealed_at, total FROM ended
"""

Session = psycopg.Connection[Any]


def restore(settings: Settings, path: Path) -> str:
    """Restores the file; a sentence that says what was restored. Raises StackError."""
    with progress("checking the file", archive.size(path)) as advance:
        manifest = archive.check(path, advance)
    if manifest.compatible_from > migrations.VERSION:
        raise StackError(f"{path} was written by a newer release: restore it with that release.")
    with database.stopped(settings) as dsn:
        with database.connected(dsn) as session:
            server = database.server(session, dsn)
            if server.major < manifest.postgres:
                raise StackError(
                    f"{path} is of Postgres {manifest.postgres} and the server is version "
                    f"{server.major}: restore it into version {manifest.postgres} or newer."
                )
            if _prepare(session, manifest):
                failpoint("restore.prepared")
                _restore_tables(path, manifest, server)
                failpoint("restore.tables")
        _finish(dsn, path, manifest)
    return (
        f"Restored the database of {manifest.created_at} and {manifest.frames} frames with "
        f"{manifest.clicks_in_frames} clicks."
    )


def _prepare(session: Session, manifest: Manifest) -> bool:
    """Whether the tables are to be restored; False if an interrupted restore has done that.

    Removes empty tables. Raises StackError if the database is in use or not empty.
    """
    [(sessions,)] = session.execute(_SESSIONS).fetchall()
    if sessions:
        raise StackError("An aggregator is connected to this database: stop it first.")
    with session.transaction():
        session.execute(_LOCK, [LOCK_CLASS, LOCK_SCHEMA])
        if table := _table_with_rows(session):
            if _pending(session) == manifest.id:
                return False
            raise StackError(
                f"The database is not empty (its table {table} has rows), and a restore never "
                "changes existing data: restore into an empty database or another --data-dir."
            )
        _drop_tables(session)
        session.execute("CREATE TABLE restore_pending (backup text NOT NULL)")
        session.execute("INSERT INTO restore_pending VALUES (%s)", [manifest.id])
    return True


def _table_with_rows(session: Session) -> str:
    """The first of Clickmill's tables that has rows; empty if there is none."""
    always_filled = {*_names(_FILLED), *_FILLED_BY_AGGREGATORS}
    for table in _names(_TABLE):
        if table in always_filled or not _exists(session, table):
            continue
        name = sql.Identifier(table)
        session.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(name))
        if session.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(name)).fetchone():
            return table
    return ""


def _drop_tables(session: Session) -> None:
    tables = [*_names(_TABLE), _PENDING]
    views, functions = _names(_VIEW)[::-1], _names(_FUNCTION)
    for kind, names in (("VIEW", views), ("TABLE", tables), ("FUNCTION", functions)):
        for name in names:
            session.execute(
                sql.SQL("DROP {} IF EXISTS {}").format(sql.SQL(kind), sql.Identifier(name))
            )


def _names(pattern: re.Pattern[str]) -> list[str]:
    """What schema.sql creates."""
    return pattern.findall(migrations.SCHEMA_FILE.read_text())


def _exists(session: Session, table: str) -> bool:
    row = session.execute("SELECT to_regclass(%s) IS NOT NULL", [table]).fetchone()
    return bool(row and row[0])


def _pending(session: Session) -> str:
    """The ID of the backup whose restore was interrupted; empty if there is none."""
    if not _exists(session, _PENDING):
        return ""
    row = session.execute("SELECT backup FROM restore_pending").fetchone()
    return str(row[0]) if row else ""


def _restore_tables(path: Path, manifest: Manifest, server: programs.Server) -> None:
    with ZipFile(path) as file, file.open(archive.DATABASE) as dump:
        size = file.getinfo(archive.DATABASE).file_size
        with progress("database", size) as advance:
            programs.restore(server, manifest.schema, _pieces(dump, advance))


def _pieces(file: IO[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    while piece := file.read(archive.CHUNK_BYTES):
        yield piece
        advance(len(piece))


def _finish(dsn: str, path: Path, manifest: Manifest) -> None:
    try:
        asyncio.run(_apply_frames(dsn, path))
        failpoint("restore.frames")
        with psycopg.connect(dsn) as session:
            session.execute(_CLOSE_SOURCES, [f"restore of the backup {manifest.id}"])
            session.execute("DROP TABLE restore_pending")
        with psycopg.connect(dsn, autocommit=True) as session:
            session.execute("ANALYZE")
    except (psycopg.Error, TimeoutError) as error:
        why = first_line(error)
        raise StackError(
            f"The tables are restored, but not yet all of the frames ({why}): run the same "
            "command again, which does the rest."
        ) from error


async def _apply_frames(dsn: str, path: Path) -> None:
    await migrations.apply_schema(dsn, restoring=True)
    store = Store(dsn, behind_days=MANY_DAYS, late_days=MANY_DAYS)
    with ZipFile(path) as file, file.open(archive.FRAMES) as part:
        for batch in _batches(part):
            async with asyncio.timeout(BATCH_SECONDS):
                await store.apply(batch)
    await store.close()


def _batches(part: IO[bytes]) -> Iterator[list[Arrival]]:
    batch: list[Arrival] = []
    size = 0
    for data in spools.read(part):
        frame = wire.decode(data)
        # The backup has all that the spool had: if earlier frames are missing, they are lost.
        batch.append(Arrival(frame.source, frame.seq, frame, frame.seq, data))
        size += len(data)
        if len(batch) == BATCH_FRAMES or size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch
