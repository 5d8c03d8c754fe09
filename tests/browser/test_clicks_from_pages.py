"""Clicks from pages of another origin, in real Chromium: each way counts exactly one.

What a browser sends ahead of a click, or to ask for leave (a prefetch, a preflight), counts none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.support.fix_browser import Site, chromium
from tests.support.fix_worker import Worker, Workers, counts
from tests.support.raw import ask
from tests.support.wait import eventually

TIMEOUT_MS = 10_000
LANDING = "/landing"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    site.page("landed", LANDING)
    yield site
    site.close()


@pytest.fixture(scope="module")
def worker(module_workers: Workers, site: Site) -> Worker:
    """A worker whose banner 77 leads to the site. One way of answering will do here: that both
    answer the same is shown by every other test of the port."""
    return module_workers(targets={77: site.url + LANDING})


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab with a profile of its own."""
    context = browser.new_context()
    context.set_default_timeout(TIMEOUT_MS)
    yield context.new_page()
    context.close()


def seen(worker: Worker, route: str, method: str, status: int) -> Callable[[], float]:
    """Reads how many such requests were answered since now: a test waits for the browser's."""

    def total() -> float:
        labels = f'{{method="{method}",route="{route}",status="{status}"}} '
        lines = ask(worker.port, "GET", "/metrics").body.decode().splitlines()
        found = [line for line in lines if labels in line and "requests_total" in line]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    before = total()
    return lambda: total() - before


def url(worker: Worker, path: str) -> str:
    return f"http://localhost:{worker.port}{path}"


def test_fetch(worker: Worker, site: Site, page: Page) -> None:
    page.goto(site.page("hello"))
    with counts(worker, {70: 1}):
        said = page.evaluate(
            "async u => (await fetch(u, {method: 'POST'})).json()", url(worker, "/counter/70")
        )
    assert said == {"status": "counted"}


def test_fetch_with_json_sends_a_preflight_first(worker: Worker, site: Site, page: Page) -> None:
    """A preflight and a click: one is counted, not two."""
    preflights = seen(worker, "counter", "OPTIONS", 204)
    page.goto(site.page("hello"))
    with counts(worker, {71: 1}):
        said = page.evaluate(
            """async u => (await fetch(u, {method: 'POST', body: '{}',
                 headers: {'Content-Type': 'application/json'}})).json()""",
            url(worker, "/counter/71"),
        )
    assert said == {"status": "counted"}
    assert preflights() == 1


def test_send_beacon_on_unload(worker: Worker, site: Site, page: Page) -> None:
    site.page("gone", "/gone")
    page.goto(
        site.page(
            f"""<script>addEventListener('pagehide', () =>
                 navigator.sendBeacon('{url(worker, "/counter/73")}'))</script>"""
        )
    )
    with counts(worker, {73: 1}):
        arrived = seen(worker, "counter", "POST", 200)
        page.goto(site.url + "/gone")
        eventually(lambda: arrived() == 1, what="the beacon has arrived")


def test_an_image_pixel(worker: Worker, site: Site, page: Page) -> None:
    with counts(worker, {75: 1}):
        page.goto(site.page(f'<img id=p src="{url(worker, "/pixel/75.gif")}" width=1 height=1>'))
        assert page.evaluate("document.getElementById('p').naturalWidth") == 1


def test_a_reload_shows_the_pixel_again_and_counts_again(
    worker: Worker, site: Site, page: Page
) -> None:
    """No cache keeps a pixel: two views are two."""
    with counts(worker, {76: 2}):
        page.goto(site.page(f'<img src="{url(worker, "/pixel/76.gif")}">'))
        page.reload()


def test_a_followed_redirect(worker: Worker, site: Site, page: Page) -> None:
    page.goto(site.page(f'<a id=a href="{url(worker, "/click/77")}">buy</a>'))
    with counts(worker, {77: 1}):
        page.click("#a")
        page.wait_for_url(site.url + LANDING)
    with counts(worker, {77: 1}):
        page.go_back()
        page.click("#a")
        page.wait_for_url(site.url + LANDING)


def test_a_link_prefetch_counts_nothing(worker: Worker, site: Site, page: Page) -> None:
    """And the click that follows counts one: what was fetched ahead is not used in its place."""
    links = "".join(
        f'<link rel=prefetch href="{url(worker, path)}">'
        for path in ("/click/77", "/counter/78", "/pixel/79.gif")
    )
    refused = [seen(worker, route, "GET", 403) for route in ("click", "counter", "pixel")]
    with counts(worker, {}):
        page.goto(site.page(f'{links}<a id=a href="{url(worker, "/click/77")}">buy</a>'))
        eventually(lambda: [n() for n in refused] == [1, 1, 1], what="three prefetches are refused")
    with counts(worker, {77: 1}):
        page.click("#a")
        page.wait_for_url(site.url + LANDING)


def test_speculation_rules_count_nothing(worker: Worker, site: Site, page: Page) -> None:
    refused = seen(worker, "click", "GET", 403)
    address = url(worker, "/click/77")
    rules = f'{{"prefetch": [{{"source": "list", "urls": ["{address}"]}}]}}'
    with counts(worker, {}):
        page.goto(
            site.page(
                f'<script type=speculationrules>{rules}</script><a id=a href="{address}">buy</a>'
            )
        )
        eventually(lambda: refused() == 1, what="the prefetch is refused")
    with counts(worker, {77: 1}):
        page.click("#a")
        page.wait_for_url(site.url + LANDING)
