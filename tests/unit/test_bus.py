"""The connection to NATS, as far as it needs no server."""

from __future__ import annotations

import asyncio

import pytest

from clickmill import bus


@pytest.mark.timeout(10)
@pytest.mark.parametrize("url", ["", " ", ",", " , "])
def test_no_server_is_an_error_and_no_endless_search(url: str) -> None:
    with pytest.raises(ValueError, match="CLICKMILL_NATS_URL"):
        asyncio.run(bus.connect(url, "test"))
