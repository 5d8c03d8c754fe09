"""A backup file is complete, or it is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from stack.backup import archive
from stack.errors import StackError

MANIFEST = archive.Manifest(
    archive.FORMAT, "an-id", "2026-11-26T00:00:00+00:00", "0.3.0", 18, "public", 1, 2, 40
)
PARTS = {archive.FRAMES: b"frames of two sources", archive.DATABASE: b"rows" * 20}


def write(path: Path) -> Path:
    with archive.new(path) as file:
        archive.write_manifest(file, MANIFEST)
        for name, content in PARTS.items():
            file.writestr(name, content)
    return path


def check(path: Path) -> archive.Manifest:
    return archive.check(path, lambda _: None)


def test_a_complete_file_is_private_and_accepted(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = write(tmp_path / "backup")
    finally:
        os.umask(before)
    read: list[int] = []
    assert archive.check(path, read.append) == MANIFEST
    assert sum(read) == archive.size(path) == sum(map(len, PARTS.values()))
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_truncated_file_is_refused_at_every_length(tmp_path: Path) -> None:
    whole, cut = write(tmp_path / "backup").read_bytes(), tmp_path / "cut"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(StackError, match="is not a complete Clickmill backup"):
            check(cut)


def test_a_flipped_byte_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    whole, changed = write(tmp_path / "backup").read_bytes(), tmp_path / "changed"
    refused = 0
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 0x5A
        changed.write_bytes(data)
        try:
            assert check(changed) == MANIFEST
        except StackError:
            refused += 1
    assert refused > sum(map(len, PARTS.values()))


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    path.write_text("mine")
    with pytest.raises(StackError, match="exists: choose another name"), archive.new(path):
        pytest.fail("it was opened")
    assert path.read_text() == "mine"


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), archive.new(tmp_path / "backup"):
        raise ValueError("broken")
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_user_is_named(tmp_path: Path) -> None:
    denied = PermissionError(errno.EACCES, "Permission denied", "/data/up.lock")
    expected = pytest.raises(StackError, match=r"^/data/up.lock: Permission denied. Run the backup")
    with expected, archive.new(tmp_path / "backup"):
        raise denied
    assert not list(tmp_path.iterdir())


def test_two_backups_do_not_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    with archive.new(path) as file:
        with pytest.raises(StackError, match="Another backup is writing"), archive.new(path):
            pytest.fail("it was opened twice")
        archive.write_manifest(file, MANIFEST)
    assert path.exists()


def test_what_a_killed_backup_left_is_not_in_the_next(tmp_path: Path) -> None:
    (tmp_path / "backup.part").write_bytes(b"x" * 10_000)
    assert check(write(tmp_path / "backup")) == MANIFEST


def test_a_backup_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    with archive.new(tmp_path / "backup") as file:
        file.writestr(archive.MANIFEST, b'{"format": 2}')
        for name in PARTS:
            file.writestr(name, b"")
    with pytest.raises(StackError, match="newer release"):
        check(tmp_path / "backup")


@pytest.mark.parametrize("made", [True, False])
def test_anything_else_is_refused(tmp_path: Path, made: bool) -> None:
    path = tmp_path / "other"
    if made:
        path.write_text("no archive")
    with pytest.raises(StackError, match="complete Clickmill backup" if made else "No such file"):
        check(path)
    assert archive.size(path) == 0
