"""The contract of the meters: unsigned 64-bit values that wrap at 2**64."""

from typing import final

from typing_extensions import Buffer

@final
class Meters:
    """Meters 0 to size-1 in a writable, mapped buffer of 8*size bytes; safe under the GIL."""

    def __init__(self, buffer: Buffer) -> None: ...
    @property
    def size(self) -> int: ...
    def add(self, cell: int, n: int = 1) -> None:
        """Add n to a meter. Raises IndexError where there is no such meter."""
    def set(self, cell: int, value: int) -> None:
        """Set a meter. Raises IndexError where there is no such meter."""
    def get(self, cell: int) -> int:
        """Read a meter. Raises IndexError where there is no such meter."""
