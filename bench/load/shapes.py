"""How many users a stress run has at which second: the contract's stages and others.

Pure arithmetic over time, so that a shape can be tested without a run. A shape is a list of
corners (second, users) with straight lines between them; `find-the-limit` alone looks at the run
itself, and lives in the Locust file.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

Corner = tuple[float, int]
"""(seconds from the start, users)."""

CONTRACT_USERS = 500
CONTRACT_MINUTES = 10.0
CONTRACT_CORNERS: tuple[Corner, ...] = ((0.0, 0), (120.0, 100), (480.0, 500), (600.0, 0))
"""To 100 users over 2 minutes, to 500 over 6, to 0 over 2."""
SHAPES = ("contract", "spike", "soak", "limit")


def scaled(corners: Sequence[Corner], users: int, minutes: float) -> list[Corner]:
    """The same picture with another height and length."""
    length, height = corners[-1][0], max(n for _, n in corners)
    return [(t * minutes * 60 / length, round(n * users / height)) for t, n in corners]


def spike(users: int, minutes: float) -> list[Corner]:
    """A tenth of the users, all of them at once for the middle fifth, a tenth again, none."""
    calm, length = max(1, users // 10), minutes * 60
    at = [length * part for part in (0.02, 0.4, 0.41, 0.6, 0.61, 0.98, 1.0)]
    return [(0.0, 0), *zip(at, (calm, calm, users, users, calm, calm, 0), strict=True)]


def soak(users: int, minutes: float) -> list[Corner]:
    """All users from soon after the start to near the end: for hours."""
    length = minutes * 60
    return [(0.0, 0), (length * 0.02, users), (length * 0.98, users), (length, 0)]


def corners(shape: str, users: int, minutes: float) -> list[Corner]:
    """The corners of a shape by name; `limit` has none."""
    if shape == "contract":
        return scaled(CONTRACT_CORNERS, users, minutes)
    if shape == "spike":
        return spike(users, minutes)
    if shape == "soak":
        return soak(users, minutes)
    raise ValueError(f"{shape!r} is no shape with corners: choose contract, spike or soak")


def users_at(corners: Sequence[Corner], second: float) -> int | None:
    """Users wanted at a second of the run; None when it is over."""
    for (start, low), (end, high) in pairwise(corners):
        if second < end:
            return round(low + (high - low) * (second - start) / (end - start))
    return None
