"""Runs pip-audit on the dependencies, and fails if only a part of them was checked.

    python scripts/audit.py requirements.lock

pip-audit asks PyPI's vulnerability service. Where that cannot be reached, or a mirror of the
registry answers in its place, it skips every package and still ends with "No known
vulnerabilities found" and 0 (seen). So this script reads its report: a vulnerability fails, and so
does a package that was skipped while others were checked. If nothing could be checked, it prints a
warning; with AUDIT=strict (for a CI with network access) that fails too.

The repository has no vulnerability list: the one that is available as a package
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
"""IDs of vulnerabilities that do not apply here, each with the reason. None today."""


def main() -> int:
    """0: clean, or nothing could be checked; 1: a vulnerability, or a part was not checked."""
    locks = sys.argv[1:] or ["requirements.lock"]
    dependencies = [entry for lock in locks for entry in report(lock)]
    skipped = [entry["name"] for entry in dependencies if "skip_reason" in entry]
    found = [(entry, vuln) for entry in dependencies for vuln in entry.get("vulns", [])]
    relevant = [(entry, vuln) for entry, vuln in found if vuln["id"] not in ACCEPTED]
    for entry, vuln in relevant:
        fixed = ", ".join(vuln["fix_versions"]) or "no version yet"
        print(f"audit: {entry['name']} {entry['version']} has {vuln['id']}; fixed in {fixed}")
    if len(skipped) == len(dependencies):
        print(
            "audit: NOT DONE: the vulnerability service can't be reached from here, so the "
            "dependencies were not checked; run `make lint` where PyPI itself is reachable"
        )
        return int(os.environ.get("AUDIT") == "strict")
    if skipped:
        print(f"audit: {', '.join(skipped)} could not be checked")
    return int(bool(relevant or skipped))


def report(lock: str) -> list[dict[str, Any]]:
    """pip-audit's entries for one lock file; empty if it could not run."""
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
