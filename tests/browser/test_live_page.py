"""The live page in real Chromium: what a person sees, does, and never has to see."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from signal import SIGKILL, SIGSTOP, Signals
from urllib.parse import urlsplit

import psycopg
import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from aggregator.writing.rates import SMOOTH_S
from tests.support.aggregators import Bus, aggregator
from tests.support.fix_api import Api, OpenApi
from tests.support.fix_browser import CHROMIUM, FLAGS
from tests.support.fix_nats import NatsServer
from tests.support.fix_system import SystemFactory
from tests.support.wait import eventually

TIMEOUT_MS = 10_000
SEEN_WITHIN_S = 2.0
GONE_WITHIN_S = 3.0
GAP_S = 4.0
METHODS = {"get", "post", "put", "patch", "delete"}
"""Longer than what the page bridges: GAP_S in live.js."""
PHONE: ViewportSize = {"width": 375, "height": 740}
DESKTOP: ViewportSize = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Watched:
    """A tab, and everything on it that should not have happened."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.console: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", lambda m: self.console.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        page.on("request", self._asked)

    def _asked(self, request: object) -> None:
        url = urlsplit(str(getattr(request, "url", "")))
        if url.scheme not in {"blob", "data"}:
            self.hosts.add(url.netloc)

    def check_quiet(self, url: str) -> None:
        """Nothing in the console, no request but to this host."""
        assert self.console == []
        assert self.hosts == {urlsplit(url).netloc}


@pytest.fixture
def tab(browser: Browser) -> Iterator[Watched]:
    context = browser.new_context(viewport=DESKTOP, timezone_id="Europe/Berlin", locale="en-GB")
    context.set_default_timeout(TIMEOUT_MS)
    expect.set_options(timeout=TIMEOUT_MS)
    yield Watched(context.new_page())
    context.close()


def number(page: Page, selector: str) -> int:
    text = (page.text_content(selector) or "").replace(",", "")
    return int(text) if text.isdigit() else -1


def test_a_click_is_on_the_page_within_two_seconds(system: SystemFactory, tab: Watched) -> None:
    running = system(flush_interval=1.0)
    page = tab.page
    page.goto(running.stats_url)
    expect(page.locator("#state")).to_have_attribute("data-state", "live")
    expect(page.locator("#half-hour")).to_have_text("0")
    waits = []
    for clicks in (1, 2, 3):
        began = time.monotonic()
        assert running.click(17) == 1
        eventually(lambda n=clicks: number(page, "#half-hour") == n, 10)  # type: ignore[misc]
        waits.append(time.monotonic() - began)
    assert max(waits) < SEEN_WITHIN_S, waits
    expect(page.locator("#top button")).to_have_count(1)
    expect(page.locator("#banner-title")).to_have_text("Banner 17")
    expect(page.locator("#banner-total")).to_have_text("3")
    expect(page.locator("#sources")).to_have_text("1")
    expect(page.locator("#freshness")).to_contain_text("all but the last")
    tab.check_quiet(running.stats_url)


def hour_ago() -> int:
    return int(datetime.now(UTC).timestamp()) // 60 * 60 - 1_800


def test_choosing_a_banner_and_a_range_redraws(api: Api, tab: Watched, banner: int) -> None:
    api.put({(banner, hour_ago()): 1_234, (banner, hour_ago() - 40 * 3_600): 766})
    api.client.put(f"/banners/{banner}", json={"name": "Spring <b>sale</b>"}).raise_for_status()
    page = tab.page
    page.goto(api.url)
    expect(page.locator("#state")).not_to_have_attribute("data-state", "waiting")
    # By keyboard alone: to the field, the name, Enter; then along the ranges.
    page.locator("#banner-id").focus()
    page.keyboard.type("spring <b>sale</b>")
    page.keyboard.press("Enter")
    expect(page.locator("#banner-title")).to_have_text(f"Spring <b>sale</b> (banner {banner})")
    expect(page.locator("#banner-total")).to_have_text("1,234")
    # An hour until the end of this second: 61 minutes, or 60 in the last second of a minute.
    expect(page.locator("#series")).to_have_attribute("data-points", re.compile("^6[01]$"))
    drawn = page.locator("#series canvas").screenshot()
    page.locator("input[name=range]:checked").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#banner-total")).to_have_text("2,000")
    expect(page.locator("#step")).to_have_text("by hour, Europe/Berlin")
    assert page.locator("#series canvas").screenshot() != drawn
    assert page.evaluate("location.hash") == f"#banner={banner}&range=7d"
    page.reload()
    expect(page.locator("#banner-total")).to_have_text("2,000")
    with page.expect_download() as download:
        page.locator("#csv").click()
    assert f"{banner}," in download.value.path().read_text()
    tab.check_quiet(api.url)


