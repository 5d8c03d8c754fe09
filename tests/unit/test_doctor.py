"""The checks of `clickmill doctor` that need no server."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from aggregator.http import pages
from clickmill.settings import Settings
from stack.doctor import examine, installation, machine
from stack.doctor.finding import Finding, Kind

RESERVED = 1 | 2 | 3
SHELL = 125
"""The highest exit code that a shell does not use itself."""


def test_an_exit_code_names_every_kind_that_failed() -> None:
    assert sum(Kind) <= SHELL
    assert not sum(Kind) & RESERVED
    assert {check.kind for check in examine.CHECKS} == set(Kind)


def test_kinds_are_added_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fails(_: Settings) -> str:
        raise Finding("is broken: repair it.")

    async def passes(_: Settings) -> str:
        return "fine"

    checks = (
        examine.Check("one", Kind.MACHINE, fails),
        examine.Check("two", Kind.MACHINE, fails),
        examine.Check("three", Kind.NATS, passes),
        examine.Check("four", Kind.PROCESSES, fails),
    )
    monkeypatch.setattr(examine, "CHECKS", checks)
    assert examine.examine(Settings()) == Kind.MACHINE + Kind.PROCESSES
    assert capsys.readouterr().out.splitlines() == [
        "failed  one: is broken: repair it.",
        "failed  two: is broken: repair it.",
        "ok      three: fine",
        "failed  four: is broken: repair it.",
        "3 checks failed.",
    ]


def test_a_package_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asyncio.run(installation.packages(Settings())).endswith("have the pinned versions")
    pins = ["granian==0.1", "psycopg[binary,pool]==9", "not-there==1", 'x==1; extra == "dev"']
    monkeypatch.setattr(installation, "requires", lambda _: pins)
    with pytest.raises(Finding) as found:
        asyncio.run(installation.packages(Settings()))
    granian, psycopg, missing = str(found.value).partition(":")[0].split("; ")
    assert granian.endswith(", not 0.1")
    assert psycopg.startswith("psycopg is 3")
    assert missing == "not-there 1 is missing"


@pytest.mark.parametrize("name", ["main.js", "style.css", "lib/uPlot.esm.js"])
def test_a_missing_file_of_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    page = tmp_path / "page"
    shutil.copytree(pages.PAGE_DIR, page, ignore=shutil.ignore_patterns("node_modules"))
    (page / "lib").mkdir(exist_ok=True)
    for library in pages.LIBRARIES:
        (page / "lib" / library).touch()
    files = pages.read_files
    monkeypatch.setattr(pages, "read_files", lambda: files(page))
    assert "files of the live page found" in asyncio.run(installation.page(Settings()))
    (page / name).unlink()
    with pytest.raises(Finding, match=rf"^{name} missing: run `make page`"):
        asyncio.run(installation.page(Settings()))


def test_a_disk_without_space_or_inodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path / "new"), counters_dir=str(tmp_path))
    assert asyncio.run(machine.disk(settings)).count(f"GiB free in {tmp_path}") == 2
    monkeypatch.setattr(machine, "LEAST_FREE_FILES", 1 << 62)
    with pytest.raises(Finding, match=r"more files \(inodes\)"):
        asyncio.run(machine.disk(settings))
    monkeypatch.setattr(machine, "LEAST_FREE_BYTES", 1 << 62)
    with pytest.raises(Finding, match="MiB left: free some space, or choose another --data-dir"):
        asyncio.run(machine.disk(settings))
