"""`clickmill backup` and `clickmill restore`, and what two databases have in common."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg

from clickmill.fields import PREFIX
from tests.support import sql

TIMEOUT_S = 90
_TABLES = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
ORDER BY 1
"""
_INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"


def run(command: str, file: Path, **settings: object) -> tuple[int, str]:
    """The command's exit code, and what it printed."""
    process = start(command, file, **settings)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, output


def start(command: str, file: Path, **settings: object) -> subprocess.Popen[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    env |= {PREFIX + name.upper(): str(value) for name, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "stack.cli", command, str(file)],
        env=env, cwd=file.parent, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def content(dsn: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, and every index."""
    with psycopg.connect(dsn, autocommit=True) as session:
        tables = [name for (name,) in session.execute(_TABLES).fetchall()]
        found = {
            name: sorted(session.execute(f'SELECT t::text FROM "{name}" t'.encode()).fetchall())
            for name in tables
        }
    return found | {"indexes": sql.query(dsn, _INDEXES)}
