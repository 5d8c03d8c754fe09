"""One measured turn of a server, turns interleaved A B A B, and what to make of many of them.

Noise on a machine comes in stretches that are longer than a turn. So contenders take turns within
each round, ratios are taken within a round, and a result is the median over the rounds with its
lowest and highest beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from bench.harness import machine
from bench.harness.servers import LOAD_CORE, Server
from bench.load import wrk

WARMUP_SECONDS = 1.0
CHECK_SECONDS = 1.0
MIN_ROUNDS, DEFAULT_ROUNDS, MAX_ROUNDS = 1, 5, 50
DEFAULT_SECONDS = 6.0
T = TypeVar("T")
V = TypeVar("V")


class MiscountError(Exception):
    """The server's count does not agree with its answers: there is no result."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure, whom, and where progress is shown."""

    rounds: int
    seconds: float
    say: Callable[[str], None]
    contenders: tuple[str, ...] = ()
    """Keys of the contenders that take part in the section `side`; empty: all."""


class Turn(msgspec.Struct, frozen=True):
    """One contender's results in one round; times in microseconds."""

    cpu_us: float
    """CPU of the processes that answer clicks, for each click."""
    helping_us: float
    """CPU of the other processes that the server needs, for each click."""
    busy: float
    """Share of the time that those processes ran: under 0.9 it was the load that was slower."""
    rate: float
    """Clicks a second."""
    p50_us: float
    p99_us: float
    p999_us: float

    @property
    def whole_us(self) -> float:
        """CPU of everything that the server runs, for each click."""
        return self.cpu_us + self.helping_us


class Spread(msgspec.Struct, frozen=True):
    """The median of several rounds, with the lowest and the highest."""

    median: float
    low: float
    high: float

    def show(self, digits: int = 2, unit: str = "") -> str:
        """As text: `0.83 (0.81 to 0.85)`."""
        return (
            f"{self.median:,.{digits}f}{unit} ({self.low:,.{digits}f} to {self.high:,.{digits}f})"
        )


def spread(values: Sequence[float]) -> Spread:
    """Median, lowest and highest."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(above: Sequence[T], below: Sequence[T], of: Callable[[T], float]) -> Spread:
    """The spread of the ratios within each round."""
    return spread([of(a) / of(b) for a, b in zip(above, below, strict=True)])


def check(server: Server, load: wrk.Load) -> None:
    """A round in which wrk compares the status and the body of every answer."""
    wrk.run(msgspec.structs.replace(load, mode="check", seconds=CHECK_SECONDS))


def turn(server: Server, load: wrk.Load) -> Turn:
    """Warm up, measure, and check lengths and counters.

    WrongAnswersError or MiscountError when anything was not as it had to be.
    """
    wrk.run(msgspec.structs.replace(load, seconds=WARMUP_SECONDS))
    length = wrk.answer_length(load.port, f"/counter/{load.first_id}")
    before = server.total()
    workers = server.clicking()
    helping = machine.CpuWindow(server.helping)
    clicking = machine.CpuWindow(server.clicking)
    result = wrk.run(load)
    used, helped = clicking.used_ns(), helping.used_ns()
    if server.clicking() != workers:
        raise MiscountError("a process that answers clicks was replaced during the round")
    wrk.check_lengths(result, length, load.connections)
    check_count(before, server.total(), result.requests, load.connections)
    return Turn(
        cpu_us=used / 1e3 / result.requests,
        helping_us=helped / 1e3 / result.requests,
        busy=used / 1e9 / result.seconds,
        rate=result.rate,
        p50_us=result.p50_us,
        p99_us=result.p99_us,
        p999_us=result.p999_us,
    )


def check_count(before: int | None, after: int | None, answered: int, in_flight: int) -> None:
    """Checks answered ≤ counted ≤ answered + in flight, for servers that count."""
    if before is None or after is None:
        return
    if not answered <= after - before <= answered + in_flight:
        raise MiscountError(
            f"{answered:,} answers, but {after - before:,} counted (at most {in_flight} in flight)"
        )


def in_turns(
    plan: Plan,
    variants: Sequence[tuple[str, V]],
    measure: Callable[[V], T],
    show: Callable[[T], str],
) -> list[list[T]]:
    """Each variant once in each round, in turns, A B A B …; the rounds of each."""
    rounds: list[list[T]] = [[] for _ in variants]
    for number in range(1, plan.rounds + 1):
        for mine, (name, variant) in zip(rounds, variants, strict=True):
            mine.append(measure(variant))
            plan.say(f"round {number} of {plan.rounds}  {name:<10} {show(mine[-1])}")
    return rounds


def shown(done: Turn) -> str:
    """A turn in one line."""
    return f"{done.cpu_us:7.2f} µs a click  {done.rate:9,.0f} clicks/s  p99 {done.p99_us:7,.0f} µs"


def interleave(servers: Mapping[str, Server], plan: Plan) -> dict[str, list[Turn]]:
    """Turns of all servers in each round, in the same order."""
    for server in servers.values():
        check(server, wrk.Load(server.port, LOAD_CORE, CHECK_SECONDS))

    def measure(server: Server) -> Turn:
        return turn(server, wrk.Load(server.port, LOAD_CORE, plan.seconds))

    return dict(zip(servers, in_turns(plan, list(servers.items()), measure, shown), strict=True))
