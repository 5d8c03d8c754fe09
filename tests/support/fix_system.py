"""Fixture `system`: the real `clickmill` command on free ports in a directory of its own.

    running = system(workers=2)            # `clickmill up`, ready
    running = system("ingest", nats_url=nats.url)
    running.url, running.stats_url, running.pid, running.children()["ingest-1"]

What a test leaves running is stopped afterwards; a run that does not end with 0, or that leaves
a process behind, fails its test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from signal import SIGTERM, Signals
from typing import Any, Protocol

import pytest

from clickmill.fields import PREFIX
from tests.support.ports import free_port
from tests.support.wait import eventually

READY_SECONDS = 30
STOP_SECONDS = 30
GONE_SECONDS = 2
QUICK = {"workers": 1, "flush_interval": 0.2, "nats_max_bytes": "64MiB", "drain_timeout": 1.5}


PROGRAM = (sys.executable, "-m", "stack.cli")


class System:
    """One run of the command. `data_dir` may be handed to the next run.

    `program` is the command's first words, where it is not the checkout's; `arguments` follow it.
    """

    def __init__(
        self,
        command: str,
        data_dir: Path,
        settings: dict[str, object],
        logs: Path | None = None,
        program: Sequence[str] = PROGRAM,
        cwd: Path | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.command = command
        self.data_dir = data_dir
        self.port = int(str(settings.setdefault("port", free_port())))
        self.stats_port = int(str(settings.setdefault("stats_port", free_port())))
        self.url = f"http://127.0.0.1:{self.port}"
        self.stats_url = f"http://127.0.0.1:{self.stats_port}"
        self.log = (logs or data_dir) / f"{command}-{time.monotonic_ns()}.log"
        self.exit_code: int | None = None
        self.expected_code = 0
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
        given = {PREFIX + name.upper(): _text(value) for name, value in settings.items()}
        self.env = inherited | {PREFIX + "DATA_DIR": str(data_dir)} | given
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*program, command, *arguments],
                env=self.env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def children(self) -> dict[str, int]:
        """Process numbers by name, as of now: nats, postgres, aggregator, ingest-1, …"""
        facts = json.loads((self.data_dir / "run" / f"{self.command}.json").read_text())
        return dict(facts["children"]) if facts["pid"] == self.pid else {}

    def replaced(self, name: str, pid: int) -> bool:
        """Whether another process runs under this name."""
        return self.children().get(name, pid) != pid

    def address(self, server: str, whose: str = "address") -> str:
        """URL or DSN of an embedded server, `nats` or `postgres`; that of the `reader` too."""
        facts = json.loads((self.data_dir / "run" / f"{server}.json").read_text())
        return str(facts[whose])

    def wait_ready(self, timeout: float = READY_SECONDS) -> System:
        """Waits for the line that says so."""

        def said_so() -> bool:
            return "Clickmill is ready." in self.output or self.process.poll() is not None

        try:
            eventually(said_so, timeout, "the system is ready")
            assert self.process.poll() is None, f"it ended with {self.process.poll()}"
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output[-8000:]}") from error
        return self

    def click(self, banner: int, times: int = 1) -> int:
        """Clicks, one request after the other; the number of 200 answers."""
        return sum(status(f"{self.url}/counter/{banner}", "POST") == 200 for _ in range(times))

    def counts(self, banner: int) -> int:
        """The sum of the banner's last hour, from the aggregator's own port."""
        with urllib.request.urlopen(f"{self.stats_url}/stats/{banner}", timeout=5) as answer:
            return int(json.load(answer)["Counts"])

    def wait_counts(self, banner: int, wanted: int, timeout: float = 20) -> None:
        """Waits until the banner's sum is exactly this; a sum above it fails at once."""

        def exact() -> bool:
            got = self.counts(banner)
            if got > wanted:
                pytest.fail(f"banner {banner} has {got} clicks, more than {wanted} answered")
            return got == wanted

        eventually(exact, timeout, f"banner {banner} has {wanted} clicks")

    def ready_status(self, stats: bool = False) -> int:
        """The status of `/readyz`; 0 if nobody answers."""
        return status(f"{self.stats_url if stats else self.url}/readyz")

    def signal(self, number: Signals) -> None:
        self.process.send_signal(number)

    def stop(self, number: Signals = SIGTERM) -> int:
        """Stops it, waits for its end, and looks for what it left behind; the exit code."""
        if self.exit_code is None:
            self.process.send_signal(number)
            try:
                self.exit_code = self.process.wait(STOP_SECONDS)
            finally:
                self.process.kill()
                self.process.wait()
            self.wait_gone()
        return self.exit_code

    def kill(self) -> None:
        """Ends it as a power cut does; its children end with it."""
        self.process.kill()
        self.exit_code = self.process.wait()
        self.wait_gone()

    def wait_gone(self) -> None:
        """Waits until no process of this system is left; two seconds at most."""
        eventually(lambda: not self.left_behind(), GONE_SECONDS, "no process is left")

    def left_behind(self) -> list[str]:
        """Every process, but those of the test itself, that has to do with our data directory."""
        me = os.getpid()
        mine = [int(d.name) for d in Path("/proc").iterdir() if d.name.isdigit()]
        found = [(pid, _traces(pid)) for pid in mine if pid != me]
        return [f"{pid}: {t[:200]}" for pid, t in found if str(self.data_dir) in t]


def _traces(pid: int) -> str:
    """What ties a process to a directory: its words, its environment, where it works."""
    home = Path(f"/proc/{pid}")
    try:
        parts = [
            (home / "cmdline").read_bytes(),
            (home / "environ").read_bytes(),
            bytes((home / "cwd").readlink()),
        ]
    except OSError:
        return ""
    return b" ".join(parts).replace(b"\0", b" ").decode("utf-8", "replace")


def status(url: str, method: str = "GET", timeout: float = 5) -> int:
    """The status of one request; 0 if nobody answers."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, method=method), timeout=timeout
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class SystemFactory(Protocol):
    """`system(command="up", data_dir=None, ready=True, **settings)`."""

    def __call__(
        self,
        command: str = "up",
        data_dir: Path | None = None,
        ready: bool = True,
        **settings: Any,
    ) -> System: ...


@pytest.fixture
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemFactory]:
    running: list[System] = []

    def start(
        command: str = "up", data_dir: Path | None = None, ready: bool = True, **settings: Any
    ) -> System:
        home = data_dir or tmp_path_factory.mktemp("system")
        running.append(System(command, home, {**QUICK, **settings}))
        return running[-1].wait_ready() if ready else running[-1]

    yield start
    stopping: list[Callable[[], int]] = [one.stop for one in reversed(running)]
    codes = [stop() for stop in stopping]
    assert codes == [one.expected_code for one in reversed(running)], "\n".join(
        one.output[-4000:] for one in running
    )


def doctor(data_dir: Path, nats_url: str) -> str:
    """What `clickmill doctor` prints about these."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    env |= {PREFIX + "DATA_DIR": str(data_dir), PREFIX + "NATS_URL": nats_url}
    command = [sys.executable, "-m", "stack.cli", "doctor"]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=READY_SECONDS
    ).stdout
