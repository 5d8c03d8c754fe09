"""Sources whose frames this release does not understand: they wait for an upgrade.

Such a frame is neither applied nor quarantined nor acknowledged. JetStream delivers it again
every few seconds, to the aggregator that pulls its shard then; an upgraded one continues there.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from clickmill.bus import ACK_WAIT_S
from clickmill.retry import Throttle

FORGET_S: Final = 4 * ACK_WAIT_S
"""A source that still waits is delivered again several times within this."""

log = logging.getLogger("clickmill.newer")


class NewerSources:
    """The sources that wait, by the subject that they publish on."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}
        self._log = Throttle()

    def saw(self, subject: str, error: Exception) -> None:
        """A frame on this subject was not understood."""
        now = time.monotonic()
        self._seen[subject] = now
        if self._log.allows(now):
            log.error("%s: %s: upgrade this aggregator; the source waits until then, and nothing "
                      "of it is lost", subject, error)  # fmt: skip

    def count(self) -> int:
        """How many sources wait."""
        oldest = time.monotonic() - FORGET_S
        self._seen = {subject: at for subject, at in self._seen.items() if at > oldest}
        return len(self._seen)