def test_a_custom_range_and_invalid_input(api: Api, tab: Watched, banner: int) -> None:
    day = datetime(2024, 12, 10, 12, 56, tzinfo=UTC)
    api.put({(banner, int(day.timestamp())): 42})
    page = tab.page
    page.goto(f"{api.url}/#banner={banner}")
    expect(page.locator("#banner-total")).to_have_text("0")
    page.locator("label:has(input[value=custom])").click()
    page.locator("#custom-from").fill("2024-12-10T13:00")
    page.locator("#custom-to").fill("2024-12-10T15:00")
    page.locator("#custom-to").blur()
    expect(page.locator("#banner-total")).to_have_text("42")
    page.locator("#banner-id").fill("no such name")
    page.locator("#banner-id").press("Enter")
    expect(page.locator("#banner-problem")).to_contain_text("No banner has this name")
    page.locator("#banner-id").fill("12345678")
    page.locator("#banner-id").press("Enter")
    expect(page.locator("#banner-problem")).to_contain_text("IDs go from 0 to")
    tab.console.clear()  # Chromium itself notes a 404


def test_top_banners_by_name(api: Api, tab: Watched, banner: int) -> None:
    api.put({(banner, hour_ago()): 900_000_000})
    api.client.put(f"/banners/{banner}", json={"name": "Busiest"}).raise_for_status()
    page = tab.page
    page.goto(api.url)
    first = page.locator("#top button").first
    expect(first).to_contain_text("Busiest")
    expect(first).to_contain_text("900,000,000")
    first.press("Enter")
    expect(first).to_have_attribute("aria-current", "true")
    page.locator("#top-range").select_option("30d")
    expect(page.locator("#top button").first).to_contain_text("Busiest")
    tab.check_quiet(api.url)


