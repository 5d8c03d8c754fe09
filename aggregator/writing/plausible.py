"""What a table can hold: a frame beyond it is treated as damaged, whatever its checksum says."""

from __future__ import annotations

from typing import Final

import numpy as np

from aggregator.writing.sums import Pairs
from clickmill.wire import Frame

MAX_BANNER_ID: Final = 2**31 - 1  # banner_minute.banner_id is a Postgres int
MAX_SEQ: Final = 2**63 - 1  # source.last_seq is a bigint
MAX_TOTAL: Final = 2**62  # source.total is a bigint, and so is any difference of two
MAX_FRAME_CLICKS: Final = 2**48


def all_plausible(pairs: Pairs) -> bool:
    """Whether all frames together stay under the limit of one: then each of them does."""
    if not len(pairs.ids):
        return True
    total = float(pairs.counts.sum(dtype=np.float64))
    return total <= MAX_FRAME_CLICKS and int(pairs.ids.max()) <= MAX_BANNER_ID


def fault_of(frame: Frame) -> str:
    """What is wrong with a frame; "" where nothing is."""
    ids = np.frombuffer(frame.ids, dtype="<u4")
    if len(ids) and int(ids.max()) > MAX_BANNER_ID:
        return f"banner {int(ids.max())} is over {MAX_BANNER_ID}"
    if frame.clicks > MAX_FRAME_CLICKS:
        return f"{frame.clicks} clicks in one frame are over {MAX_FRAME_CLICKS}"
    if frame.total > MAX_TOTAL:
        return f"a total of {frame.total} clicks is over {MAX_TOTAL}"
    return ""
