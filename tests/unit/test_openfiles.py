"""Open files: the limit is raised, and connections leave some of it to files."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from clickmill import openfiles
from clickmill.openfiles import LEAST_CONNECTIONS, RESERVE, connections_within, too_few

RAISE = """
import resource
from clickmill import openfiles
print(openfiles.allow_most(), resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_limit_is_raised_to_the_hard_one() -> None:
    limited = ["prlimit", "--nofile=100:300", sys.executable, "-c", RAISE]
    done = subprocess.run(limited, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "300 (300, 300)"


def test_the_doctor_says_where_there_are_too_few() -> None:
    look = "import asyncio; from clickmill.settings import Settings; "
    look += (
        "from stack.doctor.machine import open_files; print(asyncio.run(open_files(Settings())))"
    )

    def looked(limit: int) -> subprocess.CompletedProcess[str]:
        limited = ["prlimit", f"--nofile={limit}:{limit}", sys.executable, "-c", look]
        return subprocess.run(limited, capture_output=True, text=True, check=False)

    assert looked(8192 + RESERVE).stdout.startswith(f"{8192 + RESERVE} at a time, 8192 of them")
    assert too_few(256, 8192) + "." in looked(256).stderr


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_hard_limit_that_cannot_be_reached_ends_nobody(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refused(_: int, __: tuple[int, int]) -> None:
        raise error("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refused)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert openfiles.allow_most() == soft


def test_no_limit_is_more_than_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    monkeypatch.setattr(resource, "setrlimit", lambda *given: raised.append(given))
    assert openfiles.allow_most() == sys.maxsize
    assert raised == [(resource.RLIMIT_NOFILE, (resource.RLIM_INFINITY,) * 2)]


@pytest.mark.parametrize(
    ("limit", "wanted", "taken"),
    [
        (1_048_576, 8192, 8192),
        (8192 + RESERVE, 8192, 8192),
        (8192 + RESERVE - 1, 8192, 8191),
        (256, 8192, 256 - RESERVE),
        (64, 8192, LEAST_CONNECTIONS),
        (64, 16, 16),
    ],
)
def test_connections_leave_a_reserve(limit: int, wanted: int, taken: int) -> None:
    assert connections_within(limit, wanted) == taken
    assert bool(too_few(limit, wanted)) == (taken < wanted)


def test_the_sentence_says_what_to_do() -> None:
    assert "at most 128 connections" in too_few(256, 8192)
    assert f"to {8192 + RESERVE} " in too_few(256, 8192)
