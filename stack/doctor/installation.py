"""Checks of what is installed: compiled modules, packages, and the files of the live page."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Final

from aggregator.http import pages
from clickmill.build_info import build
from clickmill.settings import Settings
from stack import plan
from stack.doctor.finding import Finding
from stack.embedded import nats as embedded_nats
from stack.embedded import postgres as embedded_postgres

_PINNED: Final = re.compile(r"([\w.-]+)(?:\[[^]]*\])?==([^\s;]+)$")
_REFERENCE: Final = re.compile(rb"""["'](?:/?page/|\./)([\w./-]+\.(?:js|css|svg))["']""")


async def programs(_: Settings) -> str:
    """The compiled modules and the embedded servers are there."""
    plan.check_extensions()
    embedded_nats.binary()
    embedded_postgres.install_dir()
    versions = build()
    ours, python = versions["version"], versions["python"]
    return f"Clickmill {ours} on Python {python}, compiled modules and embedded servers found"


async def packages(_: Settings) -> str:
    """The packages have the versions that this release was tested with."""
    try:
        pinned = [match for text in requires("clickmill") or () if (match := _PINNED.match(text))]
    except PackageNotFoundError:
        return "not checked, because Clickmill runs from a directory that is not installed"
    if wrong := [sentence for name, wanted in map(re.Match.groups, pinned)
                 if (sentence := _differs(name, wanted))]:  # fmt: skip
        raise Finding(f"{'; '.join(wrong)}: install the pinned versions (requirements.lock).")
    return f"{len(pinned)} packages have the pinned versions"


def _differs(name: str, wanted: str) -> str:
    try:
        found = version(name)
    except PackageNotFoundError:
        return f"{name} {wanted} is missing"
    return "" if found == wanted else f"{name} is {found}, not {wanted}"


async def page(_: Settings) -> str:
    """Every file that the live page and its scripts refer to is there."""
    files = pages.read_files()
    named = {match.decode() for file in files.values() for match in _REFERENCE.findall(file.body)}
    named |= {f"lib/{name}" for name in pages.LIBRARIES}
    if missing := sorted(named - files.keys()):
        raise Finding(
            f"{', '.join(missing)} missing: run `make page` in a checkout, or install the wheel "
            "again. Clicks and statistics work without the page."
        )
    return f"{len(files)} files of the live page found"
