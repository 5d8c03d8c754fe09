"""When a dead child is started again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stack.supervise.backoff import LONG_LIFE_SECONDS, MAX_SECONDS, Backoff


def test_at_once_then_doubling_up_to_the_maximum() -> None:
    backoff = Backoff()
    waits = [backoff.after(0.01) for _ in range(9)]
    assert waits == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2])


def test_a_long_life_resets_the_wait() -> None:
    backoff = Backoff()
    for _ in range(9):
        backoff.after(0.01)
    assert backoff.after(LONG_LIFE_SECONDS) == 0
    assert backoff.after(0.01) == pytest.approx(0.1)


@given(st.lists(st.floats(0, 100)))
def test_never_longer_than_the_maximum(lives: list[float]) -> None:
    backoff = Backoff()
    assert all(0 <= backoff.after(life) <= MAX_SECONDS for life in lives)
