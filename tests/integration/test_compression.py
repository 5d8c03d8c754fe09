"""Compressed responses of the statistics port: who gets them, and what is left behind."""

from __future__ import annotations

import gc
import gzip
import re
import sys
from typing import Any

import httpx
import pytest

from tests.support.fix_api import Api
from tests.support.raw import ask
from tests.support.wait import eventually

FIRST = 1_733_835_360
BANNER = 907
IN_ONE = 10_000
TOO_MANY_TO_SEND_AT_ONCE = 100_000
UNTIL = re.compile(rb"(?<=complete until )[-:TZ0-9]+|(?<=completeThrough\":\")[-:TZ0-9]+")
"""What has changed by the next request."""


def minutes(api: Api, banner: int, count: int) -> str:
    """The path of so many minutes with a click each."""
    api.put_range(banner, FIRST, [1] * count)
    return f"/stats/{banner}?tsFrom={FIRST}&tsTo={FIRST + count * 60}"


@pytest.fixture(scope="module")
def many(api: Api) -> str:
    return minutes(api, BANNER, IN_ONE)


@pytest.mark.parametrize("form", ["json", "csv", "ndjson"])
def test_large_responses_are_compressed(api: Api, many: str, form: str) -> None:
    packed = ask(api.port, "GET", f"{many}&format={form}", headers=[("Accept-Encoding", "gzip")])
    plain = ask(api.port, "GET", f"{many}&format={form}")
    assert packed.get("content-encoding") == "gzip"
    assert "accept-encoding" in str(packed.get("vary")).lower()
    assert plain.get("content-encoding") is None
    assert UNTIL.sub(b"", gzip.decompress(packed.body)) == UNTIL.sub(b"", plain.body)
    assert len(packed.body) * 5 < len(plain.body)


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("deflate,gzip ; q=1.0", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, br", False),
        ("x-gzip-not", False),
        ("br", False),
        ("", False),
    ],
)
def test_only_for_clients_that_accept_it(api: Api, many: str, accepted: str, packed: bool) -> None:
    answer = ask(api.port, "GET", many, headers=[("Accept-Encoding", accepted)])
    assert (answer.get("content-encoding") == "gzip") == packed


def test_small_responses_and_events_are_not_compressed(api: Api) -> None:
    assert "content-encoding" not in api.get("/livez").headers
    with httpx.stream("GET", api.url + "/live") as events:
        assert "content-encoding" not in events.headers


def test_a_client_that_leaves_in_the_middle_leaves_nothing_that_can_fail_later(
    api: Api, banner: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = minutes(api, banner, TOO_MANY_TO_SEND_AT_ONCE)
    failed: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", failed.append)
    for _ in range(4):
        with httpx.stream("GET", f"{api.url}{path}&format=csv") as answer:
            assert answer.headers["content-encoding"] == "gzip"
            assert next(answer.iter_raw(512))
    eventually(lambda: api.get("/livez").status_code == 200)
    gc.collect()
    assert failed == []
