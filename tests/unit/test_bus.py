"""The connection to NATS, as far as it needs no server."""

from __future__ import annotations

import asyncio

import pytest

from clickmill import bus


@pytest.mark.timeout(10)
@pytest.mark.parametrize("url", ["", " ", ",", " , "])
def test_without_a_server_it_fails_instead_of_searching_forever(url: str) -> None:
    with pytest.raises(ValueError, match="CLICKMILL_NATS_URL"):
        asyncio.run(bus.connect(url, "test"))
