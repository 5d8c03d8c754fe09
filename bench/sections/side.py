"""Side by side: CPU for each click of every contender, at saturation, in interleaved turns."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import msgspec

from bench.contenders.lineup import CONTENDERS
from bench.harness.measure import Plan, Turn, interleave, ratios, spread
from bench.harness.servers import Server
from bench.load.programs import MissingProgramError

SUBJECT = "clickmill"


def side_by_side(plan: Plan) -> dict[str, Any]:
    """Results of all contenders that are here, and the names of those that are not."""
    servers: dict[str, Server] = {}
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        for contender in CONTENDERS:
            if plan.contenders and contender.key not in (SUBJECT, *plan.contenders):
                continue
            try:
                servers[contender.key] = contender.start()
            except MissingProgramError as error:
                missing[contender.key] = f"{contender.name}: {error}"
                plan.say(missing[contender.key])
                continue
            stack.callback(servers[contender.key].stop)
        turns = interleave(servers, plan)
    return {"rows": _rows(turns), "missing": missing}


def _rows(turns: dict[str, list[Turn]]) -> list[dict[str, Any]]:
    names = {c.key: (c.name, c.does) for c in CONTENDERS}
    subject = turns[SUBJECT]
    return [
        {
            "key": key,
            "name": names[key][0],
            "does": names[key][1],
            "cpu_us": spread([t.cpu_us for t in mine]),
            "helping_us": spread([t.helping_us for t in mine]),
            "whole_us": spread([t.whole_us for t in mine]),
            "busy": spread([t.busy for t in mine]),
            "rate": spread([t.rate for t in mine]),
            "p50_us": spread([t.p50_us for t in mine]),
            "p99_us": spread([t.p99_us for t in mine]),
            "ratio": ratios(subject, mine, lambda t: t.cpu_us),
            "whole_ratio": ratios(subject, mine, lambda t: t.whole_us),
            "p99_ratio": ratios(subject, mine, lambda t: t.p99_us),
            "turns": [msgspec.to_builtins(t) for t in mine],
        }
        for key, mine in turns.items()
    ]
