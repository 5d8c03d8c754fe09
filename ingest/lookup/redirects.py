"""The redirect targets of banners, as the aggregators registered them, with a copy on disk.

Why a file: `/click/{id}` must go on after a restart while the aggregator is away. Only targets
from the register are ever in here, never one from a request.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from pathlib import Path
from typing import Final

import msgspec

_SAFE_URL: Final = re.compile(r"https?://[!-~]{1,4000}", re.IGNORECASE)
"""What may stand in a Location header: no space, no line end, and nothing a browser would run."""

log = logging.getLogger("clickmill.targets")


class _Change(msgspec.Struct):
    id: int
    target_url: str | None = None


_Register = dict[int, str]


def decode_targets(data: bytes) -> _Register:
    """Banner ID to URL, of JSON {"<id>": "<url>"}. Raises msgspec.MsgspecError."""
    return msgspec.json.decode(data, type=_Register)


def _private(path: str, flags: int) -> int:
    """Opens a file that only its owner may read; one that was there is replaced."""
    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()
    return os.open(path, flags | os.O_EXCL, 0o600)


class Targets:
    """Banner ID to the headers of its 302. `redirects` is one dict for good: readers keep it.

    `changes` counts the changes received, so that a register that was fetched meanwhile is known
    to be old.
    """

    def __init__(self, path: Path, headers: list[tuple[str, str]]) -> None:
        """`headers` go along with each Location. A file that can't be read counts as empty."""
        self.redirects: dict[int, list[tuple[str, str]]] = {}
        self.changes = 0
        self._path, self._headers = path, headers
        self._known: _Register = {}
        self._unsaved = False
        try:
            self.replace(decode_targets(path.read_bytes()))
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError) as error:
            log.error("%s can't be read (%s): targets come from the aggregator", path, error)
        self._unsaved = False

    def replace(self, targets: _Register) -> None:
        """Take the whole register in place of what was known."""
        if targets == self._known:
            return
        for gone in self.redirects.keys() - targets.keys():
            del self.redirects[gone]
        for banner_id, url in targets.items():
            self._set(banner_id, url)
        self._known, self._unsaved = targets, True

    def _set(self, banner_id: int, url: str) -> None:
        """The register checked it already; but rows can be written past the register."""
        if _SAFE_URL.fullmatch(url):
            self.redirects[banner_id] = [("location", url), *self._headers]
        else:
            self.redirects.pop(banner_id, None)
            log.error(
                "the target of banner %d is no http or https URL: register another", banner_id
            )

    def change(self, data: bytes) -> None:
        """One banner's new target, or None: it has none any more. Bad messages are logged."""
        try:
            change = msgspec.json.decode(data, type=_Change)
        except msgspec.MsgspecError as error:
            log.error("a change of the register can't be read (%s)", error)
            return
        self.changes += 1
        self._unsaved = True
        if change.target_url is None:
            self._known.pop(change.id, None)
            self.redirects.pop(change.id, None)
        else:
            self._known[change.id] = change.target_url
            self._set(change.id, change.target_url)

    def save(self) -> None:
        """Write what changed beside, then rename: a reader finds the old file or the new one."""
        if not self._unsaved:
            return
        self._unsaved = False
        beside = self._path.with_suffix(f".{os.getpid()}")
        try:
            with open(beside, "wb", opener=_private) as file:
                file.write(msgspec.json.encode(self._known))
            beside.replace(self._path)
        except OSError as error:
            log.error("%s can't be written (%s): it is fetched again after a start", beside, error)
