"""Finds the pg_dump and pg_restore that fit a server, and runs them.

The Python package of the embedded server includes them for two versions, without TLS. For a server
that uses TLS or is newer, those in PATH are used.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from stack.embedded import postgres as embedded_postgres
from stack.embedded import server as embedded_server
from stack.errors import StackError

CHUNK_BYTES: Final = 1 << 20
ERROR_LINES: Final = 3
_VERSION: Final = re.compile(r"\(PostgreSQL\) (\d+)")
_TABLE: Final = re.compile(r'dumping contents of table "?([^"]+)"?$')
_ERROR: Final = re.compile(r"(?:error|fatal|detail): +(.*)", re.IGNORECASE)


class Server(NamedTuple):
    """How a server is reached: conninfo, major version, and whether by TLS."""

    dsn: str
    major: int
    tls: bool


def find(name: str, server: Server) -> Path:
    """The program of the closest version that is not older than the server. Raises StackError."""
    bundled = [] if server.tls else embedded_postgres.client_programs(name)
    in_path = [Path(found)] if (found := shutil.which(name)) else []
    fitting = [
        (major, path) for path in bundled + in_path if (major := _major(path)) >= server.major
    ]
    if not fitting:
        why = " and TLS" if server.tls else ""
        raise StackError(
            f"No {name} here is for Postgres {server.major}{why}: install its client programs "
            f"(on Debian: postgresql-client-{server.major}), so that {name} is in PATH."
        )
    return min(fitting)[1]


def _major(program: Path) -> int:
    try:
        done = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, check=False
        )
    except OSError:
        return 0
    match = _VERSION.search(done.stdout)
    return int(match[1]) if match else 0


def dump(server: Server, schema: str, out: IO[bytes], on_table: Callable[[str], None]) -> None:
    """Writes a dump of the schema, as of one moment. Raises StackError.

    `on_table` is called with the name of each table when its rows are due.
    """
    options = ["--format=custom", f"--schema={schema}", "--verbose"]

    def on_line(line: str) -> None:
        if match := _TABLE.search(line):
            on_table(match[1])

    with _running("pg_dump", server, options, on_line) as process:
        assert process.stdout is not None
        shutil.copyfileobj(process.stdout, out, CHUNK_BYTES)


def restore(server: Server, schema: str, pieces: Iterable[bytes]) -> None:
    """Restores a dump in one transaction: all of it or nothing. Raises StackError."""
    options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
    options += [f"--schema={schema}"]
    with _running("pg_restore", server, options, lambda _: None) as process:
        assert process.stdin is not None
        try:
            for piece in pieces:
                process.stdin.write(piece)
        except BrokenPipeError:
            pass  # it has failed, and its output says why
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


@contextlib.contextmanager
def _running(
    name: str, server: Server, options: list[str], on_line: Callable[[str], None]
) -> Iterator[subprocess.Popen[bytes]]:
    """The program, connected to the server. Raises StackError if it fails."""
    words = conninfo_to_dict(server.dsn)
    password = str(words.pop("password", "") or "")
    conninfo = make_conninfo("", **{**words, "application_name": f"clickmill {name}"})
    env = {k: v for k, v in os.environ.items() if k.startswith("PG") or k in ("HOME", "PATH")}
    env |= {"LC_ALL": "C"} | ({"PGPASSWORD": password} if password else {})
    with subprocess.Popen(
        [str(find(name, server)), *options, f"--dbname={conninfo}"],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=embedded_server.before_exec(os.getpid()),  # noqa: PLW1509  # one system call, no lock
    ) as process:
        errors: list[str] = []
        reader = threading.Thread(target=_read_lines, args=(process, on_line, errors))
        reader.start()
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        finally:
            process.wait()
            reader.join()
    if process.returncode != 0:
        why = "; ".join(errors[:ERROR_LINES]) or f"it ended with code {process.returncode}"
        raise StackError(f"{name} failed: {why}.")


def _read_lines(
    process: subprocess.Popen[bytes], on_line: Callable[[str], None], errors: list[str]
) -> None:
    assert process.stderr is not None
    for raw in process.stderr:
        line = raw.decode("utf-8", "replace").strip()
        on_line(line)
        if match := _ERROR.search(line):
            errors.append(match[1].rstrip("."))
