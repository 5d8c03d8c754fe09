"""The version of the tables: made, brought up to date, or left alone where they are newer.

Why versions: during an upgrade aggregators of two releases share one database. The newer one
changes the tables; the older one must neither change them back nor write what it does not
understand. See migrations/README.md for how a version is added.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from psycopg import AsyncConnection

from aggregator.postgres.connection import LOCK_CLASS, LOCK_SCHEMA, session

VERSION: Final = 5
"""The version that schema.sql makes, and the last of the migrations."""
COMPATIBLE_FROM: Final = 4
"""The oldest version whose aggregators may write into tables of VERSION."""

_HERE: Final = Path(__file__).parents[1]
SCHEMA_FILE: Final = _HERE / "schema.sql"
MIGRATIONS: Final = _HERE / "migrations"

assert COMPATIBLE_FROM <= VERSION

_FOUND: Final = """
SELECT to_regclass('source') IS NOT NULL, to_regclass('schema_version') IS NOT NULL,
       to_regclass('restore_pending') IS NOT NULL
"""
_READ: Final = "SELECT version, compatible_from FROM schema_version"
_WRITE: Final = """
INSERT INTO schema_version (version, compatible_from) VALUES (%s, %s)
ON CONFLICT (singleton) DO UPDATE SET
    version = excluded.version, compatible_from = excluded.compatible_from
WHERE schema_version.version < excluded.version
"""


class SchemaError(Exception):
    """The tables must not be used; the text says what to do."""


class SchemaTooNewError(SchemaError):
    """The tables are of a newer release, which this one can't write to."""

    def __init__(self, version: int, compatible_from: int) -> None:
        super().__init__(
            f"the tables have version {version}, which aggregators that know version "
            f"{compatible_from} or newer can write to, and this one knows version {VERSION}: "
            "upgrade this aggregator"
        )


class RestorePendingError(SchemaError):
    """A restore was interrupted: some of the backup is missing."""

    def __init__(self) -> None:
        super().__init__(
            "a restore into this database was interrupted: stop the aggregators and run the same "
            "`clickmill restore` again, which completes it"
        )


async def apply_schema(dsn: str, *, restoring: bool = False) -> None:
    """Make or update the tables. Several processes may do so at once, of several releases.

    Raises SchemaTooNewError where they are newer than this release can write to, and
    RestorePendingError during a restore, unless `restoring`.
    """
    async with session(dsn, "schema") as connection:
        for number, statements in _steps():
            async with connection.transaction():
                found = await _lock_and_read(connection, restoring)
                if not _is_due(number, found):
                    continue
                if number:  # rows may have to be moved, however long that takes
                    await connection.execute("SET LOCAL statement_timeout = 0")
                await connection.execute(statements)
                await connection.execute(_WRITE, [number or VERSION, COMPATIBLE_FROM])


def _steps() -> Iterator[tuple[int, bytes]]:
    """(version, SQL) of each migration; then schema.sql, which can be repeated, as 0."""
    for path in sorted(MIGRATIONS.glob("[0-9]*.sql")):
        yield int(path.name[:4]), path.read_bytes()
    yield 0, SCHEMA_FILE.read_bytes()


def _is_due(number: int, found: int) -> bool:
    """Whether this step is to be run on tables of version `found` (0: there are none).

    Newer tables are left alone, and an empty database is made by schema.sql alone.
    """
    if found > VERSION:
        return False
    return not number or 0 < found < number


async def _lock_and_read(connection: AsyncConnection[Any], restoring: bool) -> int:
    """The version of the tables, locked until the transaction ends; 0 where there are none."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCK_CLASS, LOCK_SCHEMA])
    row = await (await connection.execute(_FOUND)).fetchone()
    has_tables, has_version, restore_pending = row or (False, False, False)
    if restore_pending and not restoring:
        raise RestorePendingError
    if not has_version:
        return 1 if has_tables else 0
    row = await (await connection.execute(_READ)).fetchone()
    version, compatible_from = row or (1, 1)
    if compatible_from > VERSION:
        raise SchemaTooNewError(version, compatible_from)
    return int(version)


async def heal_schema(connection: AsyncConnection[Any], dsn: str) -> None:
    """Apply the schema if this database has none, as after it was replaced by an empty one."""
    cursor = await connection.execute("SELECT to_regclass('source') IS NULL")
    row = await cursor.fetchone()
    if row is not None and row[0]:
        await apply_schema(dsn)
