"""What the OpenAPI document says beyond what the framework sees for itself.

The framework makes the document from the handlers and the answers' structs. Parameters are read
by `params` (one way for HTTP and NATS), so they are described here, next to each other: what is
said here and what is done there is held together by the schema tests against the running server.

Not the framework's typed parameters, which were tried: they use the last value of a parameter that
is given twice, ignore an unknown parameter, accept `+7` and `٧` as banner IDs and a time without a
zone, and their errors have no code and do not say what is allowed. Requests over NATS and in JSON
bodies would need a second parser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import (
    Components,
    License,
    OpenAPIFormat,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    Parameter,
    RequestBody,
    Schema,
    SecurityRequirement,
    SecurityScheme,
    Server,
    Tag,
)

from aggregator.corrections.request import MAX_BANNERS as MAX_CORRECTED
from aggregator.corrections.request import MAX_TEXT_CHARS
from aggregator.http import openapi_clicks
from aggregator.reading.banners import MAX_LISTED, MAX_NAME_CHARS, MAX_TARGET_CHARS
from aggregator.reading.buckets import MAX_POINTS, STEPS
from aggregator.reading.formats import FORMATS
from aggregator.reading.shapes import MAX_BANNERS_ASKED, TOP_DEFAULT, TOP_MAX
from clickmill.contract.problem import ErrorBody

NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"

TAGS: Final = {
    "statistics": "clicks of one banner, of several, of all; the busiest; live",
    "register": "names and targets of banners",
    "corrections": "what is added to statistics or taken from them, by whom and why",
    openapi_clicks.TAG: "counting, on the ingest port",
    "sources": "workers that report; giving up those of a lost machine",
    "process": "whether it lives, is ready, and its metrics",
}
_ERRORS: Final = {
    400: "the request is wrong; `code` and `error` say what to do",
    401: "a token is needed",
    403: "the client may not write",
    404: "there is no such banner, source or address",
    408: "the body did not arrive in time",
    409: "the machine is alive",
    413: "the body is too large",
    429: "too many requests or streams of this client",
    503: "the statistics can't be read just now",
}
_TIME: Final = Schema(
    any_of=[
        Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME),
        Schema(type=OpenAPIType.INTEGER, minimum=0, maximum=253_339_228_799),
    ],
    examples=["2024-12-10T12:56:00Z", 1733835360],
)


def _text(*words: str) -> Schema:
    return Schema(type=OpenAPIType.STRING, enum=list(words))


def _whole(low: int, high: int | None = None, default: int | None = None) -> Schema:
    return Schema(type=OpenAPIType.INTEGER, minimum=low, maximum=high, default=default)


def _query(name: str, schema: Schema, description: str) -> Parameter:
    return Parameter(name=name, param_in="query", schema=schema, description=description)


TS_FROM: Final = _query("tsFrom", _TIME, "start: RFC 3339 with a zone, or Unix seconds")
TS_TO: Final = _query(
    "tsTo",
    Schema(any_of=[*(_TIME.any_of or ()), _text("complete")], examples=_TIME.examples),
    "end (exclusive); every minute that overlaps is in. complete: as far as all is counted",
)
STEP: Final = _query("step", _text(*STEPS), "length of a bucket (default 1m); weeks are ISO weeks")
TZ: Final = _query(
    "tz",
    Schema(type=OpenAPIType.STRING, max_length=64, examples=["Europe/Berlin"]),
    "time zone (IANA name) in which hours, days, weeks and months begin (default UTC)",
)
FILL: Final = _query("fill", _text("zero"), "zero: empty buckets are in, with 0")
FORMAT: Final = _query("format", _text(*FORMATS), "shape of the answer (default json)")
LIMIT: Final = _query("limit", _whole(1, TOP_MAX, TOP_DEFAULT), "how many banners")
AFTER: Final = _query("after", _whole(0, 2**31 - 1), "entries with IDs over this one")
ONE_BANNER: Final = _query("bannerID", _whole(0), "only what corrects this banner")
PAGE: Final = _query("limit", _whole(1, MAX_LISTED, MAX_LISTED), "how many entries")
BANNERS: Final = Parameter(
    name="bannerID",
    param_in="query",
    schema=Schema(type=OpenAPIType.ARRAY, items=_whole(0), max_items=MAX_BANNERS_ASKED),
    description="banners that are asked for (default: all with clicks in the range)",
)
BANNER_ID: Final = Parameter(
    name="banner_id", param_in="path", schema=_whole(0), required=True, description="banner ID"
)

INCLUDE: Final = _query("include", _text("raw"), "raw: clicks as counted, and what corrects them")

RANGE: Final = (TS_FROM, TS_TO, FORMAT, INCLUDE)
SERIES: Final = (*RANGE, STEP, TZ, FILL)
MANY: Final = (BANNERS, *SERIES)
TOP: Final = (*RANGE, LIMIT)

STATS_BODY: Final = Schema(
    type=OpenAPIType.OBJECT,
    properties={parameter.name: parameter.schema for parameter in SERIES if parameter.schema},
    additional_properties=False,
)
_PAST: Final = Schema(any_of=[Schema(type=OpenAPIType.STRING), Schema(type=OpenAPIType.INTEGER)])
_WORDS: Final = Schema(type=OpenAPIType.STRING, min_length=1, max_length=MAX_TEXT_CHARS)
CORRECTION_BODY: Final = Schema(
    type=OpenAPIType.OBJECT,
    properties={
        "author": _WORDS,
        "reason": _WORDS,
        "bannerID": Schema(
            any_of=[
                _whole(0),
                Schema(type=OpenAPIType.ARRAY, items=_whole(0), max_items=MAX_CORRECTED),
            ]
        ),
        "tsFrom": _PAST,
        "tsTo": _PAST,
        "clicksPerMinute": Schema(type=OpenAPIType.INTEGER),
        "void": Schema(type=OpenAPIType.BOOLEAN),
        "takesBack": _whole(1),
    },
    required=["author", "reason"],
    additional_properties=False,
)
ENTRY_BODY: Final = Schema(
    type=OpenAPIType.OBJECT,
    properties={
        "name": Schema(
            type=[OpenAPIType.STRING, OpenAPIType.NULL], min_length=1, max_length=MAX_NAME_CHARS
        ),
        "target_url": Schema(
            type=[OpenAPIType.STRING, OpenAPIType.NULL],
            format=OpenAPIFormat.URI,
            max_length=MAX_TARGET_CHARS,
            pattern="^[hH][tT][tT][pP][sS]?://",
        ),
    },
    min_properties=1,
    additional_properties=False,
    examples=[{"name": "Spring sale", "target_url": "https://example.org/sale"}],
)


GIVE_UP_BODY: Final = Schema(
    type=OpenAPIType.OBJECT,
    properties={
        "source": Schema(type=OpenAPIType.STRING, min_length=1, description="a node or a UUID"),
        "by": Schema(type=OpenAPIType.STRING, min_length=1, max_length=MAX_NAME_CHARS),
    },
    required=["source", "by"],
    additional_properties=False,
    examples=[{"source": "web-3", "by": "alice"}],
)


def operation(
    tag: str,
    parameters: Sequence[Parameter] = (),
    body: Schema | None = None,
    tables: bool = False,
) -> type[Operation]:
    """The class of an operation with these parameters and this JSON body.

    `tables`: its answer comes as CSV and NDJSON too.
    """

    @dataclass
    class Described(Operation):
        def __post_init__(self) -> None:
            self.tags = [tag]
            self.summary, self.description = self.description, None
            path = [BANNER_ID] if self.parameters else []
            self.parameters = [*path, *parameters]
            if body is not None:
                content = {"application/json": OpenAPIMediaType(schema=body)}
                self.request_body = RequestBody(content=content, required=True)
            if tables and self.responses:
                shown: Any = self.responses["200"]
                text = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))
                shown.content |= {CSV: text, NDJSON: text}

    return Described


WRITES: Final[list[SecurityRequirement]] = [{}, {"writeToken": []}]
"""The `security` of a handler that writes."""


def answers(
    shape: Any, *errors: int, media_type: str = "application/json", status: int = 200
) -> Mapping[int, ResponseSpec]:
    """The `responses` of a handler: its good answer and the errors it may give."""
    good = ResponseSpec(shape, False, "the answer", media_type)
    others = {code: ResponseSpec(ErrorBody, False, _ERRORS[code]) for code in (401, *errors)}
    return {status: good, **others}


def document(handlers: Sequence[HTTPRouteHandler], click_url: str) -> bytes:
    """The OpenAPI document of these handlers and of the ingest port at `click_url`, as JSON.

    The framework makes it from an application that is never served: one that is served would
    bring pages that load scripts from elsewhere.
    """
    app = Litestar(
        list(handlers),
        # The handlers name it, and none of them is called.
        dependencies={"parts": Provide(lambda: None, sync_to_thread=False)},
        openapi_config=_config(),
        logging_config=None,
    )
    described = app.openapi_schema.to_schema()
    described["paths"] |= openapi_clicks.paths(click_url)
    return msgspec.json.encode(described)


def _config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Clickmill",
        version="1",
        # Relative to the document itself: a proxy may serve it under another path.
        servers=[Server(url=".", description="the statistics port")],
        description=(
            "Clicks on banners per minute. Times are RFC 3339 with a zone or whole Unix seconds; "
            "ranges are half-open, and every minute that overlaps one is in. One answer holds at "
            f"most {MAX_POINTS:,} points. Every error is `{{error, code}}`."
        ),
        license=License(name="MIT", identifier="MIT"),
        components=Components(
            security_schemes={
                "readToken": SecurityScheme(
                    type="http", scheme="bearer", description="where CLICKMILL_STATS_TOKEN is set"
                ),
                "writeToken": SecurityScheme(
                    type="http",
                    scheme="bearer",
                    description="CLICKMILL_WRITE_TOKEN; without it, this machine alone may write",
                ),
            }
        ),
        security=[{}, {"readToken": []}],
        use_handler_docstrings=True,
        tags=[Tag(name=name, description=text) for name, text in TAGS.items()],
    )
