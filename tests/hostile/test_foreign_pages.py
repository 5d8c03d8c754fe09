"""Attacks from web pages, in a real browser: what a visitor's own machine would let them do.

Two kinds of page: of another origin, which may send requests and not read answers; and one whose
name resolves to this machine once it is loaded (DNS rebinding), which is of the same origin.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.support.fix_browser import Site, chromium
from tests.support.fix_system import System, SystemFactory
from tests.support.raw import ask

EVIL = "evil.example"
TARGET = "https://phishing.example/"
TIMEOUT_MS = 10_000

SEND = """async ([url, method, type, body]) => {
    const headers = type ? {'Content-Type': type} : {};
    try {
        const answer = await fetch(url, {method, body, headers});
        return [answer.status, await answer.text()];
    } catch (error) { return [0, String(error)]; }
}"""
SEND_BLIND = """async ([url, type, body]) => {
    const blob = type ? new Blob([body], {type}) : new Uint8Array(new TextEncoder().encode(body));
    try { await fetch(url, {method: 'POST', mode: 'no-cors', body: blob}); return 'sent'; }
    catch (error) { return String(error); }
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For it, the attacker's name is this machine."""
    with chromium(f"--host-resolver-rules=MAP {EVIL} 127.0.0.1") as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(TIMEOUT_MS)
    yield context.new_page()
    context.close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    site.page("hello")
    yield site
    site.close()


def batch(banner: int) -> str:
    return f'[{{"bannerID": {banner}, "count": 1000000}}]'


def test_pages_change_nothing(system: SystemFactory, page: Page, site: Site) -> None:
    """With the default settings and no token, as a developer runs it. One system for all: starting
    one is what takes time."""
    running = system()
    page.goto(site.url)
    _a_batch_without_a_preflight(running, page)
    _a_batch_with_a_preflight(running, page)
    _a_form(running, page, site)
    _the_register_from_another_origin(running, page)
    _after_rebinding(running, page)
    _single_clicks_count_all_the_same(running, page, site)


def _a_batch_without_a_preflight(running: System, page: Page) -> None:
    """10 billion clicks were counted so, in 20 ms."""
    url = f"{running.url}/clicks"
    for kind in ("text/plain", "", "application/x-www-form-urlencoded"):
        assert page.evaluate(SEND_BLIND, [url, kind, batch(6)]) == "sent"
    blob = "([u, b, t]) => navigator.sendBeacon(u, t ? new Blob([b], {type: t}) : b)"
    for kind in ("", "application/json"):
        page.evaluate(blob, [url, batch(6), kind])
    nothing_changed(running, 6)


def _a_batch_with_a_preflight(running: System, page: Page) -> None:
    for kind in ("application/json", "application/msgpack"):
        status, _ = page.evaluate(SEND, [f"{running.url}/clicks", "POST", kind, batch(7)])
        assert status in (0, 403)
    nothing_changed(running, 7)


def _a_form(running: System, page: Page, site: Site) -> None:
    """Sent as text/plain, whose name and value together are JSON."""
    page.goto(
        site.page(
            f"""<form id=f method=post enctype=text/plain action="{running.url}/clicks">
            <input name='[{{"bannerID": 8, "count": 5, "x": "' value='"}}]'></form>
            <script>f.submit()</script>""",
            "/form",
        )
    )
    page.wait_for_url(f"{running.url}/clicks")
    assert "foreign_origin" in page.content()
    nothing_changed(running, 8)
    page.goto(site.url)


def _the_register_from_another_origin(running: System, page: Page) -> None:
    url = f"{running.stats_url}/banners/17"
    entry = f'{{"target_url": "{TARGET}"}}'
    for method in ("PUT", "PATCH", "DELETE"):
        status, _ = page.evaluate(SEND, [url, method, "application/json", entry])
        assert status == 0, "the preflight was answered in its favor"
    assert page.evaluate(SEND_BLIND, [f"{running.stats_url}/sources/give-up", "", "{}"]) == "sent"
    assert ask(running.stats_port, "GET", "/banners/17").status == 404


def _after_rebinding(running: System, page: Page) -> None:
    """The page is loaded from the attacker's name, which now is this machine: the same origin."""
    entry = f'{{"target_url": "{TARGET}"}}'
    page.goto(f"http://{EVIL}:{running.stats_port}/")
    assert "unknown_host" in page.content()
    base = f"http://{EVIL}:{running.stats_port}"
    for method, path, body in (
        ("PUT", "/banners/17", entry), ("PATCH", "/banners/17", entry),
        ("DELETE", "/banners/17", None), ("POST", "/sources/give-up", "{}"),
        ("GET", "/stats", None), ("GET", "/banners", None), ("GET", "/metrics", None),
    ):  # fmt: skip
        status, text = page.evaluate(SEND, [base + path, method, "application/json", body])
        assert status == 421, (method, path, text)
    page.goto(f"http://{EVIL}:{running.port}/livez")
    base = f"http://{EVIL}:{running.port}"
    for method, path, body in (
        ("POST", "/clicks", batch(9)), ("GET", "/stats/17", None), ("GET", "/metrics", None),
        ("POST", "/stats/17", '{"tsFrom": 1}'),
    ):  # fmt: skip
        status, text = page.evaluate(SEND, [base + path, method, "application/json", body])
        assert status == 421, (method, path, text)
    assert ask(running.stats_port, "GET", "/banners/17").status == 404
    assert ask(running.port, "GET", "/click/17").status == 404
    nothing_changed(running, 9)


def _single_clicks_count_all_the_same(running: System, page: Page, site: Site) -> None:
    """They are everybody's: from any page, under any name."""
    page.goto(site.url)
    for url in (running.url, f"http://{EVIL}:{running.port}"):
        status, _ = page.evaluate(SEND, [f"{url}/counter/10", "POST", "", None])
        assert status == 200
    running.wait_counts(10, 2)


def nothing_changed(running: System, banner: int) -> None:
    """A click behind all that was sent: once it is in, nothing else of the banner is."""
    assert running.click(banner) == 1
    running.wait_counts(banner, 1)
