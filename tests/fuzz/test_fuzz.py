"""The fuzz targets under Hypothesis: short, and the same in each run. `make fuzz` goes on."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import SEEDS, TARGETS

EXAMPLES = 300


@pytest.mark.parametrize("name", list(TARGETS))
def test_seeds(name: str) -> None:
    """What was ever found goes in there too."""
    for seed in SEEDS[name]:
        TARGETS[name](seed)
        for cut in range(len(seed) if len(seed) < 200 else 0):
            TARGETS[name](seed[:cut])


@pytest.mark.parametrize("name", list(TARGETS))
def test_any_bytes(name: str) -> None:
    """Bytes as they come, and seeds with pieces put in the place of others."""
    seeds = st.sampled_from(SEEDS[name])

    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.one_of(st.binary(max_size=300), _changed(seeds)))
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()


@st.composite
def _changed(draw: st.DrawFn, seeds: st.SearchStrategy[bytes]) -> bytes:
    seed = bytearray(draw(seeds)[:400])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(seed)))
        seed[at : at + draw(st.integers(0, 3))] = draw(
            st.one_of(st.binary(max_size=4), st.sampled_from(PIECES))
        )
    return bytes(seed)


PIECES = [
    b"0", b"9" * 20, b"-1", b"1.5", b"null", b'"', b"\\u0000", b"%00", b"%ff", b"\xff\xff\xff\xff",
    b"&tsFrom=", b"&tz=", b"{", b"[", b"/", b".gif", b"\xef\xbc\x91", b"\r\n", b"1e9", b"Z",
    b"+14:00",
]  # fmt: skip
