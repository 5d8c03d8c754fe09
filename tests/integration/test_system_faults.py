"""One fault of the machine under a whole `clickmill up`: nothing ends, and no click is lost."""

from __future__ import annotations

import os
import signal

from tests.clicker import Clicker
from tests.fix_system import System, SystemFactory
from tests.wait import eventually


def serving(system: System) -> int:
    """How many workers have ever said that they serve."""
    return system.output.count("serves on port")


def test_a_state_file_that_cannot_be_written_stops_nothing(system: SystemFactory) -> None:
    one = system(workers=2)
    before = one.children()
    taken = one.data_dir / "run" / "up.json.new"
    taken.mkdir()  # the draft's name is taken: every write fails, as on a full disk
    with Clicker.at_work(one.url) as clicker:
        os.kill(before["ingest-1"], signal.SIGKILL)
        eventually(lambda: serving(one) == 3, 10, "another worker serves")
        one.signal(signal.SIGHUP)
        eventually(lambda: "2 of 2 workers replaced" in one.output, 30, "the reload is done")
        clicker.goes_on()
        assert "up.json can't be written" in one.output
        taken.rmdir()
        eventually(lambda: one.replaced("ingest-1", before["ingest-1"]), 10, "the file is right")
        assert one.replaced("ingest-2", before["ingest-2"])
    assert clicker.refused == 0
    clicker.check(one)
