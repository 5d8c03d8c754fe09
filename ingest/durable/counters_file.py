"""The file of a source's counters: making it, and whether what it holds may be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from uuid import UUID

from ingest._fastcount import Counters

BOOT_ID_FILE: Final = Path("/proc/sys/kernel/random/boot_id")
FOREIGN: Final = "counters.foreign"
BLANK: Final = bytes(8)


def open_counters(directory: Path) -> tuple[Counters | None, bool]:
    """(counters, trusted): None where they are sealed; trusted where this very file, in this very
    boot, is the one that its source counted in. Mapped pages do not outlive a power cut, and a
    copy's source may live on elsewhere, where it gives the same seqs to other clicks."""
    path = directory / "counters"
    if (directory / FOREIGN).exists() or (path.is_symlink() and not path.exists()):
        return None, False
    if not path.exists():
        return None, True
    if _is_blank(path):
        path.rename(directory / FOREIGN)
        return None, False
    counters = Counters.open(path)
    stat = path.stat()
    same_file = counters.identity == (stat.st_dev, stat.st_ino)
    same_source = str(counters.source) == directory.name
    return counters, counters.boot_id == boot_id() and same_file and same_source


def _is_blank(path: Path) -> bool:
    """Whether not even the counters' first page has reached the disk, as a power cut leaves it."""
    with path.open("rb") as file:
        return not file.read(len(BLANK)).strip(BLANK)


def make_counters(path: Path, name: UUID, capacity: int, elsewhere: Path | None) -> Counters:
    """A new file at `path`; or in `elsewhere`, where that is given, with a link at `path`."""
    real = path
    if elsewhere is not None:
        elsewhere.mkdir(mode=0o700, parents=True, exist_ok=True)
        real = elsewhere.resolve() / f"{name}.counters"
        path.symlink_to(real)
    return Counters.create(real, name.bytes, boot_id(), capacity)


def boot_id() -> str:
    """The kernel's ID of this boot: 36 characters."""
    return BOOT_ID_FILE.read_text(encoding="ascii").strip()
