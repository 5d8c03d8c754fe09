"""The release before: the sources of commit 91286bf, compiled once, run by this environment.

It knows no versions of frames, no migrations and no drain. Its sources are in tests/data, because a
checkout need not have the history.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
ARCHIVE: Final = ROOT / "tests" / "data" / "clickmill-91286bf.tar.gz"
BUILD_S: Final = 600


def program() -> tuple[str, ...]:
    """The first words of its command. Its processes inherit the path."""
    return ("env", f"PYTHONPATH={_built()}", sys.executable, "-P", "-m", "stack.cli")


def _built() -> Path:
    """Its packages with compiled modules. Several runs of the tests build them once."""
    digest = hashlib.sha256(ARCHIVE.read_bytes()).hexdigest()[:12]
    home = ROOT / "build" / f"previous-{digest}-{sys.implementation.cache_tag}"
    home.parent.mkdir(exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / ".built").exists():
            _build(home)
    return home


def _build(home: Path) -> None:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(home, filter="data")
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=home, check=True, capture_output=True, timeout=BUILD_S,
    )  # fmt: skip
    (home / ".built").touch()
