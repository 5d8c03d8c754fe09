"""The contract of the compiled fast path."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, final

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

@final
class Fastpath:
    """Counts and answers plain clicks on Granian's thread; hands everything else on."""

    def __init__(
        self,
        counters: Counters,
        meters: Meters,
        hand_over: Callable[[Any], None],
        answers: tuple[bytes, _Headers, _Headers, bytes, _Headers],
        redirects: dict[int, _Headers],
        cells: _Cells,
    ) -> None:
        """`redirects` is kept by reference: banner ID to the headers of its 302."""
    def schedule(self, watcher: Any) -> None:
        """Granian's scheduler entry: called once for each request, with the GIL held."""
