"""The structure of the pages: narrow, by keyboard, with odd names, many banners, none, in the dark.

axe-core, which looks for what keeps people with disabilities out, finds nothing in any of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.test_live_page import TIMEOUT_MS, browser, hour_ago
from tests.support.fix_api import Api, OpenApi

__all__ = ["browser"]
AXE = (
    Path(__file__).parents[2] / "scripts" / "page-lint" / "node_modules" / "axe-core" / "axe.min.js"
)
NARROW = 320
LONG = "Spring sale with a name as long as the register allows it to be, which is very long " * 2
ARABIC = "تخفيضات الربيع"
PAGES = ("/", "/start")


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A tab; a test's parameter names the colours."""
    scheme: Any = getattr(request, "param", "light")
    context = browser.new_context(
        viewport={"width": NARROW, "height": 640}, color_scheme=scheme, locale="en-GB"
    )
    context.set_default_timeout(TIMEOUT_MS)
    yield context.new_page()
    context.close()


def check_axe(page: Page) -> None:
    """No finding at all; an animation must not be half done meanwhile."""
    assert AXE.exists(), f"{AXE} is missing: `make test` installs it"
    page.evaluate("Promise.all(document.getAnimations().map(one => one.finished))")
    page.evaluate(AXE.read_text() + "; null")
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


def check_fits(page: Page) -> None:
    """Nothing is wider than the window."""
    wide = page.evaluate(
        """limit => [...document.querySelectorAll("body *")]
            .filter(e => e.getBoundingClientRect().right > limit)
            .filter(e => !e.closest("pre, .skip, .hidden"))
            .map(e => e.outerHTML.slice(0, 80))""",
        NARROW,
    )
    assert (page.evaluate("document.documentElement.scrollWidth"), wide) == (NARROW, [])


@contextmanager
def named(api: Api, names: dict[int, str]) -> Iterator[None]:
    """These banners have names, until the end of the block."""
    with psycopg.connect(api.dsn, autocommit=True) as connection:
        for banner, name in names.items():
            connection.execute("INSERT INTO banner (id, name) VALUES (%s, %s)", [banner, name])
        yield
        connection.execute("DELETE FROM banner WHERE id = ANY(%s)", [list(names)])


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
@pytest.mark.parametrize("path", PAGES)
def test_no_banner_yet(open_api: OpenApi, page: Page, path: str) -> None:
    page.goto(open_api().url + path)
    expect(page.locator("#state")).to_have_attribute("data-state", "live")
    if path == "/":
        expect(page.locator("#empty")).to_contain_text("No clicks in this range yet")
        expect(page.locator("#empty a")).to_have_attribute("href", "start")
    else:
        expect(page.locator("#ways code").first).to_contain_text("clickmill.js")
    check_fits(page)
    check_axe(page)


def focused(page: Page) -> str:
    """The element with the focus, and whether a person could see it."""
    return str(
        page.evaluate(
            """() => {
                const e = document.activeElement, box = e.getBoundingClientRect();
                const shown = e.matches("input[type=radio]") ? e.nextElementSibling : e;
                const seen = shown.getBoundingClientRect();
                const style = getComputedStyle(shown);
                const visible = seen.width > 8 && seen.height > 8 && style.visibility === "visible";
                return `${e.id || e.name || e.textContent.trim()}${visible ? "" : " (invisible)"}`;
            }"""
        )
    )


def test_the_keyboard_reaches_everything_and_nothing_invisible(
    api: Api, page: Page, banner: int
) -> None:
    api.put({(banner, hour_ago()): 3})
    page.goto(f"{api.url}/#banner={banner}")
    expect(page.locator("#banner-total")).to_have_text("3")
    expect(page.locator("#top button").first).to_be_visible()
    reached: list[str] = []
    while len(reached) < 60:
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        reached.append(focused(page))
    assert [name for name in reached if "invisible" in name] == []
    wanted = {
        "Skip to the banners",
        "theme",
        "Start",
        "API",
        "banner-id",
        "range",
        "csv",
        "top-range",
    }
    assert wanted <= set(reached), reached
    assert len(reached) >= len(wanted) + page.locator("#top button").count()
    # Enter still shows the banner whose ID was typed.
    page.locator("#banner-id").fill(f"{banner + 1}")
    page.keyboard.press("Enter")
    expect(page.locator("#banner-title")).to_have_text(f"Banner {banner + 1}")


