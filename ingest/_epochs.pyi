"""The contract of the counters file; `Counters` is the class that counts in it."""

from os import PathLike
from typing import Self
from uuid import UUID

from typing_extensions import disjoint_base

class CountersError(Exception): ...

@disjoint_base
class Epochs:
    """Three epochs of click counts in one mapped file: one counts, one is being sealed, and one
    is there for the minute that begins meanwhile. IDs are 0 to capacity-1."""

    @classmethod
    def create(cls, path: str | PathLike[str], source: bytes, boot_id: str, capacity: int) -> Self:
        """Make the file, all of its blocks allocated, with seq 1 as the first.

        Raises FileExistsError, OSError (ENOSPC: no room for it), CountersError (bad arguments).
        """
    @classmethod
    def open(cls, path: str | PathLike[str]) -> Self:
        """Map what a dead process left. Raises CountersError where it is no counters file."""
    @property
    def capacity(self) -> int: ...
    @property
    def source(self) -> UUID: ...
    @property
    def boot_id(self) -> str: ...
    @property
    def identity(self) -> tuple[int, int]:
        """(device, inode) of the file when it was made: a copy has another."""
