"""The contract of the compiled fast path."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias, final

import uvloop

from ingest._fastcount import Counters
from ingest._meters import Meters

_Headers: TypeAlias = list[tuple[str, str]]

class _Cells(Protocol):
    """Where in the meters the fast path counts: cell numbers, and the histogram's bounds."""

    counter_post: int
    counter_get: int
    pixel_get: int
    click_get: int
    clicks: int
    duration_first: int
    duration_sum: int
    duration_bounds_ns: Sequence[int]
    last: int

SWEEPS_PER_TIMEOUT: Final[int]
"""A body is late when it is not in after so many calls of `Fastpath.sweep`."""

@final
class PendingClick:
    """A click whose body is on its way; only a Fastpath makes one."""

    def __call__(self, future: Any) -> None:
        """Count and answer it: its body is in, or will never be."""

class AnsweringLoop(uvloop.Loop):
    """The worker's event loop, which finishes pending clicks on Granian's thread."""

@final
class Fastpath:
    """Counts and answers plain clicks on Granian's thread; hands everything else on."""

    def __init__(
        self,
        counters: Counters,
        meters: Meters,
        hand_over: Callable[[Any], None],
        refuse: Callable[[Any, bool], None],
        answers: tuple[bytes, _Headers, _Headers, bytes, _Headers],
        redirects: dict[int, _Headers],
        cells: _Cells,
        body_max: int,
        prefix: bytes = b"",
    ) -> None:
        """`refuse` answers for a body that is late (True), or broke off (False).

        `redirects` is kept by reference: banner ID to the headers of its 302. A longer body than
        `body_max` is handed on. The same clicks are answered under the path `prefix`, too.
        """
    def schedule(self, watcher: Any) -> None:
        """Granian's scheduler entry: called once for each request, with the GIL held."""
    def sweep(self) -> None:
        """Refuse the clicks whose body is late: to be called SWEEPS_PER_TIMEOUT times within the
        time that a body has, on the event loop. So a click costs no timer of its own."""
