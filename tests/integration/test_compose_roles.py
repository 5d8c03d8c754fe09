"""The SQL that the compose file gives to Postgres makes roles with which Clickmill runs."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import yaml
from psycopg.conninfo import make_conninfo

from tests.support.fix_postgres import PostgresServer
from tests.support.fix_system import SystemFactory

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"
PASSWORD = "0123456789abcdef"


def roles_sql() -> str:
    """The script, with a password in the place of each variable."""
    content: str = yaml.safe_load(COMPOSE.read_text())["configs"]["roles"]["content"]
    return re.sub(r"\$\{[^}]*\}", PASSWORD, content)


def test_the_roles_of_the_compose_file(own_postgres: PostgresServer, system: SystemFactory) -> None:
    # This server's administrator is called clickmill already; there it is `postgres`.
    script = (
        roles_sql().replace("ROLE clickmill ", "ROLE owner ").replace("TO clickmill;", "TO owner;")
    )
    admin = own_postgres.dsn
    with psycopg.connect(admin, autocommit=True) as connection:
        for statement in filter(str.strip, script.split(";")):
            connection.execute(statement.encode())
    running = system(postgres_dsn=make_conninfo(admin, user="owner", password=PASSWORD))
    assert running.click(17, 3) == 3
    running.wait_counts(17, 3)
    reader = make_conninfo(admin, user="clickmill_read", password=PASSWORD)
    with psycopg.connect(reader) as connection:
        assert connection.execute("SELECT sum(clicks) FROM banner_minute").fetchone() == (3,)
        assert connection.execute("SHOW default_transaction_read_only").fetchone() == ("on",)
    with psycopg.connect(admin) as connection:
        powers = connection.execute(
            "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles "
            "WHERE rolname IN ('owner', 'clickmill_read') ORDER BY 1"
        ).fetchall()
    assert powers == [("clickmill_read", False), ("owner", False)]
