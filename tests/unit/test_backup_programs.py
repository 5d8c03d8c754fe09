"""The pg_dump of the closest version that is not older than the server, with TLS if needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from stack.backup.programs import Server, find
from stack.embedded.postgres import client_programs
from stack.errors import StackError

OLDER, NEWER = client_programs("pg_dump")


@pytest.mark.parametrize(("major", "chosen"), [(15, OLDER), (16, OLDER), (17, NEWER), (18, NEWER)])
def test_the_closest_bundled_version(
    monkeypatch: pytest.MonkeyPatch, major: int, chosen: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    assert find("pg_dump", Server("", major, tls=False)) == chosen


@pytest.mark.parametrize(("major", "tls"), [(19, False), (18, True)])
def test_without_a_fitting_one_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, major: int, tls: bool
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StackError, match=f"postgresql-client-{major}.*in PATH"):
        find("pg_dump", Server("", major, tls))


def test_a_server_with_tls_needs_the_one_in_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = tmp_path / "pg_dump"
    installed.symlink_to(NEWER)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find("pg_dump", Server("", 17, tls=True)) == installed
