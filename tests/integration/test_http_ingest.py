"""The ingest port's clicks, request by request, as the contract says; over both ways.

Every test ends by comparing what reached NATS with what was answered.
"""

from __future__ import annotations

import pytest

from tests.support.fix_worker import Worker, counts
from tests.support.raw import Answer, ask, connected, request

ORIGIN = ("Origin", "https://shop.example")
COUNTED = {"status": "counted"}
BAD_IDS = [
    "abc", "-1", "+1", "1.5", "1e3", "", "%20", "1%20", "0x1", "1_000", "1/2", "1/", "/1", "%2531",
    "%ff", "%zz", "%00", "1%00", "%0d%0aX:%20y", "%EF%BC%91", "%D9%A1", "..", "%2e%2e", ";",
    "1;v=2",     "true", "null", "NaN",
]  # fmt: skip
TOO_HIGH = [
    "100000",
    "4294967295",
    "4294967297",
    "18446744073709551617",
    "9" * 400,
    "0" * 400 + "9" * 9,
]


def is_error(answer: Answer, status: int, code: str) -> bool:
    """The one shape of an error, never to be cached."""
    fields = answer.json
    return (
        (answer.status, fields["code"]) == (status, code)
        and sorted(fields) == ["code", "error"]
        and len(fields["error"]) < 400
        and answer.get("content-type") == "application/json"
        and answer.get("cache-control") == "no-store"
        and answer.get("access-control-allow-origin") == "*"
    )


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/counter/17"),
        ("GET", "/counter/17"),
        ("POST", "/stats/17"),
        ("GET", "/pixel/17.gif"),
    ],
)
def test_a_click_counts_once(worker: Worker, method: str, target: str) -> None:
    with counts(worker, {17: 1}):
        answer = ask(worker.port, method, target)
    assert answer.status == 200
    assert answer.get("access-control-allow-origin") == "*"
    assert answer.get("cache-control") == ("no-store" if method == "GET" else None)
    if target.endswith(".gif"):
        assert answer.get("content-type") == "image/gif"
        assert answer.body[:6] == b"GIF89a"
        assert int.from_bytes(answer.body[6:8], "little") == 1
        assert int.from_bytes(answer.body[8:10], "little") == 1
    else:
        assert answer.get("content-type") == "application/json"
        assert answer.json == COUNTED


def test_ids_from_zero_to_the_maximum(worker: Worker) -> None:
    texts = {"0": 0, "00": 0, "007": 7, "99998": 99998, "0" * 30 + "5": 5, "%31": 1, "1%32": 12}
    with counts(worker, {0: 2, 7: 1, 99998: 1, 5: 1, 1: 1, 12: 1}):
        for text in texts:
            assert ask(worker.port, "POST", f"/counter/{text}").json == COUNTED, text


def test_an_invalid_id_is_400(worker: Worker) -> None:
    """`%31` above is an ID: it is another way to write 1 (RFC 3986, 6.2.2.2), as in every path."""
    with counts(worker, {}):
        for text in BAD_IDS:
            for method, target in [
                ("POST", f"/counter/{text}"), ("GET", f"/counter/{text}"),
                ("GET", f"/pixel/{text}.gif"), ("GET", f"/click/{text}"),
                ("POST", f"/stats/{text}"), ("GET", f"/stats/{text}"),
            ]:  # fmt: skip
                answer = ask(worker.port, method, target)
                assert is_error(answer, 400, "invalid_banner_id"), (method, target, answer)


def test_an_id_over_the_maximum_is_404(worker: Worker) -> None:
    with counts(worker, {}):
        for text in TOO_HIGH:
            for method, target in [
                ("POST", f"/counter/{text}"), ("GET", f"/counter/{text}"),
                ("GET", f"/pixel/{text}.gif"), ("GET", f"/click/{text}"),
                ("POST", f"/stats/{text}"), ("GET", f"/stats/{text}"),
            ]:  # fmt: skip
                answer = ask(worker.port, method, target)
                assert is_error(answer, 404, "unknown_banner"), (method, target, answer)


def test_the_body_of_a_click_is_ignored(worker: Worker) -> None:
    with counts(worker, {21: 3}):
        for body in (b"{}", b"not JSON \xff\x00", b"x" * 100_000):
            assert ask(worker.port, "POST", "/counter/21", body).json == COUNTED


