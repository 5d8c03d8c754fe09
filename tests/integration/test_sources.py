"""`clickmill sources`: a machine that is lost is named, given up, and may come back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any

from tests.support import sql
from tests.support.aggregators import Aggregator, aggregator
from tests.support.fix_nats import NatsServer
from tests.support.fix_worker import Worker
from tests.support.raw import Answer, ask
from tests.support.wait import eventually

GIVEN_UP = "SELECT node, total, missing_from <= last_seen, returned_at FROM source_given_up"


def sources(nats: NatsServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run of `clickmill sources`."""
    return subprocess.run(
        [sys.executable, "-m", "stack.cli", "sources", "--nats-url", nats.url, *arguments],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


def answer(running: Aggregator) -> dict[str, Any]:
    status, body = running.get("/stats/1")
    assert status == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


def worker_of(nats: NatsServer, folder: Path, node: str) -> Worker:
    folder.mkdir()
    worker = Worker(nats, folder, {"CLICKMILL_NODE": node})
    worker.start()
    assert ask(worker.port, "POST", "/counter/1").status == 200
    return worker


def kill(worker: Worker) -> None:
    os.kill(worker.pid, SIGKILL)
    eventually(lambda: not worker.alive, 10, "it is dead")


def test_a_lost_machine_is_named_and_given_up_and_may_come_back(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    with aggregator(nats.url, database) as running:
        lost = worker_of(nats, tmp_path / "lost", "lost-one")
        alive = worker_of(nats, tmp_path / "alive", "alive-one")
        try:
            eventually(lambda: answer(running)["Counts"] == 2, 15, "both clicks are committed")
            stored = "SELECT node FROM source ORDER BY node"
            eventually(
                lambda: sql.query(database, stored) == [("alive-one",), ("lost-one",)], 15,
                "the table names the nodes",
            )  # fmt: skip

            refused = sources(nats, "give-up", "lost-one")
            assert refused.returncode == 1
            why = " ".join(refused.stderr.split())
            assert "lives" in why, why
            assert "have this name, first give the one that lives another CLICKMILL_NODE" in why
            assert sources(nats, "give-up", "no-such").returncode == 1
            assert sql.query(database, GIVEN_UP) == []
            assert sql.query(database, "SELECT count(*) FROM source WHERE closed") == [(0,)]

            kill(lost)
            eventually(lambda: "completeBut" in answer(running), 30, "one node is silent")
            said = answer(running)
            assert said["completeBut"]["silentNodes"] == ["lost-one"]
            assert said["completeThrough"] < said["completeBut"]["completeThrough"]
            listed = sources(nats).stdout
            assert "silent" in next(line for line in listed.splitlines() if "lost-one" in line)
            assert "live" in next(line for line in listed.splitlines() if "alive-one" in line)

            done = sources(nats, "give-up", "lost-one")
            assert done.returncode == 0, done.stderr
            assert sql.query(database, GIVEN_UP) == [("lost-one", 1, True, None)]
            eventually(lambda: "completeBut" not in answer(running), 15, "the answer is whole")
            eventually(
                lambda: answer(running)["completeThrough"] > said["completeThrough"], 15,
                "completeThrough goes on",
            )  # fmt: skip

            # Its disk turns up after all: a worker adopts what is on it.
            lost.start()
            assert ask(lost.port, "POST", "/counter/1").status == 200
            eventually(lambda: answer(running)["Counts"] == 3, 20, "its clicks count")
            eventually(
                lambda: sql.query(database, GIVEN_UP)[0][3] is not None, 30, "its return is noted"
            )
            eventually(
                lambda: running.metric("clickmill_sources_returned_total") == 1, 10, "and counted"
            )
            assert "is back" in running.output
        finally:
            lost.close()
            alive.close()


def give_up(running: Aggregator, *headers: tuple[str, str], **body: object) -> Answer:
    """A request to give up a source."""
    data = json.dumps(body).encode()
    return ask(running.port, "POST", "/sources/give-up", data, headers)


def listed(running: Aggregator) -> dict[str, bool]:
    """Nodes with open sources; whether each is silent."""
    found = ask(running.port, "GET", "/sources").json["sources"]
    return {source["node"]: source["silent"] for source in found}


def test_a_machine_that_was_cut_off_while_it_was_given_up_goes_on_counting(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    """Over HTTP, this time."""
    with aggregator(nats.url, database) as running:
        worker = worker_of(nats, tmp_path / "cut", "cut-off")
        try:
            eventually(lambda: answer(running)["Counts"] == 1, 15, "the click is committed")
            eventually(lambda: listed(running) == {"cut-off": False}, 15, "it is listed")
            for body, status, code in (
                ({"source": "cut-off", "by": "alice"}, 409, "source_is_alive"),
                ({"source": "no-such", "by": "alice"}, 404, "unknown_source"),
                ({"source": "cut-off"}, 400, "invalid_body"), ({}, 400, "invalid_body"),
                ({"source": "cut-off", "by": "a", "node": "x"}, 400, "invalid_body"),
                ({"source": "cut-off", "by": "a\n"}, 400, "invalid_name"),
            ):  # fmt: skip
                refused = give_up(running, **body)
                assert (refused.status, refused.json["code"]) == (status, code), body
            os.kill(worker.pid, SIGSTOP)
            eventually(lambda: "completeBut" in answer(running), 30, "it is silent")
            assert listed(running) == {"cut-off": True}
            page = ("Origin", "http://evil.example")
            assert give_up(running, page, source="cut-off", by="alice").status == 403
            done = give_up(running, source="cut-off", by="alice")
            assert done.status == 200, done.json
            assert [source["node"] for source in done.json["sources"]] == ["cut-off"]
            who = "SELECT given_up_by FROM source_given_up"
            assert sql.query(database, who) == [("alice",)]
            os.kill(worker.pid, SIGCONT)
            assert ask(worker.port, "POST", "/counter/1").status == 200
            eventually(lambda: answer(running)["Counts"] == 2, 20, "its next click counts")
            eventually(
                lambda: sql.query(database, "SELECT closed FROM source") == [(False,)], 20,
                "it is open again",
            )  # fmt: skip
        finally:
            os.kill(worker.pid, SIGCONT)
            worker.close()
