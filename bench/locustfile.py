"""The load scenario of the contract, and others, for Locust.

`make stress`, or by hand:

    locust -f bench/locustfile.py --headless --host http://127.0.0.1:8080

Users post `{}` to /counter/{id}, id uniform in 10..100, and wait 0.1 s. `--scenario mixed` adds
pixels, batches and statistics; `--shape` chooses how many users there are when. The exit code is
0 only when p95, failures and the ledger are in order: the statistics of every banner must equal
the number of 200 answers. One Locust process holds the ledger; it gives some thousands of
requests a second and core.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gevent
import geventhttpclient.client
from locust import FastHttpUser, LoadTestShape, constant, events, task
from locust.env import Environment
from locust.user.task import LOCUST_STATE_STOPPING, LOCUST_STATE_WAITING

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # Locust puts only this file's folder there
    sys.path.insert(0, str(ROOT))

from bench.load import shapes, verdict  # noqa: E402
from bench.load.ledger import Ledger  # noqa: E402
from bench.load.statistics import Gain, StatisticsError  # noqa: E402

FIRST_BANNER, LAST_BANNER = 10, 100
WAIT_SECONDS = 0.1
BATCH_ITEMS = 20
STOP_TIMEOUT = 10.0
"""Users that are told to stop have so long to get their last answer."""
PROGRESS_SECONDS = 5.0
SPAWN_RATE = 100.0
"""Users started in a second: the shape sets the pace, not this."""
LIMIT_STEP_USERS, LIMIT_STEP_SECONDS = 50, 15.0
OK = 200

# geventhttpclient sends a GET again by itself when a connection breaks: a second click that no
# ledger would know of. An answer that broke is to be an error.
if not hasattr(geventhttpclient.client, "_may_retry_after_send_error"):
    raise SystemExit("geventhttpclient has changed: look how it repeats requests, and stop it")
geventhttpclient.client._may_retry_after_send_error = lambda method: False

ledger = Ledger()


def any_banner() -> int:
    """A banner of the scenario, uniform."""
    return random.randint(FIRST_BANNER, LAST_BANNER)


class Clicker(FastHttpUser):
    """What both kinds of user can do."""

    abstract = True
    wait_time = constant(WAIT_SECONDS)

    def stop(self, force: bool = False) -> bool:
        """End after the last answer.

        Locust kills a user that waits between requests, and one that has just woken up then dies
        with its request on the way; told to stop, it ends by itself when its wait is over.
        """
        if force or self._state != LOCUST_STATE_WAITING:
            return bool(super().stop(force))
        self._state = LOCUST_STATE_STOPPING
        return False

    def clicks(self, method: str, path: str, banners: Sequence[int], **request: Any) -> None:
        """Send a request that counts one click for each of `banners`; only 200 is right."""
        sent = ledger.send(Counter(banners))
        with self.client.request(method, path, catch_response=True, **request) as answer:
            if answer.status_code == OK:
                ledger.answer(sent)
            elif answer.status_code:
                ledger.refuse(sent, answer.status_code)
                answer.failure(f"{answer.status_code} instead of 200")
            else:
                ledger.lose(sent)

    def post(self) -> None:
        """Post `{}` to a banner: the one request of the contract's scenario."""
        banner = any_banner()
        self.clicks("POST", f"/counter/{banner}", [banner], name="POST /counter/[id]", json={})


class ClickUser(Clicker):
    """The contract's user: posts `{}`, waits 0.1 s."""

    @task
    def post_click(self) -> None:
        """A click."""
        self.post()


class MixedUser(Clicker):
    """Every way to click, and a reader of the statistics."""

    @task(10)
    def post_click(self) -> None:
        """A click."""
        self.post()

    @task(4)
    def get_click(self) -> None:
        """A click by GET."""
        banner = any_banner()
        self.clicks("GET", f"/counter/{banner}", [banner], name="GET /counter/[id]")

    @task(2)
    def original_click(self) -> None:
        """A click the way the original service's README counts."""
        banner = any_banner()
        self.clicks("POST", f"/stats/{banner}", [banner], name="POST /stats/[id] {}", json={})

    @task(4)
    def pixel(self) -> None:
        """A click by the picture of one pixel."""
        banner = any_banner()
        self.clicks("GET", f"/pixel/{banner}.gif", [banner], name="GET /pixel/[id].gif")

    @task(2)
    def batch(self) -> None:
        """Many clicks in one request."""
        banners = [any_banner() for _ in range(BATCH_ITEMS)]
        items = [{"bannerID": banner, "count": 1} for banner in banners]
        self.clicks("POST", "/clicks", banners, name="POST /clicks", json=items)

    @task(1)
    def look(self) -> None:
        """The last hour of one banner; counts nothing."""
        self.client.get(f"/stats/{any_banner()}", name="GET /stats/[id]")