def test_the_page_asks_for_the_token(open_api: OpenApi, tab: Watched) -> None:
    api = open_api(stats_token="right-token")
    page = tab.page
    page.goto(api.url)
    expect(page.locator("#ask")).to_be_visible()
    assert [line for line in tab.console if "401" not in line] == []
    tab.console.clear()
    page.locator("#token").fill("wrong")
    page.locator("#token").press("Enter")
    expect(page.locator("#ask-problem")).to_be_visible()
    page.locator("#token").fill("right-token")
    page.locator("#token").press("Enter")
    expect(page.locator("#state")).to_have_attribute("data-state", "live")
    expect(page.locator("#ask")).not_to_be_visible()
    page.reload()
    expect(page.locator("#state")).to_have_attribute("data-state", "live")
    assert "right-token" not in page.url
    page.goto(api.url + "/docs")
    expect(page.locator(".opblock").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_layout_on_a_phone(api: Api, browser: Browser, scheme: str, banner: int) -> None:
    api.put({(banner, hour_ago()): 77})
    context = browser.new_context(
        viewport=PHONE,
        has_touch=True,
        is_mobile=True,
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    tab = Watched(context.new_page())
    page = tab.page
    page.goto(f"{api.url}/#banner={banner}")
    expect(page.locator("#banner-total")).to_have_text("77")
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for button in page.locator("button:visible:not(.hidden)").all():
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= 30
    page.locator("#theme").tap()
    page.locator("#theme").tap()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    tab.check_quiet(api.url)
    context.close()


def test_the_documentation_page(api: Api, tab: Watched) -> None:
    paths = api.get("/openapi.json").json()["paths"]
    requests = sum(len(METHODS & path.keys()) for path in paths.values())
    assert requests > 18
    tab.page.goto(api.url + "/docs")
    expect(tab.page.locator(".opblock")).to_have_count(requests)
    tab.page.locator(".opblock-summary").first.click()
    expect(tab.page.locator(".opblock-body").first).to_be_visible()
    tab.check_quiet(api.url)


def test_a_lost_connection_is_shown_and_restored(open_api: OpenApi, tab: Watched) -> None:
    api = open_api()
    page = tab.page
    page.goto(api.url)
    expect(page.locator("#state")).to_have_attribute("data-state", "live")
    page.context.set_offline(True)
    api.deps.stopping.set()  # the stream ends, and no other can be had
    expect(page.locator("#state")).to_have_attribute("data-state", "gone")
    expect(page.locator("#state-text")).to_have_text("Disconnected, reconnecting")
    api.deps.stopping.clear()
    page.context.set_offline(False)
    expect(page.locator("#state")).to_have_attribute("data-state", "live")


def deliver(nats_url: str, counts: dict[int, int]) -> None:
    """A worker's frame, committed. In a thread, since the browser has this one's event loop."""

    async def worker() -> None:
        async with Bus(nats_url) as bus:
            source = bus.worker()
            await source.send(counts)
            await source.committed()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, worker()).result()


@pytest.mark.parametrize("fate", [SIGKILL, SIGSTOP])
def test_a_page_without_its_aggregator_says_so_within_three_seconds(
    nats: NatsServer, database: str, tab: Watched, fate: Signals
) -> None:
    page = tab.page
    with aggregator(nats.url, database) as running:
        page.goto(running.url)
        expect(page.locator("#freshness")).to_contain_text("all but the last")
        running.signal(fate)
        began = time.monotonic()
        page.wait_for_selector('#state[data-state="gone"]')
        assert time.monotonic() - began < GONE_WITHIN_S
        expect(page.locator("#state-text")).to_have_text("Disconnected, reconnecting")
        expect(page.locator("#complete")).to_have_text("unknown")
        expect(page.locator("#freshness")).to_contain_text("unknown since")
        for number in ("#rate", "#sources", "#half-hour", "#now-minute"):
            expect(page.locator(number)).to_have_text("–")


def test_statistics_without_postgres_are_not_shown_as_complete(
    open_api: OpenApi, tab: Watched
) -> None:
    api = open_api()
    page = tab.page
    page.goto(api.url)
    expect(page.locator("#freshness")).to_contain_text("all but the last")
    with psycopg.connect(api.dsn) as connection:
        connection.execute("LOCK TABLE banner_minute")
        expect(page.locator("#state")).to_have_attribute("data-state", "late")
        expect(page.locator("#complete")).to_have_text("unknown")
        connection.rollback()
    expect(page.locator("#state")).to_have_attribute("data-state", "live")


def test_seconds_unknown_to_the_aggregator_are_a_gap(open_api: OpenApi, tab: Watched) -> None:
    api = open_api()
    seconds = tab.page.locator("#seconds")
    tab.page.goto(api.url)
    expect(seconds).to_have_attribute("data-points", re.compile("^[3-9]$"))
    api.call(api.progress.forget)
    expect(tab.page.locator("#rate")).to_have_text("–")
    ended = time.monotonic()
    eventually(lambda: time.monotonic() - ended > GAP_S, what="the gap is long enough to be seen")
    expect(seconds).to_have_attribute("data-gaps", "0")
    api.call(lambda: api.progress.reload({}, new_session=True))
    expect(seconds).to_have_attribute("data-gaps", "1")
    expect(tab.page.locator("#rate")).to_have_text("0")
    tab.page.reload()
    expect(seconds).to_have_attribute("data-gaps", "1")
    tab.check_quiet(api.url)


def test_seconds_without_an_aggregator_are_a_gap(
    nats: NatsServer, database: str, tab: Watched
) -> None:
    page = tab.page
    with aggregator(nats.url, database) as first:
        page.goto(first.url)
        expect(page.locator("#seconds")).to_have_attribute("data-points", re.compile("^[2-9]$"))
        expect(page.locator("#seconds")).to_have_attribute("data-gaps", "0")
    ended = time.monotonic()
    eventually(lambda: time.monotonic() - ended > GAP_S, what="the gap is long enough to be seen")
    with aggregator(nats.url, database, port=first.port):
        expect(page.locator("#state")).to_have_attribute("data-state", "live")
        expect(page.locator("#seconds")).to_have_attribute("data-gaps", "1")


def test_a_visitor_sees_the_seconds_before_the_visit(
    nats: NatsServer, database: str, tab: Watched
) -> None:
    page = tab.page
    with aggregator(nats.url, database) as running:
        deliver(nats.url, {17: 525_750})
        ended = time.monotonic()
        eventually(lambda: time.monotonic() - ended > SMOOTH_S + 1, what="those seconds are past")
        page.goto(running.url)
        expect(page.locator("#half-hour")).to_have_text("525,750")

        def rates() -> set[str]:
            """What the tip says of the newest seconds, when the mouse is over them."""
            box = page.locator("#seconds .u-over").bounding_box()
            assert box is not None
            told = set()
            for back in range(1, 60):
                page.mouse.move(box["x"] + box["width"] - back, box["y"] + box["height"] / 2)
                told.add((page.locator("#seconds .tip").text_content() or "").split()[-1])
            return told

        eventually(lambda: any(rate.endswith("k/s") for rate in rates()), what="the clicks show")


def test_names_beyond_the_first_page_of_the_register(api: Api, tab: Watched) -> None:
    with psycopg.connect(api.dsn) as connection:
        connection.execute(
            "INSERT INTO banner (id, name) SELECT n, 'Banner of shelf ' || n"
            " FROM generate_series(50000, 52500) AS n"
        )
    page = tab.page
    page.goto(api.url)
    page.locator("#banner-id").fill("banner of SHELF 52499")
    expect(page.locator("#known option")).to_have_text("Banner of shelf 52499")
    page.locator("#banner-id").press("Enter")
    expect(page.locator("#banner-title")).to_have_text("Banner of shelf 52499 (banner 52499)")
    tab.check_quiet(api.url)
