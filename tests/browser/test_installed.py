"""What is built from a clean copy of the project, installed elsewhere, and run by a plain user.

A clean copy is what git knows. The page's libraries come from the checkout, where `make page`
put them, so that this test needs no registry; the same holds for what Clickmill depends on: the
new environment looks for it in the checkout's, but not at the checkout itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import expect

from aggregator.http.pages import LIBRARIES
from tests.browser.test_live_page import Watched, browser, tab
from tests.support.fix_system import QUICK, System

__all__ = ["browser", "tab"]
ROOT = Path(__file__).parents[2]
PLAIN_USER = "nobody"
# As root the plain user is another account. It may read everything, for the checkout and even the
# interpreter may lie where only root can look (/root), and can do nothing else that root could.
AS_PLAIN_USER = (
    "setpriv", f"--reuid={PLAIN_USER}", "--clear-groups", "--regid=nogroup",
    "--bounding-set=-all,+dac_read_search", "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search", "--no-new-privs",
    "--securebits=+no_setuid_fixup",  # or access(2), which initdb asks, would not know of it
    "--",
)  # fmt: skip


class Built(NamedTuple):
    """The two files, and the names in them."""

    sdist: Path
    wheel: Path


def files_of_git() -> list[str]:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in names.split("\0") if name and (ROOT / name).exists()]


def files_within(names: list[str]) -> set[str]:
    """The same, with the files of a folder in place of a link to it."""
    links = {name for name in names if (ROOT / name).is_dir()}
    behind = {str(path.relative_to(ROOT)) for n in links for path in (ROOT / n).iterdir()}
    return set(names) - links | behind


def clean_copy(home: Path) -> Path:
    """The project as a clone would have it, with what has not been committed yet."""
    for name in files_of_git():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, home / name, follow_symlinks=False)
    return home


def build(hook: str, source: Path, out: Path, env: dict[str, str] | None = None) -> str:
    """Calls a hook of the build back end, as pip does, with what is installed; what it prints."""
    call = f"from setuptools import build_meta; build_meta.{hook}({str(out)!r})"
    done = subprocess.run(
        [sys.executable, "-c", call], cwd=source, env=env, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert env or done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist from a clean copy, and the wheel from that sdist."""
    source = clean_copy(tmp_path_factory.mktemp("source"))
    shutil.copytree(ROOT / "aggregator/page/lib", source / "aggregator/page/lib")
    out = tmp_path_factory.mktemp("dist")
    build("build_sdist", source, out)
    (sdist,) = out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(out, filter="data")
    build("build_wheel", out / sdist.name.removesuffix(".tar.gz"), out)
    return Built(sdist, *out.glob("*.whl"))


def test_the_sdist_is_the_whole_project(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    missing = files_within(files_of_git()) - inside
    assert not missing
    assert "aggregator/page/lib/uPlot.esm.js" in inside
    assert not [name for name in inside if name.endswith((".so", ".pyc"))]


def test_the_wheel_has_the_runtime_files_only(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        inside = set(archive.namelist())
        (metadata,) = (name for name in inside if name.endswith("/METADATA"))
        facts = HeaderParser().parsestr(archive.read(metadata).decode())
    ours = re.compile(r"(clickmill|ingest|aggregator|stack)/")
    needed = {name for name in files_within(files_of_git()) if ours.match(name)}
    missing = {name for name in needed if not name.endswith((".pyx", ".pxd"))} - inside
    assert not missing
    assert {f"aggregator/page/lib/{name}" for name in LIBRARIES} <= inside
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    modules = {f"{name.removesuffix('.pyx')}{suffix}" for name in needed if name.endswith(".pyx")}
    assert modules <= inside
    extra = {name for name in inside if not ours.match(name) and ".dist-info/" not in name}
    assert not extra
    for package in ("cython", "setuptools"):
        assert not [line for line in facts.get_all("Requires-Dist") or [] if package in line]


def test_without_the_libraries_and_npm_the_build_fails_with_a_message(tmp_path: Path) -> None:
    source = clean_copy(tmp_path / "source")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("npm", "node"):  # there, but the registry can't be reached
        (tools / name).write_text("#!/bin/sh\nexit 1\n")
        (tools / name).chmod(0o755)
    for path in (f"{tools}:{os.environ['PATH']}", "/nowhere"):
        for hook in ("build_wheel", "build_sdist"):
            said = build(hook, source, tmp_path, {**os.environ, "PATH": path})
            assert "type `make page`, then build again" in said
    assert not list(tmp_path.glob("*.whl"))
    assert not list(tmp_path.glob("*.tar.gz"))


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of the plain user, on a way that everybody may go."""
    with tempfile.TemporaryDirectory(prefix="clickmill-installed-") as made:
        path = Path(made)
        path.chmod(0o755)
        (path / "data").mkdir()
        if os.geteuid() == 0:
            shutil.chown(path / "data", PLAIN_USER)
        yield path


def installed(built: Built, home: Path) -> Path:
    """The program `clickmill` of a new environment."""
    environment = home / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    install = ["--python", python, "install", "-q", "--no-deps", "--no-index", built.wheel]
    subprocess.run([sys.executable, "-m", "pip", *map(str, install)], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    # A path file that only a path file names is not read: the checkout's own is one of those.
    (site / "depends.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = "import stack, sys; print(stack.__file__, *sys.path, sep='\\n')"
    found = subprocess.run(
        [python, "-c", where], cwd=home, capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith(str(environment))
    assert str(ROOT) not in found.stdout.splitlines()
    return environment / "bin" / "clickmill"


def test_the_wheel_runs_elsewhere_as_a_plain_user(built: Built, home: Path, tab: Watched) -> None:
    program = installed(built, home)
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["clickmill", built.wheel.name.split("-")[1]]
    root = os.geteuid() == 0
    words = [*(AS_PLAIN_USER if root else ()), str(program)]
    running = System("up", home / "data", dict(QUICK), program=words, cwd=home / "data")
    try:
        running.wait_ready()
        assert Path(f"/proc/{running.pid}").stat().st_uid != 0
        assert running.click(17) == 1
        running.wait_counts(17, 1)
        tab.page.goto(running.stats_url)
        expect(tab.page.locator("#state")).to_have_attribute("data-state", "live")
        expect(tab.page.locator("#half-hour")).to_have_text("1")
        tab.check_quiet(running.stats_url)
    finally:
        assert running.stop() == 0, running.output[-4000:]
