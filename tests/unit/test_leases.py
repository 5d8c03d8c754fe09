"""How many shards each member gets: all members compute the same from the same locks."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from aggregator.postgres.connection import LOCK_MEMBERS
from aggregator.writing.leases import plan, share

SHARDS = 16


def test_shares_are_equal_and_add_up() -> None:
    for members in range(1, 25):
        pids = list(range(100, 100 + members))
        shares = [share(pids, me, SHARDS) for me in pids]
        assert sum(shares) == SHARDS
        assert max(shares) - min(shares) <= 1


def test_a_process_that_is_not_a_member_gets_no_shard() -> None:
    assert share([1, 2], 3, SHARDS) == 0
    assert plan([(1, LOCK_MEMBERS), (1, 0)], 3).assign == []


def test_the_only_member_gets_all_shards() -> None:
    todo = plan([(7, LOCK_MEMBERS)], 7)
    assert (sorted(todo.assign), todo.revoke) == (list(range(SHARDS)), 0)


def test_a_new_member_waits_until_shards_are_revoked() -> None:
    locks = [(1, LOCK_MEMBERS), (2, LOCK_MEMBERS)] + [(1, n) for n in range(SHARDS)]
    assert plan(locks, 1) == ([], 8)
    assert plan(locks, 2) == ([], 0)


@given(st.lists(st.sets(st.integers(1, 6), min_size=1), min_size=1, max_size=12), st.randoms())
def test_shares_converge_when_members_change(generations: list[set[int]], chance: Random) -> None:
    held: dict[int, int] = {}
    for members in generations:
        held = {shard: pid for shard, pid in held.items() if pid in members}
        for _ in range(3):
            order = list(members)
            chance.shuffle(order)
            for me in order:
                locks = [(m, LOCK_MEMBERS) for m in members]
                todo = plan(locks + [(pid, shard) for shard, pid in held.items()], me)
                mine = [shard for shard, pid in held.items() if pid == me]
                for shard in mine[: todo.revoke]:
                    del held[shard]
                for shard in todo.assign:
                    held.setdefault(shard, me)
        counts = [list(held.values()).count(m) for m in members]
        assert sum(counts) == SHARDS
        assert max(counts) - min(counts) <= 1


def test_only_existing_shards_are_assigned() -> None:
    others = [(1, LOCK_MEMBERS), (2, LOCK_MEMBERS), (2, 4), (2, 5)]
    assert plan(others, 1, shards=4) == ([0, 1], 0)
    assert share([1], 1, shards=4) == 4
