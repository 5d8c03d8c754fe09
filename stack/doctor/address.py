"""Where the servers are that the checks connect to, and what their errors say."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from clickmill.retry import first_line
from clickmill.settings import Settings
from stack import lock
from stack.doctor.finding import Finding
from stack.embedded import server as embedded_server

REACH_SECONDS: Final = 3


def embedded_address(settings: Settings, name: str, flag: str) -> str:
    """The address of the embedded server of this name. Raises Finding if it does not run."""
    data_dir = Path(settings.data_dir)
    address = embedded_server.noted(data_dir, name).get("address")
    if not address:
        raise Finding(
            "no address is given and no embedded server has run here: start `clickmill up`, "
            f"or set {flag}."
        )
    if not _is_running(data_dir):
        raise Finding("its embedded server is not running: start `clickmill up`.")
    return str(address)


def _is_running(data_dir: Path) -> bool:
    pid = lock.holder(data_dir)
    return pid.isdigit() and Path(f"/proc/{pid}").exists()


def words(error: BaseException) -> str:
    """What an error says, in one line."""
    if isinstance(error, TimeoutError):
        return f"no answer within {REACH_SECONDS} s"
    return first_line(error)
