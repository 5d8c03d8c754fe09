"""Frames of many simulated workers, whose banners are drawn before the first frame is sent.

Why before: drawing takes longer than everything else that a frame costs its sender.
"""

from __future__ import annotations

import time
from typing import NamedTuple
from uuid import uuid4

import numpy as np

from clickmill import wire


class Load(NamedTuple):
    """Frames of so many clicks, each on one of so many banners at random."""

    sources: int
    clicks: int
    """Of a frame. It has as many pairs, but where a banner is drawn twice: that is left out."""
    banners: int
    frames: int
    """Of all sources together, without the first of each."""
    per_second: float = float("inf")
    """Frames a second; without it, as many as NATS takes."""


class Frames:
    """The first frame of each source, then the second of each, and so on."""

    def __init__(self, load: Load, seed: int = 1) -> None:
        self.sources = [uuid4() for _ in range(load.sources)]
        self._totals = [0] * load.sources
        shape = (load.sources + load.frames, load.clicks)
        ids = np.random.default_rng(seed).integers(0, load.banners, shape, dtype=np.uint32)
        self._ids = np.sort(ids, axis=1).astype("<u4", copy=False)
        self._is_new = np.ones(shape, dtype=bool)
        self._is_new[:, 1:] = self._ids[:, 1:] != self._ids[:, :-1]
        self._counts = memoryview(np.ones(load.clicks, dtype="<u8").tobytes())
        self._sent = 0

    def next(self) -> wire.Frame:
        """The next source's next frame, sealed now."""
        before, which = divmod(self._sent, len(self.sources))
        ids = self._ids[self._sent][self._is_new[self._sent]]
        self._sent += 1
        self._totals[which] += len(ids)
        now = time.time_ns()
        return wire.Frame(
            self.sources[which], before + 1, now // 60_000_000_000, now, self._totals[which], False,
            ids.tobytes(), self._counts[: 8 * len(ids)],
        )  # fmt: skip
