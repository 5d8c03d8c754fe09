"""What a body costs a click: none against two bytes in the headers' segment, and Go with the same.

Load tools and browsers send headers and a small body in one segment. The body is taken in before
the answer all the same, which is what this section measures.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final

from bench.contenders.lineup import CONTENDERS
from bench.harness.measure import Plan, Turn, check, in_turns, ratios, shown, spread, turn
from bench.harness.servers import LOAD_CORE, Server
from bench.load import wrk

CLICKMILL, GO = "clickmill", "go"
NONE, BODY = "click", "body"
"""Modes of `click.lua`."""
VARIANTS: Final = {
    "none": ("Clickmill, no body", CLICKMILL, NONE),
    "body": ("Clickmill, body `{}`", CLICKMILL, BODY),
    "go_none": ("Go net/http, no body", GO, NONE),
    "go_body": ("Go net/http, body `{}`", GO, BODY),
}


def bodies(plan: Plan) -> dict[str, Any]:
    """CPU for each click of each variant, and the ratios that are goals."""
    starts = {contender.key: contender.start for contender in CONTENDERS}
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for key in (CLICKMILL, GO):
            servers[key] = starts[key]()
            stack.callback(servers[key].stop)
            check(servers[key], wrk.Load(servers[key].port, LOAD_CORE, plan.seconds))
        turns = _turns(plan, servers)
    return {
        "rows": [{"name": VARIANTS[key][0], **_row(mine)} for key, mine in turns.items()],
        "body_ratio": ratios(turns["body"], turns["none"], lambda t: t.cpu_us),
        "go_ratio": ratios(turns["body"], turns["go_body"], lambda t: t.cpu_us),
    }


def _turns(plan: Plan, servers: dict[str, Server]) -> dict[str, list[Turn]]:
    def measure(variant: tuple[str, str]) -> Turn:
        server = servers[variant[0]]
        return turn(server, wrk.Load(server.port, LOAD_CORE, plan.seconds, mode=variant[1]))

    variants = [(key, (server, mode)) for key, (_, server, mode) in VARIANTS.items()]
    return dict(zip(VARIANTS, in_turns(plan, variants, measure, shown), strict=True))


def _row(turns: list[Turn]) -> dict[str, Any]:
    return {
        "cpu_us": spread([t.cpu_us for t in turns]),
        "busy": spread([t.busy for t in turns]),
        "rate": spread([t.rate for t in turns]),
        "p99_us": spread([t.p99_us for t in turns]),
    }
