"""What `make mutants` changes, and which tests must notice.

A module is named without its folder, as its tests are; `file::test` is a single test. Only quick
tests stand here: each is run once for each change to what it covers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CODE: Final = ("clickmill", "ingest", "aggregator")

TESTS: Final[dict[str, tuple[str, ...]]] = {
    "outbox": ("test_outbox",),
    "fold": ("test_fold", "test_fold_edges", "test_fold_model", "test_fold_keys"),
    "sums": ("test_sums", "test_fold_keys"),
    "keys": ("test_fold_keys",),
    "plausible": ("test_fold", "test_fold_edges"),
    "batches": ("test_batches",),
    "keyed": ("test_batches",),
    "segment": ("test_spool",),
    "spool": ("test_spool",),
    "source": ("test_source",),
    "sealer": ("test_sealer",),
    "reorder": ("test_reorder", "test_reorder_edges"),
    "completeness": ("test_completeness", "test_completeness_edges"),
    "leases": ("test_leases",),
    "redirects": ("test_targets",),
    "openfiles": ("test_openfiles",),
    "store": ("test_store", "test_store_parts", "test_store_minutes", "test_store_keys"),
    "source_status": (
        "test_source_status",
        "test_consumer::test_a_source_is_closed_on_request_once_its_mark_is_there",
        "test_consumer::test_an_unknown_source_has_the_mark_0",
        "test_consumer::test_an_invalid_request_for_a_mark_does_no_harm",
        "test_complete_through",
        "test_doctor_aggregators",
        "test_sources",
    ),
    "consumer": ("test_consumer",),
}
STARTED: Final = frozenset({"source_status", "consumer"})
"""Tested in aggregators that their tests start."""
SLOW: Final = STARTED | {"store"}
"""On a real Postgres and NATS: seconds for each change, so only where they are asked for."""

NOT_CHANGED: Final = (
    r"\blog\.(debug|info|warning|error|critical|log)\(",
    r"\b_complain\(",
    r"\braise \w+(\(|$)",
    r"\bfailpoint\(",
    r"\bassert\b",
)
"""Lines that begin such a statement: the words of messages, and what holds by itself."""


def code_file(root: Path, name: str) -> Path:
    """The one source file of this name, in whichever folder. Raises ValueError."""
    (found,) = (path for package in CODE for path in (root / package).rglob(name))
    return found


def test_file(root: Path, name: str) -> Path:
    """The one test file of this name. Raises ValueError."""
    (found,) = (root / "tests").rglob(name)
    return found