@pytest.mark.parametrize("name", [LONG, "W" * 200, ARABIC, f"{ARABIC} 2026 (A)"])
def test_names(api: Api, page: Page, banner: int, name: str) -> None:
    """Isolated, cut where there is no room, whole in the tooltip; the ID always in view."""
    api.put({(banner, hour_ago()): 7_000_000 + banner})
    with named(api, {banner: name}):
        page.goto(f"{api.url}/#banner={banner}")
        row = page.locator(f"#top button[value='{banner}']")
        expect(row.locator("bdi")).to_have_text(name.strip())
        expect(row).to_have_attribute("title", name)
        expect(page.locator("#banner-title bdi")).to_have_text(name.strip())
        for shown in (row.locator("small"), page.locator("#banner-title")):
            box = shown.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= NARROW
        expect(row.locator("small")).to_have_text(f"{banner}")
        expect(page.locator("#banner-title")).to_contain_text(f"(banner {banner})")
        check_fits(page)
        check_axe(page)


def test_five_hundred_banners(open_api: OpenApi, page: Page) -> None:
    api = open_api()
    api.put({(banner, hour_ago()): banner for banner in range(1, 501)})
    with named(api, {banner: f"Shelf {banner}" for banner in range(1, 501)}):
        page.goto(api.url)
        expect(page.locator("#top button")).to_have_count(10)
        expect(page.locator("#top button").first).to_contain_text("Shelf 500")
        page.locator("#banner-id").fill("shelf 4")
        expect(page.locator("#known option")).to_have_count(50)
        page.locator("#banner-id").fill("shelf 77")
        expect(page.locator("#known option")).to_have_count(1)
        page.keyboard.press("Enter")
        expect(page.locator("#banner-title")).to_have_text("Shelf 77 (banner 77)")
        check_fits(page)
        check_axe(page)


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
@pytest.mark.parametrize("path", [*PAGES, "/docs"])
def test_the_token_form(open_api: OpenApi, page: Page, path: str) -> None:
    api = open_api(stats_token="right-token")
    page.goto(api.url + path)
    expect(page.locator("#ask")).to_be_visible()
    expect(page.locator("#token")).to_be_focused()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#ask-problem")).to_be_visible()
    check_fits(page)
    check_axe(page)
    dark = "matchMedia('(prefers-color-scheme: dark)').matches"
    if path != "/docs" and page.evaluate(dark):
        colour = page.evaluate("getComputedStyle(document.getElementById('ask')).backgroundColor")
        assert colour == "rgb(24, 28, 31)"


def test_without_the_aggregator(open_api: OpenApi, page: Page) -> None:
    """What was shown stays, marked as old; nothing is wider than before, and it reconnects."""
    api = open_api()
    api.put({(5, hour_ago()): 3})
    page.goto(f"{api.url}/#banner=5")
    expect(page.locator("#banner-total")).to_have_text("3")
    page.context.set_offline(True)
    api.deps.stopping.set()
    expect(page.locator("#state")).to_have_attribute("data-state", "gone")
    expect(page.locator("#rate")).to_have_text("–")
    expect(page.locator("#top button")).to_have_count(1)
    page.locator("label:has(input[value='6h'])").click()
    expect(page.locator("#banner-problem")).to_have_text(
        "The statistics are currently unavailable."
    )
    check_fits(page)
    check_axe(page)
    api.deps.stopping.clear()
    page.context.set_offline(False)
    expect(page.locator("#state")).to_have_attribute("data-state", "live")
    expect(page.locator("#banner-problem")).to_be_hidden()


def test_weeks_and_months(api: Api, page: Page, banner: int) -> None:
    api.put({(banner, hour_ago() - days * 86_400): 1 for days in (0, 90, 180)})
    page.goto(f"{api.url}/#banner={banner}&range=365d")
    expect(page.locator("#banner-total")).to_have_text("3")
    expect(page.locator("#step")).to_contain_text("by day")
    for name, fewest, most in (("week", 53, 54), ("month", 13, 13)):
        page.locator("#by").select_option(label=name)
        expect(page.locator("#step")).to_contain_text(f"by {name}")
        points = int(page.locator("#series").get_attribute("data-points") or "0")
        assert fewest <= points <= most
        expect(page.locator("#banner-total")).to_have_text("3")
    page.locator("#by").select_option(label="minute")
    expect(page.locator("#banner-problem")).to_contain_text("use step=1h")
    check_fits(page)
