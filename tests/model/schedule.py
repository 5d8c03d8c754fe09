"""Schedules: what happens in the world, in which order, drawn by Hypothesis.

A step is (what, number): the number chooses who does it, and how it goes wrong. Whatever the
numbers are the step is a legal one, so that any schedule can be cut down to a small one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tests.model.outside import KEEP_S, RESEND_S
from tests.model.world import BANNERS, KEYS, MINUTE_NS, SOURCES, Held, Process, Rules, World

MIN_STEPS, MAX_STEPS = 30, 80
HEALING_ROUNDS = 12

Step = tuple[str, int]
T = TypeVar("T")


class Draw:
    """A number, used up digit by digit for the choices within one step."""

    def __init__(self, number: int) -> None:
        self._left = number

    def below(self, n: int) -> int:
        self._left, digit = divmod(self._left, n)
        return digit

    def one_in(self, n: int) -> bool:
        """True once in n; never for 0, so that a small number is a harmless step."""
        return self.below(n) == n - 1

    def death(self) -> int | None:
        """How many failpoints the doer passes until it dies; mostly None."""
        return self.below(8) if self.one_in(4) else None

    def of(self, things: Sequence[T]) -> T:
        return things[self.below(len(things))]


def nothing(world: World, draw: Draw) -> None:
    """What a step that does not matter is shrunk to."""


def hit(world: World, draw: Draw) -> None:
    if not world.processes:
        world.spawn()
    world.hit(draw.of(world.processes), draw.below(BANNERS), 1 + draw.below(3))


def ask(world: World, draw: Draw) -> None:
    """A client sends a batch with a key, once or again, to any worker; so may others."""
    if not world.processes:
        world.spawn()
    keys = [draw.below(KEYS) for _ in range(1 + draw.below(3))]
    world.ask(draw.of(world.processes), keys, draw.death(), looks=draw.one_in(3))


def seal(world: World, draw: Draw) -> None:
    if world.processes:
        world.seal(draw.of(world.processes), draw.death())


def publish(world: World, draw: Draw) -> None:
    for _, held in some(world, draw):
        for _ in range(1 + draw.below(3)):
            arrives, acknowledged = not draw.one_in(5), not draw.one_in(5)
            world.publish(held, arrives=arrives, acknowledged=acknowledged)


def send_directly(world: World, draw: Draw) -> None:
    """Past the stream, to either aggregator, whatever the stream has."""
    for _, held in some(world, draw):
        world.send_directly(held, draw.of(world.aggregators), 1 + draw.below(4))


def report(world: World, draw: Draw) -> None:
    for _, held in some(world, draw):
        world.report(held, draw.of(world.aggregators), fresh=not draw.one_in(3))


def trim(world: World, draw: Draw) -> None:
    for process, held in some(world, draw):
        world.trim(process, held, draw.death())


def some(world: World, draw: Draw) -> list[tuple[Process, Held]]:
    """One source in the hands of one process."""
    pairs = [(process, held) for process in world.processes for held in process.all]
    return [draw.of(pairs)] if pairs else []


def adopt(world: World, draw: Draw) -> None:
    if world.processes:
        world.adopt(draw.of(world.processes), draw.death())


def spawn(world: World, draw: Draw) -> None:
    if len(world.processes) < SOURCES:
        world.spawn()


def kill(world: World, draw: Draw) -> None:
    if world.processes:
        world.kill(draw.of(world.processes))


def stop(world: World, draw: Draw) -> None:
    """A worker ends as it should: all is sealed, not all of it need be published."""
    if world.processes:
        process = draw.of(world.processes)
        world.seal(process)
        world.seal(process)
        while not draw.one_in(3) and world.publish(process.own):
            pass
        world.kill(process)


def pull(world: World, draw: Draw) -> None:
    """Some of what there is, in any order, to either; what is in hand may come again."""
    aggregator, messages = draw.of(world.aggregators), list(world.nats.messages)
    if messages and draw.one_in(3):
        messages = [draw.of(messages) for _ in range(1 + draw.below(4))]
    world.pull(aggregator, messages)


def apply(world: World, draw: Draw) -> None:
    world.apply(
        draw.of(world.aggregators), before=draw.one_in(5), after=draw.one_in(5),
        give_back=draw.one_in(5), tell=not draw.one_in(3),
    )  # fmt: skip


def aggregator_dies(world: World, draw: Draw) -> None:
    draw.of(world.aggregators).die()


def hear(world: World, draw: Draw) -> None:
    if world.news:
        world.hear(draw.below(len(world.news)))


def time_passes(world: World, draw: Draw) -> None:
    world.now += draw.of((0.5, 2.0, 6.0, RESEND_S, KEEP_S / 2))


def clock_jumps(world: World, draw: Draw) -> None:
    world.wall_ns += draw.of((1, 60, -60, 1440)) * MINUTE_NS


def nats_fails(world: World, draw: Draw) -> None:
    nats = world.nats
    draw.of((nats.copy, nats.restore, nats.delete, nats.forget_names))()
    if nats.messages and draw.one_in(2):
        nats.messages.pop(draw.below(len(nats.messages)))


def postgres_fails(world: World, draw: Draw) -> None:
    postgres = world.postgres
    if draw.one_in(2):
        postgres.lose(1 + draw.below(4), world.now)
    postgres.down_since = None if postgres.down_since is not None else world.now


def disk_fails(world: World, draw: Draw) -> None:
    world.disk_broken = not world.disk_broken


def a_good_second(world: World, draw: Draw) -> None:
    """What happens all day long, all in one step: it takes schedules to deeper places."""
    aggregator = draw.of(world.aggregators)
    for process in world.processes:
        world.seal(process)
        for held in process.all:
            while world.publish(held):
                pass
    world.pull(aggregator, list(world.nats.messages))
    world.apply(aggregator)
    for process, held in [(p, h) for p in world.processes for h in p.all]:
        world.report(held, aggregator)
        world.trim(process, held)
    world.now += 1.0


STEPS: dict[str, Callable[[World, Draw], None]] = {
    step.__name__: step
    for step in (
        nothing, hit, ask, seal, publish, report, trim, adopt, spawn, kill, stop, pull, apply,
        a_good_second, send_directly, aggregator_dies, hear, time_passes, clock_jumps, nats_fails,
        postgres_fails, disk_fails,
    )
}  # fmt: skip
OFTEN = (
    "hit", "hit", "hit", "seal", "seal", "seal", "publish", "publish", "publish", "report",
    "pull", "pull", "pull", "apply", "apply", "apply", "report", "time_passes", "trim", "adopt",
    "a_good_second", "a_good_second", "postgres_fails", "ask", "ask", "send_directly",
)  # fmt: skip


def run(schedule: Sequence[Step], rules: Rules) -> None:
    """Run it, checking after every step; then let everything heal, and nothing may be missing."""
    with World(rules) as world:
        for what, number in schedule:
            STEPS[what](world, Draw(number))
            world.check()
        heal(world)
        world.check_healed()


def heal(world: World) -> None:
    """No more faults: within some rounds of what workers and aggregators do all is committed."""
    world.disk_broken, world.postgres.down_since = False, None
    for process in list(world.processes):
        world.kill(process)
    survivor = world.spawn()
    for key in world.asked - world.asked_and_answered:
        world.ask(survivor, [key])
    for _ in range(HEALING_ROUNDS):
        world.adopt(survivor)
        for aggregator in world.aggregators:
            for held in survivor.all:
                world.report(held, aggregator)
                while world.publish(held):
                    pass
            world.pull(aggregator, list(world.nats.messages))
            world.apply(aggregator)
        world.check()
        world.now += RESEND_S
    for _ in range(3):
        for held in survivor.all:
            world.report(held, world.aggregators[0])
            world.trim(survivor, held)
        world.now += KEEP_S
    world.check()
    assert not survivor.adopted, "what is done with is removed"
