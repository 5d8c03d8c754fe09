"""`clickmill backup FILE`: a database and the frames that it does not have.

The frames are read first. One that is committed and deleted before the dump begins is in the dump;
one that is in both counts once after a restore, because the marks are in the dump, too.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
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


def backup(settings: Settings, path: Path) -> str:
    """Writes the file; a sentence that says what is in it. Raises StackError without a file."""
    root = Path(settings.data_dir).resolve() / "ingest"
    with (
        archive.new(path) as file,
        database.existing(settings) as dsn,
        database.connected(dsn) as session,
    ):
        server, schema = database.server(session, dsn), _schema(session)
        programs.find("pg_dump", server)
        uncommitted = _write_frames(file, session, root)
        failpoint("backup.frames")
        archive.write_manifest(file, _manifest(session, uncommitted, schema, server))
        _dump(file, session, server, schema)
        failpoint("backup.dumped")
    return _summary(path, root, uncommitted)


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


def _write_frames(file: ZipFile, session: Session, root: Path) -> Uncommitted:
    marks: dict[UUID, int] = dict(session.execute(_MARKS).fetchall())
    with file.open(archive.FRAMES, "w", force_zip64=True) as part:
        return spools.collect(root, marks, part)


def _manifest(
    session: Session, uncommitted: Uncommitted, schema: str, server: Server
) -> archive.Manifest:
    [(compatible_from,)] = session.execute(_VERSION).fetchall()
    return archive.Manifest(
        format=archive.FORMAT,
        id=str(uuid4()),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        clickmill=build()["version"],
        postgres=server.major,
        schema=schema,
        compatible_from=compatible_from,
        frames=uncommitted.frames,
        clicks_in_frames=uncommitted.clicks,
    )


def _dump(file: ZipFile, session: Session, server: Server, schema: str) -> None:
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

        programs.dump(server, schema, part, on_table)
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
