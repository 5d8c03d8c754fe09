"""Who may read and who may write: every rule alone, on requests as their headers describe them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clickmill.contract.access import Access, Caller, Hosts, is_of_a_proxy
from clickmill.contract.problem import Problem
from clickmill.contract.tokens import Tokens

READ, WRITE = "reader", "writer"
HOSTS = Hosts.parse("stats.example.org,Other.Example.")
OPEN = Access(Tokens(()), Tokens(()), HOSTS)
READERS = Access(Tokens([READ]), Tokens(()), HOSTS)
BOTH = Access(Tokens([READ]), Tokens([WRITE]), HOSTS)
WRITERS = Access(Tokens(()), Tokens([WRITE]), HOSTS)
CLOSED = Access(Tokens(()), Tokens(()), HOSTS, always_closed=True)

OURS = ["localhost", "LOCALHOST:8081", "localhost.", "127.0.0.1", "127.0.0.1:8081", "[::1]:8081",
        "[::1]", "10.0.0.7:80", "[2001:db8::1]:8081", "stats.example.org", "STATS.example.org:443",
        "other.example", "other.example."]  # fmt: skip
FOREIGN = ["evil.example", "localhost.evil.example", "evil.localhost", "127.0.0.1.evil.example",
           "localhost:8081@evil.example", "localhost:80:80", "[::1", "[localhost]", "::1",
           "[evil.example]:80", "127.0.0.1x", "127.1", "2130706433", "stats.example.org.evil",
           "localhost:99999999", "localhost:x", "a b", "xstats.example.org"]  # fmt: skip


def caller(token: str = "", **changes: Any) -> Caller:
    """A program on this machine that speaks HTTP/1.1 to localhost."""
    authorization = [f"Bearer {token}".encode()] if token else []
    here = Caller("127.0.0.1", "1.1", ["localhost:8081"], [], authorization, False)
    return here._replace(**changes)


def refused(check: Callable[[Caller], Problem | None], asked: Caller) -> tuple[int, str]:
    """Status and code of the refusal; (200, "") where there is none."""
    problem = check(asked)
    return (problem.status, problem.code) if problem else (200, "")


@pytest.mark.parametrize("host", OURS)
def test_names_of_this_server(host: str) -> None:
    assert HOSTS.includes(host)
    assert refused(OPEN.write_refusal, caller(hosts=[host])) == (200, "")


@pytest.mark.parametrize("host", FOREIGN)
def test_every_other_name_is_421(host: str) -> None:
    """What DNS rebinding sends: a name of the attacker that resolves to this machine."""
    for check in (OPEN.host_refusal, OPEN.read_refusal, OPEN.write_refusal):
        assert refused(check, caller(hosts=[host])) == (421, "unknown_host")
    assert refused(OPEN.host_refusal, caller(hosts=["localhost", host])) == (421, "unknown_host")


def test_a_program_without_a_host_may_read_and_not_write() -> None:
    """Health checks in HTTP/1.0 have none; a browser always sends one, and only one."""
    for none in ([], [""]):
        assert refused(OPEN.read_refusal, caller(hosts=none)) == (200, "")
        assert refused(OPEN.write_refusal, caller(hosts=none)) == (421, "unknown_host")
    twice = caller(hosts=["localhost", "localhost"])
    assert refused(OPEN.write_refusal, twice) == (421, "unknown_host")


@pytest.mark.parametrize(
    "origin",
    ["null", "", "http://evil.example", "http://localhost", "http://localhost:8080",
     "localhost:8081", "http://127.0.0.1:8081", "file://", "http://evil.example/localhost:8081",
     "http://localhost:8081.evil.example", "chrome-extension://abcdef"],
)  # fmt: skip
def test_a_page_of_another_origin_may_not_write(origin: str) -> None:
    """Not even with a token, and not beside an origin that may."""
    for access in (OPEN, READERS, BOTH, WRITERS):
        for origins in ([origin], ["http://localhost:8081", origin]):
            asked = caller(WRITE, origins=origins)
            assert refused(access.write_refusal, asked) == (403, "foreign_origin")
    nowhere = caller(hosts=[], origins=[origin])
    assert refused(OPEN.write_refusal, nowhere) == (403, "foreign_origin")
    assert refused(OPEN.read_refusal, caller(origins=[origin])) == (200, "")


@pytest.mark.parametrize(
    ("origin", "host"),
    [("http://localhost:8081", "localhost:8081"), ("HTTP://LOCALHOST:8081", "localhost:8081"),
     ("http://[::1]:8081", "[::1]:8081"), ("https://stats.example.org", "stats.example.org"),
     ("https://stats.example.org", "10.0.0.1:8081"),
     ("https://other.example:8443", "stats.example.org")],
)  # fmt: skip
def test_our_own_pages_may_write(origin: str, host: str) -> None:
    assert refused(OPEN.write_refusal, caller(origins=[origin], hosts=[host])) == (200, "")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_this_machine_may_write_while_no_write_token_is_set(address: str) -> None:
    assert refused(OPEN.write_refusal, caller(address=address)) == (200, "")


@pytest.mark.parametrize(
    "elsewhere",
    [{"address": "10.0.0.7"}, {"address": "::ffff:10.0.0.7"}, {"address": "fe80::1%eth0"},
     {"address": ""}, {"address": "unix"}, {"address": "0.0.0.0"}, {"is_proxied": True},
     {"http_version": "1.0"}, {"http_version": "1"}],
)  # fmt: skip
def test_others_may_not(elsewhere: dict[str, Any]) -> None:
    """Nor who comes through a proxy on this machine: its address stands for everyone's."""
    for access in (OPEN, READERS):
        asked = caller(READ, **elsewhere)
        assert refused(access.write_refusal, asked) == (403, "write_token_not_set")
    assert refused(WRITERS.write_refusal, caller(WRITE, **elsewhere)) == (200, "")


@pytest.mark.parametrize("name", ["forwarded", "via", "x-real-ip", "x-forwarded-for",
                                  "x-forwarded-host", "x-forwarded-proto"])  # fmt: skip
def test_headers_of_proxies(name: str) -> None:
    assert is_of_a_proxy(name)


def test_where_a_write_token_is_set_only_that_writes() -> None:
    for access, token, expected in [
        (WRITERS, WRITE, (200, "")), (WRITERS, "", (401, "unauthorized")),
        (WRITERS, READ, (401, "unauthorized")), (BOTH, WRITE, (200, "")),
        (BOTH, READ, (403, "read_only_token")), (BOTH, "", (401, "unauthorized")),
        (BOTH, "x", (401, "unauthorized")),
    ]:  # fmt: skip
        assert refused(access.write_refusal, caller(token)) == expected
    assert refused(WRITERS.write_refusal, caller(WRITE, hosts=["any.example"])) == (200, "")


def test_reading() -> None:
    for access, token, expected in [
        (OPEN, "", 200), (WRITERS, "", 200), (READERS, "", 401), (READERS, READ, 200),
        (READERS, WRITE, 401), (BOTH, READ, 200), (BOTH, WRITE, 200), (BOTH, "", 401),
        (CLOSED, "", 401), (CLOSED, READ, 401),
    ]:  # fmt: skip
        assert refused(access.read_refusal, caller(token))[0] == expected
    assert refused(READERS.read_refusal, caller(READ, hosts=["any.example"])) == (200, "")
