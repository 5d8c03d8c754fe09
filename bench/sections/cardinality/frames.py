"""Frames of banners drawn from many, as the workers of a busy day would seal them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import UUID, uuid4

import numpy as np

from clickmill import wire


class Draws:
    """Sources whose frames have distinct banners, drawn from the same number of them."""

    def __init__(self, sources: int, banners: int, seed: int = 1) -> None:
        self._chance = np.random.default_rng(seed)
        self._banners = banners
        self.sources = [uuid4() for _ in range(sources)]
        self._seqs = dict.fromkeys(self.sources, 0)
        self._totals = dict.fromkeys(self.sources, 0)

    def frames(self, source: UUID, pairs: int) -> Iterator[wire.Frame]:
        """A second of the source: so many banners, a click each, in as many frames as needed."""
        pairs = min(pairs, self._banners)
        if 4 * pairs < self._banners:  # a few are drawn twice, and left out
            ids = np.unique(self._chance.integers(0, self._banners, pairs, dtype=np.uint32))
        else:
            ids = np.sort(self._chance.permutation(self._banners)[:pairs].astype("<u4"))
        for start in range(0, len(ids), wire.MAX_PAIRS):
            yield self._frame(source, ids[start : start + wire.MAX_PAIRS])

    def _frame(self, source: UUID, ids: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> wire.Frame:
        seq = self._seqs[source] = self._seqs[source] + 1
        total = self._totals[source] = self._totals[source] + len(ids)
        now = time.time_ns()
        counts = np.ones(len(ids), dtype="<u8")
        return wire.Frame(
            source, seq, now // 60_000_000_000, now, total, False, ids.tobytes(), counts.tobytes()
        )
