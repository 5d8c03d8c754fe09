"""Finding the programs that a benchmark needs, and building those written in Go.

A program that is missing is named, with the way to get it: the report then shows it as missing.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

GO_BUILD_SECONDS = 600
SBIN = "/usr/sbin:/sbin"
"""Debian keeps servers there, and a plain user's PATH leaves it out."""


class MissingProgramError(Exception):
    """A program is not on this machine; the sentence names it and how to get it."""


def path_of(name: str) -> str | None:
    """The path of a program; None where it is not installed."""
    return shutil.which(name) or shutil.which(name, path=SBIN)


def find(name: str, package: str) -> str:
    """The path of a program that a Debian package brings. Raises MissingProgramError."""
    found = path_of(name)
    if found is None:
        raise MissingProgramError(f"{name} is missing: type `sudo apt-get install {package}`")
    return found


def build_go(module: Path, name: str) -> str:
    """Build the command `name` of a Go module, and return the program's path."""
    go = path_of("go")
    if go is None:
        raise MissingProgramError("go is missing: install Go 1.25 or newer")
    target = module / "build" / name
    target.parent.mkdir(exist_ok=True)
    source = f"./{name}" if (module / name).is_dir() else "."
    built = subprocess.run(
        [go, "build", "-o", str(target), source],
        cwd=module, capture_output=True, text=True, timeout=GO_BUILD_SECONDS, check=False,
    )  # fmt: skip
    if built.returncode:
        reason = built.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise MissingProgramError(f"`go build {source}` in {module.name} failed: {reason[0]}")
    return str(target)
