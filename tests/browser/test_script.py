"""`clickmill.js` on pages of another origin, in real Chromium and real Firefox.

Every test leaves the page by its click where it can: a click must be counted all the same.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.test_clicks_from_pages import (
    LANDING,
    TIMEOUT_MS,
    browser,
    seen,
    site,
    url,
)
from tests.support.firefox import Firefox
from tests.support.fix_browser import Site
from tests.support.fix_worker import Worker, Workers, counts
from tests.support.raw import ask
from tests.support.wait import eventually

__all__ = ["browser", "site"]
MAX_BYTES = 1000
WAIT_S = 30.0


class Tab(Protocol):
    """What a test does with a browser."""

    def goto(self, url: str) -> Any: ...
    def click(self, selector: str) -> Any: ...
    def evaluate(self, expression: str) -> Any: ...
    def press_enter(self, selector: str) -> Any: ...
    def url(self) -> str: ...


class Chromium:
    """A tab of Chromium."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.goto, self.click, self.evaluate = page.goto, page.click, page.evaluate

    def press_enter(self, selector: str) -> None:
        self.page.press(selector, "Enter")

    def url(self) -> str:
        return self.page.url


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def tab(
    request: pytest.FixtureRequest, browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tab]:
    if request.param == "firefox":
        with Firefox(tmp_path_factory.mktemp("firefox")) as firefox:
            yield firefox
        return
    context = browser.new_context()
    context.set_default_timeout(TIMEOUT_MS)
    yield Chromium(context.new_page())
    context.close()


@pytest.fixture(scope="module")
def worker(module_workers: Workers, site: Site) -> Worker:
    return module_workers(targets={77: site.url + LANDING})


def script(worker: Worker) -> str:
    return f'<script src="{url(worker, "/clickmill.js")}"></script>'


def link(site: Site, banner: int) -> str:
    return f'<a id=a href="{site.url}{LANDING}" data-banner={banner}><b id=b>buy</b></a>'


def landed(site: Site, tab: Tab) -> None:
    eventually(lambda: tab.url() == site.url + LANDING, WAIT_S, "the link was followed")


def test_the_file(worker: Worker) -> None:
    answer = ask(worker.port, "GET", "/clickmill.js", headers=[("Accept-Encoding", "gzip, br")])
    assert answer.status == 200
    assert len(answer.body) < MAX_BYTES
    assert answer.get("content-encoding") == "gzip"
    assert answer.get("content-type") == "text/javascript; charset=utf-8"
    assert answer.get("access-control-allow-origin") == "*"
    assert answer.get("cache-control") == "public, max-age=3600"
    plain = ask(worker.port, "GET", "/clickmill.js")
    assert plain.get("content-encoding") is None
    assert plain.body == gzip.decompress(answer.body)
    assert b"import" not in plain.body
    assert b"require" not in plain.body
    assert ask(worker.port, "POST", "/clickmill.js").status == 405
    assert ask(worker.port, "GET", "/clickmill.js/17").status == 404


def test_a_click_that_leaves_the_page(worker: Worker, site: Site, tab: Tab) -> None:
    tab.goto(site.page(script(worker) + link(site, 60)))
    with counts(worker, {60: 1}):
        arrived = seen(worker, "counter", "POST", 200)
        tab.click("#b")
        landed(site, tab)
        eventually(lambda: arrived() == 1, WAIT_S, "the click has arrived")


def test_the_keyboard(worker: Worker, site: Site, tab: Tab) -> None:
    tab.goto(site.page(script(worker) + link(site, 61)))
    with counts(worker, {61: 1}):
        arrived = seen(worker, "counter", "POST", 200)
        tab.press_enter("#a")
        landed(site, tab)
        eventually(lambda: arrived() == 1, WAIT_S, "the click has arrived")


def test_without_send_beacon(worker: Worker, site: Site, tab: Tab) -> None:
    without = """<script>
        delete Navigator.prototype.sendBeacon;
        const real = fetch;
        fetch = (url, options) => {
            sessionStorage.keepalive = options.keepalive;
            return real(url, options);
        }</script>"""
    tab.goto(site.page(without + script(worker) + link(site, 62)))
    assert tab.evaluate("typeof navigator.sendBeacon") == "undefined"
    with counts(worker, {62: 1}):
        arrived = seen(worker, "counter", "POST", 200)
        tab.click("#a")
        landed(site, tab)
        eventually(lambda: arrived() == 1, WAIT_S, "the click has arrived")
    assert tab.evaluate("sessionStorage.keepalive") == "true"