class Shape(LoadTestShape):
    """The users of each second, by `--shape`."""

    most_users = 0
    """The highest number that the shape `limit` asked for so far."""

    def tick(self) -> tuple[int, float] | None:
        """Users wanted now, and how fast to start them; None ends the run."""
        assert self.runner is not None
        options: Any = self.runner.environment.parsed_options
        second = time.perf_counter() - self.start_time
        if options.shape == "limit":
            users = self._limit(second, options)
        else:
            corners = shapes.corners(options.shape, options.peak_users, options.minutes)
            users = shapes.users_at(corners, second)
        return None if users is None else (users, SPAWN_RATE)

    def _limit(self, second: float, options: Any) -> int | None:
        """One step more each 15 s, until a threshold is passed or the time is over."""
        assert self.runner is not None
        if second > options.minutes * 60 or not verdict.in_order(
            self.runner.environment, recent=True
        ):
            return None
        self.most_users = LIMIT_STEP_USERS * (1 + int(second // LIMIT_STEP_SECONDS))
        return self.most_users


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """Our own flags beside Locust's; each is an environment variable too."""
    add: Callable[..., object] = parser.add_argument
    add("--shape", choices=shapes.SHAPES, default="contract", env_var="STRESS_SHAPE")
    add("--scenario", choices=("contract", "mixed"), default="contract", env_var="STRESS_SCENARIO")
    add("--peak-users", type=int, default=shapes.CONTRACT_USERS, env_var="STRESS_USERS")
    add("--minutes", type=float, default=shapes.CONTRACT_MINUTES, env_var="STRESS_MINUTES")
    add("--stats-token", default="", env_var="CLICKMILL_STATS_TOKEN")
    add("--results", default="", help="write the run's results here, as JSON")
    _refuse_several(parser.parse_known_args()[0])


def _refuse_several(options: Any) -> None:
    """Here, before Locust divides itself.

    A worker whose master ends at once would go on looking for it for minutes.
    """
    if getattr(options, "processes", None) or options.worker or options.master:
        raise SystemExit("one Locust process holds the ledger: leave out --processes and --worker")


@events.init.add_listener
def prepare(environment: Environment, **_: object) -> None:
    """Choose the users, read the statistics as they are before the run."""
    options = environment.parsed_options
    assert options is not None, "this file is for Locust's command line"
    environment.stop_timeout = STOP_TIMEOUT
    environment.user_classes = [MixedUser if options.scenario == "mixed" else ClickUser]
    banners = range(FIRST_BANNER, LAST_BANNER + 1)
    try:
        gain = Gain(environment.host or "", banners, options.stats_token)
    except StatisticsError as error:
        raise SystemExit(f"stress: {error}") from error

    def at_the_end(environment: Environment, **_: object) -> None:
        judge(environment, verdict.reconcile(ledger, gain))

    environment.events.quitting.add_listener(at_the_end)  # type: ignore[no-untyped-call]


@events.test_start.add_listener
def show_progress(environment: Environment, **_: object) -> None:
    """Print a line every few seconds."""
    gevent.spawn(_progress, environment, time.monotonic())


def _progress(environment: Environment, start: float) -> None:
    while environment.runner is not None and environment.runner.state != "stopped":
        gevent.sleep(PROGRESS_SECONDS)
        total, passed = environment.stats.total, time.monotonic() - start
        slow = verdict.p95(environment, recent=True)
        length = environment.parsed_options.minutes * 60 if environment.parsed_options else 0
        print(
            f"{passed:5.0f} of {length:.0f} s  {environment.runner.user_count:5} users  "
            f"{total.current_rps:8,.0f} requests/s  p95 {slow:4.0f} ms  "
            f"{total.num_failures:,} failed",
            flush=True,
        )


def judge(environment: Environment, problem: str) -> None:
    """Print the verdict, set the exit code, write the results."""
    options = environment.parsed_options
    limits, rest = verdict.sentences(environment, ledger, problem)
    for right, sentence in (*limits, *rest):
        print(f"{'ok  ' if right else 'FAIL'} {sentence}", flush=True)
    judged = (*limits, *rest)
    if options is not None and options.shape == "limit":
        judged = rest  # such a run ends when it passes a limit: only the ledger can fail there
        most = getattr(environment.shape_class, "most_users", 0)
        print(f"the limits held up to {most - LIMIT_STEP_USERS} users, the run ended at {most}")
    environment.process_exit_code = 0 if all(right for right, _ in judged) else 1
    if options is not None and options.results:
        found = verdict.results(environment, ledger, problem)
        Path(options.results).write_text(json.dumps(found, indent=1) + "\n")