def test_the_click_of_the_original_service(worker: Worker) -> None:
    """`POST /stats/{id}` with no body, an empty one or {} counts."""
    with counts(worker, {23: 5}):
        for body in (None, b"", b"{}", b" {} ", b"\n"):
            answer = ask(worker.port, "POST", "/stats/23", body)
            assert answer.json == COUNTED, body


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("/counter/1", {"GET", "POST"}), ("/stats/1", {"GET", "POST"}), ("/clicks", {"POST"}),
        ("/pixel/1.gif", {"GET"}), ("/click/1", {"GET"}), ("/livez", {"GET"}),
        ("/readyz", {"GET"}), ("/metrics", {"GET"}),
    ],
)  # fmt: skip
def test_other_methods_are_405_and_count_nothing(
    worker: Worker, target: str, allowed: set[str]
) -> None:
    methods = {"GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "TRACE", "post", "X"} - allowed
    with counts(worker, {}):
        for method in sorted(methods):
            answer = ask(worker.port, method, target)
            assert answer.status == 405, (method, answer)
            assert set((answer.get("allow") or "").split(", ")) == {*allowed, "OPTIONS"}
            if method == "HEAD":
                assert not answer.body
            else:
                assert is_error(answer, 405, "method_not_allowed")


def test_a_preflight_counts_nothing(worker: Worker) -> None:
    asked = [
        ORIGIN,
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type"),
    ]
    with counts(worker, {}):
        for target in ("/counter/1", "/stats/1", "/clicks", "/pixel/1.gif", "/click/1"):
            answer = ask(worker.port, "OPTIONS", target, headers=asked)
            assert answer.status == 204
            assert not answer.body
            assert answer.get("access-control-allow-origin") == "*"
            allowed = answer.get("access-control-allow-methods") or ""
            assert answer.get("allow") == allowed
            assert "OPTIONS" in allowed
            assert "content-type" in (answer.get("access-control-allow-headers") or "")


@pytest.mark.parametrize(
    "mark",
    [
        ("Sec-Purpose", "prefetch"), ("Sec-Purpose", "prefetch;prerender"),
        ("sec-purpose", "Prefetch"), ("Purpose", "prefetch"), ("X-Moz", "prefetch"),
    ],
)  # fmt: skip
def test_a_prefetch_counts_nothing_and_gets_403(worker: Worker, mark: tuple[str, str]) -> None:
    with counts(worker, {}):
        for target in ("/counter/1", "/pixel/1.gif", "/click/1"):
            answer = ask(worker.port, "GET", target, headers=[mark])
            assert is_error(answer, 403, "prefetch"), answer


def test_other_purposes_and_posts_count(worker: Worker) -> None:
    with counts(worker, {24: 2}):
        assert ask(worker.port, "GET", "/counter/24", headers=[("Purpose", "fun")]).status == 200
        answer = ask(worker.port, "POST", "/counter/24", headers=[("Sec-Purpose", "prefetch")])
        assert answer.status == 200


def test_the_user_agent_does_not_matter(worker: Worker) -> None:
    """Raw is what is counted: robots, reloads and strange clients too; nothing is dropped."""
    robots = [
        [("User-Agent", "Googlebot/2.1 (+http://www.google.com/bot.html)")],
        [("Cache-Control", "no-cache"), ("Pragma", "no-cache")],
        [("If-None-Match", '"x"'), ("If-Modified-Since", "Mon, 23 Nov 2026 01:00:00 GMT")],
        [("Range", "bytes=0-0")], [("DNT", "1"), ("Sec-GPC", "1")], [("Accept", "text/nothing")],
        [("X-Forwarded-For", "203.0.113.7, 10.0.0.1")], [("Cookie", "a=b; c=d")],
        [("Authorization", "Bearer nonsense")], [("X-HTTP-Method-Override", "DELETE")],
    ]  # fmt: skip
    with counts(worker, {25: len(robots)}):
        for headers in robots:
            answer = ask(worker.port, "GET", "/counter/25", headers=headers)
            assert answer.json == COUNTED, headers


def test_queries_and_endings_of_paths(worker: Worker) -> None:
    with counts(worker, {26: 3}):
        assert ask(worker.port, "POST", "/counter/26?utm_source=x&id=99").json == COUNTED
        assert ask(worker.port, "GET", "/pixel/26.gif?cb=123456").status == 200
        assert ask(worker.port, "GET", "/counter/26?").status == 200
        for target in ("/counter", "/pixel/26", "/pixel/26.png", "/nothing", "/", "//counter/26"):
            answer = ask(worker.port, "GET", target)
            assert is_error(answer, 404, "not_found"), target


def test_a_click_without_a_target_is_404(worker: Worker) -> None:
    with counts(worker, {}):
        for target in ("/click/17", "/click/17?url=https://evil.example"):
            answer = ask(worker.port, "GET", target, headers=[("Referer", "https://evil.example")])
            assert is_error(answer, 404, "no_target")
            assert answer.get("location") is None


def test_many_clicks_on_one_connection(worker: Worker) -> None:
    with counts(worker, {27: 60}), connected(worker.port) as connection:
        for method in ("POST", "GET") * 30:
            connection.send(request(method, "/counter/27"))
            answer = connection.answer()
            assert answer is not None
            assert answer.json == COUNTED


def test_health_and_metrics(worker: Worker) -> None:
    with counts(worker, {}):
        assert ask(worker.port, "GET", "/livez").json == {"status": "alive"}
        assert ask(worker.port, "GET", "/readyz").json == {"status": "ready"}
        metrics = ask(worker.port, "GET", "/metrics")
    assert metrics.status == 200
    assert (metrics.get("content-type") or "").startswith("text/plain")
    assert b"clickmill_clicks_total" in metrics.body


def test_every_metric_label_has_bounded_values(worker: Worker) -> None:
    before = ask(worker.port, "GET", "/metrics").body.decode()
    for n in range(20):
        ask(worker.port, "GET", f"/nothing-{n}")
        ask(worker.port, f"M{n}", f"/counter/{n + 30}")
    after = ask(worker.port, "GET", "/metrics").body.decode()
    new = {line.rpartition(" ")[0] for line in after.splitlines()} - {
        line.rpartition(" ")[0] for line in before.splitlines()
    }
    assert len(new) < 8, new
    assert "nothing-" not in after


def test_requests_are_counted_by_route_and_status(worker: Worker) -> None:
    def total(route: str, method: str, status: int) -> float:
        name = f'{{method="{method}",route="{route}",status="{status}"}} '
        lines = ask(worker.port, "GET", "/metrics").body.decode().splitlines()
        found = [line for line in lines if name in line and "requests_total" in line]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    rows = [("counter", "POST", 200, "/counter/28"), ("pixel", "GET", 200, "/pixel/28.gif"),
            ("counter", "POST", 400, "/counter/x"), ("click", "GET", 404, "/click/28"),
            ("counter", "HEAD", 405, "/counter/28")]  # fmt: skip
    for route, method, status, target in rows:
        before = total(route, method, status)
        assert ask(worker.port, method, target).status == status
        assert total(route, method, status) == before + 1, (route, method, status)