def test_a_strict_policy(worker: Worker, site: Site, tab: Tab) -> None:
    """Nothing inline, nothing evaluated, and only this server may be asked."""
    ours = url(worker, "")
    policy = (
        f"default-src 'none'; script-src {ours}; connect-src {ours}; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    meta = f'<meta http-equiv=Content-Security-Policy content="{policy}">'
    tab.goto(site.page(meta + script(worker) + link(site, 63)))
    with counts(worker, {63: 1}):
        arrived = seen(worker, "counter", "POST", 200)
        tab.click("#a")
        landed(site, tab)
        eventually(lambda: arrived() == 1, WAIT_S, "the click has arrived")


@pytest.mark.parametrize("scripts", [1, 2])
def test_an_event_that_is_fired_twice(worker: Worker, site: Site, tab: Tab, scripts: int) -> None:
    """By a library, by a double click, or because the script was included twice."""
    button = "<button id=a data-banner=64>like</button><button id=c data-banner=65>like</button>"
    tab.goto(site.page(script(worker) * scripts + button))
    with counts(worker, {64: 1, 65: 1}):
        arrived = seen(worker, "counter", "POST", 200)
        fire = "document.getElementById('a').click()"
        tab.evaluate(f"[{fire}, {fire}]")
        tab.click("#c")
        eventually(lambda: arrived() == 2, WAIT_S, "the clicks have arrived")


def test_which_buttons_of_the_mouse_count(worker: Worker, site: Site, tab: Tab) -> None:
    """The middle one opens the link, too; the right one opens a menu."""
    buttons = "".join(f"<button id=n{n} data-banner=66>x</button>" for n in range(3))
    tab.goto(site.page(script(worker) + buttons + "<button id=last data-banner=67>x</button>"))
    with counts(worker, {66: 1, 67: 1}):
        arrived = seen(worker, "counter", "POST", 200)
        for n in (1, 2):
            event = f"new MouseEvent('auxclick', {{button: {n}, bubbles: true, composed: true}})"
            tab.evaluate(f"document.getElementById('n{n}').dispatchEvent({event})")
        tab.click("#last")
        eventually(lambda: arrived() == 2, WAIT_S, "the clicks have arrived")


def test_a_page_that_stops_events_and_a_shadow_tree(worker: Worker, site: Site, tab: Tab) -> None:
    page = """<div id=host data-other=1></div><script>
        document.addEventListener("click", e => e.stopImmediatePropagation(), true);
        document.getElementById("host").attachShadow({mode: "open"}).innerHTML =
            "<button data-banner=68>x</button>"</script>"""
    tab.goto(site.page(script(worker) + page))
    with counts(worker, {68: 1}):
        arrived = seen(worker, "counter", "POST", 200)
        tab.evaluate("document.getElementById('host').shadowRoot.querySelector('button').click()")
        eventually(lambda: arrived() == 1, WAIT_S, "the click has arrived")


def redirect(worker: Worker, site: Site, more: str = "") -> str:
    return f'<a id=a href="{url(worker, "/click/77")}" data-banner=77 {more}>buy</a>'


def test_a_redirect_is_not_counted_twice(worker: Worker, site: Site, tab: Tab) -> None:
    tab.goto(site.page(script(worker) + redirect(worker, site)))
    with counts(worker, {77: 1}):
        tab.click("#a")
        landed(site, tab)


def test_with_javascript_the_redirect_is_left_out(worker: Worker, site: Site, tab: Tab) -> None:
    redirected = seen(worker, "click", "GET", 302)
    direct = f'data-href="{site.url}{LANDING}"'
    tab.goto(site.page(script(worker) + redirect(worker, site, direct)))
    with counts(worker, {77: 1}):
        arrived = seen(worker, "counter", "POST", 200)
        tab.click("#a")
        landed(site, tab)
        eventually(lambda: arrived() == 1, WAIT_S, "the click has arrived")
    assert redirected() == 0


def test_after_a_click_the_link_is_the_redirect_again(worker: Worker, site: Site, tab: Tab) -> None:
    """What is copied from it, or opened from its menu, counts."""
    stay = "<script>addEventListener('click', e => e.preventDefault())</script>"
    direct = f'data-href="{site.url}{LANDING}"'
    tab.goto(site.page(script(worker) + stay + redirect(worker, site, direct)))
    fire = "document.getElementById('a').click()"
    tab.evaluate(f"[{fire}, {fire}]")
    href = "document.getElementById('a').href"
    eventually(
        lambda: tab.evaluate(href) == url(worker, "/click/77"), WAIT_S, "the redirect is back"
    )


def test_without_javascript_the_redirect_counts(
    worker: Worker, site: Site, browser: Browser
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(
        site.page(script(worker) + redirect(worker, site, f'data-href="{site.url}{LANDING}"'))
    )
    with counts(worker, {77: 1}):
        page.click("#a")
        page.wait_for_url(site.url + LANDING)
    context.close()
