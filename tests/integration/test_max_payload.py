"""A NATS that takes small messages only: frames are cut to fit, and where one was too large
already, readiness, a metric and the doctor tell at once what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from signal import SIGSTOP

import msgspec
import pytest

from clickmill import wire
from ingest.durable.spool import Spool
from ingest.shipping.drain import NOT_DRAINED
from ingest.shipping.payload import largest_frame
from tests.support.fix_nats import NatsServer
from tests.support.fix_system import doctor
from tests.support.fix_worker import Worker
from tests.support.raw import ask
from tests.support.wait import eventually

SMALL = 65_536
USUAL = 1 << 20
PAIRS = 9_000
"""A batch of so many banners makes a frame of 108 kB."""
TOO_LARGE = "clickmill_frames_too_large"


def limited(nats: NatsServer, size: int) -> str:
    return f"listen: 127.0.0.1:{nats.port}\nmax_payload: {size}\n"


@pytest.fixture
def small(nats: NatsServer) -> NatsServer:
    """A server with a small limit, and without users: a reload would end their connections, and
    every new connection is told of the limit."""
    nats.stop()
    lines = nats.config.read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("authorization"))
    nats.config.write_text(text.replace(f"listen: 127.0.0.1:{nats.port}\n", limited(nats, SMALL)))
    nats.start()
    return nats


@pytest.fixture
def worker(small: NatsServer, tmp_path: Path) -> Iterator[Worker]:
    nameless = f"nats://127.0.0.1:{small.port}"
    worker = Worker(small, tmp_path, {"CLICKMILL_NATS_URL": nameless})
    worker.start()
    yield worker
    worker.close()


def count_many(worker: Worker, first: int = 0) -> dict[int, int]:
    """A click on each of PAIRS banners, all in one epoch."""
    banners = range(first, first + PAIRS)
    batch = msgspec.json.encode([{"bannerID": n} for n in banners])
    kind = [("Content-Type", "application/json")]
    assert ask(worker.port, "POST", "/clicks", batch, kind).status == 200
    return dict.fromkeys(banners, 1)


def metric(worker: Worker, name: str) -> float:
    text = ask(worker.port, "GET", "/metrics").body.decode()
    return float(next(x for x in text.splitlines() if x.startswith(name + " ")).split()[1])


def not_ready(worker: Worker) -> str:
    answer = ask(worker.port, "GET", "/readyz")
    return "" if answer.status == 200 else str(answer.json["error"])


def test_frames_are_split_to_fit_the_servers_limit(worker: Worker) -> None:
    expected = count_many(worker)
    assert worker.clicks() == expected
    assert metric(worker, "clickmill_frames_sealed_total") > PAIRS // wire.pairs_within(SMALL)
    assert largest_frame(worker.data_dir / "ingest") + wire.HEADERS_BYTES <= SMALL
    assert not not_ready(worker)
    assert metric(worker, TOO_LARGE) == 0


def test_a_worker_that_starts_without_a_server_uses_the_stored_limit(
    worker: Worker, small: NatsServer
) -> None:
    assert worker.stop() == 0
    small.stop()
    worker.start(wait=False)
    eventually(lambda: ask(worker.port, "GET", "/livez").status == 200, 10)
    expected = count_many(worker)
    worker.expected_code = NOT_DRAINED
    assert worker.stop() == NOT_DRAINED, "it seals what it has"
    frames = list(sealed(worker))
    assert {banner: n for frame in frames for banner, n in frame.pairs} == expected
    assert max(len(wire.encode(frame)) for frame in frames) + wire.HEADERS_BYTES <= SMALL


def sealed(worker: Worker) -> Iterator[wire.Frame]:
    """Every frame in the spools that the worker left."""
    for directory in (worker.data_dir / "ingest").glob("*/spool"):
        spool = Spool(directory, USUAL)
        for seq in spool.seqs():
            yield wire.decode(spool.read(seq))
        spool.close()


def test_a_sealed_frame_that_is_too_large_is_reported_immediately(
    worker: Worker, small: NatsServer
) -> None:
    small.reload(f"max_payload: {SMALL}", f"max_payload: {USUAL}")
    worker.stop()
    worker.start()  # knows the larger limit now
    small.signal(SIGSTOP)  # what is sealed from here on is taken by nobody
    expected = count_many(worker)
    eventually(lambda: largest_frame(worker.data_dir / "ingest") > SMALL, 10, "it is sealed")
    small.kill()
    small.config.write_text(
        small.config.read_text().replace(f"max_payload: {USUAL}", f"max_payload: {SMALL}")
    )
    small.start()
    needed = largest_frame(worker.data_dir / "ingest") + wire.HEADERS_BYTES
    advice = f"set max_payload of the NATS server to {needed} or more"
    eventually(lambda: advice in not_ready(worker), 15)
    assert advice in worker.text
    eventually(lambda: metric(worker, TOO_LARGE) == 1, 5)
    found = doctor(worker.data_dir, small.url)
    assert f"failed  NATS: accepts at most {SMALL} bytes per message" in found
    assert advice in found
    small.reload(f"max_payload: {SMALL}", f"max_payload: {needed}")
    eventually(lambda: not not_ready(worker), 20, "it is told of the new limit, and ready")
    assert worker.clicks() == expected
    eventually(lambda: metric(worker, TOO_LARGE) == 0, 5, "the gauge follows, once a second")


def test_doctor_warns_where_frames_are_split(worker: Worker, small: NatsServer) -> None:
    needed = wire.MAX_FRAME_BYTES + wire.HEADERS_BYTES
    warning = f"warning NATS: max_payload is {SMALL} bytes, so a frame of many banners is split"
    assert f"{warning}: set it to {needed} or more." in doctor(worker.data_dir, small.url)
