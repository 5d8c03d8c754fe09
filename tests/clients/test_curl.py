"""curl, with the ways of sending a body that it has: by length, in chunks, asked for first."""

from __future__ import annotations

import subprocess
from typing import Final

import pytest

from tests.clients.programs import program
from tests.support.fix_worker import Worker, counts

BANNER: Final = 71
MANY: Final = 40
CURL_S: Final = 30
LARGE: Final = b" " * 200_000
TOO_LARGE: Final = b" " * 3_000_000
CHUNKED: Final = ("-H", "Transfer-Encoding: chunked")
EXPECT: Final = ("-H", "Expect: 100-continue")
SENT: Final = ("--data-binary", "@-")


def curl(worker: Worker, body: bytes, *options: str, many: int = MANY) -> list[tuple[str, int]]:
    """(status, connections opened for it) of each of many requests, one behind the other."""
    url = f"http://127.0.0.1:{worker.port}/counter/{BANNER}?n=[1-{many}]"
    shown = ("-sS", "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\\n")
    done = subprocess.run(
        [program("curl"), *shown, "-X", "POST", *options, url],
        input=body, capture_output=True, timeout=CURL_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    return [(status, int(connections)) for status, connections in lines]


@pytest.mark.parametrize("options", [(), CHUNKED, EXPECT, (*CHUNKED, *EXPECT)])
@pytest.mark.parametrize("body", [b"{}", LARGE])
def test_every_click_counts_on_one_connection(
    worker: Worker, options: tuple[str, ...], body: bytes
) -> None:
    with counts(worker, {BANNER: MANY}):
        answers = curl(worker, body, *SENT, *options)
        assert [status for status, _ in answers] == ["200"] * MANY
        assert sum(connections for _, connections in answers) == 1


def test_an_upload_from_a_pipe(worker: Worker) -> None:
    """Of unknown length, and curl waits for a `100 Continue` on its own account."""
    with counts(worker, {BANNER: 1}):
        assert curl(worker, LARGE, "-T", "-", many=1) == [("200", 1)]


@pytest.mark.parametrize("options", [(), CHUNKED, EXPECT])
def test_too_large_is_413(worker: Worker, options: tuple[str, ...]) -> None:
    with counts(worker, {}):
        assert curl(worker, TOO_LARGE, *SENT, *options, many=1) == [("413", 1)]
