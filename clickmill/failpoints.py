"""Named places at which a test makes a process die, hang or fail, inside the real programs.

Why: "killed between the fsync and the clear" can't be hit from outside. Each step of the
protocol names itself once; CLICKMILL_FAILPOINTS chooses what happens there, for example

    CLICKMILL_FAILPOINTS="ingest.append=kill@3;aggregator.before_commit=sleep:0.5"

Actions: `kill` (SIGKILL to oneself), `error` (OSError, as a broken disk gives), `enospc` (a full
disk), `sleep:SECONDS`, `stop` (SIGSTOP). `@N` fires at the Nth passage alone, `@N+` from the Nth
on; without it, at every one. When the variable is empty `failpoint` is a function that returns
at once; the click path itself has none.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from collections import Counter
from typing import Final, NamedTuple

ENVIRONMENT: Final = "CLICKMILL_FAILPOINTS"

NAMES: Final = frozenset(
    {
        "ingest.flip", "ingest.append", "ingest.appended", "ingest.fsync", "ingest.clear",
        "ingest.cleared", "ingest.publish", "ingest.acknowledged", "ingest.trim",
        "batches.make_source", "batches.stored",
        "adopt.lock", "adopt.seal", "adopt.sealed", "adopt.discard", "adopt.remove",
        "aggregator.apply", "aggregator.keys", "aggregator.before_commit",
        "aggregator.after_commit", "aggregator.acknowledge", "aggregator.broadcast",
        "backup.frames", "backup.dump", "backup.dumped",
        "restore.prepared", "restore.tables", "restore.frames",
        "rollup.close", "rollup.closed", "rollup.folded", "rollup.derived", "rollup.before_commit",
        "rollup.committed",
    }
)  # fmt: skip

_RULE: Final = re.compile(
    r"(?P<name>[a-z_.]+)=(?P<action>kill|error|enospc|stop|sleep:(?P<seconds>\d+(\.\d+)?))"
    r"(@(?P<nth>[1-9]\d*)(?P<on>\+)?)?"
)


class FailpointError(ValueError):
    """A failpoint setting that can't be read; the message says which part, and what is allowed."""


class _Rule(NamedTuple):
    action: str
    seconds: float
    nth: int
    on: bool


def _parse(text: str) -> dict[str, _Rule]:
    rules = {}
    for part in filter(None, (p.strip() for p in text.split(";"))):
        match = _RULE.fullmatch(part)
        if match is None or match["name"] not in NAMES:
            raise FailpointError(
                f"{ENVIRONMENT}: {part!r} is not NAME=ACTION[@N[+]], with an ACTION of kill, "
                f"error, enospc, stop or sleep:SECONDS and a NAME of {', '.join(sorted(NAMES))}"
            )
        action = match["action"].partition(":")[0]
        rules[match["name"]] = _Rule(
            action, float(match["seconds"] or 0), int(match["nth"] or 0), bool(match["on"])
        )
    return rules


_rules: Final = _parse(os.environ.get(ENVIRONMENT, ""))
_passages: Final[Counter[str]] = Counter()


def _act(name: str) -> None:
    rule = _rules.get(name)
    if rule is None:
        return
    _passages[name] += 1
    seen = _passages[name]
    if rule.nth and not (seen >= rule.nth if rule.on else seen == rule.nth):
        return
    if rule.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif rule.action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif rule.action == "sleep":
        time.sleep(rule.seconds)
    else:
        number = errno.ENOSPC if rule.action == "enospc" else errno.EIO
        raise OSError(number, f"{os.strerror(number)} (failpoint {name})")


def _pass(name: str) -> None:
    return None


failpoint = _act if _rules else _pass
"""Call with a name of NAMES where a step of the protocol begins or has ended."""
