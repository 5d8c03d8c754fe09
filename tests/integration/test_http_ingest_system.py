"""What the ingest port gives with the whole system behind it: statistics, redirects, tokens.

Both ways of answering run in one system each, and are asked the same.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from ingest.shipping.drain import NOT_DRAINED
from tests.support.fix_nats import NatsServer
from tests.support.fix_system import System, SystemFactory
from tests.support.raw import Answer, ask
from tests.support.wait import eventually

KNOWN_WITHIN_S = 2.0
TOKENS = ("first-token-Zb81", "second-token-Qq47")
RANGE = {"tsFrom": "2024-12-10T12:56:00Z", "tsTo": "2024-12-10T12:57:59Z"}
TARGET = "https://example.org/landing?a=b&c=%20d#part"


@pytest.fixture(params=["fast", "ordinary"])
def running(request: pytest.FixtureRequest, system: SystemFactory) -> System:
    """Two workers, no token."""
    return system(workers=2, fastpath=request.param == "fast")


@pytest.fixture(params=["fast", "ordinary"])
def closed(request: pytest.FixtureRequest, system: SystemFactory) -> System:
    """One worker; two tokens are set."""
    fast = request.param == "fast"
    return system(fastpath=fast, stats_token=",".join(TOKENS), log_level="debug")


def register(running: System, banner: int, target: str, *headers: tuple[str, str]) -> Answer:
    body = json.dumps({"target_url": target}).encode()
    return ask(running.stats_port, "PUT", f"/banners/{banner}", body, headers)


def redirected(running: System, banner: int, times: int = 20) -> int:
    """How many of so many connections, which the kernel spreads over the workers, get a 302."""
    answers = [ask(running.port, "GET", f"/click/{banner}") for _ in range(times)]
    return sum(answer.status == 302 for answer in answers)


COMPLETE = "clickmill-complete-through"


def test_statistics_and_redirects(running: System) -> None:
    """One system for all of it: starting one is what takes time."""
    _statistics_are_the_aggregators_own(running)
    _a_redirect_counts_and_leads_to_the_registered_target(running)
    _the_target_is_never_taken_from_the_request(running)
    _a_bad_target_is_refused(running)


def _statistics_are_the_aggregators_own(running: System) -> None:
    for n in range(3):
        assert ask(running.port, "POST", "/stats/17", b"{}" if n else None).status == 200
    running.wait_counts(17, 3)
    body = json.dumps(RANGE).encode()
    query = "?" + "&".join(f"{name}={quote(value)}" for name, value in RANGE.items())
    asked: list[tuple[str, str, bytes | None]] = [
        ("GET", "", None), ("GET", query, None), ("GET", "", body), ("POST", "", body),
        ("GET", "?tsFrom=1733835360&tsTo=1733835479", None), ("GET", query + "&step=5m", None),
        ("GET", query + "&fill=zero&format=csv", None), ("GET", query + "&tz=Europe/Berlin", None),
    ]  # fmt: skip
    for method, more, sent in asked:
        here = ask(running.port, method, f"/stats/17{more}", sent)
        there = ask(running.stats_port, method, f"/stats/17{more}", sent)
        assert here.status == 200, (method, more, here)
        for name in ("content-type", "content-disposition"):
            assert here.get(name) == there.get(name), (method, more, name)
        assert bool(here.get(COMPLETE)) == bool(there.get(COMPLETE)) == ("csv" in more), more
        assert _without_times(here) == _without_times(there), (method, more)
    wrong = [
        "?tsFrom=yesterday", "?tsFrom=2024-12-10T12:56:00", "?tsFrom=2&tsTo=1", "?step=7m",
        "?tsFrom=1&tsFrom=2", "?colour=red", "?tz=Mars", "?tsFrom=2000-01-01T00:00:00Z",
        "?%ff=%fe", "?" + "&".join(["a=1"] * 100), "?tsFrom=9999999999999999999999",
    ]  # fmt: skip
    for more in wrong:
        here, there = (
            ask(p, "GET", f"/stats/17{more}") for p in (running.port, running.stats_port)
        )
        assert here.status == there.status == 400, (more, here, there)
        assert set(here.json) >= {"error", "code"}, more
    for bad in (b"[", b"[]", b'"x"', b'{"tsFrom": 1}', b'{"tsFrom": [], "tsTo": {}}', b"\xff"):
        answer = ask(running.port, "POST", "/stats/17", bad)
        assert answer.status == 400, (bad, answer)
    assert running.counts(17) == 3


def _without_times(answer: Answer) -> object:
    """The body, without what moves from one request to the next."""
    if answer.get("content-type") != "application/json":
        return answer.body
    moving = {"completeThrough", "tsFrom", "tsTo"}
    return {name: value for name, value in answer.json.items() if name not in moving}


def _a_redirect_counts_and_leads_to_the_registered_target(running: System) -> None:
    assert redirected(running, 18) == 0
    assert register(running, 18, TARGET).status in (200, 201)
    began = time.monotonic()
    hits = 0

    def all_know() -> bool:
        nonlocal hits
        found = redirected(running, 18)
        hits += found
        return found == 20

    eventually(all_know, KNOWN_WITHIN_S, "every worker knows the target")
    assert time.monotonic() - began < KNOWN_WITHIN_S + 1
    answer = ask(running.port, "GET", "/click/18")
    assert answer.get("location") == TARGET
    assert answer.get("cache-control") == "no-store"
    assert not answer.body
    running.wait_counts(18, hits + 1)
    assert register(running, 18, TARGET + "2").status == 200
    eventually(
        lambda: all(
            ask(running.port, "GET", "/click/18").get("location") == TARGET + "2" for _ in range(10)
        ),
        KNOWN_WITHIN_S,
        "the new target",
    )
    assert ask(running.stats_port, "DELETE", "/banners/18").status in (200, 204)
    eventually(lambda: redirected(running, 18) == 0, KNOWN_WITHIN_S, "no target any more")


def _the_target_is_never_taken_from_the_request(running: System) -> None:
    assert register(running, 19, TARGET).status in (200, 201)
    eventually(lambda: redirected(running, 19) == 20, KNOWN_WITHIN_S)
    evil = "https://evil.example/"
    for target in (f"/click/19?url={evil}", f"/click/19?target_url={evil}&to={evil}",
                   f"/click/19#{evil}", "https://evil.example/click/19"):  # fmt: skip
        headers = [("X-Forwarded-Host", "evil.example"), ("Referer", evil), ("Location", evil),
                   ("Forwarded", "host=evil.example"), ("X-Original-URL", evil)]  # fmt: skip
        answer = ask(running.port, "GET", target, headers=headers)
        assert answer.get("location") == TARGET, target
        assert b"evil" not in answer.body
        assert not [value for _, value in answer.headers if "evil" in value]


def _a_bad_target_is_refused(running: System) -> None:
    for target in (
        "javascript:alert(1)", "data:text/html,x", "//evil.example", "/relative", "", "https://",
        "https://a.example/\r\nSet-Cookie: a=b", "https://a.example/\nX: y", "https://a b.example",
        "https://a.example/\0", "https://user:pw@a.example/", "ftp://a.example/", "https://a\u2028",
        "https://a.example/" + "a" * 5000, "https://\u202eexample", "http:\\\\evil.example",
    ):  # fmt: skip
        answer = register(running, 20, target)
        assert answer.status == 400, (target, answer)
    body = json.dumps({"name": "a\r\nX: y"}).encode()
    assert ask(running.stats_port, "PUT", "/banners/20", body).status == 400
    assert ask(running.port, "GET", "/click/20").json["code"] == "no_target"


def test_targets_survive_a_restart_without_an_aggregator(
    system: SystemFactory, nats: NatsServer, tmp_path: Path
) -> None:
    running = system(data_dir=tmp_path)
    assert register(running, 21, TARGET).status in (200, 201)
    eventually(lambda: redirected(running, 21, 3) == 3, KNOWN_WITHIN_S)
    assert running.stop() == 0
    alone = system("ingest", data_dir=tmp_path, nats_url=nats.url, nats_max_bytes=16 << 20)
    answer = ask(alone.port, "GET", "/click/21")
    assert (answer.status, answer.get("location")) == (302, TARGET)
    answer = ask(alone.port, "GET", "/stats/21")
    assert (answer.status, answer.json["code"]) == (503, "stats_unavailable")
    assert ask(alone.port, "POST", "/counter/21").status == 200
    alone.expected_code = NOT_DRAINED


WRONG = [
    (), ("",), ("Bearer",), ("Bearer ",), ("Bearer x",), (TOKENS[0],), (f"Basic {TOKENS[0]}",),
    (f"Bearer {TOKENS[0][:-1]}",), (f"Bearer {TOKENS[0][1:]}",), (f"Bearer {TOKENS[0]}x",),
    (f"Bearer {TOKENS[0].upper()}",), (f"Bearer {TOKENS[0]},{TOKENS[1]}",),
    (f"Bearer {TOKENS[0]} {TOKENS[1]}",), (f"Bearer {TOKENS[0]}{TOKENS[0]}",),
    (f"Bearer {TOKENS[0]}", f"Bearer {TOKENS[0]}"), (f"Bearer {TOKENS[0]}", "Bearer x"),
    ("Bearer " + "a" * 5000,), ("Bearer \xff\xfe",), (f"Bearer {','.join(TOKENS)}",),
]  # fmt: skip


def test_tokens(closed: System) -> None:
    """Both ports: wrong ones get 401 and learn nothing; clicks need none; no token is written."""
    port, stats_port = closed.port, closed.stats_port
    asked = [
        (port, "GET", "/stats/17"), (port, "POST", "/stats/17"), (port, "GET", "/metrics"),
        (stats_port, "GET", "/stats/17"), (stats_port, "GET", "/stats"), (stats_port, "GET", "/"),
        (stats_port, "GET", "/top"), (stats_port, "GET", "/banners"), (stats_port, "GET", "/live"),
        (stats_port, "PUT", "/banners/17"), (stats_port, "DELETE", "/banners/17"),
        (stats_port, "GET", "/metrics"), (stats_port, "GET", "/docs"),
        (stats_port, "GET", "/openapi.json"), (stats_port, "GET", "/nothing"),
    ]  # fmt: skip
    for where, method, target in asked:
        body = json.dumps(RANGE).encode() if method == "POST" else None
        told = set()
        for values in WRONG:
            headers = [("Authorization", value) for value in values]
            answer = ask(where, method, target, body, headers)
            assert answer.status == 401, (target, values, answer)
            assert answer.get("www-authenticate") == "Bearer"
            told.add(answer.body)
        assert len(told) == 1, "a wrong token gets another answer than none"
    for token in TOKENS:
        good = [("Authorization", f"Bearer {token}")]
        assert ask(port, "GET", "/stats/17", headers=good).status == 200
        assert ask(stats_port, "GET", "/stats/17", headers=good).status == 200
        assert ask(stats_port, "GET", "/metrics", headers=good).status == 200
        assert ask(port, "GET", "/metrics", headers=good).status == 200
    _clicks_need_no_token(closed)
    _no_token_is_written(closed)


def _clicks_need_no_token(closed: System) -> None:
    for method, target, body in [
        ("POST", "/counter/17", None), ("GET", "/counter/17", None), ("POST", "/stats/17", b"{}"),
        ("GET", "/pixel/17.gif", None), ("GET", "/livez", None), ("GET", "/readyz", None),
    ]:  # fmt: skip
        assert ask(closed.port, method, target, body).status == 200, target
    for target in ("/livez", "/readyz"):
        assert ask(closed.stats_port, "GET", target).status == 200


def _no_token_is_written(closed: System) -> None:
    good = [("Authorization", f"Bearer {TOKENS[0]}")]
    told = [ask(port, "GET", "/metrics", headers=good) for port in (closed.port, closed.stats_port)]
    for token in TOKENS:
        assert token not in closed.output
        assert not [answer for answer in told if token.encode() in answer.body]
    for pid in (closed.pid, *closed.children().values()):
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert not [token for token in TOKENS if token.encode() in line]
    for path in closed.data_dir.rglob("*"):
        if "postgres" in path.parts or not path.is_file() or path.stat().st_size > 1 << 20:
            continue
        assert not [token for token in TOKENS if token.encode() in path.read_bytes()], path
