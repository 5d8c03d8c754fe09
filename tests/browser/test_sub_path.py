"""The pages under a path of a proxy: nginx with the configuration of deploy/proxy."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Request, expect

from tests.browser.test_live_page import Watched, browser, hour_ago, tab
from tests.support import balancers
from tests.support.fix_api import Api
from tests.support.ports import free_port

__all__ = ["browser", "tab"]
PATH = "/clickmill"


def test_the_pages_work_under_a_path(api: Api, tab: Watched, banner: int, tmp_path: Path) -> None:
    api.put({(banner, hour_ago()): 1_234})
    page, outside = tab.page, []

    def asked(request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme != "blob" and not url.path.startswith(PATH):
            outside.append(request.url)

    page.on("request", asked)
    nodes, aggregators = [free_port(), free_port()], [api.port, api.port]
    with balancers.running("nginx", tmp_path, nodes, aggregators) as nginx:
        url = f"http://127.0.0.1:{nginx.port}{PATH}"
        page.goto(f"{url}#banner={banner}")
        expect(page.locator("#state")).to_have_attribute("data-state", "live")
        expect(page.locator("#seconds")).to_have_attribute(
            "data-points", re.compile(r"^([2-9]|\d\d+)$")
        )
        expect(page.locator("#banner-total")).to_have_text("1,234")
        with page.expect_download() as download:
            page.locator("#csv").click()
        assert f"{banner}," in download.value.path().read_text()
        page.click("nav >> text=Start")
        expect(page.locator("#state")).to_have_attribute("data-state", "live")
        assert "clickmill.js" in (page.locator("[data-way=script]").text_content() or "")
        page.click("nav >> text=API")
        page.locator(".opblock", has_text="The banners with most clicks").click()
        expect(page.locator(".opblock-body").first).to_be_visible()
        page.click(".try-out__btn")
        page.click(".execute")
        expect(page.locator(".request-url")).to_contain_text(f"{url}/top")
        expect(page.locator(".live-responses-table tbody .response-col_status")).to_contain_text(
            "200"
        )
        page.goto(f"{url}/docs/")
        assert page.url == f"{url}/docs"
        expect(page.locator(".opblock").first).to_be_visible()
        assert outside == []
        tab.check_quiet(url)
