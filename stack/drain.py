"""`clickmill drain DIR`: sends the clicks in the data directory of a lost node to Postgres."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from clickmill import logs
from clickmill.settings import Settings
from ingest.drain import InUseError, drain_directory
from stack import lock, plan
from stack.errors import StackError


def run(settings: Settings) -> int:
    """The exit code: 0 if Postgres has all clicks, 3 if not within the drain time-out.

    Raises StackError if the directory is in use or is not a data directory.
    """
    plan.check_extensions()
    data_dir = Path(settings.data_dir).resolve()
    if not (data_dir / "ingest").is_dir():
        raise StackError(
            f"{data_dir} is not the data directory of a worker: it has no ingest/ in it. Use the "
            "directory that the worker had as --data-dir."
        )
    lock.take(data_dir)
    logs.configure(settings.log_level, settings.log_format)
    settings = msgspec.structs.replace(settings, data_dir=str(data_dir))
    try:
        code = asyncio.run(drain_directory(settings))
    except InUseError as error:
        raise StackError(str(error)) from error
    if code == 0:
        print(f"Postgres has every click of {data_dir}.")
    return code
