"""How many files a process may have open, and how many of those may be connections.

Why: every connection is an open file. A server that takes connections until none is left can't
open a segment of its spool any more, nor connect to NATS again. So the limit is raised as far as
the system allows, and connections keep out of the last of it.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from typing import Final

RESERVE: Final = 128
"""Open files besides connections: spools, metrics, NATS, Postgres, the sources of dead workers."""
LEAST_CONNECTIONS: Final = 16


def allow_most() -> int:
    """Raise this process's limit of open files to the hard one; the limit that holds now."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # the kernel's own limit may be lower still
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def connections_within(limit: int, wanted: int) -> int:
    """How many of the wanted connections fit into a limit of open files."""
    return min(wanted, max(LEAST_CONNECTIONS, limit - RESERVE))


def too_few(limit: int, wanted: int) -> str:
    """A sentence where not all of the wanted connections fit; else empty."""
    if (taken := connections_within(limit, wanted)) == wanted:
        return ""
    return (
        f"a process may open {limit} files here: at most {taken} connections are taken at a time, "
        f"not the {wanted} of CLICKMILL_MAX_CONNECTIONS; raise the hard limit to "
        f"{wanted + RESERVE} (ulimit -Hn, LimitNOFILE=, --ulimit nofile)"
    )
