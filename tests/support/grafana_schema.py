"""Is a dashboard what Grafana's own schema says? As far as a package offers it.

grafana-foundation-sdk is generated from Grafana's schemas, but its `from_json` checks nothing. So:
what it does not know gets lost on the way through it, and is found by comparing; and each value
that it did take is held against the type that the generated class declares.
"""

from __future__ import annotations

import enum
import json
import types
import typing
from collections.abc import Iterator
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.cog.runtime import UnknownDataquery
from grafana_foundation_sdk.models import dashboard, units

register_default_plugins()
UNITS = {value for name, value in vars(units).items() if name[0] != "_" and isinstance(value, str)}


def problems(data: dict[str, Any]) -> list[str]:
    """What is wrong with a dashboard, a line each; empty if Grafana's schema knows all of it."""
    try:
        model = dashboard.Dashboard.from_json(data)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return [f"it can't be read: {error!r}"]
    again = json.loads(json.dumps(model, cls=JSONEncoder))
    return [*_lost(data, again, "dashboard"), *_mistyped(model, dashboard.Dashboard, "dashboard")]


def _lost(before: Any, after: Any, path: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before:
            if key not in after:
                yield f"{path}.{key} is not known to Grafana's schema"
            else:
                yield from _lost(before[key], after[key], f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list):
        for n, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _lost(one, other, f"{path}[{n}]")
    elif before != after:
        yield f"{path} was {before!r} and comes back as {after!r}"


def _mistyped(value: Any, hint: Any, path: str) -> Iterator[str]:
    """Where a value is not of its declared type, all the way down."""
    if not _fits(value, hint):
        yield f"{path} is {value!r}, and should be {hint}"
        return
    if isinstance(value, list):
        for n, item in enumerate(value):
            yield from _mistyped(item, _item_hint(hint), f"{path}[{n}]")
    elif type(value).__module__.startswith("grafana_foundation_sdk.models"):
        if isinstance(value, enum.Enum):
            return
        for name, inner in _hints(type(value)).items():
            yield from _mistyped(getattr(value, name, None), inner, f"{path}.{name}")
            if name == "unit" and getattr(value, name) not in (None, *UNITS):
                yield f"{path}.unit {getattr(value, name)!r} is no unit of Grafana"


def _hints(model: type) -> dict[str, Any]:
    return typing.get_type_hints(model)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(a for part in typing.get_args(hint) for a in _alternatives(part))
    return (hint,)


def _item_hint(hint: Any) -> Any:
    for one in _alternatives(hint):
        if typing.get_origin(one) is list:
            return typing.get_args(one)[0]
    return Any


def _fits(value: Any, hint: Any) -> bool:
    return any(_fits_one(value, one) for one in _alternatives(hint))


def _fits_one(value: Any, hint: Any) -> bool:
    if hint in (Any, object):
        return True
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin is not None:
        return isinstance(value, origin)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return isinstance(value, hint) or value in [member.value for member in hint]
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, (hint, UnknownDataquery))
