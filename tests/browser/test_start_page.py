"""The page /start: text to copy, which is ticked off when its click arrives."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.test_clicks_from_pages import LANDING, browser, site
from tests.browser.test_live_page import DESKTOP, TIMEOUT_MS, Watched
from tests.support.fix_browser import Site
from tests.support.fix_system import System, SystemFactory
from tests.support.wait import eventually

__all__ = ["browser", "site"]
WAYS = ("script", "redirect", "pixel", "fetch", "curl", "python")
COUNTED_MS = 30_000
SEEN_WITHIN_S = 10.0
TRIES = 3


@pytest.fixture
def tab(browser: Browser) -> Iterator[Watched]:
    context = browser.new_context(viewport=DESKTOP, locale="en-GB")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(TIMEOUT_MS)
    yield Watched(context.new_page())
    context.close()


def copied(page: Page, way: str, nth: int = -1) -> str:
    """What comes into the clipboard after a click on the button of this way."""
    page.evaluate("navigator.clipboard.writeText('')")
    page.locator(f"[data-way={way}] button").nth(nth).click()
    read = functools.partial(page.evaluate, "navigator.clipboard.readText()")
    eventually(lambda: read() != "", 10, "a text is in the clipboard")
    return str(read())


def use(way: str, text: str, other: Page, site: Site, tmp_path: Path) -> None:
    """Does with the text what a reader would do."""
    if way == "curl":
        subprocess.run(["sh", "-c", text], check=True, capture_output=True, timeout=30)
    elif way == "python":
        subprocess.run([sys.executable, "-c", text], check=True, timeout=30)
    else:
        other.goto(site.page(f"<script>{text}</script>" if way == "fetch" else text))
        if way in ("script", "redirect"):
            other.route("https://example.org/**", lambda route: route.fulfill(body="landed"))
            other.click("text=My link")
            other.wait_for_url("https://example.org/**")


def not_by_another_banner(running: System, page: Page) -> None:
    """A click on another banner, and two looks of the page after it was counted."""
    assert running.click(18) == 1
    running.wait_counts(18, 1)
    for _ in range(2):
        with page.expect_response(re.compile("/stats/17[?]")):
            pass


def test_each_way_is_ticked_off_when_its_click_arrives(
    system: SystemFactory, tab: Watched, site: Site, tmp_path: Path
) -> None:
    running = system(flush_interval=0.2)
    page = tab.page
    page.goto(f"{running.stats_url}/start#banner=17")
    expect(page.locator("#address")).to_have_value(f"http://127.0.0.1:{running.port}")
    register = copied(page, "redirect", nth=0)
    subprocess.run(["sh", "-c", register], check=True, capture_output=True, timeout=30)
    other = page.context.browser.new_page()  # type: ignore[union-attr]
    for counted, way in enumerate(WAYS):
        text = copied(page, way)
        mark = page.locator(f"[data-way={way}] .mark")
        expect(mark).to_have_text("Waiting for its click")
        if counted == 0:
            not_by_another_banner(running, page)
            expect(mark).to_have_text("Waiting for its click")
        use(way, text, other, site, tmp_path)
        expect(mark).to_contain_text("Counted at", timeout=COUNTED_MS)
        expect(page.locator("[data-state=counted]")).to_have_count(counted + 1)
    other.close()
    running.wait_counts(17, len(WAYS))
    tab.check_quiet(running.stats_url)


def test_from_the_start_to_a_click_of_ones_own_on_the_live_page(
    system: SystemFactory, tab: Watched, site: Site
) -> None:
    """Within ten seconds, started as `make up` does, where no other process wants the cores."""
    took: list[float] = []
    crowd = 1.0
    while not took or (took[-1] >= SEEN_WITHIN_S * crowd and len(took) < TRIES):
        began = time.monotonic()
        running = system(flush_interval=1.0)
        live = tab.page.context.new_page()
        live.goto(running.stats_url)
        expect(live.locator("#empty a")).to_have_attribute("href", "start")
        live.click("#empty a")
        text = copied(live, "script")
        live.go_back()
        expect(live.locator("#half-hour")).to_have_text("0")
        tab.page.goto(site.page(text.replace("https://example.org/", site.url + LANDING)))
        tab.page.click("text=My link")
        expect(live.locator("#half-hour")).to_have_text("1", timeout=COUNTED_MS)
        took.append(time.monotonic() - began)
        live.close()
        running.stop()
        crowd = max(crowd, os.getloadavg()[0] / len(os.sched_getaffinity(0)))
    print(f"{took} s, {crowd:.1f} processes for each core")
    assert min(took) < SEEN_WITHIN_S * crowd, took
