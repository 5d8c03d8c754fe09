"""`clickmill backup FILE`: a database and the frames that it does not have, as of one moment.

The frames are read right after the snapshot of the database is taken. A worker keeps its frames for
the keep time after their commit, so each is in the snapshot or still in its spool.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, NamedTuple
from uuid import UUID, uuid4
from zipfile import ZipFile

import psycopg

from clickmill.build_info import build
from clickmill.failpoints import failpoint
from clickmill.settings import Settings
from stack.backup import archive, database, programs, spools
from stack.backup.programs import Server
from stack.backup.spools import Uncommitted
from stack.errors import StackError
from stack.progress import progress

SNAPSHOT_TRIES: Final = 3
_TABLES: Final = """
SELECT n.nspname, to_regclass('schema_version') IS NOT NULL, to_regclass('restore_pending') IS NULL
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass('source')
"""
_VERSION: Final = "SELECT compatible_from FROM schema_version"
_MARKS: Final = "SELECT source, last_seq FROM source"
_SIZES: Final = """
SELECT n.nspname || '.' || c.relname, pg_table_size(c.oid) FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind = 'r'
"""

Session = psycopg.Connection[Any]


class Snapshot(NamedTuple):
    """An exported snapshot, and the frames that it does not have."""

    name: str
    compatible_from: int
    uncommitted: Uncommitted


def backup(settings: Settings, path: Path) -> str:
    """Writes the file; a sentence that says what is in it. Raises StackError without a file."""
    root = Path(settings.data_dir).resolve() / "ingest"
    with (
        archive.new(path) as file,
        database.existing(settings) as dsn,
        database.connected(dsn) as session,
        tempfile.TemporaryFile(dir=path.parent) as frames,
    ):
        server = database.server(session, dsn)
        schema = _schema(session)
        snapshot = _snapshot(session, root, frames)
        archive.write_manifest(file, _manifest(snapshot, schema, server))
        frames.seek(0)
        with file.open(archive.FRAMES, "w", force_zip64=True) as part:
            shutil.copyfileobj(frames, part)
        _dump(file, session, server, schema, snapshot)
        failpoint("backup.dumped")
    return _summary(path, root, snapshot.uncommitted)


def _schema(session: Session) -> str:
    """The schema of Clickmill's tables. Raises StackError if they are missing or incomplete."""
    row = session.execute(_TABLES).fetchone()
    if row is None or not row[1]:
        raise StackError(
            "The database has no tables of this release: start an aggregator of this release on "
            "it first, which creates or upgrades them."
        )
    if not row[2]:
        raise StackError("A restore of this database was interrupted: run that restore again.")
    return str(row[0])


def _snapshot(session: Session, root: Path, frames: IO[bytes]) -> Snapshot:
    """A snapshot that is valid until the session's transaction ends.

    A gap means that frames were committed after the snapshot and deleted at once, because the spool
    is full: a new snapshot has them. If it remains, they are damaged, and nothing has them.
    """
    tries = 1
    while (snapshot := _try(session, root, frames)).uncommitted.gaps and tries < SNAPSHOT_TRIES:
        session.execute("ROLLBACK")
        tries += 1
    return snapshot


def _try(session: Session, root: Path, frames: IO[bytes]) -> Snapshot:
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    [(name,)] = session.execute("SELECT pg_export_snapshot()").fetchall()
    [(compatible_from,)] = session.execute(_VERSION).fetchall()
    marks: dict[UUID, int] = dict(session.execute(_MARKS).fetchall())
    frames.seek(0)
    frames.truncate()
    return Snapshot(name, compatible_from, spools.collect(root, marks, frames))


def _manifest(snapshot: Snapshot, schema: str, server: Server) -> archive.Manifest:
    return archive.Manifest(
        format=archive.FORMAT,
        id=str(uuid4()),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        clickmill=build()["version"],
        postgres=server.major,
        schema=schema,
        compatible_from=snapshot.compatible_from,
        frames=snapshot.uncommitted.frames,
        clicks_in_frames=snapshot.uncommitted.clicks,
    )


def _dump(file: ZipFile, session: Session, server: Server, schema: str, snapshot: Snapshot) -> None:
    """The progress is that of the tables' sizes; a table counts when the next one begins."""
    sizes: dict[str, int] = dict(session.execute(_SIZES, [schema]).fetchall())
    current = ""
    with (
        progress("database", sum(sizes.values())) as advance,
        file.open(archive.DATABASE, "w", force_zip64=True) as part,
    ):

        def on_table(name: str) -> None:
            nonlocal current
            failpoint("backup.dump")
            advance(sizes.pop(current, 0))
            current = name

        programs.dump(server, schema, snapshot.name, part, on_table)
        advance(sum(sizes.values()))


def _summary(path: Path, root: Path, found: Uncommitted) -> str:
    size = f"{path.stat().st_size / 1e6:,.1f} MB"
    content = f"the database and {found.frames} uncommitted frames with {found.clicks} clicks"
    lines = [f"{path} has {content}: {size}."]
    lines += [
        f"Not in it: what the ended worker {directory} counted after its last frame. Start "
        "workers on that data directory or run `clickmill drain`, then back up again."
        for directory in spools.unsealed(root)
    ]
    return "\n".join(lines)
