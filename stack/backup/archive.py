"""The backup file: complete or not a backup, and readable only by its owner.

It is a zip archive, so `unzip -p FILE database.dump | pg_restore` works without Clickmill. The
directory of an archive is written last, so a truncated file has none; and the file gets its name
only when all of it is on disk. `check` also compares the checksum of each part.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from zipfile import BadZipFile, ZipFile

import msgspec

from ingest.durable.directory import sync_directory
from stack.errors import StackError

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
FRAMES: Final = "frames"
DATABASE: Final = "database.dump"
CHUNK_BYTES: Final = 1 << 20
PRIVATE: Final = 0o600
DRAFT: Final = ".part"
_DAMAGED: Final = (BadZipFile, KeyError, EOFError, zlib.error, NotImplementedError, ValueError)


class Manifest(msgspec.Struct, frozen=True):
    """What is in a backup. `id` distinguishes it from every other; `schema` is a name in Postgres.

    `compatible_from` is the oldest version of the tables whose programs can write to these.
    """

    format: int
    id: str
    created_at: str
    clickmill: str
    postgres: int
    schema: str
    compatible_from: int
    frames: int
    clicks_in_frames: int


@contextlib.contextmanager
def new(path: Path) -> Iterator[ZipFile]:
    """An archive that gets the name `path` when the block ends without an error.

    Raises StackError if the file exists or can't be written.
    """
    if path.exists():
        raise StackError(f"{path} exists: choose another name, or remove that file first.")
    draft = path.with_name(path.name + DRAFT)
    try:
        with _opened(draft) as fd, os.fdopen(fd, "wb", closefd=False) as file:
            try:
                with ZipFile(file, "w") as archive:
                    yield archive
                file.flush()
                os.fsync(fd)
                draft.rename(path)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
        sync_directory(path.parent)
    except PermissionError as error:
        raise StackError(
            f"{error.filename}: {error.strerror}. Run the backup as the user who owns the data "
            "directory, in a directory that this user can write to."
        ) from error
    except OSError as error:
        raise StackError(
            f"{path} can't be written ({error.strerror}): free space on its disk, or choose "
            "another place."
        ) from error


@contextlib.contextmanager
def _opened(draft: Path) -> Iterator[int]:
    """The draft, empty and locked; one that a killed backup left behind is used again."""
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchmod(fd, PRIVATE)
        os.ftruncate(fd, 0)
        yield fd
    except BlockingIOError as error:
        raise StackError(
            f"Another backup is writing {draft}: wait until it is complete."
        ) from error
    finally:
        os.close(fd)


def write_manifest(archive: ZipFile, manifest: Manifest) -> None:
    """The first part."""
    archive.writestr(MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))


def check(path: Path, on_bytes: Callable[[int], None]) -> Manifest:
    """The manifest of a complete, undamaged backup. Raises StackError for anything else.

    `on_bytes` is called with the size of each piece that was read.
    """
    try:
        with ZipFile(path) as archive:
            for name in (FRAMES, DATABASE):
                with archive.open(name) as part:
                    while piece := part.read(CHUNK_BYTES):
                        on_bytes(len(piece))
            return _manifest(archive, path)
    except _DAMAGED as error:
        raise StackError(
            f"{path} is not a complete Clickmill backup ({error}): use another one."
        ) from error
    except OSError as error:
        raise StackError(f"{path} can't be read ({error.strerror}).") from error


def _manifest(archive: ZipFile, path: Path) -> Manifest:
    content = archive.read(MANIFEST)
    if msgspec.json.decode(content, type=_Format).format != FORMAT:
        raise StackError(f"{path} was written by a newer release: restore it with that release.")
    return msgspec.json.decode(content, type=Manifest)


class _Format(msgspec.Struct):
    format: int


def size(path: Path) -> int:
    """The bytes that `check` reads; 0 if the file is not an archive."""
    try:
        with ZipFile(path) as archive:
            return sum(archive.getinfo(name).file_size for name in (FRAMES, DATABASE))
    except (OSError, *_DAMAGED):
        return 0
