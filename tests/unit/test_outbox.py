"""Which frame goes out next, again, or is forgotten: each rule by itself, time handed in."""

from __future__ import annotations

from ingest.durable.outbox import MARK_LOST_AFTER_S, Outbox

KEEP, RESEND = 900.0, 30.0


def holding(*seqs: int, mark: int | None = 0, now: float = 0.0) -> Outbox:
    outbox = Outbox(KEEP, RESEND, mark)
    for seq in seqs:
        outbox.sealed(seq, now)
    return outbox


def sent(outbox: Outbox) -> list[tuple[int, int]]:
    """Everything that goes out now, with NATS taking all of it."""
    out = []
    while (due := outbox.next_to_publish()) is not None:
        out.append(due)
        outbox.acknowledge(due[0])
    return out


def test_in_order_each_once() -> None:
    outbox = holding(1, 2, 3)
    assert sent(outbox) == [(1, 0), (2, 0), (3, 0)]
    outbox.sealed(4, 1.0)
    assert sent(outbox) == [(4, 0)]


def test_what_follows_the_mark() -> None:
    outbox = holding(1, 2, 3, 5, 6)
    assert outbox.next_to_commit(2) == [1, 2]
    assert outbox.next_to_commit(10) == [1, 2, 3], "5 would have to say that 4 never comes"
    outbox.acknowledge(3)
    outbox.committed(1, 1.0)
    assert outbox.next_to_commit(10) == [2, 3], "what NATS has taken is not committed yet"
    outbox.committed(3, 2.0)
    assert outbox.next_to_commit(10) == []
    assert holding(1, 2, mark=None).next_to_commit(10) == []


def test_nothing_is_sent_before_the_mark_is_known() -> None:
    outbox = holding(5, 6, 7, mark=None)
    assert outbox.next_to_publish() is None
    outbox.committed(5, 1.0)
    assert sent(outbox) == [(6, 0), (7, 0)]


def test_an_acknowledgement_trims_nothing_and_the_keep_time_starts_at_the_commit() -> None:
    outbox = holding(1, 2)
    sent(outbox)
    assert outbox.trim(10 * KEEP) == 0
    assert outbox.outstanding == 2
    outbox.committed(1, 100.0)
    outbox.committed(2, 200.0)
    assert outbox.outstanding == 0
    outbox.committed(2, 1000.0)
    assert outbox.trim(999.0) == 0
    assert outbox.trim(1000.0) == 1
    outbox.committed(2, 1099.9)
    assert outbox.trim(2000.0) == 0, "the mark was last confirmed before the keep time was over"
    outbox.committed(2, 1100.0)
    assert outbox.trim(1100.0) == 2
    assert outbox.held == []


def test_without_a_confirmed_mark_nothing_is_trimmed() -> None:
    outbox = holding(1)
    sent(outbox)
    outbox.committed(1, 10.0)
    assert outbox.trim(1e6) == 0


def test_no_progress_sends_again_from_the_mark_under_another_name() -> None:
    outbox = holding(1, 2, 3)
    sent(outbox)
    outbox.committed(1, 10.0)
    assert not outbox.check_progress(10.0 + RESEND - 0.1)
    assert outbox.check_progress(10.0 + RESEND)
    assert (sent(outbox), outbox.resends) == ([(2, 0), (3, 0)], 1)
    assert not outbox.check_progress(11.0 + RESEND), "each time gets its own patience"
    outbox.committed(3, 50.0)
    assert not outbox.check_progress(1e6), "all of it is committed"


def test_unsent_frames_do_not_count_as_a_lack_of_progress() -> None:
    outbox = holding(1, 2)
    assert not outbox.check_progress(1e6)


def test_a_lower_mark_is_ignored_until_it_is_repeated_for_long() -> None:
    outbox = holding(1, 2, 3)
    sent(outbox)
    outbox.committed(3, 10.0)
    outbox.committed(2, 11.0)
    assert outbox.mark == 3
    outbox.committed(3, 12.0)
    outbox.committed(1, 13.0)
    outbox.committed(1, 13.0 + MARK_LOST_AFTER_S - 0.1)
    assert (outbox.mark, outbox.next_to_publish()) == (3, None)
    outbox.committed(1, 13.0 + MARK_LOST_AFTER_S)
    assert (outbox.mark, outbox.outstanding) == (1, 2)
    assert sent(outbox) == [(2, 0), (3, 0)]
    assert outbox.resends == 1


def test_after_a_loss_of_commits_the_keep_time_begins_again() -> None:
    outbox = holding(1, 2)
    sent(outbox)
    outbox.committed(2, 0.0)
    for now in (800.0, 806.0):
        outbox.committed(1, now)
    outbox.committed(2, 810.0)
    outbox.committed(2, 1000.0)
    assert outbox.trim(1000.0) == 0
    outbox.committed(2, 1706.0)
    assert outbox.trim(1706.0) == 1
    outbox.committed(2, 1710.0)
    assert outbox.trim(1710.0) == 2


