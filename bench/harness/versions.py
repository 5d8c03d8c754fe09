"""The versions of everything that a benchmark's results depend on."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess

from bench.load.programs import path_of

PACKAGES = ("granian", "uvloop", "msgspec", "numpy", "fastapi", "uvicorn", "redis", "nats-py")
PROGRAMS = {
    "wrk": (["wrk", "-v"], r"wrk (?:debian/)?([\d.]+)"),
    "go": (["go", "version"], r"go([\d.]+)"),
    "nginx": (["nginx", "-v"], r"nginx/([\d.]+)"),
    "redis-server": (["redis-server", "--version"], r"v=([\d.]+)"),
    "nats-server": (["nats-server", "--version"], r"v([\d.]+)"),
}
SECONDS = 10


def _program(command: list[str], pattern: str) -> str | None:
    path = path_of(command[0])
    if path is None:
        return None
    done = subprocess.run(
        [path, *command[1:]], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    match = re.search(pattern, done.stdout + done.stderr)
    return match[1] if match else None


def found() -> dict[str, str]:
    """Name and version of what is here; what is missing is left out."""
    versions: dict[str, str] = {}
    for name in ("clickmill", *PACKAGES):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name, (command, pattern) in PROGRAMS.items():
        version = _program(command, pattern)
        if version:
            versions[name] = version
    return versions
