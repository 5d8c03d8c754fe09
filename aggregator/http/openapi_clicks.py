"""The requests of the ingest port that count clicks, for the OpenAPI document.

Why here, and by hand: the statistics port serves the only document, and the ingest port has no
framework that could generate it. Its path item names the ingest port as its server, so that no
client sends a click to the statistics port. The schema tests compare it with a running worker.
"""

from __future__ import annotations

from typing import Any, Final

from clickmill.batches import MAX_KEY_CHARS
from clickmill.contract.params import MAX_BATCH_ITEMS, MAX_CLICKS_PER_ITEM

HOST: Final = "{host}"
"""Stands in the address of the ingest port for the host that the document was requested from."""
TAG: Final = "clicks"

_JSON: Final = "application/json"
_MEANINGS: Final = {
    302: "counted; `Location` is the banner's registered target",
    400: "nothing was counted; `code` and `error` say what to do",
    401: "a write token is needed; nothing was counted",
    403: "a prefetch, which is not a click, or a batch of someone who may not write; nothing was "
    "counted",
    404: "there is no such banner, or it has no target; nothing was counted",
    408: "the body did not arrive in time; nothing was counted",
    413: "the body is too large; nothing was counted",
    415: "the body has another type; nothing was counted",
    421: "this is not the name of the server; nothing was counted",
    422: "the Idempotency-Key was used with other clicks; nothing was counted",
    429: "too many large bodies are being read; nothing was counted",
    503: "a batch with an Idempotency-Key can't be stored; nothing was counted: send it again",
}
_ERROR: Final = {_JSON: {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
_COUNTED: Final = {
    "type": "object",
    "properties": {"status": {"const": "counted"}},
    "required": ["status"],
    "additionalProperties": False,
}
_BATCH_COUNTED: Final = {
    **_COUNTED,
    "properties": {"status": {"const": "counted"}, "clicks": {"type": "integer", "minimum": 0}},
    "required": ["status", "clicks"],
}
_BATCH: Final = {
    "type": "array",
    "maxItems": MAX_BATCH_ITEMS,
    "items": {
        "type": "object",
        "properties": {
            "bannerID": {"type": "integer", "minimum": 0},
            "count": {"type": "integer", "minimum": 1, "maximum": MAX_CLICKS_PER_ITEM},
            "ts": {
                "type": ["string", "integer"],
                "format": "date-time",
                "description": "the time of the clicks, in Unix seconds too; only with an "
                "Idempotency-Key",
            },
        },
        "required": ["bannerID"],
        "additionalProperties": False,
    },
    "examples": [[{"bannerID": 17, "count": 3}, {"bannerID": 18}]],
}
_BANNER_ID: Final = {
    "name": "banner_id",
    "in": "path",
    "required": True,
    "description": "banner ID",
    "schema": {"type": "integer", "minimum": 0},
}
_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "a UUID or another text: the batch counts once, however often it is sent in "
    "7 days",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARS},
}
_BATCH_BODY: Final = {
    "required": True,
    "content": {_JSON: {"schema": _BATCH}},
}


def paths(address: str) -> dict[str, Any]:
    """The path items. `address` is that of the ingest port; HOST may stand for its host."""
    click = (400, 404, 408, 413)
    get = (*click, 403)
    found = {"302": {"description": _MEANINGS[302]}}
    operations: dict[str, dict[str, Any]] = {
        "/counter/{banner_id}": {
            "get": _operation("Counts a click.", _good(_JSON, _COUNTED), get),
            "post": _operation("Counts a click. A body is ignored.", _good(_JSON, _COUNTED), click),
        },
        "/pixel/{banner_id}.gif": {
            "get": _operation("Counts a view: a transparent image.", _good("image/gif"), get)
        },
        "/click/{banner_id}": {
            "get": _operation("Counts a click and redirects to the banner's target.", found, get)
        },
        "/clickmill.js": {
            "get": _operation(
                "The script that counts clicks on elements with `data-banner`.",
                _good("text/javascript"),
                (),
            )
        },
        "/clicks": {
            "post": _operation(
                "Counts many clicks: all of them, or none.",
                _good(_JSON, _BATCH_COUNTED),
                (400, 401, 403, 408, 413, 415, 421, 422, 429, 503),
                _BATCH_BODY,
            )
            | {"parameters": [_KEY]}
        },
    }
    return {path: _item(path, methods, address) for path, methods in operations.items()}


def _item(path: str, methods: dict[str, Any], address: str) -> dict[str, Any]:
    server: dict[str, Any] = {"url": address, "description": "the ingest port"}
    if HOST in address:
        server["variables"] = {HOST.strip("{}"): {"default": "localhost"}}
    parameters = [_BANNER_ID] if "{banner_id}" in path else []
    return {"servers": [server], "parameters": parameters, **methods}


def _good(media_type: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema} if schema else {}
    return {"200": {"description": "the answer", "content": {media_type: content}}}


def _operation(
    summary: str,
    good: dict[str, Any],
    errors: tuple[int, ...],
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    bad = {str(code): {"description": _MEANINGS[code], "content": _ERROR} for code in errors}
    operation: dict[str, Any] = {
        "tags": [TAG],
        "summary": summary,
        "responses": {**good, **bad},
        "security": [{}, {"writeToken": []}] if 401 in errors else [],
    }
    return operation | ({"requestBody": body} if body else {})
