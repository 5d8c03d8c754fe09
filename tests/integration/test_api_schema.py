"""The OpenAPI document is valid, and whatever it allows gets an answer that it foresees.

Clicks go to a real worker, everything else to the statistics port.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from openapi_spec_validator import validate

from aggregator.http import (
    banner_routes,
    correction_routes,
    openapi,
    openapi_clicks,
    routes,
    source_routes,
)
from tests.support.fix_api import Api, serve
from tests.support.fix_postgres import PostgresServer
from tests.support.fix_worker import Worker, Workers
from tests.support.raw import ask

HANDLERS = [
    *routes.HANDLERS,
    *banner_routes.HANDLERS,
    *correction_routes.HANDLERS,
    *source_routes.HANDLERS,
]
DOCUMENT = msgspec.json.decode(openapi.document(HANDLERS, "http://{host}:8080"))
ALL = schemathesis.openapi.from_dict(DOCUMENT)
SCHEMA = ALL.exclude(path="/live").exclude(tag=openapi_clicks.TAG)
CLICKS = ALL.include(tag=openapi_clicks.TAG)
TARGET = {17: "https://example.org/"}
CLICK_PATHS = {
    "/counter/{banner_id}", "/pixel/{banner_id}.gif", "/click/{banner_id}", "/clicks",
    "/clickmill.js",
}  # fmt: skip
# Not all that a schema allows can be granted: a range may be reversed, or of too many points.
NOT_ASKED = [schemathesis.checks.positive_data_acceptance]
BOUNDED = settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_the_document_is_valid(api: Api) -> None:
    served = api.client.get("/openapi.json")
    assert served.json() == DOCUMENT
    validate(DOCUMENT)
    assert set(DOCUMENT["paths"]) == {
        "/stats/{banner_id}", "/stats", "/top", "/live", "/banners", "/banners/{banner_id}",
        "/corrections", "/sources", "/sources/give-up",
        "/livez", "/readyz", "/metrics", *CLICK_PATHS,
    }  # fmt: skip


@SCHEMA.parametrize()
@BOUNDED
def test_answers_are_in_the_schema(case: schemathesis.Case[Any], api: Api) -> None:
    case.call_and_validate(base_url=api.url, excluded_checks=NOT_ASKED)


@pytest.fixture(scope="module")
def worker(module_workers: Workers) -> Worker:
    return module_workers(targets=TARGET)


@CLICKS.parametrize()
@BOUNDED
def test_answers_to_clicks_are_in_the_schema(case: schemathesis.Case[Any], worker: Worker) -> None:
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{worker.port}", excluded_checks=NOT_ASKED,
        allow_redirects=False,
    )  # fmt: skip


def test_clicks_have_a_server_of_their_own() -> None:
    for path, item in DOCUMENT["paths"].items():
        is_click = path in CLICK_PATHS
        assert [s["url"] for s in item.get("servers", [])] == ["http://{host}:8080"] * is_click, (
            path
        )


def test_a_described_click_counts_and_has_its_methods(worker: Worker) -> None:
    for path in CLICK_PATHS:
        target = path.replace("{banner_id}", "17")
        described = {name.upper() for name in DOCUMENT["paths"][path]} & {"GET", "POST", "PUT"}
        allowed = ask(worker.port, "OPTIONS", target).get("allow") or ""
        assert described == set(allowed.split(", ")) - {"OPTIONS"}, path
        body = b'[{"bannerID": 17}]' if path == "/clicks" else None
        for method in described:
            kind = [("Content-Type", "application/json")] if body else []
            assert ask(worker.port, method, target, body, kind).status in (200, 302), path


def test_a_read_token_is_refused_where_the_document_wants_a_write_token(
    postgres_server: PostgresServer,
) -> None:
    secured = {"stats_token": "may-read", "write_token": "may-write"}
    with serve(postgres_server, **secured) as api:
        api.client.headers["Authorization"] = "Bearer may-read"
        found, wanted = set(), set()
        for path, item in DOCUMENT["paths"].items():
            if path in CLICK_PATHS or path == "/live":
                continue
            for method in {"get", "put", "post", "patch", "delete"} & set(item):
                if item[method].get("security") == openapi.WRITES:
                    wanted.add((method, path))
                if api.client.request(method, path.format(banner_id=17)).status_code == 403:
                    found.add((method, path))
    assert found == wanted
    assert len(wanted) == 5
    assert DOCUMENT["paths"]["/clicks"]["post"]["security"] == openapi.WRITES
