"""What the two embedded servers have in common: how to start one, and the files that describe it.

"Embedded": their programs come with Python packages, their data is in the data directory, they
listen only on the loopback address, and they die with the supervisor.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from clickmill import heartbeat
from stack.errors import StackError

LOOPBACK: Final = "127.0.0.1"
USER: Final = "clickmill"
PRIVATE: Final = 0o700
SECRET_BYTES: Final = 24


@dataclass(frozen=True)
class Server:
    """One embedded server, ready to start. `address` is a URL or DSN with the password.

    For Postgres, `reader` is the address for read-only clients, and `admin` the administrator's,
    which only the supervisor uses.
    """

    name: str
    argv: tuple[str, ...]
    cwd: Path
    port: int
    address: str
    reader: str = ""
    admin: str = ""
    account: pwd.struct_passwd | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    env: dict[str, str] = field(default_factory=lambda: {"PATH": os.defpath, "LC_ALL": "C"})

    def popen_options(self) -> dict[str, Any]:
        """Keyword arguments of `subprocess.Popen`: directory, user, and death signal."""
        return {
            "cwd": self.cwd,
            "env": self.env,
            "start_new_session": True,
            "preexec_fn": before_exec(os.getpid(), self.death_signal),
            **as_account(self.account),
        }


def before_exec(parent: int, death_signal: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """A `preexec_fn` for other programs: the kernel sends them this signal when `parent` dies."""
    return lambda: heartbeat.die_with_parent(parent, death_signal)


def as_account(account: pwd.struct_passwd | None) -> dict[str, Any]:
    """Keyword arguments of `subprocess.Popen` that start a program as that user."""
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def private_dir(path: Path) -> Path:
    """The directory, with access only for this user: created so, or changed if it was there.

    One of another user is left as it is. One that is shared with others, such as /tmp, is refused.
    """
    try:
        path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & stat.S_ISVTX:
            raise StackError(f"{path} is shared with others: choose another with --data-dir.")
        if mode != PRIVATE:
            with contextlib.suppress(PermissionError):
                path.chmod(PRIVATE)
    except OSError as error:
        raise StackError(
            f"{path} can't be created ({error.strerror}): choose another with --data-dir."
        ) from error
    return path


def secret(path: Path) -> str:
    """The password in that file, which only its owner can read; a new one if it is missing."""
    try:
        if path.exists():
            return path.read_text("ascii").strip()
        fresh = secrets.token_urlsafe(SECRET_BYTES)
        write_private(path, fresh + "\n")
    except OSError as error:
        raise StackError(
            f"{path} can't be used ({error.strerror}): run Clickmill as the user who owns "
            f"{path.parent}, or choose another directory with --data-dir."
        ) from error
    return fresh


def write_private(path: Path, text: str) -> None:
    """Writes a file atomically, readable only by this user."""
    draft = path.with_name(path.name + ".new")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def write_needed(path: Path, text: str) -> None:
    """Like `write_private`, but raises StackError, which says what to do."""
    try:
        write_private(path, text)
    except OSError as error:
        raise StackError(
            f"{path} can't be written ({error.strerror}): free space on its disk, or choose "
            "another directory with --data-dir."
        ) from error


def note(data_dir: Path, name: str, facts: dict[str, object]) -> None:
    """Stores the facts of a running process in `run/<name>.json`, for doctor and tests."""
    write_needed(private_dir(data_dir / "run") / f"{name}.json", json.dumps(facts) + "\n")


def noted(data_dir: Path, name: str) -> dict[str, Any]:
    """The facts that `note` stored; empty if there are none."""
    try:
        facts = json.loads((data_dir / "run" / f"{name}.json").read_text())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
