"""One contract: a statistics request gets the same answer from either port."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

from tests.support.fix_system import SystemFactory
from tests.support.raw import Answer, ask

BANNER: Final = 17
FROM, TO = "2024-12-10T12:56:00Z", "2024-12-10T12:57:59Z"
WIDE: Final = f"tsFrom={FROM}&step=1h"
# In the last line of a table; without tsTo it is the moment of asking.
UNTIL: Final = re.compile(rb"20[0-9T:-]{17}Z(?=,[0-9]+,[0-9]+\r\n$|\",\"rows\")")
HEADERS: Final = ("content-type", "content-disposition", "retry-after", "www-authenticate")


class Case(NamedTuple):
    """A request for a banner's statistics: what follows /stats/, and the body."""

    method: str
    target: str
    body: bytes | None = None


def of_query(query: str) -> Case:
    return Case("GET", f"{BANNER}?{query}")


def of_body(method: str, body: object, query: str = "") -> Case:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Case(method, f"{BANNER}?{query}" if query else str(BANNER), data)


IDS: Final = ("17", "017", "0" * 5_000 + "17", "99999", "100000", "1" * 400, "abc", "-1", "1.5")
QUERIES: Final = (
    "", WIDE, f"{WIDE}&format=csv", f"{WIDE}&format=ndjson", f"{WIDE}&fill=zero&tz=Asia/Kolkata",
    f"tsFrom={FROM}&tsTo={TO}", f"tsFrom={FROM}&tsTo={FROM}", f"tsTo={TO}", "tsFrom=1733835360",
    f"tsFrom={FROM}&tsTo=2024-12-10T15:57:59+03:00&fill=zero",
    f"tsFrom={FROM}&tsFrom={FROM}", f"tsFrom={TO}&tsTo={FROM}", "tsFrom=", "tsFrom=yesterday",
    "tsFrom=2999-01-01T00:00:00Z", "tsFrom=" + "1" * 300, "step=2m", "step=1m&step=1m",
    "tz=Mars/Base", "tz=%00", "fill=one", "format=xml", "tsfrom=1", "=", "tsFrom=%ff",
    "tsFrom=%ed%a0%80", "&".join(f"a{n}=1" for n in range(40)),
    "&".join(f"a{n}=1" for n in range(1_200)), "tsFrom=1&tsTo=1893456000", "bannerID=3", "limit=1",
)  # fmt: skip
BODIES: Final[tuple[object, ...]] = (
    {"tsFrom": FROM}, {"tsTo": TO}, {"tsFrom": FROM, "tsTo": TO}, {"tsFrom": 1733835360},
    {"tsFrom": FROM, "step": "1d", "tz": "Europe/Berlin", "fill": "zero"},
    {"tsFrom": FROM, "limit": 1}, {"tsFrom": TO, "tsTo": FROM}, {"step": "2m"}, {"tsFrom": True},
    {"tsFrom": None}, {"tsFrom": [FROM]}, {"tsFrom": 1.5}, [], None, 1,
    b'{"tsFrom": 1, "tsFrom": 2}', b'{"tsFrom": 1, "tsTo": 2}x', b"{", b"\xff", b"[" * 10_000,
    b'{"tsFrom": "\\ud800"}', b'{"tsFrom": ' + b"1" * 5_000 + b"}", b"tsFrom=1&tsTo=2",
    b" " * 65_537,
)  # fmt: skip
CORPUS: Final = [
    *(Case("GET", banner) for banner in IDS),
    *(of_query(query) for query in QUERIES),
    *(of_body(method, body) for method in ("GET", "POST") for body in BODIES),
    *(of_body(method, {"tsFrom": FROM}, query)
      for method in ("GET", "POST")
      for query in ("step=1d", f"tsTo={TO}", f"tsFrom={FROM}", "unknown=1")),
    of_body("GET", b""), of_body("GET", b"{}"), of_body("GET", b"  "),
]  # fmt: skip


def meaning(answer: Answer, case: Case) -> Any:
    """What an answer says, without what depends on the moment of asking."""
    headers = [(name, answer.get(name)) for name in HEADERS]
    if answer.status != 200 or answer.get("content-type") != "application/json":
        return answer.status, headers, UNTIL.sub(b"", answer.body)
    said = answer.json
    if isinstance(said, dict):
        said.pop("completeThrough", None)
        if "ts" not in case.target and b"ts" not in (case.body or b""):
            del said["tsFrom"], said["tsTo"]
        elif not ("tsTo" in case.target or b"tsTo" in (case.body or b"")):
            del said["tsTo"]
    return answer.status, headers, said


def test_both_ports_answer_every_request_alike(system: SystemFactory) -> None:
    running = system()
    running.wait_counts(BANNER, running.click(BANNER, 3))
    differ, codes = [], set()
    for case in CORPUS:
        both = [
            ask(port, case.method, f"/stats/{case.target}", case.body)
            for port in (running.port, running.stats_port)
        ]
        first, second = (meaning(answer, case) for answer in both)
        if first != second:
            differ.append((case.method, case.target[:80], (case.body or b"")[:60], first, second))
        codes.add((both[1].status, both[1].json["code"] if both[1].status >= 400 else "counted"))
    assert not differ, "\n".join(map(str, differ))
    assert {status for status, _ in codes} == {200, 400, 404, 413}
    assert running.counts(BANNER) == 3, "a request for statistics was counted as a click"


def test_one_bound_is_enough_in_a_body_and_one_given_twice_is_an_error(
    system: SystemFactory,
) -> None:
    running = system()
    for port in (running.port, running.stats_port):
        path = f"/stats/{BANNER}"
        one = ask(port, "POST", path, b'{"tsFrom": "2024-12-10T12:56:00Z", "step": "1d"}')
        assert one.status == 200, one
        for query, body in (
            ("", b'{"tsFrom": 1, "tsFrom": 1, "step": "1d"}'),
            ("?tsFrom=1", b'{"tsFrom": 1, "step": "1d"}'),
        ):
            twice = ask(port, "POST", path + query, body)
            assert (twice.status, twice.json["code"]) == (400, "invalid_range"), twice
            assert "given 2 times" in twice.json["error"]
