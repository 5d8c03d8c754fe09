"""scripts/audit.py: a vulnerability fails, and so does a package that was silently skipped."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parents[2] / "scripts" / "audit.py"
SPEC = importlib.util.spec_from_file_location("audit", PATH)
assert SPEC is not None
assert SPEC.loader is not None
audit = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(audit)

CLEAN = {"name": "a", "version": "1", "vulns": []}
HOLE = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("entries", "strict", "code", "said"),
    [
        ([CLEAN], "", 0, ""),
        ([CLEAN, HOLE], "", 1, "b 2 has CVE-1; fixed in 3"),
        ([CLEAN, SKIPPED], "", 1, "c could not be checked"),
        ([SKIPPED], "", 0, "NOT DONE"),
        ([SKIPPED], "strict", 1, "NOT DONE"),
        ([], "", 0, "NOT DONE"),
    ],
)
def test_reports_of_pip_audit(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    entries: list[dict[str, Any]],
    strict: str,
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr(audit, "report", lambda _: entries)
    monkeypatch.setattr("sys.argv", ["audit.py"])
    monkeypatch.setenv("AUDIT", strict)
    assert audit.main() == code
    assert said in capsys.readouterr().out
