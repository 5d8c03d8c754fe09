"""Two machines with one name are noticed; a machine that restarts, and its workers, are one."""

from __future__ import annotations

from aggregator.writing.node_names import FORGET_S, NodeNames


def heard(names: NodeNames, machines: str) -> list[str]:
    """A heartbeat a second of node "n", from the machines in this order; the shared names then."""
    for second, machine in enumerate(machines):
        names.heard("n", machine, float(second))
    return names.shared(float(len(machines)))


def test_two_machines_that_take_turns_share_a_name() -> None:
    assert heard(NodeNames(), "aba") == ["n"]
    assert heard(NodeNames(), "aaabbab") == ["n"]


def test_workers_of_one_machine_share_no_name() -> None:
    assert heard(NodeNames(), "aaaa") == []


def test_a_machine_that_has_restarted_is_the_same() -> None:
    assert heard(NodeNames(), "aaabbb") == []


def test_a_name_is_shared_only_while_both_send_heartbeats() -> None:
    names = NodeNames()
    assert heard(names, "aba") == ["n"]
    names.heard("n", "a", FORGET_S + 1)
    assert names.shared(FORGET_S + 1.5) == []


def test_workers_of_earlier_releases_name_no_machine() -> None:
    names = NodeNames()
    for second in range(4):
        names.heard("n", "", float(second))
    assert names.shared(4.0) == []