def test_a_frame_behind_a_lost_range_waits_and_then_announces_it() -> None:
    outbox = holding(1, 2, 5, 6)
    outbox.acknowledge(1)
    outbox.acknowledge(2)
    assert outbox.next_to_publish() is None, "NATS may still lose what is before the gap"
    outbox.committed(1, 1.0)
    assert outbox.next_to_publish() is None
    outbox.committed(2, 2.0)
    assert sent(outbox) == [(5, 5), (6, 0)]


def test_a_frame_that_becomes_damaged_is_a_lost_range() -> None:
    outbox = holding(1, 2, 3)
    outbox.lost(2)
    assert sent(outbox) == [(1, 0)]
    outbox.committed(1, 1.0)
    assert sent(outbox) == [(3, 3)]


def test_no_lost_range_is_announced_if_postgres_has_all_frames() -> None:
    outbox = holding(8, 9, mark=None)
    outbox.committed(7, 1.0)
    assert sent(outbox) == [(8, 0), (9, 0)]
    older = holding(8, 9, mark=None)
    older.committed(4, 1.0)
    assert sent(older) == [(8, 8), (9, 0)], "Postgres has lost more than the keep time"


def test_committed_frames_go_early_and_the_keep_time_is_short_of_it_until_it_has_passed() -> None:
    #  seconds   100       200       300       400                   1200
    #  committed   1         2,3       4                               4 (confirmed)
    #  gone                                      1, 2 (no room)
    #  kept                                      200 s of 900          900
    outbox = holding(1, 2, 3, 4, 5)
    sent(outbox)
    for mark, now in ((1, 100.0), (3, 200.0), (4, 300.0)):
        outbox.committed(mark, now)
    assert outbox.spare == 4, "5 is not committed"
    assert outbox.keep_short(300.0) == 0
    outbox.committed(4, 400.0)
    outbox.release(2)
    assert outbox.held == [3, 4, 5]
    assert outbox.keep_short(400.0) == KEEP - 200
    assert outbox.keep_short(450.0) == KEEP - 200, "unconfirmed time does not count"
    outbox.committed(4, 450.0)
    assert outbox.keep_short(450.0) == KEEP - 250
    outbox.committed(4, 1200.0)
    assert outbox.keep_short(1200.0) == 0
    assert outbox.trim(1200.0) == 4, "what is left goes in its own time"
    assert outbox.held == [5]


def test_what_goes_at_the_end_of_its_keep_time_is_not_short_of_it() -> None:
    outbox = holding(1, 2)
    outbox.committed(1, 100.0)
    outbox.committed(2, 100.0 + KEEP)
    outbox.release(1)
    assert outbox.keep_short(100.0 + KEEP) == 0


def test_nothing_is_spared_that_postgres_may_have_lost() -> None:
    assert holding(1, mark=None).spare == 0
    outbox = holding(1, 2, 3)
    sent(outbox)
    outbox.committed(3, 10.0)
    outbox.committed(1, 11.0)
    assert (outbox.mark, outbox.spare) == (3, 1)
    outbox.committed(3, 12.0)
    assert outbox.spare == 3


def test_after_a_loss_of_commits_what_went_early_is_a_hole() -> None:
    outbox = holding(1, 2, 3)
    sent(outbox)
    outbox.committed(3, 10.0)
    outbox.release(2)
    for now in (12.0, 12.0 + MARK_LOST_AFTER_S):
        outbox.committed(0, now)
    assert sent(outbox) == [(3, 3)]


def test_what_goes_early_and_was_to_go_anyway_is_not_short_of_the_keep_time() -> None:
    """The spool is trimmed a little later than the outbox, and may be full in between."""
    outbox = holding(1, 2)
    outbox.committed(2, 0.0)
    outbox.committed(2, KEEP)
    assert outbox.trim(KEEP) == 2
    outbox.release(2)
    assert outbox.keep_short(KEEP) == 0


def test_where_nothing_is_committed_all_is_sent_again_each_time_under_another_name() -> None:
    outbox = holding(1, 2)
    for n in (1, 2):
        assert sent(outbox) == [(1, 0), (2, 0)]
        assert outbox.check_progress(n * RESEND)
        assert outbox.resends == n


def test_patience_begins_with_the_first_frame_that_waits() -> None:
    outbox = holding(1)
    sent(outbox)
    outbox.committed(1, 10.0)
    outbox.sealed(2, 1000.0)
    sent(outbox)
    outbox.sealed(3, 1000.0 + RESEND - 1)
    assert not outbox.check_progress(1000.0 + RESEND - 0.1)
    assert outbox.check_progress(1000.0 + RESEND)


def test_a_mark_that_is_told_again_is_no_progress() -> None:
    outbox = holding(1, 2)
    sent(outbox)
    outbox.committed(1, 10.0)
    outbox.committed(1, 20.0)
    assert outbox.check_progress(10.0 + RESEND)


def test_after_a_loss_of_commits_what_was_not_lost_keeps_its_time() -> None:
    outbox = holding(1, 2)
    sent(outbox)
    outbox.committed(1, 0.0)
    outbox.committed(2, 100.0)
    for now in (800.0, 806.0):
        outbox.committed(1, now)
    sent(outbox)
    assert not outbox.check_progress(806.0 + RESEND - 0.1), "its patience begins with the loss"
    outbox.committed(1, KEEP)
    assert outbox.trim(KEEP) == 1
