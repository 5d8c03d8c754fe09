"""What surrounds the real modules in the model: a NATS that loses and repeats, and a Postgres
that fails at COMMIT and may come back as an older copy of itself.

Both are as bad as the real ones can be, and no worse: NATS promises nothing at all; Postgres
loses no commit older than the keep time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from aggregator.writing.fold import Arrival, Folded, Mark

KEEP_S = 100.0
RESEND_S = 30.0
LATE_NEWS_S = 10.0
"""A broadcast is on its way for so long at most: NATS keeps none for anybody."""
LOST_COMMITS_S = KEEP_S - LATE_NEWS_S
"""The age of the oldest commit that Postgres may lose."""


class Message(NamedTuple):
    """One message in the stream."""

    name: str
    data: bytes
    floor: int


@dataclass
class Nats:
    """A stream that may forget anything, at any time; deduplicates while it remembers."""

    messages: list[Message] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    _copy: tuple[list[Message], set[str]] = ([], set())

    def publish(self, message: Message) -> None:
        if message.name not in self.names:
            self.names.add(message.name)
            self.messages.append(message)

    def acknowledge(self, message: Message) -> None:
        if message in self.messages:
            self.messages.remove(message)

    def delete(self) -> None:
        self.messages, self.names = [], set()

    def forget_names(self) -> None:
        """The window of deduplication is over."""
        self.names = set()

    def copy(self) -> None:
        self._copy = (list(self.messages), set(self.names))

    def restore(self) -> None:
        self.messages, self.names = list(self._copy[0]), set(self._copy[1])


class State(NamedTuple):
    """What a transaction left: never changed, so that an older one can be put back."""

    at: float
    marks: Mapping[UUID, Mark]
    clicks: Mapping[int, int]
    keys: Mapping[UUID, UUID]


@dataclass
class Postgres:
    """The tables as the last commits left them. `down_since`: nobody reaches it."""

    history: list[State] = field(default_factory=lambda: [State(-1e9, {}, {}, {})])
    down_since: float | None = None
    generation: int = 0
    """Counts the losses: what was read before one is not known any more."""

    @property
    def state(self) -> State:
        return self.history[-1]

    @property
    def is_up(self) -> bool:
        return self.down_since is None

    def commit(self, folded: Folded, claims: Mapping[UUID, UUID], now: float) -> None:
        """Keys that are there already keep their digest."""
        clicks = Counter(self.state.clicks)
        for banner, many in zip(folded.rows.banner, folded.rows.clicks, strict=True):
            clicks[int(banner)] += int(many)
        keys = {**claims, **self.state.keys}
        self.history.append(State(now, {**self.state.marks, **folded.marks}, clicks, keys))

    def lose(self, commits: int, now: float) -> None:
        """Go back by so many commits at most, none of them older than a loss may reach."""
        oldest = (now if self.down_since is None else self.down_since) - LOST_COMMITS_S
        while commits and self.state.at > oldest:
            self.history.pop()
            commits -= 1
        self.generation += 1


@dataclass
class Aggregator:
    """What one aggregator process knows: messages in hand, and marks as it has seen them."""

    hand: list[tuple[Message, Arrival]] = field(default_factory=list)
    marks: dict[UUID, Mark] = field(default_factory=dict)
    generation: int = -1

    def look(self, postgres: Postgres) -> None:
        """Read the marks again: always on a new session, and now and then."""
        self.marks = dict(postgres.state.marks)
        self.generation = postgres.generation

    def die(self) -> None:
        self.hand, self.marks, self.generation = [], {}, -1
