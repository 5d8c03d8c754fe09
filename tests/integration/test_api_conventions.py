"""What holds for every address: error shape, methods, tokens, headers, health, metrics."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

import httpx
import pytest

from aggregator.http.pages import HTML_PAGES
from tests.support.fix_api import Api, OpenApi

TOKENS = "first-token,second~token"
GUARDED = ["/", "/stats/17", "/stats", "/top", "/banners", "/banners/17", "/live", "/docs",
           "/start", "/openapi.json", "/metrics", "/nothing"]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/stats/17", "GET, POST, OPTIONS"),
        ("HEAD", "/stats/17", "GET, POST, OPTIONS"),
        ("PUT", "/stats", "GET, OPTIONS"),
        ("POST", "/top", "GET, OPTIONS"),
        ("POST", "/banners", "GET, OPTIONS"),
        ("POST", "/banners/17", "GET, PUT, PATCH, DELETE, OPTIONS"),
        ("POST", "/live", "GET, OPTIONS"),
        ("BREW", "/stats/17", "GET, POST, OPTIONS"),
        ("TRACE", "/", "GET, OPTIONS"),
    ],
)
def test_methods(api: Api, method: str, path: str, allow: str) -> None:
    answer = api.client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allow
    if method != "HEAD":
        assert answer.json()["code"] == "method_not_allowed"
    options = api.client.options(path)
    assert (options.status_code, options.headers["allow"]) == (204, allow)
    assert "access-control-allow-origin" not in options.headers


@pytest.mark.parametrize(
    "path", ["/nothing", "/stats/1/2", "/banners/1/2", "/page/nothing.js", "/page/../api.py",
             "/page/%2e%2e/api.py", "/page/index.html", "/page/lib/LICENSE", "/%00", "/%ff",
             "/schema", "/favicon.ico", "//stats//17//x"],
)  # fmt: skip
def test_unknown_paths(api: Api, path: str) -> None:
    answer = api.client.get(path)
    assert answer.status_code == 404
    assert set(answer.json()) == {"error", "code"}
    assert answer.json()["code"] == "not_found"


def test_health(api: Api) -> None:
    assert api.client.get("/livez").status_code == 200
    assert api.client.get("/readyz").status_code == 200
    api.not_ready = "Postgres does not answer: start it"
    try:
        answer = api.client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert answer.json()["error"] == api.not_ready
        assert api.client.get("/livez").status_code == 200
    finally:
        api.not_ready = None


def test_metrics_in_both_formats(api: Api) -> None:
    api.client.get("/stats/17")
    api.client.get("/no/such/address")
    plain = api.client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert re.search(
        r'clickmill_http_requests_total\{method="GET",route="/stats/{banner_id}",status="200"\} \d',
        plain.text,
    )
    assert 'route="other",status="404"' in plain.text
    assert "/no/such" not in plain.text
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    open_metrics = api.client.get("/metrics", headers=accept)
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert open_metrics.text.endswith("# EOF\n")


def test_without_a_token_everything_is_open(api: Api) -> None:
    for path in set(GUARDED) - {"/live", "/nothing", "/banners/17"}:
        assert api.client.get(path).status_code == 200, path


def test_tokens(open_api: OpenApi, caplog: pytest.LogCaptureFixture) -> None:
    api = open_api(stats_token=TOKENS)
    wrong: list[list[tuple[str, str]]] = [
        [], [("Authorization", "")], [("Authorization", "Bearer")],
        [("Authorization", "Bearer first-toke")], [("Authorization", "Bearer first-tokenx")],
        [("Authorization", "first-token")], [("Authorization", "Basic first-token")],
        [("Authorization", "Bearer first-token,second~token")],
        [("Authorization", "Bearer FIRST-TOKEN")], [("X-Authorization", "Bearer first-token")],
        [("Authorization", "Bearer first-token"), ("Authorization", "Bearer first-token")],
        [("Authorization", "Bearer " + "x" * 8_000)], [("Cookie", "token=first-token")],
    ]  # fmt: skip
    bodies = set()
    for headers in wrong:
        answer = httpx.get(api.url + "/stats/17", headers=headers)
        assert answer.status_code == 401, headers
        assert answer.headers["www-authenticate"] == "Bearer"
        bodies.add(answer.content)
    assert len(bodies) == 1
    assert httpx.get(api.url + "/stats/17?token=first-token").status_code == 401
    for path in GUARDED:
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
            assert httpx.request(method, api.url + path).status_code == 401, (method, path)
    for token in TOKENS.split(","):
        right = {"Authorization": f"Bearer {token}"}
        assert httpx.get(api.url + "/stats/17", headers=right).status_code == 200
        lower = {"authorization": f"bearer {token}"}
        assert httpx.get(api.url + "/stats/17", headers=lower).status_code == 200
        assert token not in httpx.get(api.url + "/metrics", headers=right).text
    for path in ("/livez", "/readyz"):
        assert httpx.get(api.url + path).status_code == 200
    assert "token" not in caplog.text


def test_the_page_without_a_token_asks_for_it(open_api: OpenApi) -> None:
    api = open_api(stats_token=TOKENS)
    for path in HTML_PAGES:
        page = httpx.get(api.url + path, headers={"Accept": "text/html"})
        assert page.status_code == 401
        assert 'data-token="needed"' in page.text
        assert "content-security-policy" in page.headers
        assert httpx.get(api.url + path).headers["content-type"] == "application/json"
    assert httpx.get(api.url + "/page/main.js").status_code == 200
    data = httpx.get(api.url + "/stats/17", headers={"Accept": "text/html"})
    assert (data.status_code, data.json()["code"]) == (401, "unauthorized")


def test_pages_come_from_this_host_alone(api: Api) -> None:
    for path in HTML_PAGES:
        page = api.client.get(path)
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", page.text)
        assert not re.search(r"<script(?![^>]*\ssrc=)|\sstyle=|\son[a-z]+=", page.text)
        assert not re.search(r"(?:src|href)=[\"']?/", page.text), "a link that is not relative"
        files = re.findall(r'(?:src|href)="(page/[^"]+)"', page.text)
        assert files
        for name in files:
            assert api.client.get("/" + name).status_code == 200, name
    file = api.client.get("/page/main.js")
    again = api.client.get("/page/main.js", headers={"If-None-Match": file.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_page_with_a_slash_at_its_end_is_redirected(api: Api) -> None:
    """Its links are relative: there they would lead astray."""
    answer = api.client.get("/docs/")
    assert (answer.status_code, answer.headers["location"]) == (308, "../docs")
    assert api.client.get("/docs/", follow_redirects=True).url.path == "/docs"


def test_headers_of_every_answer(api: Api) -> None:
    for path in ("/stats/17", "/nothing", "/stats/abc", "/"):
        headers = api.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"


def test_the_server_does_not_wait_for_a_body_that_never_arrives(api: Api) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as slow:
        slow.sendall(b"POST /stats/17 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\n{")
        began = time.monotonic()
        head = slow.recv(4_096)
        assert b" 408 " in head.split(b"\r\n")[0]
        assert time.monotonic() - began < 4


def test_without_postgres_the_status_is_503_until_it_is_back(own_postgres: Any) -> None:
    from tests.support.fix_api import serve

    with serve(own_postgres) as api:
        api.put_range(7, 1_733_835_360, [3])
        ask = {"tsFrom": 1_733_835_360, "tsTo": 1_733_835_420}
        assert api.get("/stats/7", **ask).json()["Counts"] == 3
        own_postgres.kill()
        answer = api.get("/stats/7", **ask)
        assert (answer.status_code, answer.json()["code"]) == (503, "stats_unavailable")
        assert answer.headers["retry-after"]
        assert api.client.get("/livez").status_code == 200
        own_postgres.start()
        deadline = time.monotonic() + 20
        while api.get("/stats/7", **ask).status_code != 200:
            assert time.monotonic() < deadline
        assert api.get("/stats/7", **ask).json()["Counts"] == 3
