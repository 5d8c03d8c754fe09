"""The sections of `make bench`, each of which measures one thing and can run alone.

A section is a function from a plan to results that JSON can hold; `bench/report` makes text
of them. They run in the order of this table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.harness.measure import Plan
from bench.sections import (
    aggregator,
    bodies,
    cardinality,
    half_load,
    keyed,
    middleware,
    profile,
    saturation,
    scale,
    side,
    sizes,
)

Section = Callable[[Plan], dict[str, Any]]

PROGRAMS = frozenset({"aggregator", "cardinality", "scale"})
"""Programs of their own, with lengths of their own: the plan's rounds do not apply to them."""

SECTIONS: dict[str, Section] = {
    "side": side.side_by_side,
    "bodies": bodies.bodies,
    "price": saturation.price,
    "tail": half_load.tail,
    "counters": half_load.counters_place,
    "freshness": half_load.freshness,
    "batch": saturation.batch,
    "keyed": keyed.keyed,
    "ids": saturation.many_ids,
    "scrape": saturation.scrape,
    "workers": saturation.workers,
    "memory": sizes.memory,
    "profile": profile.profile,
    "aggregator": aggregator.aggregator,
    "cardinality": cardinality.cardinality,
    "scale": scale.scale,
    "middleware": middleware.middleware,
}
