"""What a check finds: its kind and its text."""

from __future__ import annotations

from enum import IntFlag
from typing import NamedTuple


class Kind(IntFlag):
    """What a failed check is about. The exit code of doctor is the sum of these.

    The codes 1, 2 and 3 have other meanings (see stack/cli.py), and a shell uses those from 126 on.
    """

    INSTALLATION = 4
    MACHINE = 8
    NATS = 16
    POSTGRES = 32
    PROCESSES = 64


class Finding(RuntimeError):  # noqa: N818  # the term of this package
    """Something is wrong; the text says what, and what to do."""


class Passed(NamedTuple):
    """Nothing is wrong; each of `warnings` is a sentence about what should be better."""

    text: str
    warnings: tuple[str, ...] = ()
