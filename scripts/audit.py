"""Asks pip-audit whether what we run on has known holes, and takes no silence for a yes.

    python scripts/audit.py requirements.lock

pip-audit asks PyPI's vulnerability service. Where that cannot be reached, or a mirror of the
registry answers in its place, it skips every package and still ends with "No known
vulnerabilities found" and 0 (seen). So its report is read here: a hole fails, a package that was
skipped among others that were not fails, and where nothing at all could be asked the line below
says so, loudly; AUDIT=strict makes that fail too (for a CI that has the network).

No list of holes is kept in the repository: the one that the registry offers as a package
(safety-db) ends in 2021, before every version that is pinned here, and would find nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Final

SECONDS: Final = 180
ACCEPTED: Final[dict[str, str]] = {}
"""IDs of holes that do not concern us, each with the reason. None today."""


def main() -> int:
    """0: clean, or nothing could be asked; 1: a hole, or a part was not asked."""
    locks = sys.argv[1:] or ["requirements.lock"]
    dependencies = [entry for lock in locks for entry in report(lock)]
    skipped = [entry["name"] for entry in dependencies if "skip_reason" in entry]
    holes = [(entry, hole) for entry in dependencies for hole in entry.get("vulns", [])]
    open_holes = [(entry, hole) for entry, hole in holes if hole["id"] not in ACCEPTED]
    for entry, hole in open_holes:
        fixed = ", ".join(hole["fix_versions"]) or "no version yet"
        print(f"audit: {entry['name']} {entry['version']} has {hole['id']}; fixed in {fixed}")
    if len(skipped) == len(dependencies):
        print(
            "audit: NOT DONE: the vulnerability service can't be reached from here, so nothing is "
            "known of holes in what we run on; run `make lint` where PyPI itself is reachable"
        )
        return int(os.environ.get("AUDIT") == "strict")
    if skipped:
        print(f"audit: {', '.join(skipped)} could not be asked about")
    return int(bool(open_holes or skipped))


def report(lock: str) -> list[dict[str, Any]]:
    """pip-audit's entries for one lock file; none where it could not ask at all."""
    words = [sys.executable, "-m", "pip_audit", "-r", lock, "--disable-pip", "--require-hashes",
             "--progress-spinner", "off", "--format", "json", "--timeout", "8"]  # fmt: skip
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return []
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return []
    return found


if __name__ == "__main__":
    sys.exit(main())
