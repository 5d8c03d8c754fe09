"""The live page over ranges whose minutes are gone: drawn by the hour or day, never an error."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from playwright.sync_api import Page, expect, sync_playwright

from aggregator.postgres import connection as postgres
from aggregator.postgres.retention import Days, maintain
from tests.support.fix_api import Api, OpenApi
from tests.support.fix_browser import CHROMIUM, FLAGS

TIMEOUT_MS = 10_000
DAY = 86_400
ZONE = "America/St_Johns"


def retain(api: Api, days: int) -> None:
    async def run() -> None:
        async with postgres.session(api.dsn, "test") as connection:
            assert await maintain(connection, Days(days, 0), grace_s=0)

    asyncio.run(run())


@contextmanager
def page_in(zone: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(timezone_id=zone, locale="en-GB")
        context.set_default_timeout(TIMEOUT_MS)
        expect.set_options(timeout=TIMEOUT_MS)
        yield context.new_page()
        browser.close()


def test_ranges_older_than_the_minutes(open_api: OpenApi) -> None:
    """In a zone half an hour off: its days come from quarter-hours."""
    api = open_api()
    today = int(datetime.now(UTC).timestamp()) // DAY * DAY
    at = today - 10 * DAY + 12 * 3_600
    api.put({(17, at): 40, (17, at + 3 * 3_600): 2, (17, today - 100 * DAY): 1_000})
    retain(api, 2)
    with page_in(ZONE) as page:
        page.goto(f"{api.url}/#banner=17&range=30d")
        expect(page.locator("#banner-total")).to_have_text("42")
        expect(page.locator("#step")).to_have_text(f"by day, {ZONE}")
        page.locator("label:has(input[value='365d'])").click()
        expect(page.locator("#banner-total")).to_have_text("1,042")
        expect(page.locator("#step")).to_have_text(f"by day, {ZONE}")
        page.locator("#top-range").select_option("30d")
        expect(page.locator("#top button").first).to_contain_text("42")
        page.locator("label:has(input[value='1h'])").click()
        expect(page.locator("#step")).to_have_text(f"by minute, {ZONE}")
        # Some hours of that day, on a clock of UTC: as people there would type them.
        page.locator("label:has(input[value=custom])").click()
        local = "new Date(%d).toLocaleString('sv').slice(0, 16).replace(' ', 'T')"
        for field, moment in (("#custom-from", at - 3_600), ("#custom-to", at + 3_600)):
            page.locator(field).fill(page.evaluate(local % (1_000 * moment)))
        page.locator("#custom-to").blur()
        expect(page.locator("#banner-total")).to_have_text("40")
        expect(page.locator("#step")).to_contain_text("by hour")
        expect(page.locator("#banner-problem")).to_be_hidden()
