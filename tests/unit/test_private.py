"""What others on the machine can't read: the data directory, the targets of banners."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingest.lookup.redirects import Targets
from stack.embedded.server import private_dir
from stack.errors import StackError


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.parametrize("before", [0o755, 0o777, 0o750, 0o700, None])
def test_the_data_directory_is_private(tmp_path: Path, before: int | None) -> None:
    """Even if it was there, as that of a package or a volume is."""
    path = tmp_path / "data"
    if before is not None:
        path.mkdir()
        path.chmod(before)
    private_dir(path)
    assert mode(path) == 0o700


def test_a_directory_that_is_shared_with_others_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "tmp"
    path.mkdir()
    path.chmod(0o1777)
    with pytest.raises(StackError, match="shared with others"):
        private_dir(path)
    assert mode(path) == 0o1777


def test_the_file_of_targets_is_private(tmp_path: Path) -> None:
    """Also where a file of an older release, or a link of someone else, is in its place."""
    path, victim = tmp_path / "targets.json", tmp_path / "victim"
    path.write_text("{}")
    path.chmod(0o644)
    victim.write_text("untouched")
    targets = Targets(path, [])
    targets.replace({7: "https://example.org/"})
    (tmp_path / f"targets.{os.getpid()}").symlink_to(victim)
    targets.save()
    assert mode(path) == 0o600
    assert not path.is_symlink()
    assert b"example.org" in path.read_bytes()
    assert victim.read_text() == "untouched"
