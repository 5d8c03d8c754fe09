"""The model's world: worker processes and aggregators made of the project's own modules.

Real: the counters in their mapped file, spool, source (locks and adopting), outbox, fold. Not
real: NATS, Postgres (see `outside`), and time, which is handed in. What `sealer`, `shipper` and
`consumer` do between those modules is written out here in a few lines each, without sockets. A
process dies at the failpoints of the real modules.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from uuid import UUID

import pytest

from aggregator.writing.fold import Arrival, Mark, Verdict, Walk, Window
from clickmill import batches, wire
from ingest._fastcount import Counters
from ingest.durable import source as source_module
from ingest.durable import spool as spool_module
from ingest.durable.outbox import Outbox
from ingest.durable.source import Source, adopt
from ingest.durable.spool import SpoolError
from tests.model.outside import (
    KEEP_S,
    LATE_NEWS_S,
    RESEND_S,
    Aggregator,
    Message,
    Nats,
    Postgres,
)

BANNERS = 4
BATCHES = 100
"""The banner of the first batch with a key."""
KEYS = 6
SPOOL_BYTES = 1 << 20
MINUTE_NS = 60 * 10**9
ALL_TIME = Window(0, wire.MAX_MINUTE)
WHERE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # memory, not disk
SOURCES = 2
"""Processes that count at the same time."""


def batch(key: int) -> batches.KeyedBatch:
    """The batch that goes with a key: on a banner of its own, so that each can be told apart."""
    minute = 29_000_000 - 1440 * key
    return batches.make(
        batches.key_of(str(key)), [BATCHES + key] * 2, [1, key + 1], [None, minute], 29_000_000
    )


class Death(BaseException):
    """A process ends here, in the middle of what it does."""


class Rules:
    """The rules under test, as the project has them. A mutant overrides one of them."""

    outbox: type[Outbox] = Outbox
    clear_first = False
    answer_first = False

    def walk(self, seen: dict[UUID, Mark], postgres: Postgres, arrivals: list[Arrival]) -> Walk:
        """`seen` is what the aggregator remembers; the project asks Postgres."""
        return Walk(postgres.state.marks, arrivals)

    def claims(self, walk: Walk, arrivals: list[Arrival]) -> Mapping[UUID, UUID]:
        """The keys that the transaction inserts."""
        return walk.keys.claims

    def counted(self, walk: Walk, keys: Mapping[UUID, UUID]) -> Mapping[UUID, UUID]:
        """Of the keys in Postgres those that the transaction asks for."""
        return {key: keys[key] for key in walk.keys.all if key in keys}

    def floor(self, seq: int, floor: int) -> int:
        return floor


class Held:
    """A source in the hands of a process, and its outbox."""

    def __init__(self, source: Source, outbox: Outbox) -> None:
        self.source, self.outbox = source, outbox


class Process:
    """One worker process: its own source, and those that it has adopted."""

    def __init__(self, own: Held) -> None:
        self.own = own
        self.batches: list[Held] = []
        """The source for batches with a key, once there is one."""
        self.adopted: list[Held] = []

    @property
    def all(self) -> list[Held]:
        return [self.own, *self.batches, *self.adopted]


class World:
    """Everything there is. Each method is one step; `die_in` steps from now the doer dies."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.root = Path(tempfile.mkdtemp(prefix="model-", dir=WHERE))
        self.now = 1000.0
        self.wall_ns = 29_000_000 * MINUTE_NS
        self.processes: list[Process] = []
        self.nats, self.postgres = Nats(), Postgres()
        self.aggregators = [Aggregator(), Aggregator()]
        self.news: list[tuple[float, UUID, int]] = []
        self.answered: dict[UUID, Counter[int]] = {}
        self.asked: set[int] = set()
        self.asked_and_answered: set[int] = set()
        self.disk_broken = False
        self._die_in: int | None = None
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> World:
        self._patch.setattr(source_module, "failpoint", self._failpoint)
        self._patch.setattr(spool_module, "failpoint", self._failpoint)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._patch.undo()
        for process in self.processes:
            for held in process.all:
                held.source.release()
        shutil.rmtree(self.root)

    def _failpoint(self, name: str) -> None:
        if self._die_in is not None:
            self._die_in -= 1
            if self._die_in < 0:
                raise Death(name)

    def _sync(self, fd: int) -> None:
        if self.disk_broken:
            raise OSError(5, "Input/output error")

    @contextmanager
    def _mortal(self, process: Process, die_in: int | None) -> Iterator[None]:
        self._die_in = die_in
        try:
            yield
        except Death:
            self.kill(process)
        finally:
            self._die_in = None

    # --- worker -----------------------------------------------------------------------------

    def spawn(self) -> Process:
        source = Source.create(self.root, BANNERS, SPOOL_BYTES)
        source.spool.sync = self._sync
        process = Process(Held(source, self.rules.outbox(KEEP_S, RESEND_S, 0)))
        self.processes.append(process)
        self.answered[source.id] = Counter()
        return process

    def hit(self, process: Process, banner: int, clicks: int) -> None:
        counters = process.own.source.counters
        assert counters is not None
        counters.hit_at(banner, clicks, self.wall_ns)
        self.answered[process.own.source.id][banner] += clicks

    def ask(
        self, process: Process, keys: list[int], die_in: int | None = None, *, looks: bool = False
    ) -> None:
        """Clients send these batches, for the first time or again; they are written together.

        `looks`: an aggregator says first which keys are counted.
        """
        self.asked |= {*keys}
        with self._mortal(process, die_in):
            known = self.postgres.state.keys if looks and self.postgres.is_up else {}
            fresh = [key for key in {*keys} if batch(key).key not in known]
            if self.rules.answer_first or self._store(process, fresh):
                self._failpoint("batches.stored")
                self.asked_and_answered |= {*keys}
            if self.rules.answer_first:
                self._store(process, fresh)

    def _store(self, process: Process, keys: list[int]) -> bool:
        """Whether they are on disk."""
        if not process.batches:
            source = Source.create_for_batches(self.root, SPOOL_BYTES)
            source.spool.sync = self._sync
            process.batches.append(Held(source, self.rules.outbox(KEEP_S, RESEND_S, 0)))
            self._failpoint("batches.make_source")
        (held,) = process.batches
        spool, frames = held.source.spool, []
        seq, total = spool.last_seq, spool.last_total
        for key in keys:
            seq, total = seq + 1, total + batch(key).clicks
            frames.append(batch(key).frame(held.source.id, seq, self.wall_ns, total))
        try:
            if frames:
                spool.append(frames)
        except SpoolError:
            return False
        for frame in frames:
            held.outbox.sealed(frame.seq, self.now)
        return True

    def seal(self, process: Process, die_in: int | None = None) -> None:
        with self._mortal(process, die_in):
            self._seal(process.own)

    def _seal(self, held: Held) -> None:
        source, counters = held.source, held.source.counters
        assert counters is not None
        counters.flip(self.wall_ns)
        self._failpoint("ingest.flip")
        if frames := source.frames(counters.frozen()):
            if self.rules.clear_first:
                counters.clear()
            try:
                source.spool.append(frames)
            except SpoolError:
                return
            for frame in frames:
                held.outbox.sealed(frame.seq, self.now)
        self._failpoint("ingest.clear")
        counters.clear()
        self._failpoint("ingest.cleared")

    def publish(self, held: Held, *, arrives: bool = True, acknowledged: bool = True) -> bool:
        """Send what is due; whether there was anything."""
        due = held.outbox.next_to_publish()
        if due is None:
            return False
        seq, floor = due
        data = held.source.spool.read(seq)
        name = wire.message_id(held.source.id, seq, held.outbox.resends)
        if arrives:
            self.nats.publish(Message(name, data, self.rules.floor(seq, floor)))
            if acknowledged:
                held.outbox.acknowledge(seq)
        return True

    def send_directly(self, held: Held, aggregator: Aggregator, most: int) -> None:
        """What follows the mark reaches an aggregator past the stream."""
        frames = [held.source.spool.read(seq) for seq in held.outbox.next_to_commit(most)]
        self.pull(aggregator, [Message("", data, 0) for data in frames])

    def report(self, held: Held, aggregator: Aggregator, *, fresh: bool = True) -> None:
        """Ask for the mark; hear what this aggregator knows, if it reaches Postgres."""
        if not self.postgres.is_up:
            return
        if fresh or aggregator.generation != self.postgres.generation:
            aggregator.look(self.postgres)
        mark = aggregator.marks.get(held.source.id, Mark())
        held.outbox.committed(mark.last_seq, self.now)
        held.outbox.check_progress(self.now)

    def trim(self, process: Process, held: Held, die_in: int | None = None) -> None:
        with self._mortal(process, die_in):
            if through := held.outbox.trim(self.now):
                held.source.spool.trim(through)
            if held in process.adopted and held.source.is_sealed and not held.outbox.held:
                process.adopted.remove(held)
                held.source.remove()

    def adopt(self, process: Process, die_in: int | None = None) -> None:
        with self._mortal(process, die_in):
            for source in adopt(self.root, SPOOL_BYTES):
                source.spool.sync = self._sync
                held = Held(source, self.rules.outbox(KEEP_S, RESEND_S, None))
                process.adopted.append(held)
                for seq in source.spool.seqs():
                    held.outbox.sealed(seq, self.now)
                self._seal_rest(held)
            for held in process.adopted:
                self._seal_rest(held)

    def _seal_rest(self, held: Held) -> None:
        before = held.source.sealed_seq
        try:
            held.source.seal_rest()
        except SpoolError:
            return
        finally:
            for seq in held.source.spool.seqs():
                if seq > before:
                    held.outbox.sealed(seq, self.now)

    def kill(self, process: Process) -> None:
        """The kernel closes every descriptor, and with them go the locks."""
        self.processes.remove(process)
        for held in process.all:
            held.source.release()
        for entry in list(Path("/proc/self/fd").iterdir()):
            try:
                target = entry.readlink()
                ours = target.name == "lock" and target.parent.parent == self.root
                if ours and not self._is_held(target.parent.name):
                    os.close(int(entry.name))
            except OSError:
                continue

    def _is_held(self, name: str) -> bool:
        return any(h.source.directory.name == name for p in self.processes for h in p.all)

    # --- aggregator ---------------------------------------------------------------------------

    def pull(self, aggregator: Aggregator, messages: list[Message]) -> None:
        for message in messages:
            frame = wire.decode(message.data)
            aggregator.hand.append(
                (message, Arrival(frame.source, frame.seq, frame, message.floor or 1, message.data))
            )

    def apply(
        self, aggregator: Aggregator, *, before: bool = False, after: bool = False,
        give_back: bool = False, tell: bool = True,
    ) -> None:  # fmt: skip
        """One transaction. `before` and `after` cut the connection at COMMIT, before the server
        has it or after; `give_back` acknowledges frames behind gaps, for want of room."""
        if not aggregator.hand or not self.postgres.is_up or before:
            return
        arrivals = [arrival for _, arrival in aggregator.hand]
        walk = self.rules.walk(aggregator.marks, self.postgres, arrivals)
        folded = walk.sum(self.rules.counted(walk, self.postgres.state.keys), ALL_TIME)
        self.postgres.commit(folded, self.rules.claims(walk, arrivals), self.now)
        if after:
            return
        aggregator.marks |= folded.marks
        late = []
        for (message, arrival), verdict in zip(aggregator.hand, folded.verdicts, strict=True):
            if verdict is Verdict.GAP and not give_back:
                late.append((message, arrival))
            else:
                self.nats.acknowledge(message)
        aggregator.hand = late
        if tell:
            marks = self.postgres.state.marks
            for source in {arrival.source for arrival in arrivals}:
                if source is not None and source in marks:
                    self.news.append((self.now, source, marks[source].last_seq))

    def hear(self, index: int) -> None:
        """One broadcast reaches who it is for; those before it may still be on their way."""
        told, source, seq = self.news.pop(index)
        if self.now - told > LATE_NEWS_S:
            return
        for process in self.processes:
            for held in process.all:
                if held.source.id == source:
                    held.outbox.committed(seq, self.now)

    # --- the truth ------------------------------------------------------------------------------

    def check(self) -> None:
        """Invariant 5: what was answered is in Postgres, in the spools or in the epochs, once."""
        marks = self.postgres.state.marks
        for source, answered in self.answered.items():
            mark = marks.get(source, Mark())
            safe = mark.total + self._beyond(source, mark.last_seq)
            assert safe == answered.total(), (
                f"{source}: {answered.total()} answered, {mark.total} in Postgres up to seq "
                f"{mark.last_seq}, {safe - mark.total} in spool and epochs"
            )
        committed = sum(mark.counted for mark in marks.values())
        assert sum(self.postgres.state.clicks.values()) == committed, "rows and marks disagree"
        self._check_batches()

    def _check_batches(self) -> None:
        """A batch counts once at most; one that was answered is counted, or will be."""
        state, waiting = self.postgres.state, self._batches_beyond()
        for key in self.asked:
            found, clicks = state.clicks.get(BATCHES + key, 0), batch(key).clicks
            assert found in (0, clicks), (
                f"batch {key} was answered for {clicks} clicks, and {found} are counted"
            )
            if key in self.asked_and_answered and not found:
                assert batch(key).key in waiting, f"batch {key} was answered and is nowhere"

    def _batches_beyond(self) -> set[UUID]:
        """The keys of all frames on disk that Postgres does not have."""
        return {
            frame.batch.key
            for directory in self.root.iterdir()
            for frame in self._frames(directory).values()
            if frame.batch and frame.seq > self._mark(frame.source).last_seq
        }

    def _mark(self, source: UUID) -> Mark:
        return self.postgres.state.marks.get(source, Mark())

    def _frames(self, directory: Path) -> dict[int, wire.Frame]:
        frames: dict[int, wire.Frame] = {}
        for path in sorted((directory / "spool").glob("*.frames")):
            data, at = path.read_bytes(), 0
            while at < len(data):
                end = at + wire.frame_length(data[at : at + wire.HEADER_BYTES])
                frame = wire.decode(data[at:end])
                assert frames.setdefault(frame.seq, frame).pairs == frame.pairs, "a frame changed"
                at = end
        return frames

    def _beyond(self, source: UUID, mark: int) -> int:
        """Clicks on disk that Postgres does not have, read without the help of `spool`."""
        directory = self.root / str(source)
        frames = self._frames(directory)
        last = max(frames, default=0)
        clicks = sum(frame.clicks for seq, frame in frames.items() if seq > mark)
        path = directory / "counters"
        if path.exists():
            counters = Counters.open(path)
            for seq, *_, counts in counters.rest(0):
                if seq > max(last, mark):
                    clicks += sum(memoryview(counts).cast("Q"))
        return clicks

    def check_healed(self) -> None:
        """Equal, banner by banner."""
        answered: Counter[int] = sum(self.answered.values(), Counter())
        assert self.asked == self.asked_and_answered, "clients ask until they are answered"
        answered.update({BATCHES + key: batch(key).clicks for key in self.asked})
        found = Counter({b: n for b, n in self.postgres.state.clicks.items() if n})
        assert found == answered, f"{found} in Postgres, {answered} answered"
