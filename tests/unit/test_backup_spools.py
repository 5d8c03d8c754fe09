"""What a backup takes from the spools: every frame that the database does not have, once."""

from __future__ import annotations

import io
import os
from pathlib import Path
from uuid import UUID

import pytest

from clickmill import wire
from ingest.durable.source_lock import make_locked
from ingest.durable.spool import Spool
from stack.backup import spools
from stack.errors import StackError
from tests.support.frames import of_another_version, run_of

ONE, TWO = UUID(int=1), UUID(int=2)
EVERY_FRAME = 10


def spool(root: Path, source: UUID) -> Spool:
    home = root / str(source)
    home.mkdir()
    written = Spool(home / "spool", 1 << 30)
    written.append(run_of(1, EVERY_FRAME, source))
    return written


def collect(root: Path, marks: dict[UUID, int]) -> tuple[spools.Uncommitted, list[wire.Frame]]:
    out = io.BytesIO()
    found = spools.collect(root, marks, out)
    out.seek(0)
    return found, [wire.decode(data) for data in spools.read(out)]


def test_frames_after_the_mark_by_source_and_seq(tmp_path: Path) -> None:
    for source in (TWO, ONE):
        spool(tmp_path, source)
    (tmp_path / "targets.json").write_text("{}")
    found, frames = collect(tmp_path, {ONE: 7})
    assert [(f.source, f.seq) for f in frames] == [
        *((ONE, seq) for seq in (8, 9, 10)),
        *((TWO, seq) for seq in range(1, 11)),
    ]
    assert found == (13, sum(f.clicks for f in frames))


def test_all_committed_or_no_data_directory(tmp_path: Path) -> None:
    spool(tmp_path, ONE)
    assert collect(tmp_path, {ONE: 10}) == ((0, 0), [])
    assert collect(tmp_path / "missing", {}) == ((0, 0), [])


def test_a_frame_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    spool(tmp_path, ONE).close()
    [segment] = (tmp_path / str(ONE) / "spool").iterdir()
    segment.write_bytes(segment.read_bytes()[:-5])
    assert [f.seq for f in collect(tmp_path, {ONE: 7})[1]] == [8, 9]


def test_a_spool_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    spool(tmp_path, ONE).close()
    [segment] = (tmp_path / str(ONE) / "spool").iterdir()
    segment.write_bytes(of_another_version(run_of(1, 1, ONE)[0]))
    with pytest.raises(StackError, match="newer release"):
        collect(tmp_path, {})


def test_counters_of_an_ended_worker_are_reported(tmp_path: Path) -> None:
    home = tmp_path / str(ONE)
    lock = make_locked(home)
    (home / "counters").touch()
    assert spools.unsealed(tmp_path) == []
    os.close(lock)
    assert spools.unsealed(tmp_path) == [home]
