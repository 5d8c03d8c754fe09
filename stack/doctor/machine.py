"""Checks of this machine: settings, open files, the data directory and its disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from clickmill import openfiles
from clickmill.settings import Settings
from stack.doctor.finding import Finding

LEAST_FREE_BYTES: Final = 1 << 30
LEAST_FREE_FILES: Final = 10_000


async def settings_in_use(settings: Settings) -> str:
    """Wrong settings end the command before any check, with code 2."""
    return f"{settings.worker_count} workers, banner IDs up to {settings.max_banner_id}"


async def open_files(settings: Settings) -> str:
    """A process may open enough files."""
    limit = openfiles.allow_most()
    if sentence := openfiles.too_few(limit, settings.max_connections):
        raise Finding(f"{sentence}.")
    return f"{limit} at a time, {settings.max_connections} of them connections of a worker"


async def data_dir(settings: Settings) -> str:
    """The directories of the settings are writable."""
    for path, option in _places(settings):
        if not os.access(_existing(path), os.W_OK | os.X_OK):
            raise Finding(
                f"{_existing(path)} can't be written to: change its owner, or choose another "
                f"{option}."
            )
    return str(Path(settings.data_dir).resolve())


async def disk(settings: Settings) -> str:
    """Their disks have space, and room for more files."""
    said = []
    for path, option in _places(settings):
        place = _existing(path)
        free, files = shutil.disk_usage(place).free, os.statvfs(place)
        if free < LEAST_FREE_BYTES:
            raise Finding(
                f"{place} has {free >> 20} MiB left: free some space, or choose another {option}."
            )
        if files.f_files and files.f_favail < LEAST_FREE_FILES:
            raise Finding(
                f"{place} has room for only {files.f_favail} more files (inodes): delete some, or "
                f"choose another {option}."
            )
        said.append(f"{free >> 30} GiB free in {place}")
    return ", ".join(said)


def _places(settings: Settings) -> list[tuple[Path, str]]:
    """Each directory that Clickmill writes to, with its option."""
    named = ((settings.data_dir, "--data-dir"), (settings.counters_dir, "--counters-dir"))
    return [(Path(path).resolve(), option) for path, option in named if path]


def _existing(path: Path) -> Path:
    """The directory, or the closest one above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())
