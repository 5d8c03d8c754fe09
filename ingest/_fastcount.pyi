"""The contract of the compiled counters. IDs are 0 to capacity-1, counts and totals below 2**64."""

from typing import Any, final

from ingest._epochs import Epochs
from ingest._parts import Part

@final
class Counters(Epochs):
    """Counts clicks in the active epoch, and freezes it for the sealer to read."""

    clock_offset: int
    """Seconds added to the clock: 0, but for tests of clocks that jump."""

    max_pairs: int
    """Pairs of one part at most, 1 to MAX_PAIRS: it holds for epochs that are frozen from now on,
    and stays with each of them, so that sealing again gives the same parts."""

    def hit(self, banner_id: int, clicks: int = 1) -> bool:
        """Count now; False, and nothing counted, where the ID is over the maximum."""
    def hit_at(self, banner_id: int, clicks: int, now_ns: int) -> bool:
        """`hit`, with the clock handed in (Unix nanoseconds)."""
    def hit_all(self, clicks: list[Any], most: int = ...) -> int:
        """Count all items in one minute: the sum of their counts. None is counted if that sum is
        over `most`, or where item i has an ID over the maximum; then the result is -1-i. Items have
        integers `bannerID` and `count`, validated before: 0 <= bannerID < 2**64."""
    def flip(self, now_ns: int | None = None) -> bool:
        """Freeze the active epoch, if it has clicks and no other is frozen; whether it did."""
    def frozen(self) -> list[Part]:
        """The oldest frozen epoch's parts; empty where none is. Changes nothing."""
    def rest(self, sealed_at: int) -> list[Part]:
        """Everything, oldest first, for an adopter: the frozen epochs' parts, and the active
        one's, sealed at this moment (Unix nanoseconds). Its process must be dead."""
    def clear(self) -> None:
        """Forget the oldest frozen epoch. Only after its frames are on disk."""
    def now(self) -> int:
        """The clock that clicks are counted by, in Unix nanoseconds."""
    def idle_as_of(self) -> int:
        """Now (Unix nanoseconds), if all epochs are empty; else 0."""
    @property
    def active_minute(self) -> int:
        """The active epoch's minute; -1 before its first click."""
    @property
    def pending(self) -> int:
        """Clicks in all epochs: counted, not yet in the spool (or just now being cleared)."""
    @property
    def total(self) -> int:
        """All clicks of this source since its first."""
    @property
    def active_seq(self) -> int:
        """The seq that the active epoch's first part has or will have."""
    @property
    def next_seq(self) -> int:
        """The first seq that no epoch needs."""
