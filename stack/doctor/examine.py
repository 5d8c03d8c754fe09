"""Runs all checks, prints a line for each, and returns the exit code."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from clickmill.settings import Settings
from stack.doctor import installation, machine, pipeline, servers
from stack.doctor.finding import Finding, Kind, Passed
from stack.errors import StackError


class Check(NamedTuple):
    """One line of the output."""

    name: str
    kind: Kind
    run: Callable[[Settings], Awaitable[str | Passed]]


CHECKS: Final = (
    Check("programs", Kind.INSTALLATION, installation.programs),
    Check("packages", Kind.INSTALLATION, installation.packages),
    Check("page", Kind.INSTALLATION, installation.page),
    Check("settings", Kind.MACHINE, machine.settings_in_use),
    Check("open files", Kind.MACHINE, machine.open_files),
    Check("data directory", Kind.MACHINE, machine.data_dir),
    Check("disk", Kind.MACHINE, machine.disk),
    Check("clock", Kind.MACHINE, servers.clock),
    Check("NATS", Kind.NATS, pipeline.nats_server),
    Check("aggregators", Kind.PROCESSES, pipeline.aggregators),
    Check("Postgres", Kind.POSTGRES, servers.postgres),
    Check("ports", Kind.PROCESSES, servers.ports),
)


def examine(settings: Settings) -> int:
    """The exit code: 0 if every check has passed, else the sum of the kinds that failed."""
    logging.getLogger("clickmill").addHandler(logging.NullHandler())  # the findings are enough
    return asyncio.run(_examine(settings))


async def _examine(settings: Settings) -> int:
    failed = [check for check in CHECKS if not await _passes(check, settings)]
    if not failed:
        print("All checks passed.")
    else:
        print("1 check failed." if len(failed) == 1 else f"{len(failed)} checks failed.")
    return sum({check.kind for check in failed})


async def _passes(check: Check, settings: Settings) -> bool:
    try:
        result = await check.run(settings)
    except (Finding, StackError) as finding:
        print(f"failed  {check.name}: {finding}")
        return False
    passed = result if isinstance(result, Passed) else Passed(result)
    print(f"ok      {check.name}: {passed.text}")
    for warning in passed.warnings:
        print(f"warning {check.name}: {warning}")
    return True
