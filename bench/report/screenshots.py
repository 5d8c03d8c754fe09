"""Pictures of the live page for the documentation: `make screenshots`, into docs/images.

The whole system runs, with a week of made-up history in its tables and real clicks coming in by
`POST /clicks` meanwhile; Chromium then takes desktop and phone, light and dark.
"""

from __future__ import annotations

import http.client
import json
import math
import random
import threading
import time
from typing import Final

import psycopg
from playwright.sync_api import Browser, ViewportSize, expect, sync_playwright

from bench.harness.servers import DOCS
from bench.harness.system import Clickmill
from bench.load import programs

IMAGES: Final = DOCS / "images"
FLAGS: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
]
DAY_S: Final = 86_400
HISTORY_DAYS: Final = 7
LIVE_SECONDS: Final = 100
BATCH_S: Final = 0.1
DESKTOP: Final[ViewportSize] = {"width": 1280, "height": 900}
PHONE: Final[ViewportSize] = {"width": 390, "height": 844}
SHOTS: Final = (
    ("desktop-light", DESKTOP, "light", "banner=17&range=1d"),
    ("desktop-dark", DESKTOP, "dark", "banner=17&range=1h"),
    ("phone-light", PHONE, "light", "banner=23&range=1d"),
    ("phone-dark", PHONE, "dark", "banner=23&range=7d"),
)
NAMES: Final = {
    12: "Autumn sale", 17: "Newsletter footer", 23: "Homepage hero", 31: "Partner: Kite & Co",
    45: "Checkout upsell", 52: "Search sidebar", 60: "Gift cards",
}  # fmt: skip
BANNERS: Final = [*NAMES, 64, 70, 77, 81]

_FILL: Final = """
INSERT INTO banner_{unit} AS t (banner_id, {unit}, clicks)
SELECT id, date_trunc('{unit}', to_timestamp(at), 'UTC'), sum(v)
FROM unnest(%s::int[], %s::bigint[], %s::bigint[]) AS n (id, at, v) GROUP BY 1, 2
ON CONFLICT (banner_id, {unit}) DO UPDATE SET clicks = t.clicks + excluded.clicks
"""


def pace(banner: int, at: float, chance: random.Random) -> float:
    """Clicks a minute of a banner: more by day than by night, never quite the same."""
    by_day = 0.3 + 0.7 * math.sin(math.pi * (at % DAY_S) / DAY_S) ** 2
    return max(0.0, chance.gauss(1_500 / (1 + banner / 22) * by_day, 18 * by_day))


def fill(dsn: str, chance: random.Random) -> None:
    """A week of minutes, and their rollups."""
    now = int(time.time()) // 60 * 60
    minutes = range(now - HISTORY_DAYS * DAY_S, now, 60)
    rows = [(b, at, round(pace(b, at, chance))) for at in minutes for b in BANNERS]
    columns = [list(column) for column in zip(*rows, strict=True)]
    with psycopg.connect(dsn, options="-c timezone=UTC") as connection:
        for day in range(HISTORY_DAYS + 1):
            sql = "SELECT clickmill_make_partition(to_timestamp(%s)::date)"
            connection.execute(sql, [now - day * DAY_S])
        for unit in ("minute", "hour", "day"):
            connection.execute(_FILL.format(unit=unit).encode(), columns)


def register(port: int) -> None:
    """Names for some of the banners."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    for banner, name in NAMES.items():
        connection.request("PUT", f"/banners/{banner}", json.dumps({"name": name}))
        connection.getresponse().read()
    connection.close()


def click(port: int, stop: threading.Event, chance: random.Random) -> None:
    """Clicks, in small batches, until told to stop."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    while not stop.wait(BATCH_S):
        now = time.time()
        wave = 1 + 0.35 * math.sin(now / 9) + 0.2 * math.sin(now / 2.3)
        counts = {b: pace(b, now, chance) / 60 * BATCH_S * wave for b in BANNERS}
        items = [
            {"bannerID": b, "count": n}
            for b, mean in counts.items()
            if (n := int(mean) + (chance.random() < mean % 1))
        ]
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/clicks", json.dumps(items), headers)
        connection.getresponse().read()
    connection.close()


def shoot(browser: Browser, url: str) -> None:
    """All pictures."""
    for name, viewport, scheme, choice in SHOTS:
        context = browser.new_context(
            viewport=viewport,
            color_scheme="dark" if scheme == "dark" else "light",
            device_scale_factor=1.5 if viewport is DESKTOP else 2,
        )
        page = context.new_page()
        page.goto(f"{url}/#{choice}")
        expect(page.locator("#state")).to_have_attribute("data-state", "live")
        expect(page.locator("#banner-total")).not_to_have_text("–")
        page.wait_for_timeout(2_500)
        page.screenshot(path=IMAGES / f"{name}.png", full_page=True)
        context.close()
        print(IMAGES / f"{name}.png")


def main() -> None:
    """Command line."""
    try:
        chromium = programs.find("chromium", "chromium")
    except programs.MissingProgramError as error:
        raise SystemExit(str(error)) from error
    IMAGES.mkdir(parents=True, exist_ok=True)
    chance = random.Random(3)
    system = Clickmill({"RETENTION_DAYS": "0"}, worker_cores=None)
    stop = threading.Event()
    try:
        fill(system.dsn(), chance)
        register(system.stats_port)
        clicking = threading.Thread(target=click, args=(system.port, stop, chance))
        clicking.start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            url = f"http://127.0.0.1:{system.stats_port}"
            # Without an open page there is no history of seconds to show.
            browser.new_page().goto(url)
            time.sleep(LIVE_SECONDS)
            shoot(browser, url)
            browser.close()
    finally:
        stop.set()
        system.stop()


if __name__ == "__main__":
    main()
