"""How many users a stress run has when.

    users                           the contract: 100 at 2 min, 500 at 8 min, 0 at 10 min
     500 |              /\\
         |         /      \\
     100 |    /            \\
       0 |_/________________\\_
           0    2         8   10  minutes
"""

from __future__ import annotations

import pytest

from bench.load import shapes


@pytest.mark.parametrize(
    ("second", "users"),
    [(0, 0), (60, 50), (120, 100), (300, 300), (480, 500), (540, 250), (599.9, 0), (600, None)],
)
def test_the_contracts_stages(second: float, users: int | None) -> None:
    assert shapes.users_at(shapes.CONTRACT_CORNERS, second) == users


def test_a_short_form_has_the_same_shape() -> None:
    short = shapes.corners("contract", users=50, minutes=40 / 60)
    assert [(round(second, 3), users) for second, users in short] == [
        (0, 0),
        (8, 10),
        (32, 50),
        (40, 0),
    ]


@pytest.mark.parametrize("shape", ["contract", "spike", "soak"])
def test_every_shape_reaches_its_peak_and_ends_with_nobody(shape: str) -> None:
    corners = shapes.corners(shape, users=200, minutes=2)
    assert max(users for _, users in corners) == 200
    assert corners[-1] == (120.0, 0)
    assert corners == sorted(corners, key=lambda corner: corner[0])
    assert shapes.users_at(corners, 120.0) is None


def test_a_spike_is_sudden() -> None:
    corners = shapes.spike(200, 10)
    assert shapes.users_at(corners, 0.39 * 600) == 20
    assert shapes.users_at(corners, 0.41 * 600) == 200
