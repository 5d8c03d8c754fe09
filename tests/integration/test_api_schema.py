"""The OpenAPI document is valid, and whatever it allows gets an answer that it foresees."""

from __future__ import annotations

from typing import Any

import msgspec
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from openapi_spec_validator import validate

from aggregator.http import banner_routes, openapi, routes
from tests.support.fix_api import Api

HANDLERS = [*routes.HANDLERS, *banner_routes.HANDLERS]
DOCUMENT = msgspec.json.decode(openapi.document(HANDLERS))
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT).exclude(path="/live")
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
        "/livez", "/readyz", "/metrics",
    }  # fmt: skip


@SCHEMA.parametrize()
@BOUNDED
def test_answers_are_in_the_schema(case: schemathesis.Case[Any], api: Api) -> None:
    case.call_and_validate(base_url=api.url, excluded_checks=NOT_ASKED)
