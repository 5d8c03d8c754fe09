"""The code of docs/analysis.md runs as it stands, and says what the statistics say."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from tests.support import panels
from tests.support.fix_api import Api, serve
from tests.support.fix_postgres import PostgresServer
from tests.support.fix_system import PROGRAM

PAGE = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text()
NOW = int(datetime.now(UTC).timestamp()) // 60 * 60
HOURS = 40


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def filled(postgres_server: PostgresServer) -> Iterator[Api]:
    with serve(postgres_server) as api:
        api.put({(b, NOW - 3_600 * n): b for b in (17, 18) for n in range(1, HOURS + 1)})
        api.client.put("/banners/17", json={"name": "Spring sale"}).raise_for_status()
        yield api


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def run(argv: list[str], folder: Path) -> str:
    done = subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pandas_reads_an_export_and_the_port(filled: Api, tmp_path: Path) -> None:
    (command,) = (line for block in blocks("sh") for line in block.splitlines())
    words = command.split()[1:]
    run([*PROGRAM, *words, "--stats-port", str(filled.port)], tmp_path)
    from_file, from_port = blocks("python")
    days = run([sys.executable, "-c", from_file], tmp_path).split()
    assert days[:3] == ["bannerID", "17", "18"]
    assert sum(int(n) for n in days if n.isdigit()) >= HOURS * 35
    from_port = from_port.replace("localhost:8081", f"127.0.0.1:{filled.port}")
    top = run([sys.executable, "-c", from_port], tmp_path).splitlines()
    assert top[1].split() == ["18", str(18 * HOURS)]
    assert top[2].split() == ["17", str(17 * HOURS)]


def test_every_query_runs_as_the_role_that_only_reads(filled: Api) -> None:
    with psycopg.connect(filled.dsn, autocommit=True) as connection:
        connection.execute("SET ROLE clickmill_read")
        found = []
        for block in blocks("sql"):
            sql = panels.filled_sql(block, at(NOW - 86_400 * 7), at(NOW))
            found.append(connection.execute(sql.encode()).fetchall())
        assert all(found)
        by_day, of_berlin, series, top = found
    assert sum(row[1] for row in by_day) == 35 * HOURS
    assert sum(row[1] for row in of_berlin) == 17 * HOURS
    assert {row[1] for row in series} == {"Spring sale", "18"}
    assert [(row[0], row[1], row[2]) for row in top] == [
        (18, None, 18 * HOURS), (17, "Spring sale", 17 * HOURS),
    ]  # fmt: skip
