"""`clickmill export`: every click once, however often it goes on and is interrupted."""

from __future__ import annotations

import csv
import json
import random
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from aggregator.writing.fold import Mark
from clickmill.settings import Settings
from stack.errors import StackError
from stack.export import Wanted, export
from tests.support.fix_api import Api, serve
from tests.support.fix_postgres import PostgresServer
from tests.support.fix_system import PROGRAM

DAY = 86_400
FIRST = int(datetime(2024, 12, 10, tzinfo=UTC).timestamp())
Rows = dict[tuple[int, int], int]


class Source:
    """A system whose statistics are complete through a moment that the test moves on."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.truth: Rows = {}
        self._chance = random.Random(4)
        self._source = uuid4()

    def click(self, since: int, until: int) -> None:
        """Clicks of some banners in some minutes of [since, until)."""
        minutes = range(since // 60 * 60, until, 60)
        new = {
            (banner, at): self._chance.randint(1, 9)
            for banner in (3, 17, 40_000)
            for at in self._chance.sample(minutes, min(len(minutes), 300))
        }
        self.api.put(new)
        for key, clicks in new.items():
            self.truth[key] = self.truth.get(key, 0) + clicks

    def complete_through(self, moment: int) -> None:
        at = moment * 10**9
        marks = {self._source: (Mark(1, 5, at, False), at)}
        self.api.call(lambda: self.api.progress.reload(marks, new_session=True))


@pytest.fixture
def source(postgres_server: PostgresServer) -> Iterator[Source]:
    with serve(postgres_server) as api:
        yield Source(api)


def wanted(file: Path, since: str = "last", **more: str) -> Wanted:
    options = {"until": "", "step": "1m", "tz": "UTC", "form": "", **more}
    return Wanted(file=str(file), since=since, banners=[], **options)


def run(api_port: int, file: Path, since: str = "last", **more: str) -> str:
    # Only the statistics port is asked, at its own address.
    return export(Settings(stats_port=api_port, host="127.0.0.9"), wanted(file, since, **more))


def rows_of(file: Path) -> Rows:
    """What the file says, as a program would read it; a row that is in it twice is an error."""
    if file.suffix == ".ndjson":
        lines = map(json.loads, file.read_text().splitlines())
        rows = [(x["ts"], x["bannerID"], x["v"]) for x in lines if "complete" not in x]
    else:
        head, *table = csv.reader(
            line for line in file.read_text().splitlines() if not line.startswith("#")
        )
        assert head == ["ts", "bannerID", "v"]
        rows = [(ts, int(banner), int(v)) for ts, banner, v in table]
    found = {(banner, int(datetime.fromisoformat(ts).timestamp())): v for ts, banner, v in rows}
    assert len(found) == len(rows), "a row is in the file twice"
    return found


@pytest.mark.parametrize("name", ["clicks.csv", "clicks.ndjson"])
def test_it_goes_on_where_it_stopped(source: Source, tmp_path: Path, name: str) -> None:
    """Late clicks come before completeThrough moves on: they are in the next export."""
    file, port = tmp_path / name, source.api.port
    source.click(FIRST, FIRST + DAY)
    for n in range(1, 5):
        through = FIRST + n * 5 * 3_600 + 33
        source.complete_through(through)
        run(port, file)
        until = through // 60 * 60
        assert rows_of(file) == {k: v for k, v in source.truth.items() if k[1] < until}
        source.click(until, until + 600)
    source.complete_through(FIRST + 2 * DAY)
    said = run(port, file)
    assert rows_of(file) == source.truth
    assert said.endswith("until 2024-12-12T00:00:00Z.")
    before = file.read_bytes()
    assert run(port, file).startswith("0 rows with 0 clicks, until 2024-12-12T00:00:00Z")
    assert rows_of(file) == source.truth
    assert file.read_bytes().startswith(before)


def test_an_interrupted_export_is_repeated_from_its_last_line(
    source: Source, tmp_path: Path
) -> None:
    """Whatever is left of the second export, at any byte, the file becomes the same."""
    file, port = tmp_path / "clicks.csv", source.api.port
    source.click(FIRST, FIRST + DAY)
    source.complete_through(FIRST + DAY // 2)
    run(port, file)
    first = file.stat().st_size
    source.complete_through(FIRST + DAY)
    run(port, file)
    whole = file.read_bytes()
    cuts = {0, 7, first - 1, first, first + 1, len(whole) - 3, len(whole) - 1}
    for cut in sorted(cuts | set(random.Random(1).sample(range(len(whole)), 12))):
        file.write_bytes(whole[:cut])
        run(port, file)
        assert rows_of(file) == source.truth, cut
        if cut >= first:
            assert file.read_bytes() == whole, cut


def test_a_response_that_breaks_off_is_an_error(source: Source, tmp_path: Path) -> None:
    file = tmp_path / "clicks.ndjson"
    source.click(FIRST, FIRST + DAY)
    source.complete_through(FIRST + DAY)
    with (
        cut_after(20_000, source.api.port) as port,
        pytest.raises(StackError, match=r"cut off.*--since last"),
    ):
        run(port, file)
    assert rows_of_what_is_there(file) < len(source.truth)
    run(source.api.port, file)
    assert rows_of(file) == source.truth


@contextmanager
def cut_after(size: int, target: int) -> Iterator[int]:
    """A port that passes one request on and cuts its response after so many bytes."""

    def serve() -> None:
        client, _ = listener.accept()
        with client, socket.create_connection(("127.0.0.1", target), timeout=20) as server:
            server.sendall(client.recv(65_536))
            left = size
            while left and (piece := server.recv(min(left, 65_536))):
                client.sendall(piece)
                left -= len(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(30)


def rows_of_what_is_there(file: Path) -> int:
    return file.read_bytes().count(b"\n")


def test_days_of_a_zone_end_with_a_whole_day(source: Source, tmp_path: Path) -> None:
    source.click(FIRST, FIRST + 2 * DAY)
    source.complete_through(FIRST + DAY + 3_600)
    said = run(source.api.port, tmp_path / "days.csv", "", step="1d", tz="Europe/Berlin")
    assert said.endswith("until 2024-12-10T23:00:00Z.")


def test_what_is_refused(source: Source, tmp_path: Path) -> None:
    port = source.api.port
    file = tmp_path / "clicks.csv"
    file.write_text("something else\n")
    with pytest.raises(StackError, match="use `--since last` to go on where it ends"):
        run(port, file, "")
    with pytest.raises(StackError, match="is not an export as csv"):
        run(port, file)
    assert file.read_text() == "something else\n"
    with pytest.raises(StackError, match="step is '2m'"):
        run(port, tmp_path / "new.csv", "", step="2m")
    with pytest.raises(StackError, match="can't be written"):
        run(port, tmp_path / "missing" / "clicks.csv")
    with pytest.raises(StackError, match="needs a FILE"):
        export(Settings(stats_port=port), wanted(Path("-")))


def test_the_command(source: Source, tmp_path: Path) -> None:
    source.click(FIRST, FIRST + 3_600)
    source.complete_through(FIRST + 3_600)
    command = [*PROGRAM, "export", "-", "--stats-port", str(source.api.port), "--step", "1h"]
    done = subprocess.run(
        [*command, "--banner", "17", "--since", str(FIRST)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    clicks = sum(v for (banner, _), v in source.truth.items() if banner == 17)
    assert done.stdout.splitlines() == [
        "ts,bannerID,v", f"2024-12-10T00:00:00Z,17,{clicks}",
        f"# complete until 2024-12-10T01:00:00Z,1,{clicks}",
    ]  # fmt: skip
    assert f"1 rows with {clicks} clicks" in done.stderr
