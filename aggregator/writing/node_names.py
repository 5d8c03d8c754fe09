"""Notices that two machines have the same node name, by the boot IDs in their heartbeats.

Why: `clickmill sources give-up` and `completeBut` name nodes. Workers of a machine share its name,
and a machine that restarts has a new boot ID, so a name is shared only if the machine that was
there first is heard again after the other. No I/O; time comes in as monotonic seconds.
"""

from __future__ import annotations

from itertools import permutations
from typing import Final, NamedTuple

FORGET_S: Final = 10.0
MAX_NODES: Final = 10_000


class _Heard(NamedTuple):
    first: float
    last: float


class NodeNames:
    """The machines of each name that sent a heartbeat lately."""

    def __init__(self) -> None:
        self._nodes: dict[str, dict[str, _Heard]] = {}

    def heard(self, node: str, machine: str, now: float) -> None:
        """A heartbeat of a worker. Workers of earlier releases have no `machine`."""
        if not machine or (node not in self._nodes and len(self._nodes) >= MAX_NODES):
            return
        machines = self._nodes.setdefault(node, {})
        known = machines.get(machine)
        machines[machine] = _Heard(known.first if known else now, now)

    def shared(self, now: float) -> list[str]:
        """Names that several machines have at this moment."""
        recent = {
            node: {m: h for m, h in machines.items() if now - h.last < FORGET_S}
            for node, machines in self._nodes.items()
        }
        self._nodes = {node: machines for node, machines in recent.items() if machines}
        return sorted(
            node
            for node, machines in self._nodes.items()
            if any(a.first < b.first < a.last for a, b in permutations(machines.values(), 2))
        )
